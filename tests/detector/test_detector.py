import hashlib
import io
import json
import os
import re
import subprocess
import sys
from array import array
from copy import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom

from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.tiling import Tiling
from invad.detector.detector import Detector
from invad.errors import ArtifactError, ConfigError, DataError, InvadError, NotCalibratedError
from invad.evaluation.evaluate import evaluate
from invad.fit.run import Run
from invad.model.settings import preset_named
from invad.observer import Silent
from invad.records import GOOD
from invad.scoring.calibration import Calibration
from invad.scoring.crossfit import cross_fit
from invad.scoring.holding import folds
from invad.scoring.rates import POOLED, Rates
from invad.scoring.scale import Scale
from invad.scoring.typicality import (
    ScoreRule,
    combined_scores,
    fit_position_stats,
    image_scores,
    judge,
    predictor_scores,
    typicality_map,
)

SRC = Path(__file__).resolve().parents[2] / "src"


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def assert_equal(found, expected):
    assert (found.score, found.p_value, found.decision) == (
        expected.score,
        expected.p_value,
        expected.decision,
    )
    np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)


@pytest.fixture(scope="module")
def two_shapes(write_parts, tmp_path_factory, tiny_preset, make_backbone):
    """60 parts and 30 of another category, which are brighter and of another shape."""
    root = tmp_path_factory.mktemp("two")
    samples = write_parts(root / "part", 60)
    samples += write_parts(root / "wide", 30, first=100, category="wide", size=(128, 64))
    return Detector.fit(samples, preset=tiny_preset, backbone=make_backbone(), device="cpu")


# One image, whatever it comes as and with


def test_alone_as_in_a_list(detector, good_parts):
    paths = [s.path for s in good_parts[:5]]
    together = detector.predict(paths)
    for path, one in zip(paths, together, strict=True):
        assert_equal(detector.predict(path), one)
        assert one.path == str(path)
    backwards = detector.predict(iter(paths[::-1]))
    for one, other in zip(together[::-1], backwards, strict=True):
        assert_equal(one, other)
    assert detector.predict([]) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_gives_what_predict_gives(detector, good_parts, workers):
    """Bit by bit: decoding ahead changes nothing."""
    paths = [s.path for s in good_parts[:6]]
    for found, path in zip(detector.predict_many(iter(paths), workers=workers), paths, strict=True):
        assert_equal(found, detector.predict(path))


@pytest.mark.parametrize("batch", [2, 5, 16])
def test_in_a_batch_only_rounding_differs(detector, draw, batch):
    """Whatever the batch-mates, the last group being smaller, and sizes mixed."""
    images = [draw(i, defect=i % 3 == 0, size=(64, 64) if i % 2 else (90, 70)) for i in range(7)]
    normal = np.array(detector.calibrations[POOLED].scores)
    for found, image in zip(detector.predict_many(images, batch=batch), images, strict=True):
        alone = detector.predict(image)
        assert abs(found.score - alone.score) < 1e-3 * max(normal.std(), abs(alone.score))
        assert found.anomaly_map.shape == image.shape[:2]
        np.testing.assert_allclose(found.anomaly_map, alone.anomaly_map, rtol=1e-3, atol=1e-3)


def test_a_stream_goes_on_after_an_unreadable_image(detector, good_parts, tmp_path):
    (tmp_path / "b.png").write_bytes(b"junk")
    paths = [good_parts[0].path, tmp_path / "b.png", good_parts[1].path]
    for batch in (1, 2, 3):
        first, broken, second = detector.predict_many(paths, batch=batch)
        assert "b.png" in str(broken)
        assert [first.path, second.path] == [str(paths[0]), str(paths[2])]
        assert second.score == pytest.approx(detector.predict(paths[2]).score, rel=1e-4)
        with pytest.raises(DataError, match=r"b\.png"):
            list(detector.predict_many(paths, batch=batch, strict=True))


