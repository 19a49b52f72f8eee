from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from invad.errors import ConfigError, NotCalibratedError
from invad.scoring.calibration import Calibration, for_category, upper_limit
from invad.scoring.holding import folds, hold_out
from invad.scoring.rates import POOLED, Rates

scores = st.lists(st.integers(-5, 5).map(float) | st.floats(-1e6, 1e6), min_size=1, max_size=120)
rates = st.sampled_from([Fraction(k, 100) for k in (1, 2, 5, 7, 10, 29, 50, 57)])


def calibration(values, **rate):
    return Calibration(scores=tuple(sorted(values)), peaks=tuple(sorted(values)), rates=Rates(**rate))


# p-values


@given(scores, st.floats(-1e6, 1e6) | st.integers(-6, 6).map(float))
def test_p_value_by_brute_force(values, score):
    count = sum(1 for v in values if v >= score)
    assert calibration(values).p_value(score) == (1 + count) / (len(values) + 1)


@given(scores, scores)
def test_p_values_fall_as_scores_rise(values, others):
    found = [calibration(values).p_value(s) for s in sorted(others)]
    assert found == sorted(found, reverse=True)
    assert all(0 < p <= 1 for p in found)


def test_coverage_of_split_conformal():
    """With continuous scores the false-alarm rate given the calibration set is Beta(k, n + 1 - k): exact."""
    rng, n, rate = np.random.default_rng(0), 39, 0.05
    k = int(rate * (n + 1))
    limits = [upper_limit(rng.normal(size=n), rate) for _ in range(2000)]
    fresh = rng.normal(size=2000)
    alarms = int(sum(f > limit for f, limit in zip(fresh, limits, strict=True)))
    low, high = binom.interval(0.9999, 2000, k / (n + 1))
    assert low <= alarms <= high
    uniform = rng.uniform(size=(2000, n))
    shares = np.array([1 - upper_limit(row, rate) for row in uniform])
    for q in (0.1, 0.5, 0.9):
        below = np.mean(shares <= beta(k, n + 1 - k).ppf(q))
        assert abs(below - q) < 5 * np.sqrt(q * (1 - q) / 2000)


def test_p_values_of_new_normals_are_uniform():
    rng, n, trials = np.random.default_rng(1), 19, 4000
    found = [calibration(rng.normal(size=n)).p_value(rng.normal()) for _ in range(trials)]
    counts = np.bincount(np.round(np.array(found) * (n + 1)).astype(int), minlength=n + 2)[1:]
    assert counts.sum() == trials
    low, high = binom.interval(1 - 1e-5, trials, 1 / (n + 1))
    assert low <= counts.min()
    assert counts.max() <= high


# Limits


@given(scores, rates)
def test_a_limit_flags_at_most_its_rate_of_its_own_set(values, rate):
    limit = upper_limit(np.array(values), float(rate))
    assert Fraction(sum(v > limit for v in values), len(values)) <= rate


@given(scores, rates, st.floats(-1e6, 1e6) | st.integers(-6, 6).map(float))
def test_above_the_limit_is_the_same_as_a_small_p_value(values, rate, score):
    n = len(values)
    if Fraction(1, n + 1) > rate:
        return
    p = Fraction(1 + sum(v >= score for v in values), n + 1)
    assert (score > upper_limit(np.array(values), float(rate))) == (p <= rate)


@pytest.mark.parametrize("percent", range(1, 100))
def test_a_rate_that_floats_cannot_hold_is_still_reached(percent):
    """0.29 * 100 is a little below 29."""
    assert upper_limit(np.arange(1.0, 100.0), percent / 100) == 100 - percent


@given(scores, rates)
def test_a_smaller_rate_never_has_a_lower_limit(values, rate):
    array = np.array(values)
    assert upper_limit(array, float(rate) / 3) >= upper_limit(array, float(rate))


@given(scores, st.floats(1e-6, 0.5))
def test_an_extrapolated_limit_is_not_below_the_largest_score(values, rate):
    if rate * (len(values) + 1) < 1:
        assert upper_limit(np.array(values), rate) >= max(values)


def test_the_extrapolated_limit_is_the_quantile_of_an_exponential():
    """-log(rate) for a unit exponential; the estimate from 50 scores is right in the mean within 10 %."""
    rng, rate = np.random.default_rng(2), 0.002
    found = np.array([upper_limit(rng.exponential(size=50), rate) for _ in range(2000)])
    assert found.mean() == pytest.approx(-np.log(rate), rel=0.1)


