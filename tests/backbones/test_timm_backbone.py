import logging

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from invad.backbones.timm_backbone import load_timm
from invad.data.preprocess import Preprocess
from invad.errors import ConfigError, WeightsError
from invad.model.reading import FeatureExtractor


def empty(name, **options):
    return load_timm(name, pretrained=False, **options)


def classifier(name, seed=0, **options):
    torch.manual_seed(seed)
    return timm.create_model(name, pretrained=False, **options).eval()


def save(model, path):
    state = model.state_dict()
    save_file(state, path) if path.suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    return path


def image(hw, seed=0):
    return torch.rand(1, 3, *hw, generator=torch.Generator().manual_seed(seed))


# Shapes


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", (64, 128, 256)),
        ("mobilenetv3_small_050", (8, 16, 24)),
        ("efficientnet_b0", (24, 40, 112)),
        ("convnext_atto", (40, 80, 160)),
    ],
)
def test_convolutional_networks_have_three_strides(name, channels):
    backbone = empty(name)
    shapes = backbone.probe((64, 96))
    assert shapes == tuple((c, 64 // s, 96 // s) for c, s in zip(channels, (4, 8, 16), strict=True))
    assert (backbone.size_multiple, backbone.info.name) == (16, name)
    assert not backbone.training


def test_the_papers_strides():
    shapes = empty("efficientnet_b0", strides=(2, 4, 8, 16)).probe((64, 32))
    assert shapes == ((16, 32, 16), (24, 16, 8), (40, 8, 4), (112, 4, 2))


@pytest.mark.parametrize(("name", "patch"), [("vit_tiny_patch16_224", 16), ("vit_small_patch14_dinov2", 14)])
def test_transformers_take_any_multiple_of_a_patch(name, patch):
    backbone = empty(name)
    assert backbone.size_multiple == patch
    for rows, columns in ((4, 4), (3, 7), (9, 2)):
        shapes = backbone.probe((rows * patch, columns * patch))
        assert {hw for _, *hw in map(tuple, shapes) for hw in [tuple(hw)]} == {(rows, columns)}
        assert len(shapes) == 3


def test_transformer_taps_are_blocks_6_9_and_12():
    backbone = empty("vit_tiny_patch16_224", image_size=64)
    net, seen = backbone.net.model, {}
    hooks = [
        block.register_forward_hook(lambda m, i, o, k=k: seen.__setitem__(k, o))
        for k, block in enumerate(net.blocks, start=1)
    ]
    x = image((64, 96))
    with torch.no_grad():
        maps = backbone(x)
    for hook in hooks:
        hook.remove()
    for found, k in zip(maps, (6, 9, 12), strict=True):
        tokens = seen[k][:, 1:].transpose(1, 2).reshape(1, -1, 4, 6)
        torch.testing.assert_close(found, tokens)


def test_the_normalisation_is_the_networks_own():
    assert empty("vit_tiny_patch16_224").mean.flatten().tolist() == [0.5] * 3
    assert empty("resnet18").mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnt18", {}, "'resnt18' is unknown to timm .*did you mean resnet18"),
        ("qqqqqq", {}, "'qqqqqq' is unknown to timm"),
        (
            "resnet18",
            {"strides": (4, 7)},
            r"resnet18: no map at stride 7; it has strides \[2, 4, 8, 16, 32\]",
        ),
        ("resnet18", {"strides": ()}, "no map at stride none"),
        ("convnext_atto", {"strides": (2, 4)}, "no map at stride 2"),
        ("mixer_s16_224", {}, "no map at stride 4"),
        ("swin_tiny_patch4_window7_224", {}, "takes no 64 x 96 input"),
    ],
)
def test_networks_that_cannot_be_used(name, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        empty(name, **options)
    assert "\n" not in str(caught.value)


# Weights from a file


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"]
)
def test_a_checkpoint_of_the_classifier_gives_its_features(name, suffix, tmp_path):
    """The oracle is the classifier's own intermediate maps."""
    options = {"img_size": 64, "dynamic_img_size": True} if name.startswith("vit") else {}
    whole = classifier(name, **options)
    backbone = load_timm(name, weights=save(whole, tmp_path / f"net{suffix}"), image_size=64)
    x = image((64, 96))
    with torch.no_grad():
        maps = backbone(x)
        own = whole.forward_intermediates(
            (x - backbone.mean) / backbone.std, intermediates_only=True, norm=False
        )
    for found in maps:
        assert any(m.shape == found.shape and torch.allclose(m, found, atol=1e-5) for m in own)
    assert backbone.info.source.endswith(suffix)
    assert not backbone.training


