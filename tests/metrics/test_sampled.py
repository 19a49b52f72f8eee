"""Sampled metrics against the adeval package and against loops over the thresholds that the others use."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from invad.errors import ConfigError
from invad.evaluation.definitions import DEFINITIONS, definitions_named
from invad.metrics.exact import IMAGE_METRICS, PIXEL_METRICS, image_metrics, pixel_metrics
from invad.metrics.sampled import (
    ader_aupro,
    ader_f1_max,
    adeval_image,
    adeval_pixel,
    adeval_thresholds,
    extremes,
    official_f1_max,
)

SEEDS = st.integers(0, 2**32 - 1)
LEVELS = st.sampled_from([3, 50, 1000, 10**7])


@pytest.fixture(scope="module")
def adeval():
    """The package calls np.trapz, which newer numpy deprecates (a warning, here an error) and then drops."""
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(np, "trapezoid"):
            patch.setattr(np, "trapz", np.trapezoid, raising=False)
        yield pytest.importorskip("adeval")


def random_set(seed, levels, n=4, side=12):
    """Maps float32 and masks with one to few regions; the first without, the last with a defect."""
    rng = np.random.default_rng(seed)
    maps = np.floor(rng.random((n, side, side)) * levels) / 7 - levels / 20
    masks = rng.random((n, side, side)) < rng.uniform(0.02, 0.3)
    masks[0] = False
    masks[-1, 2:4, 5:8] = True
    maps = (maps + masks * rng.uniform(-1, 1) * levels / 10).astype(np.float32)
    maps[0, 0, :2] = maps.min() - 1, maps.max() + 1  # so that the range is never zero
    return list(maps), list(masks)


def random_scores(seed, levels, dtype):
    rng = np.random.default_rng(seed)
    labels = rng.random(200) < rng.uniform(0.05, 0.9)
    labels[:2] = False, True
    scores = np.floor(rng.random(200) * levels) / 3 + labels * rng.uniform(0, 1) * levels
    scores[:2] = scores.min() - 1, scores.max() + 1
    return scores.astype(dtype), labels


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:adeval")  # its 0 / 0 above the top score
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, levels=LEVELS)
def test_pixels_are_those_of_adeval(adeval, seed, levels):
    maps, masks = random_set(seed, levels)
    ours = adeval_pixel(maps, masks)
    try:
        roc, pr, pro = adeval.auroc_aupr_aupro(np.stack(maps), np.stack(masks).astype(np.uint8))
    except (AssertionError, IndexError):  # its own, where a rounded area is below zero or the curve is short
        assume(False)
    assert ours["pixel_auroc"] == pytest.approx(roc, abs=1e-6)
    assert ours["pixel_ap"] == pytest.approx(pr, abs=1e-6)
    if np.isfinite(pro):  # it divides zero by zero where no defect is covered yet at the limit
        assert ours["pixel_aupro"] == pytest.approx(pro, abs=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning:adeval")
@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, levels=LEVELS, dtype=st.sampled_from([np.float32, np.float64]))
def test_images_are_those_of_adeval(adeval, seed, levels, dtype):
    scores, labels = random_scores(seed, levels, dtype)
    roc, pr = adeval.auroc_and_aupr(scores, labels)
    ours = adeval_image(scores, labels)
    assert ours["image_auroc"] == pytest.approx(roc, abs=1e-6)
    assert ours["image_ap"] == pytest.approx(pr, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_f1_at_the_thresholds_of_adeval_by_hand(seed):
    scores, labels = random_scores(seed, 10**7, np.float64)
    best = 0.0
    for t in adeval_thresholds(float(scores.min()), float(scores.max())):
        called = scores >= np.float64(t)
        best = max(best, 2 * (called & labels).sum() / (called.sum() + labels.sum()))
    assert adeval_image(scores, labels)["image_f1max"] == pytest.approx(best, abs=1e-12)
    assert adeval_image(scores, labels)["image_f1max"] <= image_metrics(scores, labels)["image_f1max"] + 1e-12


def regions_of(masks):
    from scipy.ndimage import label

    for n, mask in enumerate(masks):
        numbered, count = label(mask, np.ones((3, 3)))
        for k in range(1, count + 1):
            yield n, numbered == k


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, levels=LEVELS)
def test_aupro_of_200_steps_by_a_loop(seed, levels):
    maps, masks = random_set(seed, levels)
    low, high = extremes(maps)
    everything, truth = np.stack(maps).astype(np.float64), np.stack(masks)
    points = []
    for k in range(200):
        called = everything > low + k * ((high - low) / 200)
        covered = [called[n][region].mean() for n, region in regions_of(masks)]
        rate = called[~truth].mean()
        if rate < 0.3:
            points.append((rate, np.mean(covered)))
    points.sort()
    fpr, pro = (np.array(side) for side in zip(*points, strict=True))
    ours = ader_aupro(maps, masks)
    if fpr[0] == fpr[-1]:
        assert ours is None
    else:
        fpr = (fpr - fpr.min()) / (fpr.max() - fpr.min())
        area = sum((b - a) * (c + d) / 2 for a, b, c, d in zip(fpr, fpr[1:], pro, pro[1:], strict=False))
        assert ours == pytest.approx(area, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, levels=LEVELS)
def test_sampled_f1_by_loops(seed, levels):
    maps, masks = random_set(seed, levels)
    low, high = extremes(maps)
    scaled = (np.stack(maps) - low) / (high - low)
    truth = np.stack(masks)

    def f1(called):
        return 2 * (called & truth).sum() / (called.sum() + truth.sum())

    assert ader_f1_max(maps, masks) == pytest.approx(max(f1(scaled > k / 20) for k in range(21)), abs=1e-6)
    bins = ((np.stack(maps) - low) / (high - low + 1e-8) * 999).astype(int)
    by_hand = max(f1(bins >= k) for k in range(1000))
    assert official_f1_max(maps, masks) == pytest.approx(by_hand, abs=1e-9)
    assert official_f1_max(maps, masks) <= pixel_metrics(maps, masks)["pixel_f1max"] + 1e-12


def test_scores_that_are_all_equal_have_no_thresholds():
    maps, masks = [np.ones((4, 4), np.float32)], [np.eye(4, dtype=bool)]
    assert adeval_pixel(maps, masks) == dict.fromkeys(PIXEL_METRICS)
    assert ader_aupro(maps, masks) is ader_f1_max(maps, masks) is None
    assert adeval_image(np.ones(4), np.array([0, 1, 0, 1], bool)) == dict.fromkeys(IMAGE_METRICS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_definition_copes_with_one_class_only(name):
    definition = DEFINITIONS[name]
    scores = np.array([0.5, 1.0, 2.0])
    assert definition.image(scores, np.zeros(3, bool)) == dict.fromkeys(IMAGE_METRICS)
    assert definition.image(scores, np.ones(3, bool)) == dict.fromkeys(IMAGE_METRICS)
    maps = [np.arange(16, dtype=np.float32).reshape(4, 4)]
    assert definition.pixel(maps, [np.zeros((4, 4), bool)]) == dict.fromkeys(PIXEL_METRICS)
    assert definition.pixel(maps, [np.ones((4, 4), bool)]) == dict.fromkeys(PIXEL_METRICS)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_perfect_detector_is_perfect_by_every_definition(name):
    definition = DEFINITIONS[name]
    assert tuple(definition.told) == tuple(DEFINITIONS["exact"].told)
    mask = np.zeros((20, 20), bool)
    mask[4:9, 5:12] = True
    rng = np.random.default_rng(0)
    maps = [(rng.random((20, 20)) + 9 * mask).astype(np.float32), rng.random((20, 20)).astype(np.float32)]
    found = definition.pixel(maps, [mask, np.zeros_like(mask)])
    assert tuple(found) == PIXEL_METRICS
    # The curve of adeval does not start at recall 0, and here one pixel in 35 stands at the first threshold.
    short = {"pixel_ap": 1 - 1 / 35} if name == "adeval" else {}
    assert found == pytest.approx({**dict.fromkeys(PIXEL_METRICS, 1.0), **short}, abs=2e-3)


def test_masks_by_rule():
    codes = np.zeros((8, 8), np.uint8)
    codes[2:6, 2:6] = 1
    codes[3:5, 3:5] = 2
    sums = {name: int(d.mask(codes, 2, (8, 8)).sum()) for name, d in DEFINITIONS.items()}
    assert sums == {"exact": 4, "adeval": 4, "ader200": 16, "official": 16}
    labels = np.minimum(codes, 1)
    assert {int(d.mask(labels, 1, (8, 8)).sum()) for d in DEFINITIONS.values()} == {16}
    line = np.zeros((512, 512), np.uint8)
    line[100] = 2
    sums = {name: int(d.mask(line, 1, (256, 256)).sum()) for name, d in DEFINITIONS.items()}
    assert sums["ader200"] == 0
    assert not any(d.mask(np.zeros((4, 4), np.uint8), 1, (4, 4)).any() for d in DEFINITIONS.values())


def test_names():
    assert list(definitions_named(["adeval", "exact"])) == ["adeval", "exact"]
    with pytest.raises(ConfigError, match="'best' is unknown; choose from exact, adeval, ader200, official"):
        definitions_named(["exact", "best"])
    with pytest.raises(ConfigError, match="no metric definition"):
        definitions_named([])
