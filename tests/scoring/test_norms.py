"""Map, score and limits in numpy are those of PyTorch."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from invad.scoring import crossfit, norms, typicality
from invad.system.plain import from_plain, to_plain

RULES = {
    "one predictor": {"counts": (1,), "floor": 0.5},
    "one map": {"counts": (2, 1), "floor": 0.5, "top_fraction": 0.1},
    "scores of predictors": {"counts": (2, 1), "floor": 0.5, "top_fractions": (0.1, 0.02)},
    "maps for scores alone": {"counts": (2, 2), "mapped": (1, 2), "floor": 0.5, "top_fractions": (0.1, 0.02)},
    "no floor": {"counts": (1, 2), "top_fractions": (0.02, 0.1)},
}


SHARED = {"predictors": ((0,), (0, 1, 2)), "weights": (0.0, 0.5, 0.5), "top_fractions": (0.02, 0.1)}


@pytest.mark.parametrize("called", RULES)
@pytest.mark.parametrize("by_largest", [False, True])
def test_it_is_the_same_as_with_torch(called, by_largest):
    settings = RULES[called]
    same_as_with_torch(norms.CellRule.of(**settings), typicality.ScoreRule.of(**settings), by_largest)


@pytest.mark.parametrize("by_largest", [False, True])
def test_it_is_the_same_where_predictors_share_a_map(by_largest):
    same_as_with_torch(norms.CellRule(**SHARED), typicality.ScoreRule(**SHARED), by_largest)


def test_a_rule_written_by_counts_is_read_as_what_it_was():
    old = {"counts": [1, 2], "mapped": [1, 1], "floor": 0.5, "top_fraction": 0.02}
    old["top_fractions"] = [0.1, 0.2]
    read = from_plain(norms.CellRule, json.loads(json.dumps(norms.as_written_now(old))), "held")
    assert read == norms.CellRule.of((1, 2), (1, 1), floor=0.5, top_fractions=(0.1, 0.2))
    assert (read.predictors, read.weights) == (((0,), (1, 2)), (0.5, 0.5, 0))
    now = to_plain(read)
    assert norms.as_written_now(now) == now


def same_as_with_torch(own, torched, by_largest):
    rng = np.random.default_rng(3)
    maps = rng.gamma(3, 2, (23, len(own.weights), 6, 7)).astype(np.float32)
    categories, groups = ["a"] * 13 + ["b"] * 10, [*range(20), 19, 19, 18]
    if by_largest:
        torched = replace(torched, of_map=lambda map_Bhw: map_Bhw.flatten(1).amax(dim=1))
    of_map = (lambda map_hw: float(map_hw.max())) if by_largest else None
    expected = crossfit.cross_fit(torch.from_numpy(maps), torched, categories, groups)
    found = norms.cross_fit(maps, own, categories, groups, of_map)
    stats = found.stats
    assert found.scores == pytest.approx(expected.scores, rel=1e-5)
    assert found.peaks == pytest.approx(expected.peaks, rel=1e-5)
    np.testing.assert_allclose(found.maps_Nhw, expected.maps_Nhw.numpy(), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(stats.median_Lhw, expected.stats.median_Lhw.numpy())
    np.testing.assert_array_equal(stats.scale_Lhw, expected.stats.scale_Lhw.numpy())
    far = (maps * np.linspace(0.2, 40, 23, dtype=np.float32)[:, None, None, None]).astype(np.float32)
    told_B, map_Bhw = typicality.judge(torch.from_numpy(far), expected.stats, torched)
    found_B, found_Bhw = norms.judge(far, stats, own, of_map)
    np.testing.assert_allclose(found_B, told_B.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found_Bhw, map_Bhw.numpy(), rtol=1e-5, atol=1e-4)


def test_where_pictures_move_a_place_says_how_near_the_border_is_and_no_more():
    rng, rule = np.random.default_rng(0), norms.CellRule.of((1, 1))
    maps = rng.normal(5, 1, (40, 2, 7, 9))
    maps[:, :, 3, 4] += 50  # one place that is odd in every picture
    ring = np.ones((7, 9), int)
    ring[1:-1, 1:-1], ring[2:-2, 2:-2] = 2, 3
    maps += 10.0 * (ring == 1) + 4.0 * (ring == 2) * rng.normal(size=(40, 1, 7, 9))
    counted = np.ones((40, 7, 9), bool)
    stats = norms.ring_stats(maps, counted, 2, rule)
    for number in (1, 2, 3):
        own = maps.swapaxes(0, 1)[:, :, ring == number].reshape(2, -1)
        expected = np.median(own, axis=1)
        assert (stats.median_Lhw[:, ring == number] == expected.astype(np.float32)[:, None]).all()
        if number == 3:
            spread = 1.4826 * np.median(np.abs(own - expected[:, None]), axis=1)
            np.testing.assert_allclose(stats.scale_Lhw[:, 3, 4], spread, rtol=1e-4)
    one = norms.ring_stats(np.ones((1, 1, 2, 2)), np.ones((1, 2, 2), bool), 1, norms.CellRule.of((1,)))
    assert (one.scale_Lhw > 0).all()
    # A ring of which nothing counts anywhere is judged by all of its cells.
    without = norms.ring_stats(maps, counted & (ring > 1), 2, rule)
    assert (without.median_Lhw == stats.median_Lhw).all()


def test_tails_near_the_border_are_as_long_as_within():
    rng, rule = np.random.default_rng(0), norms.CellRule.of((2, 1))
    maps = rng.normal(5, 1, (60, 3, 12, 14))
    ring = np.ones((12, 14), bool)
    ring[1:-1, 1:-1] = False
    odd = ring & (rng.random((60, 12, 14)) < 0.03)
    plain = maps.copy()
    maps += 9 * odd[:, None]  # A few, of which median and MAD know nothing.
    counted, within = np.ones((60, 12, 14), bool), np.s_[:, 2:-2, 2:-2]

    def tail(stats, cells_hw):
        values = np.sort(norms.typicality_map(maps.astype(np.float32), stats, rule)[:, cells_hw].ravel())
        return values[-round(0.01 * values.size) :].mean()

    inner = np.zeros((12, 14), bool)
    inner[2:-2, 2:-2] = True
    before = norms.ring_stats(plain, counted, 2, rule)
    even = norms.ring_stats(maps, counted, 2, rule)
    assert tail(before, ring) > 2 * tail(before, inner)
    assert tail(even, ring) == pytest.approx(tail(even, inner), rel=1e-3)
    np.testing.assert_allclose(even.scale_Lhw[within], before.scale_Lhw[within], rtol=1e-6)
    # A date code that does not count makes no cell less sensitive, and a shorter tail makes none more so.
    ignored = norms.ring_stats(maps, counted & ~odd, 2, rule)
    np.testing.assert_allclose(ignored.scale_Lhw, before.scale_Lhw, rtol=0.1)
    short = np.where(ring, plain.clip(4.5, 5.5), plain)
    spread = 1.4826 * np.median(np.abs(short[:, 0, ring] - np.median(short[:, 0, ring])))
    assert norms.ring_stats(short, counted, 2, rule).scale_Lhw[0, 0, 0] == pytest.approx(spread, rel=1e-3)