def test_a_stream_takes_images_as_they_are_needed(detector, draw):
    taken = []

    def camera():
        for i in range(1000):
            taken.append(i)
            yield draw(i)

    stream = detector.predict_many(camera(), batch=2, workers=1)
    next(stream)
    assert len(taken) <= 2 * 2 + 1 + 1
    stream.close()
    image = draw(0)
    for one in (str, "part.png", b"png", image, image[..., 0], torch.zeros(3, 8, 8), None):
        with pytest.raises(ConfigError, match="give a list of images, or one image to predict"):
            detector.predict_many(one)
    for several in (np.stack([image, image]), np.stack([image[..., 0]] * 5), np.array(["a.png"])):
        assert len(list(detector.predict_many(several))) == len(several)
    for options in ({"batch": 0}, {"workers": -1}):
        with pytest.raises(ConfigError, match="batch = "):
            next(detector.predict_many([], **options))


def test_every_kind_of_source_agrees(detector, draw, tmp_path):
    pixels = draw(500, size=(80, 70))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = detector.predict(tmp_path / "a.png")
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "BMP")
    sources = [
        str(tmp_path / "a.png"),
        (tmp_path / "a.png").read_bytes(),
        encoded.getvalue(),
        array("B", encoded.getvalue()),
        Image.fromarray(pixels),
        Image.open(tmp_path / "a.png"),
        pixels,
        pixels[..., 0],
        torch.from_numpy(pixels).permute(2, 0, 1),
    ]
    for source in sources:
        assert_equal(detector.predict(source), expected)
    for source in (
        pixels.astype(np.float32) / 255,
        torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
        pixels.astype(np.uint16) * 257,
    ):
        assert detector.predict(source).score == pytest.approx(expected.score, abs=1e-3)


def test_the_map_is_in_the_images_own_frame(detector, draw):
    for size in ((64, 64), (130, 70), (33, 257)):
        found = detector.predict(draw(1, size=size))
        assert found.anomaly_map.shape == (size[1], size[0])
        assert found.anomaly_map.dtype == np.float32


def test_the_map_is_not_turned(detector, draw):
    """A spot at the top left is found there."""
    pixels = draw(200, size=(128, 64))
    spoilt = pixels.copy()
    spoilt[2:14, 4:24] = 255 * (np.indices((12, 20)).sum(0)[..., None] % 2)
    changed = detector.predict(spoilt).anomaly_map - detector.predict(pixels).anomaly_map
    y, x = np.unravel_index(changed.argmax(), changed.shape)
    assert y < 32
    assert x < 64


def test_p_value_and_decision_follow_from_the_score(detector, draw):
    pooled = detector.calibrations[POOLED]
    for i in range(300, 310):
        found = detector.predict(draw(i, defect=i % 2 == 0))
        assert found.p_value == pooled.p_value(found.score)
        assert found.decision == pooled.decide(found.score)


def test_a_gross_defect_scores_higher(detector, draw):
    good = [detector.predict(draw(i)).score for i in range(400, 410)]
    bad = [detector.predict(draw(i, defect=True)).score for i in range(400, 410)]
    assert np.mean(bad) > np.mean(good)


def test_an_unreadable_image_is_named(detector, good_parts, tmp_path):
    (tmp_path / "b.png").write_bytes(good_parts[0].path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"b\.png"):
        detector.predict([good_parts[0].path, tmp_path / "b.png"])
    with pytest.raises(DataError, match="no such file"):
        detector.predict(tmp_path / "none.png")


def test_score_and_map_are_those_of_the_rule(detector, draw):
    maps, own, settings = detector.read(draw(3)), detector.stats[POOLED], detector.info.settings
    score, map_hw = detector.score(maps)
    expected = typicality_map(maps[None], own, settings.score_rule.weights, settings.floor)
    np.testing.assert_array_equal(map_hw, expected[0])
    by_predictor = predictor_scores(maps[None], own, settings.score_rule)
    assert by_predictor.shape == (1, 3)
    assert score == float(combined_scores(by_predictor, own.scores))


