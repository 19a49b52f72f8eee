"""New limits from what a line has seen, and when they would be wrong.

All parts of a window count, not the reviewed ones alone: those are the highest normal scores, and limits of
them let defects pass (a review rate of 5 % became 0.7 % in simulation). An unreviewed good part is taken as
normal, a flagged one waits for its verdict. Defects among the unreviewed raise the limits, never lower them:
fewer alarms, more misses. The audit sample bounds how many there are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.stats import beta

from invad.metrics.alarms import realised_interval
from invad.report.wording import counted
from invad.scoring.calibration import Calibration, decision_between, normals_needed
from invad.scoring.drift import autocorrelation
from invad.scoring.rates import Rates
from invad.serve.store.reviews import Seen

UNREVIEWED_SHARE = 0.02
"""Of the flagged parts, that may be without a verdict."""

MOST = 20_000
"""Parts of a window."""

Wanted: TypeAlias = tuple[float | None, float | None]
"""(review, bad) limits of the score."""

ALIKE = 0.5
"""Correlation of neighbours above which they hardly count as independent."""


BINS = 60
"""Of the histogram."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How the scores of a window lie. edges: one more than there are bins, rising; the last bin also holds
    what lies above it. normal: what limits are made of. waiting: flagged and without a verdict, or unsure.
    bad: called bad."""

    edges: tuple[float, ...]
    normal: tuple[int, ...]
    waiting: tuple[int, ...]
    bad: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the limits of a window are, and what they would change; `revision` where they were put in force.

    refusals, warnings: one line each. rates: asked, or what the limits asked come to, (review, bad). limits:
    (review, bad), before and after. flagged: share of the window's parts above the review limit, before and
    after. flips: numbers of decisions of the window that would be others, by `before > after`. passing: ids
    of parts that people called bad and that would be good. missed_at_most: share of good parts that are
    defective, an upper bound of 95 %, by the audited ones; None without any. promise: the rates that 95 % of
    such calibrations keep. histogram: None of an empty window.
    """

    revision: int | None
    parts: int
    normals: int
    flagged_parts: int
    unreviewed: int
    audited: int
    audited_bad: int
    missed_at_most: float | None
    rates: tuple[float, float]
    limits_before: tuple[float, float]
    limits_after: tuple[float, float] | None
    flagged_before: float
    flagged_after: float | None
    flips: Mapping[str, int]
    passing: tuple[str, ...]
    promise: Mapping[str, tuple[float, float]]
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    histogram: Histogram | None


def propose(
    window: Sequence[Seen],
    known_bad: Sequence[Seen],
    current: Calibration,
    rates: Rates,
    *,
    wanted: Wanted = (None, None),
    let_pass: bool = False,
) -> tuple[Proposal, Calibration | None]:
    """What limits a window gives, and the calibration that makes them; None where that is refused.

    window: all parts of a time, newest first. known_bad: parts called bad, of any time. wanted: limits that
    somebody has drawn, in place of rates; see `rate_of`. let_pass: known bad parts may become good. Raises
    ConfigError where the bad limit would be below the review limit.
    """
    normals = _normals(window)
    rates = _rates(normals, rates, wanted)
    flagged = [one for one in window if one.decision != "good"]
    unreviewed = [one for one in flagged if one.verdict in (None, "unsure")]
    audited = [one for one in window if one.audit and one.verdict in ("good", "bad")]
    missed = [one for one in audited if one.verdict == "bad"]
    before = current.score_limits()
    needed = normals_needed(rates.bad)
    refusals = []
    if len(normals) < needed:
        refusals.append(f"{len(normals)} normal parts are too few, a rate of {rates.bad:.2%} needs {needed}")
    if len(unreviewed) > UNREVIEWED_SHARE * len(flagged):
        refusals.append(
            f"{len(unreviewed)} of {len(flagged)} flagged parts have no verdict, at most "
            f"{UNREVIEWED_SHARE:.0%} may; review them, or the limits would be made of a chosen half"
        )
    new = _calibration(normals, rates)
    after = None if new is None else new.score_limits()
    passing: tuple[str, ...] = ()
    if after is not None:
        passing = tuple(one.id for one in known_bad if one.score <= after[0])
        if passing and not let_pass:
            refusals.append(f"{counted(len(passing), 'part')} called bad would be good, such as {passing[0]}")
    proposal = Proposal(
        revision=None,
        parts=len(window),
        normals=len(normals),
        flagged_parts=len(flagged),
        unreviewed=len(unreviewed),
        audited=len(audited),
        audited_bad=len(missed),
        missed_at_most=_at_most(len(missed), len(audited)),
        rates=(rates.review, rates.bad),
        limits_before=before,
        limits_after=after,
        flagged_before=_share(window, before[0]) or 0.0,
        flagged_after=None if after is None else _share(window, after[0]),
        flips=_flips(window, before, after),
        passing=passing,
        promise=_promise(len(normals), rates),
        refusals=tuple(refusals),
        warnings=_warnings(normals, new, len(missed)),
        histogram=_histogram(window, before[1]),
    )
    return proposal, None if refusals else new


