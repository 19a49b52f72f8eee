"""From the scores of held-out normal images to p-values, limits and decisions.

Split conformal prediction: if a new normal image is exchangeable with the n held-out ones, its p-value
(1 + #{s_i >= s}) / (n + 1) is at most `a` with probability at most `a`, whatever the distribution. That is a
statement about *normal images like those held out*; new lighting or a new supplier breaks it.

Several images of one part, patient or lot are not exchangeable with an image of a new one. Of K groups one
image each, chosen without a look at the scores, is: K such images and one of a new group are exchangeable if
the groups are, and the images within each. So one image speaks for its group in ranks and in the limits that
they guarantee, n is K, and the promise holds as it stands, with the law of the share that a limit realises
(subsampling once: Dunn, Wasserman and Ramdas 2022, arXiv 1809.07441). Their pooled rule, in which each of N_k
images counts 1 / N_k (also Lee, Barber and Willett 2023, arXiv 2306.06342), keeps the promise, too, but with
20 groups and 5 % asked it has to set the limit at the largest of all scores.
"""

import unicodedata
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError, NotCalibratedError
from invad.records import Decision, Prediction
from invad.scoring.holding import members_of
from invad.scoring.rates import POOLED, Rates
from invad.system.arguments import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Cross-fitted scores of held-out normals, the peaks of their maps, and the rates asked.

    groups: for each score the number of its group, of which each counts as one (see `one_of_each`); empty
    where every image is a group of its own.
    """

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    rates: Rates = field(default_factory=Rates)
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.groups and len(self.groups) != len(self.scores):
            raise NotCalibratedError("calibration: not every score has a group; calibrate again")
        if len(self.scores) < 1 or len(self.scores) != len(self.peaks):
            raise NotCalibratedError(
                "calibration: no held-out normal images; run 'invad calibrate MODEL NORMALS'"
            )
        if not np.isfinite([*self.scores, *self.peaks]).all():
            raise NotCalibratedError("calibration: a score is not a finite number; train or calibrate again")

    @property
    def n(self) -> int:
        """Independent groups; images where each is one of its own."""
        return len(set(self.groups)) if self.groups else len(self.scores)

    @property
    def unit(self) -> str:
        """What `n` counts, in words."""
        return "independent groups of good images" if self.groups else "good images"

    @property
    def weights(self) -> NDArray[np.float64]:
        """What each score counts in a p-value: one for the image that speaks for its group, else nothing."""
        return one_of_each(self.groups).astype(np.float64) if self.groups else np.ones(len(self.scores))

    def p_value(self, score: float) -> float:
        """(1 + sum of the weights of the scores at or above `score`) / (n + 1), in (0, 1]."""
        at_least = float(self.weights[np.asarray(self.scores) >= score].sum())
        return (1 + at_least) / (self.n + 1)

    def limit(self, rate: float) -> float:
        """A score above this is called at `rate`."""
        return self._limit(self.scores, rate)

    def map_limits(self) -> tuple[float, float]:
        """(review, bad) limits of the anomaly map: the rates then hold for its largest value in an image."""
        return self._limit(self.peaks, self.rates.review), self._limit(self.peaks, self.rates.bad)

    def _limit(self, values: Sequence[float], rate: float) -> float:
        """Of the images that speak for their groups; where no rank can reach `rate`, of all images."""
        values_N = np.asarray(values)
        if not self.groups:
            return upper_limit(values_N, rate)
        if self.n >= normals_needed(rate):
            return upper_limit(values_N[one_of_each(self.groups)], rate)
        return upper_limit(values_N, rate, group_weights(self.groups))

    def score_limits(self) -> tuple[float, float]:
        """(review, bad) limits of the image score."""
        return self.limit(self.rates.review), self.limit(self.rates.bad)

    def decide(self, score: float) -> Decision:
        """`bad` above the bad limit, `review` above the review limit, else `good`."""
        return decision_between(score, *self.score_limits())

    def prediction(
        self,
        score: float,
        category: str | None,
        map_HW: NDArray[np.float32],
        cells_hw: NDArray[np.float32] | None = None,
    ) -> Prediction:
        """What these limits say of an image with this score, and these maps of it."""
        return Prediction(
            path=None,
            category=category,
            score=score,
            p_value=self.p_value(score),
            decision=self.decide(score),
            anomaly_map=map_HW,
            cells=cells_hw,
        )

    def warnings(self, of: str = "normal images") -> tuple[str, ...]:
        """One line per rate that n normal images, or groups of them, are too few to guarantee."""
        unit = f"independent groups of {of}" if self.groups else of
        return tuple(
            f"the {name} limit for a false-alarm rate of {rate:.2%} is extrapolated from {self.n} {unit}; "
            f"a guarantee needs at least {normals_needed(rate)}"
            for name, rate in (("review", self.rates.review), ("bad", self.rates.bad))
            if self.n < normals_needed(rate)
        )


def decision_between(score: float, review: float, bad: float) -> Decision:
    """What a score is called by these limits."""
    if not score <= bad:  # so that a score that is not a number never passes
        return "bad"
    return "review" if score > review else "good"


def normals_needed(rate: float) -> int:
    """Smallest n for which a conformal p-value can reach `rate`: 1 / (n + 1) <= rate."""
    return int(np.ceil(1 / rate - 1e-9)) - 1


def one_of_each(groups: Sequence[int]) -> NDArray[np.bool_]:
    """For each item whether it is the one that speaks for its group.

    groups: of each item its number. Which of the items of a group it is hangs on that number and on how many
    there are, as by a die and the same each time, never on what the items are.
    """
    chosen = np.zeros(len(groups), dtype=np.bool_)
    for number, items in zip(dict.fromkeys(groups), members_of(groups), strict=True):
        chosen[items[zlib.crc32(str(number).encode()) % len(items)]] = True
    return chosen


def group_weights(groups: Sequence[int]) -> NDArray[np.float64]:
    """One over the number of items of its group, for each item: every group counts as one."""
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1 / sizes[place]
    return weights


def upper_limit(
    scores_N: NDArray[np.floating], rate: float, weights_N: NDArray[np.floating] | None = None
) -> float:
    """The value that a new normal score exceeds with probability at most `rate`.

    weights_N: what each score counts, n together (see `group_weights`); None for one each.
    `score > limit` is the same as `p_value <= rate`: the limit is the smallest score above which the weights
    sum to at most rate (n + 1) - 1; with n >= 1/rate - 1 scores of weight one it is the k-th largest,
    k = floor(rate (n + 1)). With fewer no score can reach that p-value, and a detector that can never say
    "bad" helps nobody: the upper quarter is continued by an exponential tail, P(s > u + x) =
    (m / n) exp(-x / beta), beta the mean excess of the scores of weight m above u. That is an estimate, not a
    guarantee (`Calibration.warnings` says so), and never below the largest score seen.
    """
    scores = np.asarray(scores_N, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    weights = np.ones(len(scores)) if weights_N is None else np.asarray(weights_N, dtype=np.float64)[order]
    above = np.concatenate([[0.0], np.cumsum(weights)])
    n = round(float(above[-1]))  # thirds do not sum to one
    spare = rate * (n + 1) - 1 + 1e-9
    if spare >= 0:
        # Equal scores are one step: above the first of them lies no other.
        return float(ordered[np.searchsorted(above[:-1], spare, side="right") - 1])
    m = min(int(np.searchsorted(above, max(4, n // 4) - 1e-9, side="left")), len(ordered) - 1)
    if m < 1:
        return float(ordered[0])
    excess = float(np.average(ordered[:m] - ordered[m], weights=weights[:m]))
    return float(max(ordered[0], ordered[m] + excess * np.log(above[m] / n / rate)))


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
    require(category=(category, str | None))
    if not category or category in calibrations:
        return category or POOLED
    forms = {unicodedata.normalize("NFC", name): name for name in calibrations}
    if (name := forms.get(unicodedata.normalize("NFC", category))) is not None:
        return name
    known = ", ".join(sorted(filter(None, calibrations)))
    choice = f"choose from {known}, or leave" if known else "leave"
    raise ConfigError(f"no category {category!r}; {choice} it away for the limits over all categories")


def numbered(groups: Iterable[Hashable]) -> tuple[int, ...]:
    """For each item the number of its group, from 0 in the order of their first items."""
    numbers: dict[Hashable, int] = {}
    return tuple(numbers.setdefault(group, len(numbers)) for group in groups)