# Calibration


@pytest.mark.parametrize(("counts", "floor"), [((1, 1, 1), 0.0), ((1, 2), 0.5)])
def test_cross_fit_by_brute_force(counts, floor):
    maps = torch.rand(13, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    groups, rule = ["a"] * 8 + ["b"] * 5, ScoreRule.of(counts, floor=floor, top_fraction=0.3)
    weights = (1 / 3, 1 / 3, 1 / 3) if counts == (1, 1, 1) else (1 / 2, 1 / 4, 1 / 4)
    scores, peaks = np.empty(13), np.empty(13)
    for rest, fold in folds(groups, 5, seed=0):
        for i in fold:
            map_1hw = typicality_map(maps[i : i + 1], fit_position_stats(maps[rest]), weights, floor)
            scores[i], peaks[i] = float(image_scores(map_1hw, 0.3)), float(map_1hw.max())
    found = cross_fit(maps, rule, groups)
    np.testing.assert_allclose([found.scores, found.peaks], [scores, peaks], rtol=1e-6)


def test_combined_scores_of_held_out_normals_by_brute_force():
    """Each is standardised by the mean and spread of the scores of the other folds alone."""
    maps = torch.rand(14, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    groups = [*"aabbcdefghijkl"]
    rule = ScoreRule.of((1, 2), floor=0.5, top_fractions=(0.5, 0.1))
    split = list(folds([""] * 14, 5, 0, groups))
    own = np.empty((14, 2))
    for rest, fold in split:
        stats = fit_position_stats(maps[rest])
        z = (maps[fold] - stats.median_Lhw) / stats.scale_Lhw
        for p, (map_Bhw, cells) in enumerate(((z[:, 0], 8), (z[:, 1:].mean(dim=1), 2))):
            for i, values in zip(fold, map_Bhw.flatten(1).double().numpy(), strict=True):
                values = np.sort(values)
                own[i, p] = (values - 0.5 * values[:3].mean())[-cells:].mean()

    def spread(scores):
        mean, n = scores.mean(axis=0), len(scores)
        return mean, np.sqrt((n * scores.var(axis=0) + 5 * (mean / 4) ** 2) / (n + 5))

    expected = np.empty(14)
    for rest, fold in split:
        mean, std = spread(own[rest])
        expected[fold] = np.sqrt((np.log1p(np.exp((own[fold] - mean) / std)) ** 2).sum(axis=1))
    found = cross_fit(maps, rule, [""] * 14, groups)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    mean, std = spread(own)
    np.testing.assert_allclose(found.stats.scores.mean_P, mean, rtol=1e-5)
    np.testing.assert_allclose(found.stats.scores.std_P, std, rtol=1e-5)


def test_held_out_and_new_images_are_judged_by_the_same_rules(detector, write_parts, tmp_path):
    """The limits come from scores with the settings' weights and floor, as new images get them."""
    own = Detector(detector.model, detector.info, detector.stats, detector.calibrations)
    fresh = write_parts(tmp_path, 12, first=300)
    own.calibrate(fresh)
    maps = torch.stack([own.read(read_image(s.path)) for s in fresh])
    settings, groups = own.info.settings, [s.category for s in fresh]
    assert settings.floor > 0
    fitted = cross_fit(maps, settings.score_rule, groups)
    scores, peaks = fitted.scores, fitted.peaks
    made = own.calibrations[POOLED]
    assert made.scores == tuple(sorted(scores))
    assert sorted(zip(made.scores, made.peaks, strict=True)) == sorted(zip(scores, peaks, strict=True))


@pytest.mark.parametrize("i", range(0, 12, 3))
def test_no_image_helps_to_judge_itself(i):
    """Moved far away step by step, its score grows linearly: the statistics that judge it do not move."""
    maps = torch.rand(12, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    tops = []
    for shift in (100.0, 200.0, 300.0):
        moved = maps.clone()
        moved[i] += shift
        tops.append(max(cross_fit(moved, ScoreRule.of((1,), top_fraction=1.0), [""] * 12).scores))
    assert tops[2] - tops[1] == pytest.approx(tops[1] - tops[0], rel=1e-5)
    assert tops[0] > 50


@pytest.mark.parametrize(
    "rule",
    [ScoreRule.of((1, 1), top_fraction=0.2), ScoreRule.of((1, 1), top_fractions=(0.2, 0.1))],
    ids=["of the map", "combined"],
)
def test_p_values_of_new_normals_are_not_too_kind(rule):
    """Over calibrations with 19 normals of 16 cells, alarms at 5 % stay near 5 %, not above."""
    generator, alarms, trials = torch.Generator().manual_seed(2), 0, 1000
    for _ in range(trials):
        maps = torch.randn(20, 2, 4, 4, generator=generator)
        held = cross_fit(maps[:19], rule, [""] * 19)
        new, _ = judge(maps[19:], held.stats, rule)
        alarms += Calibration(scores=held.scores, peaks=held.peaks).p_value(float(new)) <= 0.05
    assert alarms <= binom.ppf(0.99, trials, 0.05)


def test_pooled_calibration_uses_all_and_each_category_its_own(two_categories):
    held = two_categories.info.fit.held_out
    assert held == {"part": 12, "wide": 8}
    assert {k: c.n for k, c in two_categories.calibrations.items()} == {POOLED: 20, **held}
    assert set(two_categories.stats) == {POOLED, "part", "wide"}


def test_an_image_is_stretched_to_the_nearest_shape(two_shapes, draw):
    extract = two_shapes.model.extract
    assert extract.preprocess.other_hw == ((48, 96),)
    seen = []
    watch = extract.backbone.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape[2:])))
    try:
        for size in ((64, 64), (140, 64)):
            two_shapes.predict(draw(1, size=size))
    finally:
        watch.remove()
    assert seen[::2] == [(64, 64), (48, 96)]


