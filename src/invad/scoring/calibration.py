"""From the scores of held-out normal images to p-values, limits and decisions.

Split conformal prediction: if a new normal image is exchangeable with the n held-out ones, its p-value
(1 + #{s_i >= s}) / (n + 1) is at most `a` with probability at most `a`, whatever the distribution. That is a
statement about *normal images like those held out*; new lighting or a new supplier breaks it.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError, NotCalibratedError
from invad.records import Decision
from invad.scoring.rates import POOLED, Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Sorted cross-fitted scores of n held-out normals, the peaks of their maps, and the rates asked."""

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    rates: Rates = field(default_factory=Rates)

    def __post_init__(self) -> None:
        if len(self.scores) < 1 or len(self.scores) != len(self.peaks):
            raise NotCalibratedError(
                "calibration: no held-out normal images; run 'invad calibrate MODEL NORMALS'"
            )
        if not np.isfinite([*self.scores, *self.peaks]).all():
            raise NotCalibratedError("calibration: a score is not a finite number; train or calibrate again")

    @property
    def n(self) -> int:
        return len(self.scores)

    def p_value(self, score: float) -> float:
        """(1 + #{s_i >= score}) / (n + 1), in (0, 1]."""
        at_least = self.n - int(np.searchsorted(np.sort(self.scores), score, side="left"))
        return (1 + at_least) / (self.n + 1)

    def limit(self, rate: float) -> float:
        """A score above this is called at `rate`."""
        return upper_limit(np.asarray(self.scores), rate)

    def map_limits(self) -> tuple[float, float]:
        """(review, bad) limits of the anomaly map: the rates then hold for its largest value in an image."""
        peaks = np.asarray(self.peaks)
        return upper_limit(peaks, self.rates.review), upper_limit(peaks, self.rates.bad)

    def score_limits(self) -> tuple[float, float]:
        """(review, bad) limits of the image score."""
        return self.limit(self.rates.review), self.limit(self.rates.bad)

    def decide(self, score: float) -> Decision:
        """`bad` above the bad limit, `review` above the review limit, else `good`."""
        review, bad = self.score_limits()
        if not score <= bad:  # so that a score that is not a number never passes
            return "bad"
        return "review" if score > review else "good"

    def warnings(self) -> tuple[str, ...]:
        """One line per rate that n normal images are too few to guarantee."""
        return tuple(
            f"the {name} limit for a false-alarm rate of {rate:.2%} is extrapolated from {self.n} normal "
            f"images; a guarantee needs at least {normals_needed(rate)}"
            for name, rate in (("review", self.rates.review), ("bad", self.rates.bad))
            if self.n < normals_needed(rate)
        )


def normals_needed(rate: float) -> int:
    """Smallest n for which a conformal p-value can reach `rate`: 1 / (n + 1) <= rate."""
    return int(np.ceil(1 / rate - 1e-9)) - 1


def upper_limit(scores_N: NDArray[np.floating], rate: float) -> float:
    """The value that a new normal score exceeds with probability at most `rate`.

    With n >= 1/rate - 1 scores it is the k-th largest, k = floor(rate (n + 1)): `score > limit` is then the
    same as `p_value <= rate`. With fewer no score can reach that p-value, and a detector that can never
    say "bad" helps nobody: the upper quarter is continued by an exponential tail, P(s > u + x) =
    (m / n) exp(-x / beta), beta the mean excess of the m scores above u. That is an estimate, not a guarantee
    (`Calibration.warnings` says so), and never below the largest score seen.
    """
    ordered = np.sort(np.asarray(scores_N, dtype=np.float64))[::-1]
    n = len(ordered)
    k = int(np.floor(rate * (n + 1) + 1e-9))
    if k >= 1:
        return float(ordered[k - 1])
    m = min(max(4, n // 4), n - 1)
    if m < 1:
        return float(ordered[0])
    excess = float(np.mean(ordered[:m] - ordered[m]))
    return float(max(ordered[0], ordered[m] + excess * np.log(m / n / rate)))


def for_category(calibrations: Mapping[str, Calibration], category: str | None) -> Calibration:
    """The calibration of a category, or the pooled one for None.

    Raises ConfigError for a category that has none.
    """
    if not calibrations:
        raise NotCalibratedError(
            "the detector has seen no held-out normals; run 'invad calibrate MODEL NORMALS'"
        )
    return calibrations[known_category(calibrations, category)]


def known_category(calibrations: Mapping[str, Calibration], category: str | None) -> str:
    """The key of a category, whatever the form of its accents, or POOLED for None.

    Raises ConfigError, naming the known ones, for a category without limits of its own.
    """
    if not category or category in calibrations:
        return category or POOLED
    forms = {unicodedata.normalize("NFC", name): name for name in calibrations}
    if (name := forms.get(unicodedata.normalize("NFC", category))) is not None:
        return name
    known = ", ".join(sorted(filter(None, calibrations)))
    choice = f"choose from {known}, or leave" if known else "leave"
    raise ConfigError(f"no category {category!r}; {choice} it away for the limits over all categories")


def folds(
    groups: Sequence[str], count: int, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(rest, fold) index pairs: a seeded shuffle dealt into `count` near-equal folds (at most one per item).

    groups: the category of each item; every category is spread over as many folds as it can fill.
    """
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[np.argsort(np.asarray(groups)[order], kind="stable")]
    for first in range(min(count, len(groups))):
        part = order[first::count]
        yield np.sort(np.setdiff1d(order, part)), np.sort(part)


def hold_out(
    n: int, seed: int, *, share: float = 0.2, minimum: int = 8
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(kept, held) indices of n images: a seeded random `share`, at least `minimum`, is held out.

    Of fewer than twice the minimum it is half: a category has to be learned, too.
    """
    held = min(max(minimum, round(share * n)), n // 2)
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held])