def test_extrapolation_moves_and_scales_with_the_scores():
    values = np.random.default_rng(3).exponential(size=20)
    moved = upper_limit(3 * values + 7, 0.01)
    assert moved == pytest.approx(3 * upper_limit(values, 0.01) + 7, rel=1e-12)


def test_the_extrapolated_limit_by_hand():
    # n = 8, m = 4: u = 4, mean excess (1 + 2 + 3 + 4) / 4 = 2.5, 4 + 2.5 log(0.5 / 0.01)
    assert upper_limit(np.arange(1.0, 9.0), 0.01) == pytest.approx(4 + 2.5 * np.log(50))
    assert upper_limit(np.array([3.0]), 0.01) == 3.0


# Decisions


@given(scores, st.floats(-2e6, 2e6))
def test_decisions_follow_the_limits(values, score):
    made = calibration(values)
    review, bad = made.score_limits()
    assert review <= bad
    assert made.decide(score) == ("bad" if score > bad else "review" if score > review else "good")


def test_a_score_that_is_not_a_number_never_passes():
    made = calibration(range(100))
    assert made.decide(float("nan")) == "bad"
    assert made.p_value(float("nan")) == 1 / 101


def test_map_limits_come_from_the_peaks():
    made = Calibration(scores=(0.0,) * 99, peaks=tuple(map(float, range(99))))
    assert made.score_limits() == (0.0, 0.0)
    assert made.map_limits() == (94.0, 98.0)


def test_warnings_only_where_n_is_too_small():
    assert calibration(range(99)).warnings() == ()
    few = calibration(range(98)).warnings()
    assert len(few) == 1
    assert "bad limit" in few[0]
    assert "1.00%" in few[0]
    assert "98 normal images" in few[0]
    assert "at least 99" in few[0]
    assert ["review" in line for line in calibration(range(18)).warnings()] == [True, False]
    assert calibration(range(19)).warnings()[0].startswith("the bad")


@pytest.mark.parametrize("rate", [{"review": 0.0}, {"bad": 1.0}, {"bad": -1.0}, {"review": float("nan")}])
def test_impossible_rates(rate):
    with pytest.raises(ConfigError, match="false-alarm rate = "):
        Rates(**rate)


def test_the_bad_rate_may_not_exceed_the_review_rate():
    with pytest.raises(ConfigError, match=r"bad rate 0.1 > review rate 0.05"):
        Rates(bad=0.1)


def test_no_scores_or_no_numbers_are_no_calibration():
    with pytest.raises(NotCalibratedError, match="invad calibrate"):
        Calibration(scores=(), peaks=())
    with pytest.raises(NotCalibratedError, match="finite"):
        Calibration(scores=(1.0,), peaks=(float("inf"),))


def test_a_category_without_calibration_is_an_error_that_names_the_known():
    pooled, own = calibration([1.0]), calibration([2.0])
    both = {POOLED: pooled, "a": own}
    assert for_category(both, "a") is own
    assert for_category(both, None) is pooled
    with pytest.raises(ConfigError, match="no category 'b'; choose from a"):
        for_category(both, "b")
    with pytest.raises(NotCalibratedError, match="invad calibrate"):
        for_category({}, None)


# Splits


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=70), st.integers(2, 6), st.integers(0, 3))
def test_folds_partition_and_spread_every_category(groups, count, seed):
    pairs = list(folds(groups, count, seed))
    assert len(pairs) == min(count, len(groups))
    assert sorted(np.concatenate([fold for _, fold in pairs])) == list(range(len(groups)))
    sizes = [len(fold) for _, fold in pairs]
    assert max(sizes) - min(sizes) <= 1
    for rest, fold in pairs:
        assert sorted([*rest, *fold]) == list(range(len(groups)))
        for group in set(groups):
            inside = sum(groups[i] == group for i in fold)
            share = groups.count(group) / len(pairs)
            assert share - 1 < inside < share + 1


def test_folds_repeat_and_are_shuffled():
    first, again, other = ([f.tolist() for _, f in folds(["a"] * 20, 4, s)] for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[0] != list(range(0, 20, 4))


@given(st.integers(1, 300), st.integers(0, 5))
def test_hold_out(n, seed):
    kept, held = hold_out(n, seed)
    assert sorted([*kept, *held]) == list(range(n))
    assert len(held) == min(max(8, round(0.2 * n)), n // 2)
    assert [a.tolist() for a in hold_out(n, seed)] == [kept.tolist(), held.tolist()]


def test_a_category_is_found_in_either_form_of_its_accents():
    one, other = (Calibration(scores=scores, peaks=scores) for scores in ((1.0, 2.0), (3.0,)))
    assert for_category({"": one, "é": other}, "e\u0301") is other
