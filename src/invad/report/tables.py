"""The counts of the report: who was called what, per set and per kind of defect. Pure functions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.stats import binomtest

from invad.metrics.exact import auroc
from invad.records import Decision, ScoredSample

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`part` of `whole` images, and the exact (Clopper-Pearson) 95 % interval of the true share, 0..1."""

    part: int
    whole: int
    low: float | None
    high: float | None

    @property
    def value(self) -> float | None:
        return self.part / self.whole if self.whole else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRow:
    """How a group of images was decided: a share for each decision."""

    label: str
    n: int
    good: Share
    review: Share
    bad: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectRow:
    """One kind of defect of one category; auroc is against the good images of that category, or None."""

    category: str
    defect: str
    n: int
    bad: Share
    flagged: Share
    median_p: float
    auroc: float | None


def share(part: int, whole: int) -> Share:
    """The share of a counted group with its exact 95 % binomial interval; no interval for an empty group."""
    if whole == 0:
        return Share(part=part, whole=whole, low=None, high=None)
    interval = binomtest(part, whole).proportion_ci(CONFIDENCE, method="exact")
    return Share(part=part, whole=whole, low=float(interval.low), high=float(interval.high))


def called(group: Iterable[ScoredSample], *decisions: Decision) -> Share:
    """The share of `group` that was given one of `decisions`."""
    answers = [scored.decision for scored in group]
    return share(sum(answer in decisions for answer in answers), len(answers))


def normals(scored: Iterable[ScoredSample]) -> list[ScoredSample]:
    return [s for s in scored if not s.sample.is_anomalous]


def anomalies(scored: Iterable[ScoredSample]) -> list[ScoredSample]:
    return [s for s in scored if s.sample.is_anomalous]


def decision_rows(scored: Sequence[ScoredSample]) -> list[DecisionRow]:
    """Two rows, good images then defective ones."""
    groups = (("Good images", normals(scored)), ("Defective images", anomalies(scored)))
    return [
        DecisionRow(
            label=label,
            n=len(group),
            good=called(group, "good"),
            review=called(group, "review"),
            bad=called(group, "bad"),
        )
        for label, group in groups
    ]


def defect_rows(scored: Sequence[ScoredSample]) -> list[DefectRow]:
    """One row per (category, defect), sorted by name."""
    good_scores = defaultdict(list)
    for s in normals(scored):
        good_scores[s.sample.category].append(s.score)
    groups = defaultdict(list)
    for s in anomalies(scored):
        groups[s.sample.category, s.sample.defect].append(s)
    return [
        DefectRow(
            category=category,
            defect=defect,
            n=len(group),
            bad=called(group, "bad"),
            flagged=called(group, "bad", "review"),
            median_p=median(s.p_value for s in group),
            auroc=_auroc_against(good_scores[category], [s.score for s in group]),
        )
        for (category, defect), group in sorted(groups.items())
    ]


def verdict(realised: Share, expected_count: Sequence[int]) -> str:
    """Whether the realised count lies within (least, most) counts that the rate asked makes likely.

    expected_count: see `invad.metrics.alarms.count_interval`.
    """
    least, most = expected_count
    if realised.part > most:
        verdict = "more than chance explains"
    elif realised.part < least:
        verdict = "fewer than chance explains"
    else:
        verdict = "as expected"
    return f"{least} to {most} of {realised.whole} would be normal: {verdict}"


def _auroc_against(good: list[float], defective: list[float]) -> float | None:
    labels = np.repeat([False, True], [len(good), len(defective)])
    return auroc(np.asarray(good + defective), labels)
