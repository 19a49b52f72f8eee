"""Whether the scores of a line are still those of the images that its limits were made from.

Each score gets a randomised rank among all reference scores so far, and then joins them:
p = (#{s_i > s} + U (1 + #{s_i = s})) / (n + 1), U uniform in (0, 1). If calibration scores and parts are
exchangeable, these p are independent and uniform for ever (Vovk, Gammerman and Shafer 2022, Algorithmic
Learning in a Random World, 2nd edition, theorem 11.1). A reference that does not grow has no such law: with
99 normals, 39 % of normal streams gave an alarm of 1 %.

The simple jumper bets on them (the same, algorithm 8.1, with stakes -1, 0, 1): capital C_e grows by
1 + e (p - 1/2), and a share J of it is dealt out anew at each step. Its growth r has the mean 1 under
uniform p. R <- r (1 + R) (Shiryaev and Roberts) is evidence of a change at any time before now: R_n - n is a
martingale, so R reaches c after at least c parts in the mean while nothing changes.

Neighbours on a line are never quite independent, so evidence alone gives alarms without a cause: an alarm
also needs an effect, |E - 1/2| at least a floor. E is the mean, with exponential weights, of the last ranks
among the first reference alone: in one that grows a slow drift drowns, and E would come back to 1/2. Defects
lower ranks as drift does: so only parts up to the review limit are watched, against the reference below it.
Given the limit, the k-th largest of n, those are again exchangeable, and what is called review or bad never
enters.

The change is dated where the best bet would have begun: where max(1, gamma) r of Page's CUSUM was last 1.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError, DataError
from invad.scoring.calibration import Calibration

STAKES = (-1.0, 0.0, 1.0)
LARGEST_LOG = 700.0
"""Of the evidence: where it is that large nobody doubts it, and exp still knows it."""

FEWEST = 20
"""Reference scores below which ranks are too coarse to say anything soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSettings:
    """evidence: c, the parts accepted between two notices without a cause (a million is 23 days at one part
    in 2 s). floor: of the effect; 0.1 is a shift by about 0.36 standard deviations. memory: parts of the mean
    E. jump: J, for changes that last 1 / J parts and more. most: reference scores after which it grows no
    more. every: only each m-th part is used, where neighbours are alike (see `thinning`)."""

    evidence: float = 1e6
    floor: float = 0.1
    memory: int = 200
    jump: float = 0.01
    most: int = 50_000
    every: int = 1

    def __post_init__(self) -> None:
        if not (
            self.evidence > 1
            and 0 <= self.floor < 0.5
            and 0 < self.jump < 1
            and min(self.memory, self.most, self.every) >= 1
        ):
            raise ConfigError(
                f"{self}: give evidence above 1, floor below 0.5, jump between 0 and 1, the others at least 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """After a part.

    used: whether it was watched, neither above the limit nor left out. p: its rank, None when not used.
    log10_evidence: of R. effect: E, below 1/2 where scores rise. notice: there is evidence. alarm: and an
    effect. since: number of the part after which the change began, if there was one.
    """

    used: bool
    p: float | None
    log10_evidence: float
    effect: float
    notice: bool
    alarm: bool
    since: int


@dataclass(slots=True)
class Monitor:
    """What is remembered of a stream. reference: rising scores. limit: parts above it are not watched.
    first: the reference that there was before any part.

    Everything in it is plain, so it can be stored and continued.
    """

    reference: list[float]
    limit: float
    settings: DriftSettings = field(default_factory=DriftSettings)
    seed: int = 0
    parts: int = 0
    capital: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    log_evidence: float = -math.inf
    log_gain: float = 0.0
    effect: float = 0.5
    since: int = 0
    alarmed: bool = False
    first: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = self.first or list(self.reference)

    def update(self, score: float) -> Reading:
        """Take the next part of the line into account. After an alarm nothing moves until a new monitor."""
        self.parts += 1
        used = score <= self.limit and (self.parts - 1) % self.settings.every == 0 and not self.alarmed
        p = self._bet(score) if used else None
        notice = self.log_evidence >= math.log(self.settings.evidence)
        self.alarmed |= notice and abs(self.effect - 0.5) >= self.settings.floor
        return Reading(
            used=used,
            p=p,
            log10_evidence=self.log_evidence / math.log(10),
            effect=self.effect,
            notice=notice,
            alarm=self.alarmed,
            since=self.since,
        )

    def _bet(self, score: float) -> float:
        u = uniform(self.seed, self.parts)
        p = rank(self.reference, score, u)
        if len(self.reference) < self.settings.most:
            insort(self.reference, score)
        self.capital, growth = jumped(self.capital, p, self.settings.jump)
        self.log_evidence = more_evidence(self.log_evidence, growth)
        self.effect += (rank(self.first, score, u) - self.effect) / self.settings.memory
        self.log_gain = max(0.0, self.log_gain) + math.log(growth)
        if self.log_gain <= 0:
            self.since = self.parts
        return p


def start(calibration: Calibration, settings: DriftSettings, seed: int = 0) -> Monitor:
    """A monitor of parts that a calibration judges, censored at its review limit.

    Of a group of dependent images one stands for it. Raises DataError for too few scores.
    """
    groups = calibration.groups or tuple(range(len(calibration.scores)))
    last_of = dict(zip(groups, calibration.scores, strict=True))
    scores = list(last_of.values())
    limit = calibration.score_limits()[0]
    return Monitor(reference=reference_below(scores, limit), limit=limit, settings=settings, seed=seed)


def reference_below(scores: Sequence[float], limit: float) -> list[float]:
    """The scores below a limit, rising. Raises DataError when they are too few."""
    below = sorted(float(score) for score in scores if score < limit)
    if len(below) < FEWEST:
        raise DataError(f"{len(below)} scores below the review limit are too few to see drift; give {FEWEST}")
    return below


def rank(reference: Sequence[float], score: float, u: float) -> float:
    """The randomised p-value of a score among rising reference scores, in (0, 1) for u in (0, 1)."""
    above = len(reference) - bisect_right(reference, score)
    equal = bisect_right(reference, score) - bisect_left(reference, score)
    return (above + u * (1 + equal)) / (len(reference) + 1)


def jumped(capital: Sequence[float], p: float, jump: float) -> tuple[tuple[float, ...], float]:
    """(capital after the bet, adding up to 1; its growth). capital: of the stakes, adding up to 1."""
    dealt = [(1 - jump) * own + jump / len(STAKES) for own in capital]
    grown = [own * (1 + stake * (p - 0.5)) for own, stake in zip(dealt, STAKES, strict=True)]
    growth = sum(grown)
    return tuple(own / growth for own in grown), growth


def more_evidence(log_evidence: float, growth: float) -> float:
    """log R after R <- r (1 + R)."""
    log_sum = max(0.0, log_evidence) + math.log1p(math.exp(-abs(log_evidence)))  # of 1 + R
    return min(LARGEST_LOG, math.log(growth) + log_sum)


def uniform(seed: int, number: int) -> float:
    """U of a part: the same whenever a stream is replayed, and in (0, 1)."""
    drawn = int(np.random.Philox(key=seed, counter=number).random_raw(1)[0]) >> 11
    return (drawn + 0.5) / (1 << 53)


def autocorrelation(scores_N: NDArray[np.floating], lag: int = 1) -> float:
    """Of scores in their order; 0 where there is no spread or there are too few."""
    x = np.asarray(scores_N, np.float64) - np.mean(scores_N)
    spread = float(x @ x)
    return float(x[:-lag] @ x[lag:]) / spread if spread > 0 and len(x) > lag + 1 else 0.0


def thinning(scores_N: NDArray[np.floating], alike: float = 0.5, enough: float = 0.1) -> int:
    """m, so that each m-th part is used: 1 unless neighbours correlate by more than `alike`, else the first
    lag at which parts correlate by less than `enough`."""
    if autocorrelation(scores_N) <= alike:
        return 1
    lags = range(2, max(3, len(scores_N) // 4))
    return next((lag for lag in lags if autocorrelation(scores_N, lag) < enough), lags[-1])
