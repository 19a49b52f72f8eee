import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from invad.diffusion.ddim import invert
from invad.diffusion.dit import DiT
from invad.diffusion.schedule import linear_schedule, timesteps
from invad.errors import WeightsError
from invad.paper.reference import convert_reference, load_reference

# tests/diffusion/test_reference.py -> repository root -> the folder beside it
GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "reference_dit_tiny.safetensors"
CHANNELS, WIDTH = 3, 16


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = DiT(CHANNELS, width=WIDTH, depth=2, heads=4, mlp_ratio=2.0, stored_grid_hw=(3, 3)).eval()
    for tensor in net.state_dict().values():
        tensor.normal_(std=0.1)
    return net


@pytest.fixture
def published(network):
    """The state dict as the published training wrapper names it, unused parts included."""
    unused = {
        "cls_embed.weight": torch.ones(15, WIDTH),
        "net.x_embedder_linear.weight": torch.ones(WIDTH, CHANNELS),
        "net.x_embedder_linear.bias": torch.ones(WIDTH),
        "net.y_embedder.embedding_table.weight": torch.ones(15, WIDTH),
    }
    return {f"net.{name}": tensor.clone() for name, tensor in network.state_dict().items()} | unused


def predict(network):
    x = torch.randn(2, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.predict_noise(x, torch.tensor([0, 500]))


@pytest.mark.skipif(not GOLDEN.is_file(), reason="the reference weights are not beside the repository")
@torch.no_grad()
def test_published_arithmetic_is_matched():
    network, info = load_reference(GOLDEN)
    golden = json.loads(GOLDEN.with_suffix(".json").read_text())
    assert (info.channels, info.grid_hw) == (6, (4, 4))
    assert (info.config.depth, info.config.width, info.config.heads) == (2, 32, 4)
    x = torch.tensor(golden["x"])
    for t, eps in golden["eps"].items():
        found = network.predict_noise(x, torch.full((len(x),), int(t)))
        torch.testing.assert_close(found, torch.tensor(eps), rtol=1e-5, atol=1e-6)
    walk = invert(network.predict_noise, x, linear_schedule(), timesteps("reference", 3))
    expected = torch.tensor(golden["latent_3_steps"])
    # Looser: the published code derives the noise anew from the clean estimate and loses digits.
    torch.testing.assert_close(walk.latent, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": state, "epoch": 3, "loss": torch.tensor(0.1)},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"ema": state, "model": {name: tensor * 0 for name, tensor in state.items()}},
        lambda state: {name: tensor.double() for name, tensor in state.items()},
    ],
    ids=["bare", "module", "compiled", "state_dict", "nested", "ema", "double"],
)
def test_saved_pth_gives_the_same_network(tmp_path, network, published, wrap):
    torch.save(wrap(published), tmp_path / "model.pth")
    loaded, info = load_reference(tmp_path / "model.pth", heads=4)
    torch.testing.assert_close(predict(loaded), predict(network), rtol=1e-5, atol=1e-6)
    assert (info.channels, info.grid_hw) == (CHANNELS, (3, 3))
    assert (info.config.width, info.config.depth, info.config.mlp_ratio) == (WIDTH, 2, 2.0)
    assert not loaded.training


def test_heads_come_from_the_argument_then_the_json_then_the_default(tmp_path, network, published):
    save_file(published, tmp_path / "model.safetensors")
    assert load_reference(tmp_path / "model.safetensors")[1].config.heads == 8
    (tmp_path / "model.json").write_text('{"config": {"heads": 4}}')
    loaded, _ = load_reference(tmp_path / "model.safetensors")
    torch.testing.assert_close(predict(loaded), predict(network), rtol=1e-5, atol=1e-6)
    assert load_reference(tmp_path / "model.safetensors", heads=2)[1].config.heads == 2


def test_patch_is_read_from_the_weights(tmp_path):
    network = DiT(CHANNELS, width=WIDTH, depth=1, patch=2, stored_grid_hw=(2, 3))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    _, info = load_reference(tmp_path / "model.safetensors", grid_hw=(4, 6))
    assert (info.config.patch, info.channels, info.grid_hw) == (2, CHANNELS, (4, 6))


def test_converted_pair_loads_back(tmp_path, network, published):
    torch.save(published, tmp_path / "model.pth")
    written = convert_reference(tmp_path / "model.pth", tmp_path / "out" / "new", heads=4)
    assert sorted(file.name for file in (tmp_path / "out" / "new").iterdir()) == [
        "denoiser.json",
        "denoiser.safetensors",
    ]
    loaded, info = load_reference(tmp_path / "out" / "new" / "denoiser.safetensors")
    assert info == written
    torch.testing.assert_close(predict(loaded), predict(network), rtol=1e-5, atol=1e-6)
    assert not any("embedder_linear" in name for name in load_file(tmp_path / "out/new/denoiser.safetensors"))