def test_a_graph_has_one_of_the_shapes(two_shapes, draw):
    with pytest.raises(ConfigError, match=r"several input sizes \(64 x 64, 48 x 96\)"):
        two_shapes.compile()
    for size in ((64, 64), (140, 64)):
        pixels = draw(1, size=size)
        alone = two_shapes.compile(size_hw=(size[1], size[0])).predict(pixels)
        assert alone.score == pytest.approx(two_shapes.predict(pixels).score, rel=1e-4, abs=1e-4)


def test_images_of_several_shapes_pass_in_batches(two_shapes, draw):
    images = [draw(i, size=size) for i, size in enumerate([(64, 64), (140, 64), (128, 64), (64, 70)])]
    together = list(two_shapes.predict_many(images, batch=4))
    for found, image in zip(together, images, strict=True):
        assert found.score == pytest.approx(two_shapes.predict(image).score, rel=1e-3, abs=1e-3)


def test_a_category_is_judged_by_its_own_normals(two_categories, draw):
    pixels = draw(700, size=(128, 64))
    own, pooled = two_categories.predict(pixels, category="wide"), two_categories.predict(pixels)
    calibration = two_categories.calibrations["wide"]
    assert own.p_value == calibration.p_value(own.score)
    assert own.category == "wide"
    assert own.score != pooled.score
    assert pooled.category is None
    for judging in (two_categories, two_categories.compile(size_hw=(64, 64))):
        with pytest.raises(ConfigError, match="no category 'never seen'; choose from part, wide"):
            judging.predict(pixels, category="never seen")


def test_warnings_name_the_category(two_categories, detector):
    assert any(line.startswith("wide: the bad limit") for line in two_categories.warnings())
    assert [line[:7] for line in detector.warnings()] == ["the rev", "the bad"]


