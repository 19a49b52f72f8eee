"""The drift monitor of one station and category, as it runs and as it is stored."""

import logging
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sqlalchemy import Connection

from invad.errors import DataError
from invad.scoring.drift import DriftSettings, Monitor, start, thinning
from invad.serve.store import drifts, results
from invad.serve.store.drifts import DriftPoint, DriftState
from invad.serve.store.stations import Revision

LOG = logging.getLogger("invad.serve")
POINT_EVERY = 20
"""Parts between two points of the chart."""

KEPT = ("parts", "capital", "log_evidence", "log_gain", "effect", "since", "alarmed")
"""Of a monitor's state; the reference follows from the results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is shown of a monitor. points: those that are not stored yet."""

    parts: int = 0
    every: int = 1
    log_evidence: float = float("-inf")
    effect: float = 0.5
    alarmed: bool = False
    since: str = ""
    points: Sequence[DriftPoint] = ()

    @property
    def log10_evidence(self) -> float:
        """Evidence below 1 says nothing, and JSON has no infinity."""
        return max(0.0, self.log_evidence / math.log(10))


@dataclass(slots=True)
class Watched:
    """One station and category. since: id of the part after which the change began, if there is one. last,
    kept: ids of the last part that it has taken, and up to which it is stored."""

    revision: Revision
    monitor: Monitor
    started: str
    last: str
    kept: str
    since: str
    points: list[DriftPoint] = field(default_factory=list)

    @property
    def standing(self) -> Standing:
        """What is shown of it."""
        monitor = self.monitor
        return Standing(
            parts=monitor.parts,
            every=monitor.settings.every,
            log_evidence=monitor.log_evidence,
            effect=monitor.effect,
            alarmed=monitor.alarmed,
            since=self.since,
            points=tuple(self.points),
        )

    @property
    def state(self) -> DriftState:
        """What is stored of it, beside its points."""
        monitor = self.monitor
        state: dict[str, Any] = {name: getattr(monitor, name) for name in KEPT}
        if monitor.log_evidence == float("-inf"):
            state["log_evidence"] = None  # JSON has no infinity
        return DriftState(
            station=self.revision.station,
            category=self.revision.category,
            calibration=self.revision.id,
            started=self.started,
            last=self.last,
            seed=monitor.seed,
            every=monitor.settings.every,
            state={**state, "since_id": self.since},
        )

    def take(self, id: str, time: int, score: float) -> None:
        """The next part. time: in milliseconds."""
        before = self.monitor.alarmed
        reading = self.monitor.update(score)
        self.last = id
        if reading.since == self.monitor.parts:
            self.since = id
        if reading.alarm and not before:
            LOG.warning(
                "drift: parts at station %s look different since %s", self.revision.station, self.since
            )
        if self.monitor.parts % POINT_EVERY == 0 or (reading.alarm and not before):
            self.points.append(
                DriftPoint(
                    result=id,
                    time=time,
                    log10_evidence=self.standing.log10_evidence,
                    effect=reading.effect,
                    alarm=reading.alarm,
                )
            )


def begun(connection: Connection, revision: Revision, settings: DriftSettings) -> Watched | None:
    """A new monitor, from the next part on; None where the calibration has too few scores."""
    every = thinning(np.array(revision.calibration.scores))
    try:
        monitor = start(revision.calibration, replace(settings, every=every), secrets.randbits(62))
    except DataError as error:
        LOG.warning("station %s is not watched for drift: %s", revision.station, error)
        return None
    newest = results.newest_id(connection) or ""
    made = Watched(revision=revision, monitor=monitor, started=newest, last=newest, kept=newest, since=newest)
    drifts.save(connection, made.state)
    return made


def resumed(
    connection: Connection, revision: Revision, state: DriftState, settings: DriftSettings
) -> Watched:
    """The monitor as it was, and the parts since."""
    settings = replace(settings, every=state.every)
    monitor = start(revision.calibration, settings, state.seed)
    room = settings.most - len(monitor.reference)
    rows = drifts.parts(connection, revision, state.started, state.last, 2 * settings.most * settings.every)
    used = [
        row.score
        for number, row in enumerate(rows)
        if number % settings.every == 0 and row.score <= monitor.limit
    ]
    monitor.reference = sorted([*monitor.reference, *used[: max(0, room)]])
    for name in KEPT:
        value = state.state[name]
        setattr(monitor, name, tuple(value) if name == "capital" else value)
    if state.state["log_evidence"] is None:
        monitor.log_evidence = float("-inf")
    found = Watched(
        revision=revision,
        monitor=monitor,
        started=state.started,
        last=state.last,
        kept=state.last,
        since=state.state["since_id"],
    )
    drifts.forget_points(connection, revision.station, revision.category, state.last)
    for row in drifts.parts(connection, revision, state.last, None):
        found.take(row.id, row.time, row.score)
    return found