def test_non_square_grid_survives_conversion(tmp_path):
    network = DiT(CHANNELS, width=WIDTH, depth=1, stored_grid_hw=(2, 3))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="6 positions form no square; give the grid"):
        load_reference(tmp_path / "model.safetensors")
    convert_reference(tmp_path / "model.safetensors", tmp_path / "out", grid_hw=(2, 3))
    assert load_reference(tmp_path / "out" / "denoiser.safetensors")[1].grid_hw == (2, 3)


def test_failed_conversion_leaves_nothing_behind(tmp_path, published):
    torch.save(published, tmp_path / "model.pth")
    blocked = tmp_path / "out"
    (blocked / "denoiser.safetensors").mkdir(parents=True)
    with pytest.raises(WeightsError, match="cannot be written"):
        convert_reference(tmp_path / "model.pth", blocked)
    assert [file.name for file in blocked.iterdir()] == ["denoiser.safetensors"]


# Refusals


class Payload:
    def __reduce__(self):
        return os.mkdir, ("should-not-exist",)


@pytest.mark.parametrize("modern", [True, False])
def test_pickles_that_could_run_code_are_refused(tmp_path, monkeypatch, modern):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, "model.pth", _use_new_zipfile_serialization=modern)
    with pytest.raises(WeightsError, match="refused, it holds objects other than tensors"):
        load_reference("model.pth")
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", b"\x80\x02abc"])
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="not readable as weights") as caught:
        load_reference(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_file_is_refused(tmp_path, published):
    torch.save(published, tmp_path / "model.pth")
    whole = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="not readable as weights"):
        load_reference(tmp_path / "model.pth")


def test_absent_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        load_reference(tmp_path / "model.pth")
    (tmp_path / "model.onnx").touch()
    with pytest.raises(WeightsError, match="not a file of weights"):
        load_reference(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds no tensors by name"),
        ({"epoch": 3}, "holds no tensors by name"),
        ({"net.res_blocks.0.in_ln.weight": torch.ones(1)}, "an MLP denoiser, which cannot be imported"),
        ({"net.input_blocks.0.0.weight": torch.ones(1)}, "a UNet denoiser, which cannot be imported"),
        ({"fc.weight": torch.ones(1)}, r"is no DiT denoiser, it lacks x_embedder\.proj\.weight"),
    ],
)
def test_other_content_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=said):
        load_reference(tmp_path / "model.pth")


def test_keys_that_do_not_fit_are_named(tmp_path, published):
    for key in ("attn.qkv.weight", "attn.qkv.bias", "attn.proj.weight", "attn.proj.bias"):
        del published[f"net.blocks.1.{key}"]
    published["net.extra"] = torch.ones(2)
    published["net.final_layer.linear.bias"] = torch.ones(2 * CHANNELS)
    torch.save(published, tmp_path / "model.pth")
    with pytest.raises(WeightsError) as caught:
        load_reference(tmp_path / "model.pth", heads=4)
    said = str(caught.value)
    assert (
        "missing: blocks.1.attn.qkv.weight, blocks.1.attn.qkv.bias, blocks.1.attn.proj.weight and 1 more"
        in said
    )
    assert "unexpected: extra;" in said
    assert "mis-shaped: final_layer.linear.bias (6,) instead of (3,)" in said


@pytest.mark.parametrize("text", ["{", "[]", '{"config": {}}', '{"config": {"heads": 4}, "grid_hw": 3}'])
def test_unusable_json_beside_is_refused(tmp_path, published, text):
    save_file(published, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(WeightsError, match=r"model\.json: .*correct or remove it"):
        load_reference(tmp_path / "model.safetensors")


@pytest.mark.parametrize("heads", [3, 0, "8"])
def test_impossible_heads_are_refused(tmp_path, published, heads):
    torch.save(published, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match=r"denoiser\.heads"):
        load_reference(tmp_path / "model.pth", heads=heads)


def test_grid_that_does_not_match_the_positions_is_refused(tmp_path, published):
    torch.save(published, tmp_path / "model.pth")
    with pytest.raises(WeightsError, match="has 9 positions of 1 x 1 cells, not a 4 x 4 grid"):
        load_reference(tmp_path / "model.pth", grid_hw=(4, 4))