def test_fit_tells_its_warnings(good_parts, tiny_preset, make_backbone):
    notes = Notes()
    made = Detector.fit(good_parts[:8], preset=tiny_preset, backbone=make_backbone(), run=Run(observer=notes))
    assert [n for n in notes.notes if "extrapolated" in n] == list(made.warnings())


def test_calibrate_on_new_normals(good_parts, tiny_preset, make_backbone, write_parts, tmp_path, draw):
    made = Detector.fit(good_parts, preset=tiny_preset, backbone=make_backbone())
    weights = {k: v.clone() for k, v in made.model.denoiser.state_dict().items()}
    before = made.calibrations[POOLED]
    write_parts(tmp_path / "fresh" / "good", 40, first=900)
    warnings = made.calibrate(tmp_path / "fresh", rates=Rates(review=0.1, bad=0.05))
    pooled = made.calibrations[POOLED]
    assert (pooled.n, pooled.rates) == (40, Rates(review=0.1, bad=0.05))
    assert pooled.scores != before.scores
    assert set(made.calibrations) == {POOLED, "fresh"}
    assert warnings == made.warnings() == ()
    assert all(torch.equal(v, weights[k]) for k, v in made.model.denoiser.state_dict().items())
    assert made.info.recalibrated is not None
    maps = torch.stack([made.read(draw(i)) for i in range(900, 940)])
    np.testing.assert_array_equal(made.stats[POOLED].median_Lhw, fit_position_stats(maps).median_Lhw)


def test_calibrate_keeps_the_rates_unless_told(good_parts, tiny_preset, make_backbone, write_parts, tmp_path):
    rates = Rates(review=0.2, bad=0.1)
    made = Detector.fit(good_parts, preset=tiny_preset, backbone=make_backbone(), rates=rates)
    made.calibrate(write_parts(tmp_path, 8, first=300))
    assert made.rates == rates


def test_a_calibration_that_fails_changes_nothing(
    good_parts, tiny_preset, make_backbone, write_parts, tmp_path
):
    made = Detector.fit(good_parts[:8], preset=tiny_preset, backbone=make_backbone())
    before = dict(made.calibrations)
    broken = write_parts(tmp_path / "b", 5, first=300)
    broken[2].path.write_bytes(b"junk")
    with pytest.raises(DataError, match=r"302\.png"):
        made.calibrate(broken, strict=True)
    with pytest.raises(DataError, match="1 readable normal images: calibration needs at least 2"):
        made.calibrate(broken[1:3])
    with pytest.raises(DataError, match="takes normal images only"):
        made.calibrate(write_parts(tmp_path / "d", 3, defect=True))
    assert made.calibrations == before
    notes = Notes()
    made.calibrate(broken, observer=notes)
    assert made.calibrations[POOLED].n == 4
    assert "302.png" in notes.notes[0]


