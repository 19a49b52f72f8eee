import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from invad.backbones.base import Backbone, BackboneInfo
from invad.backbones.timm_backbone import load_timm
from invad.detector.detector import Detector
from invad.detector.folder import CALIBRATION, CARD, CONFIG, TENSORS, write_bundle
from invad.errors import ArtifactError
from invad.scoring.rates import POOLED


class Own(Backbone):
    """A backbone of the user's, with a normalisation of its own."""

    def __init__(self, seed):
        info = BackboneInfo(name="own", source="test", licence="none")
        super().__init__(info, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5), size_multiple=16)
        torch.manual_seed(seed)
        self.net = nn.Conv2d(3, 4, 16, 16)

    def features(self, x_B3HW):
        return [self.net(x_B3HW)]


@pytest.fixture
def folder(detector, tmp_path):
    detector.save(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, *, config=None, calibration=None, tensors=None):
    """Write other parts with hashes that are right."""
    plain = json.loads((folder / CONFIG).read_text())
    for key in ("format", "files", "content_hash"):
        del plain[key]
    found = {
        "config": plain,
        "calibration": json.loads((folder / CALIBRATION).read_text()),
        "tensors": load_file(folder / TENSORS),
    }
    for name, change in (("config", config), ("calibration", calibration), ("tensors", tensors)):
        if change is not None:
            change(found[name])
    write_bundle(folder, found["tensors"], found["config"], found["calibration"], "")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"config": lambda c: c.update(colour="red")}, "unknown key 'colour'"),
        ({"config": lambda c: c["settings"]["train"].update(steps="9")}, "settings.train.steps = '9'"),
        ({"config": lambda c: c["settings"].update(pooling="max")}, "pooling"),
        ({"config": lambda c: c.pop("channels")}, "'channels' is missing"),
        ({"config": lambda c: c.update(channels=7)}, "size mismatch"),
        ({"config": lambda c: c["backbone_shape"].update(stem=9)}, "size mismatch"),
        ({"config": lambda c: c["backbone_shape"].update(leaves=9)}, "leaves"),
        ({"config": lambda c: c["settings"].update(backbone="resnet_18")}, "'resnet_18' is unknown"),
        ({"tensors": lambda t: t.pop("space.mean")}, "'mean'"),
        ({"tensors": lambda t: t.pop("space.basis")}, "'basis'"),
        ({"tensors": lambda t: t.pop("empirical.bank")}, "'empirical.bank'"),
        ({"tensors": lambda t: t.pop("fine.empirical.bank")}, "'fine.empirical.bank'"),
        ({"tensors": lambda t: t.pop("fine.space.basis")}, "'basis'"),
        ({"tensors": lambda t: t.pop("second.empirical.bank")}, "'second.empirical.bank'"),
        ({"tensors": lambda t: t.pop("fine.second.space.basis")}, "'basis'"),
        ({"tensors": lambda t: t.pop("denoiser.output.weight")}, "output.weight"),
        ({"tensors": lambda t: t.update({"denoiser.more": torch.ones(1)})}, "more"),
        ({"calibration": lambda c: c.pop("categories")}, "categories"),
        ({"calibration": lambda c: c["categories"].pop(POOLED)}, "no calibration over all categories"),
        ({"calibration": lambda c: c["categories"][POOLED].update(tensors=99)}, "calibration.99"),
        ({"calibration": lambda c: c["categories"][POOLED].update(scores=[])}, "no held-out normal images"),
        ({"calibration": lambda c: c["categories"][POOLED].update(scores=["1"])}, "scores.0 = '1'"),
        (
            {"calibration": lambda c: c.update(categories=[1])},
            "calibration.json: categories = [1]: expected an object",
        ),
    ],
)
def test_parts_that_do_not_fit_together(folder, changes, words):
    rewrite(folder, **changes)
    with pytest.raises(ArtifactError) as caught:
        Detector.load(folder)
    line = str(caught.value)
    assert words in line
    assert str(folder) in line
    assert "\n" not in line
    assert len(line) < 600


