"""Oracles: simulation of limits, and densities integrated for every count."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta, binom

from invad.metrics.alarms import count_interval, realised_interval


@pytest.mark.parametrize(("n", "rate"), [(43, 0.05), (99, 0.01), (19, 0.05), (30, 0.29)])
def test_a_limit_realises_its_beta_distribution(n: int, rate: float) -> None:
    """Against simulation: the limit is the k-th largest of n uniform scores."""
    k = math.floor(rate * (n + 1) + 1e-9)
    scores = np.sort(np.random.default_rng(0).random((20_000, n)), axis=1)
    low, high = realised_interval(n, rate)
    shares = 1 - scores[:, n - k]
    assert np.mean(shares) == pytest.approx(k / (n + 1), rel=0.03)
    assert np.mean(shares < low) == pytest.approx(0.025, abs=0.004)
    assert np.mean(shares > high) == pytest.approx(0.025, abs=0.004)


def test_the_5_percent_limit_of_43_realises_between_half_a_percent_and_twelve() -> None:
    low, high = realised_interval(43, 0.05)
    assert (round(low, 4), round(high, 4)) == tuple(np.round(beta.ppf([0.025, 0.975], 2, 42), 4))
    assert (round(low, 3), round(high, 2)) == (0.006, 0.12)


@pytest.mark.parametrize(
    "judged", [[(60, 43)], [(40, 19), (25, 99)], [(10, 30), (5, None), (0, 8)], [(90, 9)]]
)
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_counts_lie_within_their_interval_as_often_as_it_says(
    judged: list[tuple[int, int | None]], confidence: float
) -> None:
    """Against brute force: every count of every calibration, from densities that are integrated."""
    rate, tail = 0.05, (1 - confidence) / 2
    mass = {0: 1.0}
    for m, n in judged:
        own = [
            quad(lambda p, c=count, m=m, n=n: binom.pmf(c, m, p) * density(n, rate, p), 0, 1, limit=400)[0]
            if n is not None
            else binom.pmf(count, m, rate)
            for count in range(m + 1)
        ]
        mass = {
            total: sum(mass.get(total - count, 0.0) * own[count] for count in range(m + 1))
            for total in range(max(mass) + m + 1)
        }
    low, high = count_interval(judged, rate, confidence)
    assert sum(v for k, v in mass.items() if k < low) < tail <= sum(v for k, v in mass.items() if k <= low)
    assert sum(v for k, v in mass.items() if k > high) <= tail < sum(v for k, v in mass.items() if k >= high)


def density(n: int, rate: float, p: float) -> float:
    k = math.floor(rate * (n + 1) + 1e-9)
    a = k if k >= 1 else rate * (n + 1)
    return float(beta.pdf(p, a, n + 1 - a))


def test_counts_vary_more_than_those_of_a_limit_that_is_known() -> None:
    assert count_interval([(100, None)], 0.05) == (1, 10)
    assert count_interval([(100, 10**7)], 0.05) == (1, 10)
    low, high = count_interval([(100, 43)], 0.05)
    assert low == 0
    assert high > 12
    # Independent calibrations even each other out; one that judges all does not.
    assert count_interval([(10, 43)] * 10, 0.05)[1] < high


def test_intervals_end_where_there_is_nothing_to_count() -> None:
    assert count_interval([], 0.3) == count_interval([(0, 8)], 0.3) == (0, 0)
    for judged, rate in (([(-1, 8)], 0.5), ([(5, 0)], 0.5), ([(5, 8)], 0.0), ([(5, 8)], 1.0)):
        with pytest.raises(ValueError, match="need"):
            count_interval(judged, rate)
    with pytest.raises(ValueError, match="need"):
        realised_interval(9, 1.5)