@pytest.mark.parametrize("count", [2, 3, 6])
def test_very_few_normals_still_tell_a_gross_defect(good_parts, tiny_preset, count):
    """With the backbone that ships: a random one sees no more than a random one can."""
    preset = replace(tiny_preset, train=replace(tiny_preset.train, steps=60, lr=5e-3))
    made = Detector.fit(good_parts[:count], preset=preset, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert made.predict(noise).decision != "good"
    assert len(made.warnings()) == 2


def test_before_calibration_nothing_is_decided(detector, draw, tmp_path):
    bare = Detector(detector.model, detector.info, {}, {})
    for call in (lambda: bare.predict(draw(0)), lambda: bare.save(tmp_path / "m"), lambda: bare.rates):
        with pytest.raises(NotCalibratedError, match="calibrate"):
            call()
    assert not (tmp_path / "m").exists()


# Options of fit


def test_fit_on_a_folder(write_parts, tmp_path, tiny_preset, make_backbone):
    write_parts(tmp_path / "parts" / "good", 6)
    made = Detector.fit(tmp_path / "parts", preset=tiny_preset, backbone=make_backbone())
    assert made.info.fit.normals == {"parts": 6}
    assert made.predict(tmp_path / "parts" / "good" / "000.png").decision in ("good", "review", "bad")
    assert GOOD == "good"


def test_options_override_the_preset(good_parts, tiny_preset, make_backbone):
    seeded = replace(tiny_preset, train=replace(tiny_preset.train, seed=9))
    kept = Detector.fit(good_parts[:4], preset=seeded, backbone=make_backbone())
    assert (kept.info.settings.train.seed, kept.info.settings.train.steps) == (9, 4)
    made = Detector.fit(good_parts[:4], preset=seeded, backbone=make_backbone(), steps=2, seed=0)
    assert (made.info.settings.train.seed, made.info.settings.train.steps) == (0, 2)
    assert (made.info.preset, made.info.settings.backbone) == ("custom", "invad-s")


def test_the_same_seed_gives_the_same_detector(good_parts, tiny_preset, make_backbone, detector, draw):
    again = Detector.fit(good_parts, preset=tiny_preset, backbone=make_backbone(), device="cpu")
    assert_equal(again.predict(draw(9)), detector.predict(draw(9)))
    other = Detector.fit(good_parts, preset=tiny_preset, backbone=make_backbone(), seed=1)
    assert other.predict(draw(9)).score != detector.predict(draw(9)).score


def test_a_backbone_in_training_mode_is_frozen(good_parts, tiny_preset, make_backbone):
    backbone = make_backbone().train().requires_grad_(True)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    Detector.fit(good_parts[:3], preset=tiny_preset, backbone=backbone)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert not backbone.training


def test_what_fit_refuses(good_parts, tiny_preset, make_backbone, tmp_path):
    def refused(error, words, **options):
        options = {"preset": tiny_preset, "backbone": make_backbone(), **options}
        with pytest.raises(error, match=words):
            Detector.fit(options.pop("data", good_parts[:4]), **options)

    refused(ConfigError, "preset 'slow' is unknown", preset="slow")
    refused(ConfigError, r"train\.steps = 0", steps=0)
    refused(ConfigError, r"train\.seed = -1", seed=-1)
    refused(ConfigError, "device 'tpu9' cannot be used here; give cpu", device="tpu9")
    refused(ConfigError, "device 'cuda:99' cannot be used here", device="cuda:99")
    refused(ConfigError, "backbone 'resnet_18' is unknown", backbone="resnet_18")
    refused(DataError, "no such folder", data=tmp_path / "none")
    refused(DataError, "no readable image", data=[])
    assert preset_named("standard").backbone == "invad-s,efficientnet-lite2"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda one: one.fit(None), "samples = None: give an Iterable"),
        (lambda one: one.fit([], region=3), "region = 3: give a Region or text or a path"),
        (lambda one: one.fit([], regions="a.json"), "regions = 'a.json': give a dict or None"),
        (lambda one: one.fit([], preset=None), "preset = None: give text or a Preset"),
        (lambda one: one.fit([], steps="many"), "train.steps = 'many': give a whole number or None"),
        (lambda one: one.fit([], rates=0.01), "rates = 0.01: give a Rates"),
        (lambda one: one.calibrate(region="no.json"), "no.json: No such file or directory; check the path"),
        (lambda one: one.calibrate(min_area="12px"), "min_area = '12px': give a number"),
        (lambda one: one.calibrate(rates=0.01), "rates = 0.01: give a Rates or None"),
        (lambda one: one.defects("a.png"), "prediction = 'a.png': give a Prediction"),
        (lambda one: one.predict("a.png", category=3), "category = 3: give text or None"),
        (lambda one: one.predict_many([], batch="2"), "batch = '2': give a whole number"),
        (lambda one: one.predict_video(None), "path = None: give a path"),
        (lambda one: one.compile(size_hw=64), "size_hw = 64: give a tuple of 2, each a whole number or None"),
        (lambda one: one.save(""), "folder = '': give a path"),
        (lambda one: one.load(None), "folder = None: give a path"),
        (lambda one: Rates(review="5%"), "review = '5%': give a number"),
        (lambda one: Scale("abc"), "'abc' is no homography of 3 rows of 3 numbers"),
        (lambda one: Scale.of("no.json"), "no.json: No such file or directory; check the path"),
        (lambda one: Tiling(tile_px="64"), "tile_px = '64': give a whole number"),
        (lambda one: evaluate("model", []), "detector = 'model': give a Detector or a TiledDetector"),
        (lambda one: load_dataset(None), "root = None: give a path"),
    ],
)
def test_an_argument_of_another_kind_is_one_line(detector, call, words):
    with pytest.raises(InvadError, match=f"^{re.escape(words)}"):
        call(copy(detector))


