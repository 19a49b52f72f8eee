"""A published checkpoint becomes a detector that decides, saves and loads."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from invad.cli.app import app
from invad.detector.detector import Detector
from invad.diffusion.dit import DiT
from invad.errors import ConfigError, DataError
from invad.paper.adopt import adopt

SIDE, CELLS = 64, 4


def run(*words):
    return CliRunner().invoke(app, [str(w) for w in words])


@pytest.fixture
def checkpoint(tmp_path, make_backbone):
    """checkpoint(channels=None): a .pth as the published code writes it; by default for the tiny backbone."""

    def write(channels=None, positions=1.0):
        channels = channels or sum(c for c, _, _ in make_backbone().probe((SIDE, SIDE)))
        torch.manual_seed(0)
        net = DiT(channels, width=16, depth=2, heads=4, mlp_ratio=2.0, stored_grid_hw=(CELLS, CELLS))
        state = {name: torch.randn_like(t) * 0.1 for name, t in net.state_dict().items()}
        state["pos_embed"] = positions * net.pos_embed
        path = tmp_path / "model.pth"
        torch.save({f"module.net.{name}": t for name, t in state.items()}, path)
        net.load_state_dict(state)
        return path, net.eval()

    return write


def test_a_checkpoint_and_normals_make_a_detector(checkpoint, good_parts, make_backbone, draw, tmp_path):
    path, net = checkpoint(positions=1.5)
    detector = adopt(path, good_parts, heads=4, backbone=make_backbone(), device="cpu")
    z = detector.model.extract(draw(99))
    # The whole way: the imported network on unscaled features, at the reference levels.
    with torch.inference_mode():
        last = net.predict_noise(detector.model.invert(z, (0, 500, 999)).latents[2], torch.tensor([999]))
    found = detector.read(draw(99))
    torch.testing.assert_close(found[-1], last[0].norm(dim=0), rtol=1e-4, atol=1e-5)
    flagged = [detector.predict(draw(seed)).decision != "good" for seed in range(100, 140)]
    assert np.mean(flagged) < 0.3
    detector.save(tmp_path / "model")
    again = Detector.load(tmp_path / "model", device="cpu")
    assert again.predict(draw(7)).score == detector.predict(draw(7)).score
    assert "imported" in (tmp_path / "model" / "README.md").read_text()


def test_what_does_not_fit_is_said(checkpoint, good_parts, make_backbone):
    path, _ = checkpoint(channels=6)
    with pytest.raises(ConfigError, match="takes 6 channels on a 4 x 4 grid, but backbone invad-s gives"):
        adopt(path, good_parts, heads=4, backbone=make_backbone(), device="cpu")
    path, _ = checkpoint()
    with pytest.raises(DataError, match="1 readable normal"):
        adopt(path, good_parts[:1], heads=4, backbone=make_backbone(), device="cpu")


def test_the_verb_makes_a_model_of_the_shipped_backbone(checkpoint, write_parts, tmp_path):
    path, _ = checkpoint(channels=304)
    write_parts(tmp_path / "normals", 12)
    (tmp_path / "normals" / "layers.psd").touch()
    model = tmp_path / "model"
    arguments = ["paper", "import", path, "--heads", 4, "--normals", tmp_path / "normals"]
    arguments += ["--backbone", "invad-s", "--output", model, "--json", "-", "--device", "cpu"]
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert "1 file was not taken (.psd 1)" in result.stderr
    told = json.loads(result.stdout)
    assert (told["calibrated_on"], told["channels"], told["grid_hw"]) == (12, 304, [4, 4])
    image = tmp_path / "normals" / "000.png"
    decided = run("predict", model, image, "--json", "-", "--device", "cpu")
    assert decided.exit_code == 0
    assert '"decision"' in decided.stdout
    assert "imported from model.pth" in run("info", model).stdout
    without = run("paper", "import", path, "--output", tmp_path / "pair", "--backbone", "invad-s")
    assert without.exit_code == 2
    assert "give --normals" in without.stderr


@pytest.mark.parametrize(
    ("mark", "said"), [("res_blocks.0.in_ln.weight", "an MLP"), ("input_blocks.0.0.weight", "a UNet")]
)
def test_other_denoisers_are_named_and_leave_nothing(mark, said, write_parts, tmp_path):
    torch.save({f"module.net.{mark}": torch.ones(1)}, tmp_path / "model.pth")
    write_parts(tmp_path / "normals", 4)
    words = ["paper", "import", tmp_path / "model.pth", "--normals", tmp_path / "normals"]
    result = run(*words, "--output", tmp_path / "model")
    assert result.exit_code == 1
    assert f"{said} denoiser, which cannot be imported" in result.stderr
    assert not (tmp_path / "model").exists()