def rate_of(limit: float, scores: Sequence[float]) -> float:
    """The rate, in (0, 1), whose limit is the largest of these scores that is not above `limit`.

    Limits are scores of normal parts, because a rank is all that has a guarantee: so what is drawn falls back
    to the next of them. Above the largest it is that one, below the smallest the smallest. scores: at least
    one.
    """
    n = len(scores)
    above = sum(score > limit for score in scores)
    return min(above + 1, n) / (n + 1)


def _normals(window: Sequence[Seen]) -> list[Seen]:
    """Unreviewed good parts and those called good; a picture that came several times counts once."""
    taken: dict[str, Seen] = {}
    for one in window:
        if _kind(one) == "normal":
            taken.setdefault(one.image_sha256, one)
    return list(taken.values())


def _rates(normals: Sequence[Seen], rates: Rates, wanted: Wanted) -> Rates:
    if wanted == (None, None) or not normals:
        return rates
    scores = [one.score for one in normals]
    review, bad = (
        asked if limit is None else rate_of(limit, scores)
        for limit, asked in zip(wanted, (rates.review, rates.bad), strict=True)
    )
    return Rates(review=review, bad=bad)


def _histogram(window: Sequence[Seen], bad_limit: float) -> Histogram | None:
    """Up to what nearly all parts have: a single defect must not press all others into one bin."""
    if not window:
        return None
    scores = np.array([one.score for one in window])
    high = max(float(np.quantile(scores, 0.995)), bad_limit)
    low = min(float(scores.min()), bad_limit)
    high += 0.05 * (high - low) or 1.0
    edges = np.linspace(low, high, BINS + 1)
    counts = {
        kind: np.histogram([min(one.score, high) for one in window if _kind(one) == kind], edges)[0]
        for kind in ("normal", "waiting", "bad")
    }
    return Histogram(
        edges=tuple(edges.tolist()), **{kind: tuple(count.tolist()) for kind, count in counts.items()}
    )


def _kind(one: Seen) -> str:
    if one.verdict == "bad":
        return "bad"
    return (
        "normal" if one.verdict == "good" or (one.verdict is None and one.decision == "good") else "waiting"
    )


def _calibration(normals: Sequence[Seen], rates: Rates) -> Calibration | None:
    if not normals:
        return None
    scores, peaks = (tuple(getattr(one, name) for one in normals) for name in ("score", "peak"))
    return Calibration(scores=scores, peaks=peaks, rates=rates)


def _share(window: Sequence[Seen], limit: float) -> float | None:
    return sum(one.score > limit for one in window) / len(window) if window else None


def _flips(
    window: Sequence[Seen], before: tuple[float, float], after: tuple[float, float] | None
) -> dict[str, int]:
    if after is None:
        return {}
    pairs = ((decision_between(one.score, *before), decision_between(one.score, *after)) for one in window)
    counted = Counter(f"{old} > {new}" for old, new in pairs if old != new)
    return dict(sorted(counted.items()))


def _at_most(bad: int, audited: int) -> float | None:
    """Clopper and Pearson's upper bound of 95 % of a share."""
    if not audited:
        return None
    return 1.0 if bad == audited else float(beta.ppf(0.95, bad + 1, audited - bad))


def _promise(n: int, rates: Rates) -> dict[str, tuple[float, float]]:
    return {name: realised_interval(n, getattr(rates, name)) for name in ("review", "bad")} if n else {}


def _warnings(normals: Sequence[Seen], new: Calibration | None, missed: int) -> tuple[str, ...]:
    lines = [] if new is None else list(new.warnings())
    alike = autocorrelation(np.array([one.score for one in normals])) if len(normals) > 2 else 0.0
    if alike > ALIKE:
        lines.append(f"scores of neighbours correlate by {alike:.2f}, so they count as too many")
    if missed:
        lines.append(f"{missed} audited parts were called good and are bad: defects pass the present limits")
    return tuple(lines)