# Saving


def test_a_model_does_not_take_the_place_of_a_readme(detector, tmp_path):
    (tmp_path / "README.md").write_text("of a project")
    with pytest.raises(ArtifactError, match=r"holds a README.md and no model"):
        detector.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    detector.save(tmp_path / "model")
    detector.save(tmp_path / "model")


FRESH = """
import hashlib, json, sys
from invad import Detector
found = Detector.load(sys.argv[1], device="cpu").predict(sys.argv[2])
digest = hashlib.sha256(found.anomaly_map.tobytes()).hexdigest()
print(json.dumps([found.score, found.p_value, found.decision, digest]))
"""


def test_a_fresh_process_gives_the_same_scores(two_shapes, tmp_path, draw):
    Image.fromarray(draw(11, defect=True)).save(tmp_path / "a.png")
    two_shapes.save(tmp_path / "model")
    expected = two_shapes.predict(tmp_path / "a.png")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "model"), str(tmp_path / "a.png")],
        env={**os.environ, "PYTHONPATH": str(SRC), **threads},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    digest = hashlib.sha256(expected.anomaly_map.tobytes()).hexdigest()
    assert json.loads(done.stdout) == [expected.score, expected.p_value, expected.decision, digest]


def test_load_gives_back_all(two_shapes, tmp_path, draw):
    content = two_shapes.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model", device="cpu")
    assert (loaded.info, loaded.calibrations) == (two_shapes.info, two_shapes.calibrations)
    assert loaded.content_hash == content
    for category in (None, "part", "wide"):
        pixels = draw(12, size=(90, 60))
        assert_equal(loaded.predict(pixels, category=category), two_shapes.predict(pixels, category=category))
    assert loaded.save(tmp_path / "again") == content


def test_the_hash_follows_the_calibration(detector, write_parts, tmp_path):
    first = detector.save(tmp_path / "model")
    loaded = Detector.load(tmp_path / "model")
    loaded.calibrate(write_parts(tmp_path / "fresh", 10, first=300))
    assert loaded.content_hash is None
    assert loaded.save(tmp_path / "model") != first
    assert Detector.load(tmp_path / "model").calibrations == loaded.calibrations


def test_defects_are_measured_by_the_review_limit_of_the_category(detector, draw):
    found = detector.predict(draw(3, defect=True, size=(128, 64)))
    review, _ = detector.calibrations[""].map_limits()
    table = detector.defects(found, Scale.per_pixel(0.5))
    assert sum(one.area_px for one in table) == int((found.anomaly_map > review).sum()) > 0
    assert table[0].peak == found.anomaly_map.max()
    assert table[0].cell_px == max(128 / detector.grid_hw[1], 64 / detector.grid_hw[0])
    assert table[0].length_mm == pytest.approx(table[0].length_px / 2)
    assert detector.defects(found, "0.5mm") == table
    with pytest.raises(DataError, match="no anomaly map"):
        detector.defects(replace(found, anomaly_map=np.zeros(0, np.float32)))
