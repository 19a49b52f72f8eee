"""Drift: the formulas against a slow loop, and what they promise against simulated lines."""

import math
from dataclasses import replace

import numpy as np
import pytest

from invad.errors import ConfigError, DataError
from invad.scoring.calibration import Calibration, upper_limit
from invad.scoring.drift import (
    DriftSettings,
    Monitor,
    autocorrelation,
    jumped,
    rank,
    reference_below,
    start,
    thinning,
    uniform,
)
from invad.scoring.rates import Rates


def slow(reference, stream, limit, settings, seed):
    """(R, E, p) after each part, written as the definition is, without logarithms or sorting."""
    seen, capital, evidence, effect = list(reference), [1 / 3] * 3, 0.0, 0.5
    rows = []
    for number, score in enumerate(stream, 1):
        p = None
        if score <= limit and (number - 1) % settings.every == 0:
            u = uniform(seed, number)
            p = (sum(s > score for s in seen) + u * (1 + sum(s == score for s in seen))) / (len(seen) + 1)
            if len(seen) < settings.most:
                seen.append(score)
            before = sum(capital)
            capital = [
                ((1 - settings.jump) * c + settings.jump * before / 3) * (1 + e * (p - 0.5))
                for c, e in zip(capital, (-1, 0, 1), strict=True)
            ]
            growth = sum(capital) / before
            evidence = growth * (1 + evidence)
            above, same = sum(s > score for s in reference), sum(s == score for s in reference)
            effect += ((above + u * (1 + same)) / (len(reference) + 1) - effect) / settings.memory
        rows.append((evidence, effect, p))
    return rows


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("most", [60, 50_000])
def test_it_is_the_definition(every, most):
    rng = np.random.default_rng(0)
    reference = rng.normal(size=50).round(1).tolist()
    stream = (rng.normal(size=400).round(1) + np.linspace(0, 1, 400)).tolist()
    settings = DriftSettings(evidence=1e12, every=every, most=most)
    monitor = Monitor(reference=sorted(reference), limit=1.5, settings=settings, seed=7)
    for score, (evidence, effect, p) in zip(stream, slow(reference, stream, 1.5, settings, 7), strict=True):
        found = monitor.update(score)
        assert (found.p is None) == (p is None)
        assert p is None or found.p == pytest.approx(p, rel=1e-12)
        assert 10**found.log10_evidence == pytest.approx(evidence, rel=1e-9)
        assert found.effect == pytest.approx(effect, rel=1e-12)


def test_a_fair_bet_gains_nothing_in_the_mean():
    """The growth is linear in p, so its mean over uniform p is that at 1/2."""
    for capital in ((1 / 3, 1 / 3, 1 / 3), (0.7, 0.2, 0.1)):
        low, high, middle = (jumped(capital, p, 0.01)[1] for p in (0.0, 1.0, 0.5))
        assert middle == pytest.approx(1, rel=1e-12)
        assert (low + high) / 2 == pytest.approx(1, rel=1e-12)


def test_ranks_are_uniform_also_with_ties():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=3000).round(1)
    monitor = Monitor(reference=sorted(scores[:100].tolist()), limit=math.inf, seed=3)
    ranks = np.sort([monitor.update(score).p for score in scores[100:].tolist()])
    steps = np.arange(1, len(ranks) + 1) / len(ranks)
    assert np.abs(ranks - steps).max() < 1.63 / math.sqrt(len(ranks))  # Kolmogorov, 1 %
    assert abs(autocorrelation(np.array(ranks[rng.permutation(len(ranks))]))) < 0.06
    assert rank([1.0, 2.0, 2.0, 3.0], 2.0, 0.5) == (1 + 0.5 * 3) / 5


def streams(count, length, n, rng, settings, shift=None):
    """(parts until R reaches c, or None; whether there was an alarm) of simulated lines, censored."""
    found = []
    for seed in range(count):
        calibration = rng.normal(size=n)
        limit = upper_limit(calibration, 0.05)
        monitor = Monitor(
            reference=reference_below(calibration, limit), limit=limit, settings=settings, seed=seed
        )
        stream = rng.normal(size=length) + (0 if shift is None else shift)
        reached = None
        for number, score in enumerate(stream.tolist()):
            reading = monitor.update(score)
            if reading.notice and reached is None:
                reached = number
            if reading.alarm:
                break
        found.append((reached, monitor.alarmed))
    return found


def test_without_change_notices_are_as_rare_as_promised():
    """The mean time to R >= c is at least c, so within c / 5 parts at most a fifth of the lines reach it."""
    rng = np.random.default_rng(2)
    found = streams(60, 2000, 99, rng, DriftSettings(evidence=1e4))
    assert sum(reached is not None for reached, _ in found) <= 60 / 5 + 9  # three standard deviations
    assert sum(alarm for _, alarm in found) == 0


def test_many_parts_without_change_raise_nothing():
    rng = np.random.default_rng(3)
    ((reached, alarm),) = streams(1, 40_000, 500, rng, DriftSettings(most=20_000))
    assert (reached, alarm) == (None, False)


