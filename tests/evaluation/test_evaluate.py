import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.preprocess import resize_map
from invad.detector.detector import Detector
from invad.diffusion.schedule import timesteps
from invad.errors import ConfigError, DataError
from invad.evaluation.evaluate import NO_LIMITS, PROTOCOLS, evaluate
from invad.evaluation.told import describe
from invad.metrics.alarms import count_interval
from invad.metrics.exact import IMAGE_METRICS, PIXEL_METRICS, SEVEN_METRICS
from invad.observer import Silent
from invad.scoring.rates import POOLED

KEYS = {
    *SEVEN_METRICS,
    "mad",
    "false_alarm_rate",
    "false_alarms",
    "images_per_second",
    "n_normal",
    "n_anomalous",
    "n_masked",
    "calibration_n",
    "categories",
    "protocol",
    "pooled_calibration",
    "without_own_limits",
    "skipped",
    "masks_skipped",
    "warnings",
}


class Notes(Silent):
    def __init__(self):
        self.notes, self.steps = [], 0

    def note(self, text):
        self.notes.append(text)

    def advance(self, detail=""):
        self.steps += 1


@pytest.fixture
def parts(write_parts, tmp_path):
    """8 good and 6 defective images with masks."""
    good = write_parts(tmp_path / "good", 8, first=600)
    bad = write_parts(tmp_path / "bad", 6, first=600, defect=True)
    return good + [replace(s, mask_path=write_mask(tmp_path / "masks" / s.path.name)) for s in bad]


def write_mask(path, size=(64, 64)):
    path.parent.mkdir(exist_ok=True)
    mask = np.zeros(size, np.uint8)
    mask[32:44, 32:44] = 255
    Image.fromarray(mask).save(path)
    return path


def without_masks(samples):
    return [replace(s, mask_path=None) for s in samples]


@pytest.fixture(scope="module")
def two(write_parts, tmp_path_factory, tiny_preset, make_backbone):
    root = tmp_path_factory.mktemp("two")
    samples = write_parts(root / "part", 40)
    samples += write_parts(root / "wide", 30, first=100, category="wide", size=(96, 64))
    return Detector.fit(samples, preset=tiny_preset, backbone=make_backbone(), device="cpu")


# The calibrated protocol


def test_every_image_is_judged_as_by_itself(detector, parts):
    done = evaluate(detector, parts)
    assert [s.sample for s in done.scored] == parts
    for scored in done.scored:
        alone = detector.predict(scored.sample.path, category="part")
        assert (scored.score, scored.p_value, scored.decision) == (
            alone.score,
            alone.p_value,
            alone.decision,
        )
        # The image has the size of the input, hence one frame.
        np.testing.assert_array_equal(scored.anomaly_map, alone.anomaly_map)
        assert scored.score_limits == detector.calibrations["part"].score_limits()


def test_a_score_does_not_depend_on_the_test_set(detector, parts):
    whole = evaluate(detector, parts).scored
    few = evaluate(detector, parts[::-1][:3]).scored
    assert [s.score for s in few] == [s.score for s in whole[::-1][:3]]


