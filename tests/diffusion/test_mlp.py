import math

import numpy as np
import pytest
import torch

from invad.diffusion.mlp import TokenMLP


def silu(v):
    return v / (1 + torch.exp(-v))


def norm(v):
    return (v - v.mean()) / torch.sqrt(v.var(unbiased=False) + 1e-6)


def network(**options):
    torch.manual_seed(0)
    net = TokenMLP(3, width=8, depth=2, mlp_ratio=1.5, **options).double().eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


def by_hand(net, cell, row, col, t):
    """The same prediction for one cell, one value after the other."""
    weights = net.state_dict()

    def linear(name, v):
        return weights[f"{name}.weight"] @ v + weights[f"{name}.bias"]

    angles = [t * 10_000 ** (-i / 128) for i in range(128)]
    waves = torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)
    parts = linear("modulation", silu(linear("time.mlp.2", silu(linear("time.mlp.0", waves))))).split(8)
    place = [f(p * r) for p in (col, row) for f in (math.sin, math.cos) for r in (1.0, 0.01)]
    x = linear("input", cell) + (torch.tensor(place, dtype=torch.float64) if net.positional else 0)
    for i in range(2):
        shift, scale, gate = parts[3 * i : 3 * i + 3]
        hidden = silu(linear(f"blocks.{i}.fc1", norm(x) * (1 + scale) + shift))
        x = x + gate * linear(f"blocks.{i}.fc2", hidden)
    return linear("output", norm(x) * (1 + parts[-1]) + parts[-2])


@torch.no_grad()
def test_equals_the_equations_written_out_per_cell():
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    levels = [0, 999]
    for positional in (True, False):
        net = network(positional=positional)
        noise = net.predict_noise(x, torch.tensor(levels))
        for b, row, col in [(0, 0, 0), (0, 1, 3), (1, 0, 2), (1, 1, 1)]:
            expected = by_hand(net, x[b, :, row, col], row, col, levels[b])
            # Angles are float32 in the network; at level 999 that is worth about 1e-4 of phase.
            torch.testing.assert_close(noise[b, :, row, col], expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("w", [1, 4])
def test_a_row_or_cell_with_a_level_of_its_own_is_as_in_an_image_of_that_level(w):
    net, generator = network(), torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=generator)
    levels = torch.randint(1000, (2, 2, w), generator=generator)
    noise = net(x, levels)
    for (b, row, col), t in zip(np.ndindex(2, 2, 4), levels.expand(2, 2, 4).flatten(), strict=True):
        torch.testing.assert_close(noise[b, :, row, col], net(x[b : b + 1], t[None])[0, :, row, col])


@torch.no_grad()
def test_a_cell_sees_no_other_cell():
    net = network()
    x = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    changed = x.clone()
    changed[0, :, 1, 2] = 5.0
    moved = (net(changed, torch.tensor([9])) - net(x, torch.tensor([9]))).abs().amax(1)[0]
    assert torch.nonzero(moved).tolist() == [[1, 2]]
