"""No calibration makes a black picture or one of noise good, whatever it is given."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from invad.data.images import read_image
from invad.detector.calibrating import controls, fit_limits, passing, read_controls, require_unlike
from invad.detector.detector import Detector
from invad.errors import ConfigError, DataError
from invad.observer import Silent
from invad.records import Sample
from invad.scoring.crossfit import cross_fit
from invad.scoring.rates import POOLED, Rates

RNG = np.random.default_rng(5)
BLACK = np.zeros((40, 50, 3), np.uint8)
NOISE = RNG.integers(0, 256, (64, 64, 3), np.uint8)


def noisy(picture, spread):
    return (picture + RNG.normal(0, spread, picture.shape)).clip(0, 255).round().astype(np.uint8)


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def own(detector):
    """The shared detector with limits of its own."""
    mine = copy(detector)
    mine.stats, mine.calibrations = dict(detector.stats), dict(detector.calibrations)
    return mine


@pytest.fixture
def save(tmp_path):
    def write(pictures, suffixes=("png",), category="part"):
        samples = []
        for i, picture in enumerate(pictures):
            path = tmp_path / f"{category}-{len(list(tmp_path.iterdir())):03d}.{suffixes[i % len(suffixes)]}"
            Image.fromarray(picture).save(path)
            samples.append(Sample(path=path, category=category))
        return samples

    return write


def given(name, draw):
    one, others = draw(100), [draw(i) for i in range(101, 107)]
    return {
        "one colour": [np.full((64, 64, 3), 90, np.uint8)] * 12,
        "one colour each": [np.full((64, 64, 3), level, np.uint8) for level in range(80, 92)],
        "one picture": [one] * 12,
        "two copies": [one] * 2,
        "frames of one scene": [noisy(one, 0.2) for _ in range(12)],
        "noise": [RNG.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(12)],
        "two of noise": [RNG.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)],
        "black among good": [*others, BLACK],
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        *("one colour", "one colour each", "one picture", "two copies", "frames of one scene"),
        *("noise", "two of noise", "black among good"),
    ],
)
def test_a_calibration_that_would_pass_anything_is_refused(own, save, draw, name):
    before = own.predict([BLACK, NOISE, draw(200)])
    assert [p.decision for p in before[:2]] == ["bad", "bad"]
    with pytest.raises(DataError, match=r"distinct|would be (good|review)") as refused:
        own.calibrate(save(given(name, draw), ("png", "bmp", "tiff")))
    assert "\n" not in str(refused.value)
    assert [p.score for p in own.predict([BLACK, NOISE, draw(200)])] == [p.score for p in before]


def test_paths_in_place_of_samples_are_refused_in_one_line(detector, tiny_preset):
    said = r"^'a\.png' is a str, no Sample; give a folder, or Sample\(path=\.\.\., category=\.\.\.\) for each"
    for call in (detector.calibrate, lambda given: Detector.fit(given, preset=tiny_preset)):
        with pytest.raises(ConfigError, match=said):
            call(["a.png"])


def test_normals_that_show_next_to_nothing_pass_no_control(good_parts, tiny_preset, make_backbone, save):
    preset = replace(tiny_preset, second_space=None)
    one = Detector.fit(good_parts, preset=preset, backbone=make_backbone(), device="cpu")
    one.calibrate(save([noisy(BLACK, 2) for _ in range(12)], ("png", "bmp", "tiff")))
    pictures = [picture for _, picture in controls(one.model.extract.preprocess)]
    assert {p.decision for p in one.predict(pictures)} == {"bad"}


@pytest.mark.parametrize("spread", [1, 8])
def test_with_a_second_space_they_are_refused(own, save, spread):
    """Directions tell one black picture from another even less."""
    before = own.calibrations
    with pytest.raises(DataError, match=r"nearly copies of others|a black picture would be good"):
        own.calibrate(save([noisy(BLACK, spread) for _ in range(12)], ("png", "bmp", "tiff")))
    assert own.calibrations == before


def test_copies_among_good_images_count_once(own, save, draw, detector):
    distinct = save([draw(i) for i in range(100, 110)])
    own.calibrate(distinct)
    expected = own.calibrations
    own.stats, own.calibrations = dict(detector.stats), dict(detector.calibrations)
    notes = Notes()
    own.calibrate([*distinct, *save([draw(i) for i in range(100, 108)], ("bmp",))], observer=notes)
    assert own.calibrations == expected
    assert any(note.startswith("8 of 18 images are copies of others (") for note in notes.notes)


def test_frames_of_a_few_scenes_count_once(own, save, draw):
    scenes = [draw(i) for i in range(100, 106)]
    notes = Notes()
    own.calibrate(save([noisy(scene, 0.2) for scene in scenes for _ in range(3)]), observer=notes)
    assert own.calibrations[POOLED].n == 6
    assert any("12 of 18 images are nearly copies of others" in note for note in notes.notes)


def test_a_category_of_copies_gets_no_limits_of_its_own(own, save, draw):
    own.calibrate([*save([draw(109)] * 5, category="frozen"), *save([draw(i) for i in range(120, 130)])])
    assert set(own.calibrations) == {POOLED, "part"}
    assert own.calibrations[POOLED].n == 11


def test_a_picture_in_two_categories_counts_once_among_all(tiny_preset):
    maps = torch.rand(
        8, len(tiny_preset.score_rule.weights), 4, 4, generator=torch.Generator().manual_seed(0)
    )
    limits = fit_limits(
        maps, ["a"] * 4 + ["b"] * 4, [*"wxyz", *"wxyv"], range(8), tiny_preset.score_rule, Rates()
    )
    assert {name: c.n for name, c in limits.calibrations.items()} == {POOLED: 5, "a": 4, "b": 4}


def test_the_controls_pass_where_the_limits_are_too_far(own):
    read = read_controls(own.model)
    names = [name for name, _ in controls(own.model.extract.preprocess)]
    assert len(read) == len(names) == 7
    limits = fit_limits(
        read[0][1].repeat(3, 1, 1, 1),
        ["a"] * 3,
        ["x", "y", "z"],
        range(3),
        own.info.settings.score_rule,
        Rates(),
    )
    found = passing(limits, read, own.info.settings.score_rule)
    assert {number for category, number in found if category == POOLED} >= {0}
    assert found[POOLED, 0].startswith("a black picture would be ")


@pytest.mark.parametrize("level", [0, 255, 128])
def test_a_plain_picture_is_good_only_beside_such_pictures(save, draw, level):
    name = {0: "black", 255: "white", 128: "grey"}[level]
    doubts = [f"a {name} picture would be good (score 1, bad above 2)", "a picture of noise would be review"]
    other = 255 - level if level != 128 else 0
    with pytest.raises(DataError, match=f"a {name} picture would be good .*; give more good images"):
        require_unlike(doubts, save([noisy(np.full((40, 50, 3), other), 5) for _ in range(3)]))
    require_unlike(doubts, save([noisy(np.full((40, 50, 3), level), 5) for _ in range(3)]))
    require_unlike([line.replace("good", "review") for line in doubts], save([draw(1)]))


def test_a_training_on_copies_whose_limits_pass_black_is_refused(
    good_parts, tiny_preset, make_backbone, monkeypatch
):
    def pass_all(limits, read, settings):
        return {(POOLED, 0): "a black picture would be good (score 1, bad above 2)"}

    monkeypatch.setattr("invad.detector.calibrating.passing", pass_all)
    copied = [*good_parts[:8], good_parts[0]]
    with pytest.raises(DataError, match="a black picture would be good"):
        Detector.fit(copied, preset=tiny_preset, backbone=make_backbone(), steps=1)
    detector = Detector.fit(good_parts[:8], preset=tiny_preset, backbone=make_backbone(), steps=1)
    assert any("a black picture would be good" in line for line in detector.warnings())


def test_a_camera_that_stood_still_for_part_of_the_time_counts_once(save, draw, tiny_preset, make_backbone):
    frozen = draw(100)
    pictures = [*(draw(i) for i in range(101, 109)), *(noisy(frozen, 0.2) for _ in range(12))]
    detector = Detector.fit(save(pictures), preset=tiny_preset, backbone=make_backbone(), steps=1)
    assert detector.info.fit.normals == {"part": 9}
    assert len(detector.info.fit.copies) == 11
    assert detector.predict(BLACK).decision != "good"


def test_images_that_were_trained_on_are_named_and_not_counted(own, good_parts, save, draw):
    """Whatever their format; those held out from the training were never seen by the networks."""
    notes = Notes()
    fresh = [draw(i) for i in range(300, 306)]
    copied = save([read_image(s.path) for s in good_parts], ("bmp",))
    own.calibrate([*copied, *save(fresh)], observer=notes)
    assert own.calibrations[POOLED].n == 13 + 6
    (line,) = [note for note in notes.notes if "trained on" in note]
    assert line.startswith("51 of 70 images, the first ")
    assert line.endswith(".bmp, have the pixels of images that the model was trained on: not counted")
    trained = [s for s, image in zip(good_parts, copied, strict=True) if str(image.path) in line]
    with pytest.raises(DataError, match=r"2 of 3 images, .* trained on: calibration needs at least 2 others"):
        own.calibrate([*trained, *trained, *save(fresh[:1])])


def test_limits_judge_a_group_by_the_others_and_need_two_groups(tiny_preset):
    maps = torch.rand(
        9, len(tiny_preset.score_rule.weights), 4, 4, generator=torch.Generator().manual_seed(0)
    )
    groups, names = [0, 0, 2, 2, 2, 5, 6, 7, 7], ["b"] * 7 + ["a"] * 2
    limits = fit_limits(maps, names, [str(i) for i in range(9)], groups, tiny_preset.score_rule, Rates())
    assert {name: c.n for name, c in limits.calibrations.items()} == {POOLED: 5, "b": 4}
    fitted = cross_fit(maps[:7], tiny_preset.score_rule, ["b"] * 7, groups[:7])
    assert limits.calibrations["b"].scores == tuple(sorted(fitted.scores))