def test_image_metrics_against_scikit_learn(detector, parts):
    done = evaluate(detector, parts)
    labels = [s.sample.is_anomalous for s in done.scored]
    scores = [s.score for s in done.scored]
    assert done.metrics["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert done.metrics["image_ap"] == pytest.approx(average_precision_score(labels, scores))


def test_pixel_metrics_against_scikit_learn(detector, parts):
    done = evaluate(detector, parts)
    mask = np.asarray(Image.open(parts[-1].mask_path)) > 0
    labels = np.concatenate([(mask if s.sample.is_anomalous else 0 * mask).ravel() for s in done.scored])
    scores = np.concatenate([s.anomaly_map.ravel() for s in done.scored])
    assert done.metrics["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert done.metrics["mad"] == pytest.approx(np.mean([done.metrics[k] for k in SEVEN_METRICS]))


def test_keys_and_plain_json(detector, parts):
    metrics = evaluate(detector, parts).metrics
    assert set(metrics) == KEYS
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert (metrics["n_normal"], metrics["n_anomalous"]) == (8, 6)
    assert metrics["images_per_second"] > 0
    assert (metrics["protocol"], metrics["pooled_calibration"]) == ("calibrated", False)
    row = metrics["categories"]["part"]
    assert set(row) == {*SEVEN_METRICS, "mad", "false_alarm_rate", "n_normal", "n_anomalous", "n_masked"}
    assert all(row[k] == metrics[k] for k in row)


def test_false_alarms_are_counted(detector, parts):
    done = evaluate(detector, parts)
    decisions = [s.decision for s in done.scored if not s.sample.is_anomalous]
    alarms = done.metrics["false_alarms"]
    assert done.metrics["false_alarm_rate"] == np.mean([d != "good" for d in decisions])
    assert alarms["review"]["count"] == sum(d != "good" for d in decisions)
    assert alarms["bad"]["count"] == sum(d == "bad" for d in decisions)
    assert alarms["review"]["realised"] == done.metrics["false_alarm_rate"]
    assert alarms["review"]["asked"] == 0.05
    assert alarms["bad"]["expected_count_95"] == list(count_interval([(8, 13)], 0.01))
    assert done.metrics["calibration_n"] == 13


def test_alarms_do_occur(detector, parts, good_parts):
    """On normals that a narrow calibration has not seen there are some, and the rate is their share."""
    narrow = Detector(detector.model, detector.info, detector.stats, detector.calibrations)
    low = replace(detector.calibrations[POOLED], scores=(-9.0,) * 99, peaks=(0.0,) * 99)
    narrow.calibrations = {POOLED: low}
    metrics = evaluate(narrow, parts).metrics
    assert metrics["false_alarm_rate"] == 1.0
    assert metrics["false_alarms"]["bad"]["count"] == 8


def test_without_masks_the_pixel_metrics_are_null(detector, parts):
    metrics = evaluate(detector, without_masks(parts)).metrics
    assert {metrics[k] for k in (*PIXEL_METRICS, "mad")} == {None}
    assert metrics["image_auroc"] is not None


def test_without_defects_or_normals(detector, parts):
    normal = evaluate(detector, parts[:8]).metrics
    assert {normal[k] for k in (*SEVEN_METRICS, "mad")} == {None}
    assert (normal["n_normal"], normal["n_anomalous"]) == (8, 0)
    assert normal["false_alarm_rate"] is not None
    assert "part: no defective test images, so no AUROC, AP and F1-max of images" in normal["warnings"]
    defective = evaluate(detector, parts[8:]).metrics
    assert {defective[k] for k in IMAGE_METRICS} == {None}
    others = [replace(one, category="other") for one in parts[8:]]
    both = evaluate(detector, [*parts, *others]).metrics
    assert both["image_ap"] == both["categories"]["part"]["image_ap"]
    said = "other: no good test images, so no AUROC, AP and F1-max of images"
    assert f"{said}; the means are over 1 of 2 categories" in both["warnings"]
    assert defective["false_alarm_rate"] is None
    assert defective["false_alarms"]["review"] == {
        "asked": 0.05,
        "realised": None,
        "count": 0,
        "expected_count_95": [0, 0],
    }


def test_a_folder(detector, write_parts, tmp_path):
    root = tmp_path / "parts"
    write_parts(root / "train" / "good", 2)
    write_parts(root / "test" / "good", 3, first=50)
    write_parts(root / "test" / "spot", 2, first=60, defect=True)
    write_mask_folder = root / "ground_truth" / "spot"
    write_mask_folder.mkdir(parents=True)
    for i in (60, 61):
        write_mask(write_mask_folder / f"{i:03d}_mask.png")
    metrics = evaluate(detector, root).metrics
    assert (metrics["n_normal"], metrics["n_anomalous"]) == (3, 2)
    assert metrics["pixel_aupro"] is not None
    assert list(metrics["categories"]) == ["parts"]
    with pytest.raises(DataError, match="no category nuts"):
        evaluate(detector, load_dataset(root), categories=["nuts"])
    with pytest.raises(ConfigError, match="categories choose from a folder"):
        evaluate(detector, load_dataset(root).test, categories=["parts"])


# Several categories


def test_means_over_categories(two, parts, write_parts, tmp_path):
    wide = write_parts(tmp_path / "w", 4, first=800, category="wide", size=(96, 64))
    wide += write_parts(tmp_path / "v", 3, first=800, category="wide", size=(96, 64), defect=True)
    done = evaluate(two, parts + wide)
    rows = done.metrics["categories"]
    assert list(rows) == ["part", "wide"]
    assert done.metrics["image_auroc"] == np.mean([rows[c]["image_auroc"] for c in rows])
    assert rows["wide"]["pixel_auroc"] is None
    assert done.metrics["pixel_auroc"] == rows["part"]["pixel_auroc"]
    assert (rows["wide"]["n_normal"], done.metrics["n_normal"]) == (4, 12)
    limits = {s.sample.category: s.score_limits for s in done.scored}
    assert limits == {c: two.calibrations[c].score_limits() for c in rows}
    assert evaluate(two, wide).metrics["image_auroc"] == rows["wide"]["image_auroc"]


def test_as_many_false_alarms_are_expected_as_the_calibrations_that_judged_allow(
    two, parts, write_parts, tmp_path
):
    few = {
        name: replace(made, scores=made.scores[:n], peaks=made.peaks[:n])
        for (name, made), n in zip(sorted(two.calibrations.items()), (9, 3, 2), strict=True)
    }
    detector = Detector(two.model, two.info, two.stats, few)
    samples = parts[:8] + write_parts(tmp_path, 4, first=800, category="wide", size=(96, 64))
    for pooled, judged in ((False, [(8, 3), (4, 2)]), (True, [(12, 9)])):
        row = evaluate(detector, samples, pooled=pooled).metrics["false_alarms"]["review"]
        assert row["expected_count_95"] == [*count_interval(judged, 0.05)]
        assert row["expected_count_95"] != [*count_interval([(12, None)], 0.05)]


def test_pooled_judges_without_the_label(two, parts):
    done = evaluate(two, parts, pooled=True)
    assert done.metrics["pooled_calibration"] is True
    for scored in done.scored:
        alone = two.predict(scored.sample.path)
        assert (scored.score, scored.p_value, scored.decision) == (
            alone.score,
            alone.p_value,
            alone.decision,
        )
    assert {s.score_limits for s in done.scored} == {two.calibrations[POOLED].score_limits()}


def test_an_unknown_category_is_judged_by_all(two, parts):
    strangers = [replace(s, category="new") for s in parts]
    done = evaluate(two, strangers)
    assert done.metrics["without_own_limits"] == ["new"]
    assert describe(two, done)["limits"] == "of each category; over all categories for new"
    assert evaluate(two, parts).metrics["without_own_limits"] == []
    scores = [s.score for s in done.scored]
    assert scores == [s.score for s in evaluate(two, parts, pooled=True).scored]


# What cannot be read


def test_a_broken_image_in_the_middle(detector, parts):
    parts[3].path.write_bytes(parts[3].path.read_bytes()[:200])
    notes = Notes()
    done = evaluate(detector, parts, observer=notes)
    assert done.metrics["skipped"] == [str(parts[3].path)]
    assert (done.metrics["n_normal"], len(done.scored)) == (7, 13)
    assert notes.steps == 14
    assert len(notes.notes) == 1
    assert notes.notes[0].startswith("skipped: ")
    assert parts[3].path.name in notes.notes[0]
    with pytest.raises(DataError, match=parts[3].path.name):
        evaluate(detector, parts, strict=True)


def test_a_mask_of_another_size(detector, parts):
    write_mask(parts[9].mask_path, size=(64, 63))
    notes = Notes()
    done = evaluate(detector, parts, observer=notes)
    assert done.metrics["masks_skipped"] == [str(parts[9].mask_path)]
    assert (done.metrics["skipped"], done.metrics["n_anomalous"]) == ([], 6)
    assert "mask skipped: " in notes.notes[0]
    assert "63 x 64" in notes.notes[0]
    others = [s for s in parts if s is not parts[9]]
    assert done.metrics["pixel_auroc"] == evaluate(detector, others).metrics["pixel_auroc"]
    with pytest.raises(DataError, match="mask is 63 x 64 pixels"):
        evaluate(detector, parts, strict=True)


def test_masks_of_images_that_are_not_square(two, write_parts, tmp_path):
    """The images are 96 x 64, the input 64 x 64: masks follow their image into the input's frame."""
    bad = write_parts(tmp_path / "b", 3, category="wide", size=(96, 64), defect=True)
    masked = [replace(s, mask_path=write_mask(tmp_path / "m" / s.path.name, size=(64, 96))) for s in bad]
    done = evaluate(two, masked)
    assert done.metrics["masks_skipped"] == []
    height, width = two.info.input_hw
    inside = np.zeros((64, 96), bool)
    inside[32:44, 32:44] = True
    labels = np.asarray(Image.fromarray(inside).resize((width, height), Image.Resampling.NEAREST))
    scores = np.concatenate([s.anomaly_map.ravel() for s in done.scored])
    expected = roc_auc_score(np.tile(labels.ravel(), 3), scores)
    assert done.metrics["pixel_auroc"] == pytest.approx(expected, abs=0.02)


def test_defects_without_a_mask_do_not_count_as_normal_pixels(detector, parts):
    some = [*parts[:10], *without_masks(parts[10:])]
    metrics = evaluate(detector, some).metrics
    assert metrics["pixel_auroc"] == evaluate(detector, parts[:10]).metrics["pixel_auroc"]
    assert (metrics["n_anomalous"], metrics["n_masked"]) == (6, 2)
    assert "figures of pixels are of 2 of 6 defective images" in metrics["warnings"][-1]


def test_a_defect_that_is_smaller_than_a_pixel_of_the_input_is_named(detector, parts, tmp_path):
    side = 8 * max(detector.info.input_hw)
    large = tmp_path / "large.png"
    Image.open(parts[9].path).resize((side, side)).save(large)
    mask = np.zeros((side, side), np.uint8)
    mask[0, 0] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    small = replace(parts[9], path=large, mask_path=tmp_path / "mask.png")
    metrics = evaluate(detector, [*parts[:9], small]).metrics
    assert f"counts in no figure of pixels; the first is {large}" in metrics["warnings"][-1]
    assert metrics["pixel_ap"] is not None


def test_nothing_to_test(detector, parts, write_parts, tmp_path):
    with pytest.raises(DataError, match="the samples: no test images"):
        evaluate(detector, [])
    write_parts(tmp_path / "plain", 2)
    with pytest.raises(DataError, match="plain: no test images; give a folder with test/good"):
        evaluate(detector, tmp_path / "plain")
    for sample in parts[:2]:
        sample.path.write_bytes(b"junk")
    with pytest.raises(DataError, match="none of 2 test images could be read"):
        evaluate(detector, parts[:2])


# The paper's protocol


def test_an_unknown_protocol(detector, parts):
    assert list(PROTOCOLS) == ["calibrated", "paper"]
    with pytest.raises(ConfigError, match="protocol 'best' is unknown; choose one of calibrated, paper"):
        evaluate(detector, parts, protocol="best")


def test_the_papers_fusion_by_hand(detector, parts):
    done = evaluate(detector, parts, protocol="paper")
    nll, spread, maps = [], [], []
    for sample in parts:
        features = detector.model.extract(read_image(sample.path))
        z = detector.model.invert(features, timesteps("reference", 3)).latent.double().numpy()
        nll.append(0.5 * (z**2 + np.log(2 * np.pi)).sum())
        norm = np.sqrt((z**2).sum(axis=1))[0]
        spread.append(norm.max() - norm.min())
        maps.append(resize_map(norm.astype(np.float32), detector.info.input_hw))
    fused = sum((np.array(x) - min(x)) / (max(x) - min(x)) for x in (nll, spread))
    np.testing.assert_allclose([s.score for s in done.scored], fused, rtol=1e-4, atol=1e-5)
    for scored, expected in zip(done.scored, maps, strict=True):
        np.testing.assert_allclose(scored.anomaly_map, expected, rtol=1e-4)
    labels = [s.is_anomalous for s in parts]
    assert done.metrics["image_auroc"] == pytest.approx(roc_auc_score(labels, fused))


def test_the_papers_score_decides_nothing(detector, parts):
    paper, own = evaluate(detector, parts, protocol="paper"), evaluate(detector, parts)
    assert {s.score_limits for s in paper.scored} == {NO_LIMITS}
    for ours, theirs in zip(own.scored, paper.scored, strict=True):
        assert (ours.p_value, ours.decision) == (theirs.p_value, theirs.decision)
    assert paper.metrics["false_alarms"] == own.metrics["false_alarms"]
    assert paper.metrics["protocol"] == "paper"


def test_the_papers_score_is_scaled_per_category(two, parts, write_parts, tmp_path):
    wide = write_parts(tmp_path / "w", 4, first=800, category="wide", size=(96, 64))
    together = evaluate(two, parts + wide, protocol="paper").scored
    apart = [*evaluate(two, parts, protocol="paper").scored, *evaluate(two, wide, protocol="paper").scored]
    assert [s.score for s in together] == [s.score for s in apart]


def test_no_gradients_are_kept(detector, parts):
    with torch.enable_grad():
        assert evaluate(detector, parts[:2], protocol="paper").metrics["n_normal"] == 2
