"""Fused scores of parts: closed forms, and that the promise of the limits holds for parts."""

from dataclasses import replace

import numpy as np
import pytest

from invad.errors import DataError, NotCalibratedError
from invad.scoring.fusion import TOP_FRACTION, decide, fit_fusion, fuse, map_score
from invad.scoring.rates import Rates

SCALES = {"a": (1.0, 0.5), "b": (10.0, 2.0)}


def fitted(scores_NM, cells_NMhw=None, groups=None, kind="scores", rates=None):
    n, m = np.shape(scores_NM)
    return fit_fusion(
        np.asarray(scores_NM),
        np.zeros((n, m, 2, 2)) if cells_NMhw is None else cells_NMhw,
        range(n) if groups is None else groups,
        rule="names",
        kind=kind,
        members=[f"m{i}" for i in range(m)],
        windows=[(0.0, 1.0)] * m,
        rates=rates or Rates(),
    )


def test_the_score_is_the_largest_distance_in_spreads():
    fused = fuse("scores", SCALES, {"a": 2.0, "b": 13.0}, {})
    assert fused.above == {"a": 2.0, "b": 1.5}
    assert fused.score == 2.0
    assert fused.map_hw is None


def test_cells_take_the_largest_of_each_place():
    a, b = np.array([[1.0, 2.0], [1.0, 1.0]]), np.array([[10.0, 10.0], [16.0, 10.0]])
    fused = fuse("cells", SCALES, {}, {"a": a, "b": b})
    assert fused.map_hw.tolist() == [[0.0, 2.0], [3.0, 0.0]]
    assert fused.score == 3.0
    assert fused.above == {"a": 2.0, "b": 3.0}


def test_where_one_member_sees_it_alone_cells_say_what_scores_say():
    rng = np.random.default_rng(0)
    quiet, loud = rng.normal(0, 1, (16, 16)), rng.normal(0, 1, (16, 16)) + 50
    scales = {"a": (0.0, 1.0), "b": (0.0, 1.0)}
    cells = fuse("cells", scales, {}, {"a": quiet, "b": loud})
    scores = fuse("scores", scales, {"a": map_score(quiet), "b": map_score(loud)}, {})
    assert cells.score == pytest.approx(scores.score, abs=1e-12)


def test_cells_of_different_shapes_are_refused():
    with pytest.raises(DataError, match="different shapes"):
        fuse("cells", SCALES, {}, {"a": np.zeros((2, 2)), "b": np.zeros((2, 3))})


def test_the_map_score_is_that_of_the_largest_cells():
    values = np.random.default_rng(1).permutation(400).reshape(20, 20)
    count = round(TOP_FRACTION * 400)
    assert map_score(values) == np.mean(range(400 - count, 400))
    assert map_score(np.array([[3.0, 1.0]])) == 3.0


def test_limits_of_parts_keep_the_rate_where_limits_of_pictures_would_not():
    """Five independent views: by the limit of each at 5 %, 23 % of good parts would be called."""
    rng = np.random.default_rng(2)
    fusion = fitted(rng.normal(5, 1, (400, 5)), rates=Rates(review=0.05, bad=0.01))
    new = rng.normal(5, 1, (4000, 5))
    scored = [fuse("scores", fusion.scales, dict(zip(fusion.members, one, strict=True)), {}) for one in new]
    called = np.mean([fusion.calibration.decide(one.score) != "good" for one in scored])
    assert 0.02 < called < 0.09
    assert np.mean([max(one.above.values()) > 1.645 for one in scored]) > 0.2


def test_the_scale_of_a_member_does_not_count():
    scores = np.random.default_rng(3).normal(8, 2, (40, 3))
    one, other = fitted(scores), fitted(scores * [1, 1000, 0.001])
    assert one.calibration.scores == pytest.approx(other.calibration.scores, rel=1e-9)


def test_a_part_of_which_something_is_missing_is_never_good():
    fusion = fitted(np.random.default_rng(4).normal(5, 1, (200, 2)))
    assert decide(fusion, -1.0, "")[1] == "good"
    assert decide(fusion, -1.0, "no m1") == (pytest.approx(1.0, abs=0.1), "review")
    assert decide(fusion, 100.0, "no m1")[1] == "bad"
    assert decide(fusion, None, "no m0; no m1") == (None, "review")


def test_parts_of_one_lot_count_as_one():
    scores = np.random.default_rng(5).normal(5, 1, (40, 2))
    fusion = fitted(scores, groups=[i // 4 for i in range(40)])
    assert fusion.calibration.n == 10
    assert fusion.unit == "independent groups of good parts"


def test_a_spread_of_nothing_is_refused():
    fusion = fitted(np.random.default_rng(6).normal(5, 1, (20, 2)))
    with pytest.raises(NotCalibratedError, match="spread is not above 0"):
        replace(fusion, spreads=(1.0, 0.0))
    with pytest.raises(NotCalibratedError, match="different lengths"):
        replace(fusion, members=("a", "b", "c"))
