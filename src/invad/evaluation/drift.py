"""Drift of a line, from rows that were written down: what the service watches, for a file of results."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from invad.errors import DataError, reason
from invad.metrics.alarms import count_interval
from invad.scoring.calibration import Calibration
from invad.scoring.drift import DriftSettings, Reading, autocorrelation, start, thinning

CHART_CONFIDENCE = 0.998
"""Of the chart of flagged parts: one count of a thousand lies above its limit without a cause."""

WINDOW = 500
"""Parts of that chart."""

COMMISSIONING = 500
"""First parts of a line, by which the likeness of neighbours is judged: a drift would look like likeness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """names: of the parts, in their order. autocorrelation: of the first ones. every: parts of which one was
    used. flagged: parts above the review limit among the last `window`; flagged_limit: what one of a thousand
    windows without drift exceeds."""

    names: Sequence[str]
    readings: Sequence[Reading]
    reference: int
    limit: float
    autocorrelation: float
    every: int
    window: int
    flagged: int
    flagged_limit: int

    @property
    def alarm(self) -> int | None:
        """Number of the part, from 0, at which the alarm was raised."""
        return next((number for number, reading in enumerate(self.readings) if reading.alarm), None)


def read_scores(path: Path) -> list[tuple[str, float]]:
    """(path or id, score) of the rows of a CSV that have a score, in their order.

    Raises DataError when it is none, has no column `score`, or a score is no number.
    """
    found = []
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            if "score" not in (rows.fieldnames or ()):
                raise DataError(f"{path}: has no column 'score'; give what 'invad predict --csv' wrote")
            for row in rows:
                if row["score"]:
                    score = float(row["score"])
                    if not math.isfinite(score):
                        raise ValueError(row["score"])
                    found.append((row.get("path") or row.get("id") or str(rows.line_num), score))
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: line {rows.line_num}: {' '.join(str(error).split())}") from None
    return found


def watch(
    rows: Sequence[tuple[str, float]],
    calibration: Calibration | None,
    settings: DriftSettings,
    *,
    reference: int = COMMISSIONING,
    every: int | None = None,
    seed: int = 0,
) -> DriftReport:
    """Follow the parts in their order.

    calibration: what the limits were made from; None: the first `reference` rows stand for it. every: use
    each so-manieth part alone; None: as the likeness of neighbours among the first parts asks for.
    Raises DataError for too few scores.
    """
    scores = np.array([score for _, score in rows])
    first = scores[: reference if calibration is None else COMMISSIONING]
    if len(first) == 0:
        raise DataError("no row has a score")
    step = thinning(first) if every is None else every
    if calibration is None:
        if len(rows) <= reference:
            raise DataError(
                f"{len(rows)} rows, of which the first {reference} are the reference; give more rows, a "
                "smaller --reference, or the model with --model"
            )
        kept = tuple(first[::step].tolist())
        calibration, rows, scores = Calibration(scores=kept, peaks=kept), rows[reference:], scores[reference:]
    monitor = start(calibration, replace(settings, every=step), seed)
    readings = [monitor.update(score) for score in scores.tolist()]
    last = scores[-WINDOW:]
    judged = [(len(last), calibration.n)]
    return DriftReport(
        names=[name for name, _ in rows],
        readings=readings,
        reference=calibration.n,
        limit=monitor.limit,
        autocorrelation=autocorrelation(first),
        every=step,
        window=len(last),
        flagged=int((last > monitor.limit).sum()),
        flagged_limit=count_interval(judged, calibration.rates.review, CHART_CONFIDENCE)[1],
    )