@pytest.mark.parametrize(("shift", "most", "least"), [(0.5, 500, 12), (1.0, 200, 12), (-1.0, 200, 12)])
def test_a_change_is_found_and_dated(shift, most, least):
    rng = np.random.default_rng(4)
    settings = DriftSettings(evidence=1e4)
    late = np.concatenate([np.zeros(1000), np.full(1500, shift)])
    delays, dates = [], []
    for seed in range(12):
        calibration = rng.normal(size=200)
        limit = upper_limit(calibration, 0.05)
        monitor = Monitor(
            reference=reference_below(calibration, limit), limit=limit, settings=settings, seed=seed
        )
        for number, score in enumerate((rng.normal(size=2500) + late).tolist()):
            reading = monitor.update(score)
            if reading.alarm:
                delays.append(number - 1000)
                dates.append(reading.since - 1000)
                break
    assert len(delays) >= least
    assert np.median(delays) < most
    assert abs(np.median(dates)) < 100
    assert (monitor.effect < 0.5) == (shift > 0)


def test_a_slow_change_is_noticed_before_twice_as_many_are_flagged():
    """A lamp: 2,000 parts a day, each day 0.03 standard deviations brighter."""
    rng = np.random.default_rng(12)
    calibration = rng.normal(size=500)
    limit = upper_limit(calibration, 0.05)
    monitor = Monitor(reference=reference_below(calibration, limit), limit=limit)
    noticed = alarmed = None
    for day in range(30):
        for score in (rng.normal(size=2000) + 0.03 * day).tolist():
            reading = monitor.update(score)
            noticed = day if noticed is None and reading.notice else noticed
            alarmed = day if alarmed is None and reading.alarm else alarmed
        if alarmed is not None:
            break

    def flagged(day):
        return math.erfc((limit - 0.03 * day) / math.sqrt(2)) / 2

    assert flagged(noticed) < 2 * flagged(0)
    assert flagged(alarmed) < 2.5 * flagged(0)


def test_a_burst_of_defects_is_no_drift():
    rng = np.random.default_rng(5)
    bad = np.where(np.arange(3000) >= 1000, rng.random(3000) < 0.2, False) * 4.0
    found = streams(10, 3000, 200, rng, DriftSettings(evidence=1e4), shift=bad)
    assert not any(alarm for _, alarm in found)


def test_likeness_of_neighbours_alone_is_no_alarm():
    rng = np.random.default_rng(6)
    noise = rng.normal(size=5000)
    scores = np.empty(5000)
    scores[0] = noise[0]
    for i in range(1, 5000):
        scores[i] = 0.2 * scores[i - 1] + math.sqrt(1 - 0.2**2) * noise[i]
    monitor = Monitor(
        reference=sorted(rng.normal(size=500).tolist()), limit=math.inf, settings=DriftSettings(evidence=1e4)
    )
    assert not any(monitor.update(score).alarm for score in scores.tolist())
    assert thinning(scores) == 1
    slow_line = np.repeat(noise, 8)
    assert 5 <= thinning(slow_line) <= 9


def test_after_an_alarm_it_stands_still():
    monitor = Monitor(reference=sorted(np.linspace(0, 1, 50).tolist()), limit=math.inf)
    readings = [monitor.update(2.0 + i / 1000) for i in range(400)]
    first = next(i for i, reading in enumerate(readings) if reading.alarm)
    assert [reading.used for reading in readings[first + 1 :]] == [False] * (399 - first)
    assert readings[-1].log10_evidence == readings[first].log10_evidence
    assert readings[first].since < 30


def test_it_continues_where_it_was_stored():
    rng = np.random.default_rng(8)
    scores = rng.normal(size=300).tolist()
    whole = Monitor(reference=sorted(rng.normal(size=50).tolist()), limit=math.inf, seed=5)
    half = replace(whole, reference=list(whole.reference))
    expected = [whole.update(score) for score in scores]
    found = [half.update(score) for score in scores[:150]]
    again = replace(half, reference=list(half.reference))
    assert [*found, *(again.update(score) for score in scores[150:])] == expected


def test_it_starts_from_a_calibration_and_watches_below_its_review_limit():
    scores = tuple(float(i) for i in range(100))
    calibration = Calibration(scores=scores, peaks=scores, rates=Rates(review=0.05, bad=0.01))
    monitor = start(calibration, DriftSettings())
    assert monitor.limit == 95.0
    assert monitor.reference == list(scores[:95])
    assert not monitor.update(95.5).used
    grouped = replace(calibration, groups=tuple(i // 2 for i in range(100)))
    assert len(start(grouped, DriftSettings()).reference) == 48
    with pytest.raises(DataError, match="too few to see drift"):
        start(replace(calibration, scores=scores[:10], peaks=scores[:10]), DriftSettings())
    with pytest.raises(ConfigError, match="evidence above 1"):
        DriftSettings(evidence=1)


def test_evidence_has_an_end():
    monitor = Monitor(
        reference=sorted(np.linspace(0, 1, 50).tolist()),
        limit=math.inf,
        settings=DriftSettings(evidence=math.inf, most=50),
    )
    for _ in range(5000):
        reading = monitor.update(5.0)
    assert reading.log10_evidence == pytest.approx(700 / math.log(10))
    assert not reading.notice
