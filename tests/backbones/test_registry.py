import pytest
import timm
import torch

from invad.backbones.base import Backbone, Part
from invad.backbones.registry import BACKBONES, SUGGESTED, load_backbone
from invad.errors import ConfigError, WeightsError


@pytest.mark.parametrize("name", [*BACKBONES, "resnet18", "vit_tiny_patch16_224"])
def test_the_contract(name):
    backbone = load_backbone(name, pretrained=False, image_size=64)
    assert isinstance(backbone, Backbone)
    assert not any(m.training for m in backbone.modules())
    assert not any(p.requires_grad for p in backbone.parameters())
    hw = (4 * backbone.size_multiple, 6 * backbone.size_multiple)
    x = torch.rand(2, 3, *hw)
    maps = backbone(x)
    assert [tuple(m.shape[1:]) for m in maps] == list(backbone.probe(hw))
    assert {m.dtype for m in maps} == {torch.float32}
    for together, alone in zip(maps, backbone(x[1:]), strict=True):
        torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-4)
    again = load_backbone(name, pretrained=False, image_size=64, shape=backbone.info.shape)
    again.load_state_dict(backbone.state_dict())
    for a, b in zip(again(x), maps, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_what_is_suggested_exists():
    assert all(name in BACKBONES or timm.is_model(name) for name in SUGGESTED)
    assert set(BACKBONES) <= set(SUGGESTED)


def test_names_and_shapes_that_do_not_exist():
    with pytest.raises(ConfigError, match="backbone 'invad_s' is unknown"):
        load_backbone("invad_s", pretrained=False)
    with pytest.raises(WeightsError, match="backbone invad-s: cannot be built in the shape"):
        load_backbone("invad-s", pretrained=False, shape={"leaves": 3})


def test_two_side_by_side_give_the_maps_of_both():
    name = "invad-s+efficientnet-lite0"
    both = load_backbone(name, pretrained=False)
    assert both.info.name == name
    hw = (4 * both.size_multiple, 6 * both.size_multiple)
    x = torch.rand(1, 3, *hw)
    alone = [m for part in both.parts for m in part(x)]
    for found, expected in zip(both(x), alone, strict=True):
        torch.testing.assert_close(found, expected)
    assert len(alone) == 6
    again = load_backbone(name, pretrained=False, shape=both.info.shape)
    again.load_state_dict(both.state_dict())
    for found, expected in zip(again(x), alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_side_by_side_a_file_of_weights_is_of_neither(tmp_path):
    with pytest.raises(ConfigError, match="a file of weights is of one backbone"):
        load_backbone("invad-s+efficientnet-lite0", weights=tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match="backbone 'invad_s' is unknown"):
        load_backbone("efficientnet-lite0+invad_s", pretrained=False)


def test_one_for_the_grid_and_one_for_the_fine_grid_see_the_image_at_their_own_sizes():
    name = "invad-s//efficientnet-lite2"
    net = load_backbone(name, pretrained=False)
    of_grid, of_fine = net.apart
    grid, fine = of_grid.backbone, of_fine.backbone
    assert (net.info.name, net.info.side, fine.info.side) == (name, 384, 384)
    assert of_grid.share == grid.info.side / 384 == pytest.approx(2 / 3)
    assert [(one.on_grid, one.on_fine) for one in net.apart] == [(True, False), (False, True)]
    x = torch.rand(1, 3, 64, 96)
    for found, expected in zip(net(x), grid(x), strict=True):
        torch.testing.assert_close(found, expected)
    assert (net.channels, fine.channels) == (sum(c for c, _, _ in grid.probe((64, 64))), 192)
    again = load_backbone(name, pretrained=False, shape=net.info.shape)
    again.load_state_dict(net.state_dict())
    for found, expected in zip(again.apart[1].backbone(x), fine(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_single_backbone_serves_both_grids():
    net = load_backbone("invad-s", pretrained=False)
    assert net.apart == (Part(net),)


def test_several_with_known_cells_of_their_own_see_the_image_at_their_own_sizes():
    name = "invad-s,efficientnet-lite2"
    net = load_backbone(name, pretrained=False)
    assert (net.info.name, net.info.side) == (name, 384)
    assert [part.share for part in net.apart] == [pytest.approx(2 / 3), 1.0]
    assert all(part.on_grid and part.on_fine for part in net.apart)
    again = load_backbone(name, pretrained=False, shape=net.info.shape)
    again.load_state_dict(net.state_dict())
    x = torch.rand(1, 3, 64, 96)
    for found, expected in zip(again(x), net(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
