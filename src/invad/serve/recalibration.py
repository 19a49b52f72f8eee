"""New limits from what a line has seen, and when they would be wrong.

All parts of a window count, not the reviewed ones alone: those are the highest normal scores, and limits of
them let defects pass (a review rate of 5 % became 0.7 % in simulation). An unreviewed good part is taken as
normal, a flagged one waits for its verdict. Defects among the unreviewed raise the limits, never lower them:
fewer alarms, more misses. The audit sample bounds how many there are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import beta

from invad.metrics.alarms import realised_interval
from invad.scoring.calibration import Calibration, decision_between, normals_needed
from invad.scoring.drift import autocorrelation
from invad.scoring.rates import Rates
from invad.serve.store.reviews import Seen

UNREVIEWED_SHARE = 0.02
"""Of the flagged parts, that may be without a verdict."""

MOST = 20_000
"""Parts of a window."""

ALIKE = 0.5
"""Correlation of neighbours above which they hardly count as independent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What a window says.

    calibration: None where it is refused. refusals, warnings: one line each. limits: (review, bad), before
    and after. flagged: share of the window's parts above the review limit, before and after. flips: numbers
    of decisions of the window that would be others, by `before > after`. passing: ids of parts that people
    called bad and that would be good. missed_at_most: share of good parts that are defective, an upper bound
    of 95 %, by the audited ones; None without any. promise: the rates that 95 % of such calibrations keep.
    """

    parts: int
    normals: int
    flagged_parts: int
    unreviewed: int
    audited: int
    audited_bad: int
    missed_at_most: float | None
    limits_before: tuple[float, float]
    limits_after: tuple[float, float] | None
    flagged_before: float
    flagged_after: float | None
    flips: Mapping[str, int]
    passing: tuple[str, ...]
    promise: Mapping[str, tuple[float, float]]
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    calibration: Calibration | None


def propose(
    window: Sequence[Seen],
    known_bad: Sequence[Seen],
    current: Calibration,
    rates: Rates,
    *,
    let_pass: bool = False,
) -> Proposal:
    """What limits a window gives. let_pass: known bad parts may become good.

    window: all parts of a time, newest first. known_bad: parts called bad, of any time.
    """
    normals = _normals(window)
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
            refusals.append(f"{len(passing)} parts that were called bad would be good, such as {passing[0]}")
    return Proposal(
        parts=len(window),
        normals=len(normals),
        flagged_parts=len(flagged),
        unreviewed=len(unreviewed),
        audited=len(audited),
        audited_bad=len(missed),
        missed_at_most=_at_most(len(missed), len(audited)),
        limits_before=before,
        limits_after=after,
        flagged_before=_share(window, before[0]) or 0.0,
        flagged_after=None if after is None else _share(window, after[0]),
        flips=_flips(window, before, after),
        passing=passing,
        promise=_promise(len(normals), rates),
        refusals=tuple(refusals),
        warnings=_warnings(normals, new, len(missed)),
        calibration=None if refusals else new,
    )


def _normals(window: Sequence[Seen]) -> list[Seen]:
    """Unreviewed good parts and those called good; a picture that came several times counts once."""
    taken: dict[str, Seen] = {}
    for one in window:
        if one.verdict == "good" or (one.verdict is None and one.decision == "good"):
            taken.setdefault(one.image_sha256, one)
    return list(taken.values())


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
