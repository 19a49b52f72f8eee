"""Oracles: scikit-learn, loops over every threshold, values by hand, and the adeval package."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from invad.metrics.exact import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    SEVEN_METRICS,
    aupro,
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    mean_ad,
    mean_over_categories,
    pixel_metrics,
    roc_curve,
)
from invad.metrics.intervals import bootstrap_interval
from oracles import brute_aupro

LEVELS = [2, 5, 1000, 10**7]  # number of distinct scores: from heavy ties to none


def random_scores(seed: int, levels: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < rng.uniform(0.02, 0.9)
    labels[:2] = [False, True]
    return np.floor(rng.random(n) * levels) / 8 + labels * rng.integers(0, 2) * levels / 32, labels


def random_maps(seed: int, levels: int, n: int = 3, size: int = 7) -> tuple[list, list]:
    rng = np.random.default_rng(seed)
    maps = [np.floor(rng.random((size, size)) * levels).astype(np.float32) / 8 for _ in range(n)]
    masks = [rng.random((size, size)) < 0.15 for _ in range(n)]
    masks[0][0, 0] = True
    masks[-1][:] = False
    return maps, masks


def smooth_maps(n: int = 6, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    noise = np.stack([gaussian_filter(rng.standard_normal((size, size)), 3) for _ in range(2 * n)])
    noise /= noise.std()
    masks = noise[:n] > 1.9
    masks[0] = False
    return (noise[n:] + 1.5 * masks).astype(np.float32), masks


# ---------------------------------------------------------------- labelled lists


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_to_sklearn(levels: int, dtype: type) -> None:
    for seed in range(10):
        scores, labels = random_scores(seed, levels)
        scores = scores.astype(dtype)
        assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
        assert average_precision(scores, labels) == pytest.approx(
            average_precision_score(labels, scores), abs=1e-9
        )
        fpr, tpr, thresholds = sklearn_roc_curve(labels, scores, drop_intermediate=False)
        ours = roc_curve(scores, labels)
        np.testing.assert_allclose(ours.fpr, fpr, atol=1e-12)
        np.testing.assert_allclose(ours.tpr, tpr, atol=1e-12)
        np.testing.assert_array_equal(ours.thresholds, thresholds)


@pytest.mark.parametrize("levels", LEVELS)
def test_f1_max_equals_a_loop_over_every_threshold(levels: int) -> None:
    for seed in range(10):
        scores, labels = random_scores(seed, levels, n=60)
        f1 = {}
        for t in np.unique(scores):
            flagged = scores >= t
            tp, fp, fn = (flagged & labels).sum(), (flagged & ~labels).sum(), (~flagged & labels).sum()
            f1[float(t)] = 2 * tp / (2 * tp + fp + fn)
        best = f1_max(scores, labels)
        assert best.value == pytest.approx(max(f1.values()), abs=1e-12)
        assert best.threshold == max(t for t, value in f1.items() if value == best.value)


def test_values_by_hand() -> None:
    scores, labels = [3, 2, 2, 1], [1, 1, 0, 0]
    assert auroc(scores, labels) == (1 + 1 + 0.5 + 1) / 4
    assert average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    best = f1_max(scores, labels)
    assert (best.value, best.threshold) == (0.8, 2.0)
    tied = f1_max([4, 3, 2, 1], [1, 0, 0, 1])  # 2/3 at score 4 (TP 1, FP 0) and at score 1 (TP 2, FP 2)
    assert (tied.value, tied.threshold) == (2 / 3, 4.0)
    assert auroc([1, 1, 1], [0, 1, 0]) == 0.5
    assert average_precision([1, 1, 1, 1], [0, 1, 0, 0]) == 0.25


def test_perfect_and_reversed_order() -> None:
    scores, labels = np.arange(10.0), np.arange(10) >= 6
    assert image_metrics(scores, labels) == dict.fromkeys(IMAGE_METRICS, 1.0)
    assert f1_max(scores, labels).threshold == 6
    assert auroc(-scores, labels) == 0


def test_undefined_lists_are_none() -> None:
    none, only_normal, only_anomalous = ([], []), ([1.0, 2.0], [0, 0]), ([1.0, 2.0], [1, 1])
    for scores, labels in (none, only_normal, only_anomalous):
        assert image_metrics(scores, labels) == dict.fromkeys(IMAGE_METRICS)
        assert roc_curve(scores, labels) is None
        assert bootstrap_interval(scores, labels) is None


@pytest.mark.parametrize("function", [auroc, average_precision, f1_max, roc_curve, bootstrap_interval])
@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        ([1.0, np.nan], [0, 1], "score 1 is nan"),
        ([np.inf, 1.0], [0, 1], "score 0 is inf"),
        ([1.0, 2.0, 3.0], [0, 1], "equal length"),
        ([[1.0, 2.0]], [[0, 1]], "1-d"),
        ([1.0, 2.0], [0, 255], "boolean, or 0"),
    ],
)
def test_bad_lists_are_refused(function: Callable, scores: list, labels: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        function(scores, labels)


INCREASING = [lambda x: 3 * x - 7, lambda x: x**3 + x, lambda x: np.exp(x / 4), lambda x: np.arctan(x / 8)]
small_scores = hnp.arrays(np.float64, 25, elements=st.integers(-20, 20).map(float))
small_labels = hnp.arrays(np.bool_, 25)


@given(small_scores, small_labels, st.sampled_from(INCREASING), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_lists_depend_on_order_of_scores_only(scores, labels, increasing, random) -> None:
    expected = image_metrics(scores, labels)
    assert image_metrics(increasing(scores), labels) == expected
    shuffle = random.sample(range(25), 25)
    assert image_metrics(scores[shuffle], labels[shuffle]) == expected
    assert all(value is None or 0 <= value <= 1 for value in expected.values())
    if expected["image_auroc"] is not None:
        assert auroc(-scores, labels) == pytest.approx(1 - expected["image_auroc"], abs=1e-12)


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("levels", [2, 4, 20, 10**6])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_equals_loops_over_thresholds_and_regions(levels: int, limit: float) -> None:
    for seed in range(4):
        maps, masks = random_maps(seed, levels)
        assert aupro(maps, masks, limit) == pytest.approx(brute_aupro(maps, masks, limit), abs=1e-12)


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_pixel_metrics_equal_the_metrics_of_all_pixels(levels: int) -> None:
    maps, masks = random_maps(11, levels, n=5, size=12)
    scores, labels = np.concatenate(maps, axis=None), np.concatenate(masks, axis=None)
    got = pixel_metrics(maps, masks)
    assert tuple(got) == PIXEL_METRICS
    assert got["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert got["pixel_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert got["pixel_f1max"] == f1_max(scores, labels).value
    assert got["pixel_aupro"] == aupro(maps, masks)


def test_limit_cuts_a_slanted_step_by_hand() -> None:
    # Region of 2 pixels, 10 normal. Score 9: one region pixel, 2 normal -> (0.2, 0.5). Score 5: the other and
    # 2 normal -> (0.4, 1.0). At FPR 0.3 the line reads 0.75.
    # Area 0.2 * 0.5 / 2 + 0.1 * (0.5 + 0.75) / 2 = 0.1125; / 0.3 = 0.375.
    maps = [np.array([[9, 5, 1, 9, 9, 5, 5, 1, 1, 1, 1, 1]], dtype=np.float32)]
    masks = [np.array([[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]], dtype=bool)]
    assert aupro(maps, masks, 0.3) == pytest.approx(0.375, abs=1e-12)
    assert aupro(maps, masks, 0.2) == pytest.approx(0.25, abs=1e-12)
    assert aupro(maps, masks, 1.0) == pytest.approx(0.05 + 0.2 * 0.75 + 0.6, abs=1e-12)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    mask, scores = np.zeros((5, 5), dtype=bool), np.zeros((5, 5), dtype=np.float32)
    mask[[0, 1, 1], [0, 1, 2]] = True  # 8-connected: one region of 3; 4-connected: regions of 1 and 2
    scores[0, 0] = 2
    scores[4, 4] = 1
    # (0, c), then (1/22, c), then a line to (1, 1), where c is the cover of score 2: 1/3, not 1/2.
    cover, x = 1 / 3, 1 / 22
    at_limit = cover + (1 - cover) * (0.3 - x) / (1 - x)
    expected = (x * cover + (0.3 - x) * (cover + at_limit) / 2) / 0.3
    assert aupro([scores], [mask]) == pytest.approx(expected, abs=1e-12)


def test_every_region_weighs_the_same_whatever_its_area() -> None:
    mask = np.zeros((8, 20), dtype=bool)
    mask[1, 1] = True
    mask[3:7, 3:19] = True
    other = np.zeros((4, 4), dtype=bool)
    other[0, 0] = True
    missed = np.where(mask, np.float32(1), np.float32(0))
    missed[1, 1] = -1  # below every normal pixel: this third of the regions is found at FPR 1 only
    assert aupro([missed, other.astype(np.float32)], [mask, other]) == pytest.approx(2 / 3, abs=1e-12)


def test_perfect_maps_score_one_in_images_of_different_sizes() -> None:
    masks = [np.zeros(shape, dtype=bool) for shape in ((6, 9), (4, 4))]
    masks[0][2:5, 1:4] = True
    masks[0][0, 8] = True
    maps = [np.where(mask, 2.5, 1.0).astype(np.float32) for mask in masks]
    assert pixel_metrics(maps, masks) == pytest.approx(dict.fromkeys(PIXEL_METRICS, 1.0), abs=1e-12)
    assert pixel_metrics([-m for m in maps], masks)["pixel_aupro"] == pytest.approx(0, abs=1e-12)


def test_undefined_maps_are_none() -> None:
    maps, normal = [np.ones((3, 3), dtype=np.float32)], [np.zeros((3, 3), dtype=bool)]
    for given_maps, masks in (([], []), (maps, normal)):
        assert pixel_metrics(given_maps, masks) == dict.fromkeys(PIXEL_METRICS)
        assert aupro(given_maps, masks) is None
    assert pixel_metrics(maps, [~normal[0]]) == dict.fromkeys(PIXEL_METRICS)


@pytest.mark.parametrize("function", [aupro, pixel_metrics])
@pytest.mark.parametrize(
    ("maps", "masks", "words"),
    [
        ([np.zeros((2, 2))], [], "1 maps but 0 masks"),
        ([np.zeros((2, 2))], [np.zeros((2, 3), bool)], "map 0 has shape"),
        ([np.zeros(4)], [np.zeros(4, bool)], "H x W"),
        ([np.zeros((2, 2))], [np.full((2, 2), 255, np.uint8)], "mask 0 is uint8"),
        ([np.zeros((2, 2)), np.array([[np.nan]])], [np.ones((2, 2), bool), np.ones((1, 1), bool)], "map 1"),
        ([np.full((2, 2), -np.inf)], [np.zeros((2, 2), bool)], "infinite"),
    ],
)
def test_bad_maps_are_refused(function: Callable, maps: list, masks: list, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        function(maps, masks)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5, float("nan")])
def test_bad_limit_is_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="limit"):
        aupro([], [], limit)


@given(
    hnp.arrays(np.float32, (2, 6, 6), elements=st.integers(-20, 20).map(float)),
    hnp.arrays(np.bool_, (2, 6, 6)),
    st.sampled_from(INCREASING),
)
@settings(max_examples=60, deadline=None)
def test_maps_depend_on_order_of_scores_only(maps, masks, increasing) -> None:
    expected = pixel_metrics(maps, masks)
    assert pixel_metrics(increasing(maps.astype(np.float64)), masks) == expected
    assert all(value is None or 0 <= value <= 1 for value in expected.values())
    turned = pixel_metrics(maps[::-1].transpose(0, 2, 1), masks[::-1].transpose(0, 2, 1))
    assert turned == pytest.approx(expected, abs=1e-12)


def test_inputs_are_not_modified() -> None:
    maps, masks = random_maps(3, 10)
    scores, labels = random_scores(3, 10)
    copies = [array.copy() for array in (*maps, *masks, scores, labels)]
    for array in (*maps, *masks, scores, labels):
        array.flags.writeable = False
    pixel_metrics(maps, masks)
    image_metrics(scores, labels)
    roc_curve(scores, labels)
    for array, copy in zip((*maps, *masks, scores, labels), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


# ---------------------------------------------------------------- adeval


@pytest.fixture
def adeval_numpy(monkeypatch: pytest.MonkeyPatch):
    """adeval calls np.trapz, which newer numpy deprecates (a warning, here an error) and then drops."""
    if hasattr(np, "trapezoid"):
        monkeypatch.setattr(np, "trapz", np.trapezoid, raising=False)
    return pytest.importorskip("adeval")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:adeval")  # its 0 / 0 above the top score
def test_close_to_adeval_histograms(adeval_numpy) -> None:
    maps, masks = smooth_maps()
    got = pixel_metrics(list(maps), list(masks))
    roc, pr, pro = adeval_numpy.auroc_aupr_aupro(maps, masks.astype(np.uint8), nstrips=20000)
    assert got["pixel_auroc"] == pytest.approx(roc, abs=1e-4)
    assert got["pixel_aupro"] == pytest.approx(pro, abs=1e-4)
    assert got["pixel_ap"] == pytest.approx(pr, abs=1e-3)  # theirs joins the PR points by straight lines
    assert all(0.1 < value < 0.95 for value in (roc, pr, pro))  # far from the trivial ends


def test_close_to_adeval_image_scores(adeval_numpy) -> None:
    scores, labels = random_scores(2, 10**7, n=20000)
    assert auroc(scores, labels) == pytest.approx(adeval_numpy.auroc(scores, labels, nstrips=20000), abs=1e-4)


@pytest.mark.parametrize("limit", [0.05, 0.3])
def test_close_to_adeval_reference_aupro(adeval_numpy, limit: float) -> None:
    """Its au_pro module samples a threshold at every normal pixel here: exact up to one pixel of FPR."""
    from adeval.au_pro import calculate_au_pro

    maps, masks = smooth_maps(n=4, size=48)
    n_normal = int((~masks).sum())
    theirs, _ = calculate_au_pro(masks, maps, integration_limit=limit, num_thresholds=n_normal)
    assert aupro(list(maps), list(masks), limit) == pytest.approx(theirs, abs=2 / n_normal / limit)


# ---------------------------------------------------------------- averages and intervals


def test_mean_ad_is_the_mean_of_seven() -> None:
    row = dict(zip(SEVEN_METRICS, (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4), strict=True))
    assert mean_ad({**row, "mean_ad": 9.0}) == pytest.approx(0.7)
    for name in SEVEN_METRICS:
        assert mean_ad({**row, name: None}) is None
    with pytest.raises(KeyError, match="pixel_aupro"):
        mean_ad({name: row[name] for name in SEVEN_METRICS[:-1]})


def test_categories_are_averaged_before_mad() -> None:
    first = dict.fromkeys(SEVEN_METRICS, 0.5)
    second = {**dict.fromkeys(SEVEN_METRICS, 1.0), "pixel_aupro": None}
    means = mean_over_categories([first, second])
    assert tuple(means) == (*SEVEN_METRICS, "mean_ad")
    assert means["image_auroc"] == 0.75
    assert means["pixel_aupro"] == 0.5
    assert means["mean_ad"] == pytest.approx((6 * 0.75 + 0.5) / 7)

    image_only = {**first, **dict.fromkeys(PIXEL_METRICS)}
    means = mean_over_categories([image_only, image_only])
    assert means["image_ap"] == 0.5
    assert means["pixel_ap"] is None
    assert means["mean_ad"] is None
    assert mean_over_categories([]) == dict.fromkeys((*SEVEN_METRICS, "mean_ad"))


def test_a_set_counted_in_parts_is_the_set_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for levels in LEVELS:
        maps, masks = random_maps(4, levels, n=5, size=9)
        whole = pixel_metrics(maps, masks)
        for part in (1, 7, 81, 1000):
            monkeypatch.setattr("invad.metrics.exact.PART", part)
            assert pixel_metrics(maps, masks) == whole
        monkeypatch.undo()