def test_rewritten_without_changes_it_loads(folder, detector, draw):
    rewrite(folder)
    assert Detector.load(folder).predict(draw(0)).score == detector.predict(draw(0)).score


def test_models_from_before_there_was_a_second_space_load(
    good_parts, tiny_preset, make_backbone, tmp_path, draw
):
    one = replace(tiny_preset, second_space=None)
    made = Detector.fit(good_parts[:6], preset=one, backbone=make_backbone())
    made.save(tmp_path / "model")
    rewrite(tmp_path / "model", config=lambda c: c["settings"].pop("second_space"))
    assert Detector.load(tmp_path / "model").predict(draw(0)).score == made.predict(draw(0)).score


def test_a_backbone_without_a_name_is_given_again(good_parts, tiny_preset, tmp_path, draw):
    made = Detector.fit(good_parts[:6], preset=tiny_preset, backbone=Own(0))
    made.save(tmp_path / "model")
    with pytest.raises(ArtifactError, match="backbone 'own' is unknown"):
        Detector.load(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", backbone=Own(1))
    assert loaded.predict(draw(0)).score == made.predict(draw(0)).score


def test_a_timm_backbone_is_rebuilt_by_name(good_parts, tiny_preset, tmp_path, draw):
    """Its normalisation comes from the file, too."""
    backbone = load_timm("mobilenetv3_small_050", pretrained=False)
    backbone.mean.fill_(0.4)
    made = Detector.fit(good_parts[:6], preset=tiny_preset, backbone=backbone)
    made.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model")
    assert loaded.predict(draw(0)).score == made.predict(draw(0)).score
    np.testing.assert_allclose(loaded.model.extract.backbone.mean.flatten(), 0.4)


def test_the_card_says_what_it_was_made_from(two_words, folder):
    card = (folder / CARD).read_text()
    missing = [words for words in two_words if words not in card]
    assert not missing, card


@pytest.fixture
def two_words(detector):
    review, bad = detector.calibrations[POOLED].score_limits()
    return [
        "| normal images | part 64 |",
        "| calibrated on | part 13 (held out from training) |",
        "seed 0",
        "invad-s (random, seed 0), licence: none",
        f"score {review:.4f}, false-alarm rate asked 5.00%",
        f"score {bad:.4f}, false-alarm rate asked 1.00%",
        "extrapolated from 13 normal images",
        "13 good images set the limit for 5.0% false alarms: what it realises lies between 0.0% and 20.5%",
        "64 x 64 pixels",
        "grid 4 x 4",
    ]


def test_the_card_after_a_new_calibration(folder, write_parts, tmp_path):
    loaded = Detector.load(folder)
    loaded.calibrate(write_parts(tmp_path / "fresh", 20, first=300))
    loaded.save(folder)
    card = (folder / CARD).read_text()
    assert "| calibrated on | part 20 (not trained on, on 20" in card
    assert "extrapolated from 20 normal images" in card


def test_the_card_of_few_images(good_parts, tiny_preset, make_backbone, tmp_path):
    made = Detector.fit(good_parts[:6], preset=tiny_preset, backbone=make_backbone())
    made.save(tmp_path / "model")
    assert "each held out once in 4 folds" in (tmp_path / "model" / CARD).read_text()


def test_a_card_of_the_users_own(detector, tmp_path):
    detector.save(tmp_path / "model", card="# Mine\n")
    assert (tmp_path / "model" / CARD).read_text() == "# Mine\n"


def test_a_model_that_does_not_know_what_it_was_trained_on_is_read(folder, good_parts):
    assert len(Detector.load(folder).info.fit.trained) == 64 - 13
    rewrite(folder, config=lambda config: config["fit"].pop("trained"))
    loaded = Detector.load(folder)
    assert loaded.info.fit.trained == ()
    loaded.calibrate(good_parts[:20])
    assert loaded.calibrations[POOLED].n == 20