def test_weights_win_over_pretrained_false(tmp_path):
    path = save(classifier("resnet18"), tmp_path / "net.pth")
    first, second = load_timm("resnet18", weights=path), empty("resnet18", weights=path)
    assert all(torch.equal(v, second.state_dict()[k]) for k, v in first.state_dict().items())


def test_the_checkpoint_is_not_kept_twice(tmp_path):
    backbone = load_timm("resnet18", weights=save(classifier("resnet18"), tmp_path / "net.pth"))
    assert not backbone.net.pretrained_cfg.get("state_dict")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("resnet18", "mobilenetv3_small_050"),
        ("mobilenetv3_small_050", "resnet18"),
        ("resnet18", "resnet34"),  # has all of its tensors and more
        ("resnet34", "resnet18"),  # lacks some, the others fit
        ("mobilenetv3_small_050", "mobilenetv3_small_075"),  # the same names in other shapes
        ("convnext_atto", "vit_tiny_patch16_224"),
    ],
)
def test_a_checkpoint_of_another_network(name, other, tmp_path):
    path = save(classifier(other), tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"net\.safetensors: .*give its own checkpoint") as caught:
        load_timm(name, weights=path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_head_is_no_other_network(tmp_path):
    whole = classifier("resnet18", num_classes=7)
    backbone = load_timm("resnet18", weights=save(whole, tmp_path / "net.pth"))
    assert torch.equal(backbone.net.conv1.weight, whole.conv1.weight)


def test_a_checkpoint_that_lacks_one_tensor(tmp_path):
    state = classifier("resnet18").state_dict()
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(
        WeightsError, match=r"does not fit backbone resnet18, it lacks layer2\.0\.conv1\.weight"
    ):
        load_timm("resnet18", weights=tmp_path / "net.pth")


def test_files_that_are_none(tmp_path):
    with pytest.raises(WeightsError, match="no such weights file"):
        load_timm("resnet18", weights=tmp_path / "none.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(WeightsError, match=r"junk\.pth: not readable as weights"):
        load_timm("resnet18", weights=tmp_path / "junk.pth")


# Weights from the hub


def test_the_hubs_cache_needs_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.invalid")
    root = tmp_path / "models--timm--resnet18.a1_in1k"
    (root / "snapshots" / "abc").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    whole = classifier("resnet18")
    save(whole, root / "snapshots" / "abc" / "model.safetensors")
    backbone = load_timm("resnet18")
    assert torch.equal(backbone.net.conv1.weight, whole.conv1.weight)
    assert backbone.info.source == "timm/resnet18.a1_in1k"
    assert backbone.info.licence == "apache-2.0"


def test_without_network_the_ways_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    levels = {n: logging.getLogger(n).level for n in ("huggingface_hub", "timm", "httpx")}
    with pytest.raises(WeightsError, match=r"backbone resnet18: .*invad-s.*--weights FILE.*HF_HOME"):
        load_timm("resnet18")
    assert {n: logging.getLogger(n).level for n in levels} == levels


def test_efficientnet_b4_is_tapped_after_blocks_1_5_9_and_21():
    backbone = empty("efficientnet_b4", strides=(2, 4, 8, 16))
    net = classifier("efficientnet_b4")
    own = {name: t for name, t in net.state_dict().items() if name in backbone.net.state_dict()}
    backbone.net.load_state_dict(own)
    blocks = [block for stage in net.blocks for block in stage]
    taps = {}
    for i in (1, 5, 9, 21):
        blocks[i].register_forward_hook(lambda module, x, y, i=i: taps.__setitem__(i, y))
    x = image((256, 256))
    with torch.no_grad():
        net((x - backbone.mean) / backbone.std)
        wanted = torch.cat(
            [torch.nn.functional.interpolate(taps[i], (16, 16), mode="bilinear") for i in (1, 5, 9, 21)], 1
        )
        extract = FeatureExtractor(Preprocess((256, 256)), backbone, (16, 16), pooling="bilinear")
        found = extract._pooled(backbone(x), (16, 16))
    assert [taps[i].shape[1] for i in (1, 5, 9, 21)] == [24, 32, 56, 160]
    assert [256 // taps[i].shape[2] for i in (1, 5, 9, 21)] == [2, 4, 8, 16]
    assert found.shape == (1, 272, 16, 16)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
