from pathlib import Path

import pytest
import torch

from invad.backbones.invad_s import WEIGHTS, empty_invad_s, load_invad_s
from invad.backbones.student import Student, StudentConfig, save_student
from invad.errors import WeightsError

SMALL = StudentConfig(stem=8, widths=(8, 12, 16), blocks=(0, 0, 0), heads=(4, 5, 6))
SHIPPED = Path(f"{WEIGHTS}.safetensors")


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    save_student(tmp_path / "v1.2", Student(SMALL), {})
    return tmp_path / "v1.2.safetensors"


def test_the_shipped_one():
    assert SHIPPED.stat().st_size < 12_000_000
    backbone = load_invad_s().freeze()
    assert [hw for _, *hw in backbone.probe((64, 96))] == [[16, 24], [8, 12], [4, 6]]
    assert (backbone.info.name, backbone.size_multiple) == ("invad-s", 4)
    assert "shipped" in backbone.info.source
    assert all(torch.isfinite(m).all() for m in backbone(torch.rand(1, 3, 64, 64)))


def test_one_of_the_users_own(file):
    backbone = load_invad_s(file)
    assert backbone.info.source == str(file)
    assert backbone.probe((32, 32)) == ((8, 8, 8), (12, 4, 4), (16, 2, 2))


def test_an_empty_one_has_the_shape_that_was_asked(file):
    full = load_invad_s(file)
    empty = empty_invad_s(full.info.shape)
    empty.load_state_dict(full.state_dict())
    x = torch.rand(1, 3, 32, 32)
    for a, b in zip(full(x), empty(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["none.safetensors", "none", "folder"])
def test_missing_files(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match="no such file"):
        load_invad_s(tmp_path / name)


def test_a_file_of_another_kind(tmp_path):
    torch.save({}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"net\.pth: invad-s takes the \.safetensors file"):
        load_invad_s(tmp_path / "net.pth")


def test_a_shipped_file_that_is_lost(monkeypatch, tmp_path):
    monkeypatch.setattr("invad.backbones.invad_s.WEIGHTS", tmp_path / "invad_s")
    with pytest.raises(WeightsError, match=r"invad_s\.safetensors: no such file"):
        load_invad_s()
