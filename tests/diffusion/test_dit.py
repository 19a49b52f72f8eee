import math

import pytest
import torch

from invad.diffusion.dit import Attention, DiT, distinct_levels, grid_features, time_features


def test_time_features_are_cosines_then_sines():
    found = time_features(torch.tensor([0, 7]), 6)
    rates = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    expected = [[1.0] * 3 + [0.0] * 3, [math.cos(7 * r) for r in rates] + [math.sin(7 * r) for r in rates]]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_grid_features_encode_column_then_row():
    found = grid_features(2, 3, 8)
    for row in range(2):
        for col in range(3):
            place = [f(p * r) for p in (col, row) for f in (math.sin, math.cos) for r in (1.0, 0.01)]
            torch.testing.assert_close(found[3 * row + col], torch.tensor(place), rtol=1e-5, atol=1e-6)


def test_distinct_levels_of_expanded_and_plain_levels():
    assert distinct_levels(torch.tensor([5]).expand(4)).tolist() == [5]
    assert distinct_levels(torch.tensor([5, 5, 6])).tolist() == [5, 5, 6]


def tiny(**options):
    torch.manual_seed(0)
    network = DiT(3, width=16, depth=2, heads=2, **options).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def by_hand(network, x_Chw, t):
    """The prediction for one image: attention head by head, every sum written out."""
    weights = network.state_dict()
    h, w = x_Chw.shape[1:]

    def linear(name, v):
        return v @ weights[f"{name}.weight"].flatten(1).T + weights[f"{name}.bias"]

    def norm(v):
        return (v - v.mean(1, keepdim=True)) / torch.sqrt(v.var(1, unbiased=False, keepdim=True) + 1e-6)

    def silu(v):
        return v / (1 + torch.exp(-v))

    def attend(name, v):
        q, k, value = linear(f"{name}.qkv", v).split(16, dim=1)
        heads = []
        for part in (slice(0, 8), slice(8, 16)):
            weight = torch.exp(q[:, part] @ k[:, part].T / math.sqrt(8))
            heads.append(weight / weight.sum(1, keepdim=True) @ value[:, part])
        return linear(f"{name}.proj", torch.cat(heads, dim=1))

    def feed(name, v):
        v = linear(f"{name}.fc1", v)
        return linear(
            f"{name}.fc2", 0.5 * v * (1 + torch.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
        )

    x = linear("x_embedder.proj", x_Chw.flatten(1).T) + grid_features(h, w, 16)
    waves = time_features(torch.tensor([t])).to(x.dtype)
    time = silu(linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", waves))))
    for name in ("blocks.0", "blocks.1"):
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(f"{name}.adaLN_modulation.1", time).split(16, 1)
        x = x + gate1 * attend(f"{name}.attn", norm(x) * (1 + scale1) + shift1)
        x = x + gate2 * feed(f"{name}.mlp", norm(x) * (1 + scale2) + shift2)
    shift, scale = linear("final_layer.adaLN_modulation.1", time).split(16, 1)
    return linear("final_layer.linear", norm(x) * (1 + scale) + shift).T.unflatten(1, (h, w))


@torch.no_grad()
def test_equals_the_equations_written_out():
    network = tiny().double()
    for parameter in network.parameters():
        parameter.mul_(3)
    x = torch.randn(2, 3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    noise = network.predict_noise(x, torch.tensor([3, 999]))
    for i, t in enumerate((3, 999)):
        torch.testing.assert_close(noise[i], by_hand(network, x[i], t), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_patches_keep_their_place():
    """With the trunk silenced, what a patch predicts stays within it, whatever the grid."""
    network = tiny(patch=2, positional=False)
    for block in network.blocks:
        torch.nn.init.zeros_(block.adaLN_modulation[1].weight)
        torch.nn.init.zeros_(block.adaLN_modulation[1].bias)
    x = torch.zeros(1, 3, 4, 6)
    changed = x.clone()
    changed[0, 1, 2, 5] = 3.0
    moved = (network(changed, torch.tensor([9])) - network(x, torch.tensor([9]))).abs().amax(1)[0]
    assert torch.nonzero(moved).tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]


@torch.no_grad()
def test_patch_values_are_ordered_row_column_channel():
    network = tiny(patch=2, positional=False)
    final = network.final_layer.linear
    torch.nn.init.zeros_(final.weight)
    final.bias.copy_(torch.arange(12.0))
    noise = network(torch.zeros(1, 3, 2, 4), torch.tensor([0]))
    for row in range(2):
        for col in range(4):
            for channel in range(3):
                assert noise[0, channel, row, col] == (row * 2 + col % 2) * 3 + channel


@torch.no_grad()
def test_attention_lets_cells_see_each_other():
    network = tiny()
    x = torch.zeros(1, 3, 4, 4)
    changed = x.clone()
    changed[0, :, 1, 2] = 5.0
    moved = (network(changed, torch.tensor([9])) - network(x, torch.tensor([9]))).abs().amax(1)
    assert torch.count_nonzero(moved) == 16


@torch.no_grad()
def test_attention_in_bf16_is_that_of_torch_and_so_is_its_gradient():
    @torch.enable_grad()
    def attended(dtype):
        torch.manual_seed(0)
        attention = Attention(32, 2)
        x = torch.randn(2, 12, 32, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            out = attention(x)
        out.float().square().sum().backward()
        return out.float(), x.grad, attention.qkv.weight.grad

    for rounded, exact in zip(attended(torch.bfloat16), attended(torch.float32), strict=True):
        assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_stored_positions_are_used_and_fix_the_grid():
    free, stored = tiny(), tiny(stored_grid_hw=(2, 3))
    x, t_B = torch.randn(1, 3, 2, 3), torch.tensor([4])
    torch.testing.assert_close(stored(x, t_B), free(x, t_B))
    stored.pos_embed.normal_()
    assert (stored(x, t_B) - free(x, t_B)).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"\(2, 3\) tokens, got \(3, 2\)"):
        stored(x.transpose(2, 3), t_B)


def test_computed_positions_are_no_weights():
    assert "pos_embed" not in tiny().state_dict()
    assert "pos_embed" in tiny(stored_grid_hw=(2, 3)).state_dict()
