import os

import pytest
import torch
from safetensors.torch import save_file

from invad.backbones.checkpoint import read_weights
from invad.errors import WeightsError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


def assert_read(path):
    found = read_weights(path)
    assert list(found) == list(STATE)
    assert all(torch.equal(found[k], v) for k, v in STATE.items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".bin", ".PTH"])
def test_bare_state_dicts(tmp_path, suffix):
    torch.save(STATE, tmp_path / f"net{suffix}")
    assert_read(tmp_path / f"net{suffix}")


def test_safetensors(tmp_path):
    save_file(STATE, tmp_path / "net.safetensors")
    found = read_weights(tmp_path / "net.safetensors")
    assert all(torch.equal(found[k], v) for k, v in STATE.items())


@pytest.mark.parametrize(
    "wrapped",
    [
        {"state_dict": STATE},
        {"model": {"state_dict": STATE}, "epoch": 3},
        {"state_dict": {f"module.{k}": v for k, v in STATE.items()}},
        {f"_orig_mod.module.{k}": v for k, v in STATE.items()},
        {"model": {"a.weight": torch.ones(1)}, "model_ema": STATE},
        {**STATE, "epoch": 3},
    ],
)
def test_what_training_scripts_write(tmp_path, wrapped):
    torch.save(wrapped, tmp_path / "net.pth")
    assert_read(tmp_path / "net.pth")


class Evil:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    torch.save({"a": torch.ones(1), "b": Evil(tmp_path / "owned")}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="refused, it holds objects other than tensors") as caught:
        read_weights(tmp_path / "net.pth")
    assert not (tmp_path / "owned").exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x03\x04", b"\x80\x02"])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [{}, [1], {"a": 1}, {"state_dict": {}}, torch.ones(3)])
def test_no_tensors_by_name(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="holds no tensors by name"):
        read_weights(tmp_path / "net.pth")


def test_no_file_and_no_kind(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "none.pth")
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"not a file of weights; give one of \.safetensors"):
        read_weights(tmp_path / "net.onnx")
