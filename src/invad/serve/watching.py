"""Watches each station for drift, part by part, and goes on after a restart as if there had been none.

A monitor begins when limits made of the line itself take force: the first days differ from the photographs of
the training nearly always, which is commissioning and no drift. Its state is stored now and then. What came
later is replayed from the results, with the same random numbers, so nothing is lost or counted twice.

Of several services on one database one watches. It takes all parts from the database, in the order in which
they were stored by whichever service; the others show what it has stored.
"""

import logging
import math
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError
from invad.metrics.alarms import count_interval
from invad.scoring.drift import DriftSettings, Monitor, start, thinning
from invad.serve.hints import hints
from invad.serve.metrics import Metrics
from invad.serve.records import Refused, Result, milliseconds
from invad.serve.store import drifts, results, stations
from invad.serve.store.database import Database, note, said
from invad.serve.store.drifts import DriftPoint, DriftState
from invad.serve.store.stations import FROM_MODEL, Revision

LOG = logging.getLogger("invad.serve")
POINT_EVERY = 20
"""Parts between two points of the chart."""

SAVE_POINTS = 5
"""Points after which a state is stored."""

KEPT = ("parts", "capital", "log_evidence", "log_gain", "effect", "since", "alarmed")
"""Of a monitor's state; the reference follows from the results."""

WINDOW, CHART_CONFIDENCE = 500, 0.998


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
    def standing(self) -> "_Standing":
        """What is shown of it."""
        monitor = self.monitor
        return _Standing(
            parts=monitor.parts,
            every=monitor.settings.every,
            log_evidence=monitor.log_evidence,
            effect=monitor.effect,
            alarmed=monitor.alarmed,
            since=self.since,
            points=tuple(self.points),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Standing:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """phase: commissioning (limits are those of the training), watching, notice or alarm. flagged: parts
    above the review limit among the last `window`; flagged_limit: what chance exceeds once in a thousand
    windows. since: id of the part after which the change probably began. hints: what the pictures say of the
    cause, where there is evidence. log10_needed, floor: evidence of a notice, and the distance of the effect
    from 1/2 that makes it an alarm."""

    station: str
    category: str | None
    phase: str
    parts: int
    every: int
    log10_evidence: float
    effect: float
    since: str | None
    hints: Sequence[str]
    log10_needed: float
    floor: float
    window: int
    flagged: int
    flagged_limit: int
    points: Sequence[DriftPoint]


class Watch:
    """All monitors of a service; there are none before the first `reload`."""

    def __init__(self, database: Database, metrics: Metrics, settings: DriftSettings, *, alone: bool = True):
        """alone: no other service watches the same stations; otherwise `follow` says which one does."""
        self.database, self.metrics, self.settings = database, metrics, settings
        self.alone = self._is_mine = alone
        self._watched: dict[tuple[str, str], Watched] = {}
        self._told: dict[tuple[str, str], DriftState] = {}
        self._lock = threading.Lock()

    def reload(self) -> None:
        """Watch what is in force now: monitors of revisions that stay go on, others begin."""
        with self._lock:
            self._reload()

    def observe(self, records: Sequence[Result]) -> None:
        """Take parts into account that were stored, in the order of storing. Never raises: the parts have
        their answers to get. Of several services none does: see `follow`."""
        if not self.alone:
            return
        try:
            with self._lock:
                for record in records:
                    watched = self._watched.get((record.station, record.category or ""))
                    if watched is not None and watched.revision.revision == record.calibration:
                        self._take(watched, record.id, milliseconds(record.time), record.score)
                if not self._save([one for one in self._watched.values() if len(one.points) >= SAVE_POINTS]):
                    self._forget()
        except (SQLAlchemyError, DataError) as error:
            self.metrics.errors.labels("drift").inc()
            LOG.error("the state of drift was not stored yet: %s", said(error))

    def follow(self, is_mine: bool) -> None:
        """Take what all services have stored since, where this one is to watch; else see what is stored of
        it. Raises SQLAlchemyError, DataError."""
        with self._lock:
            if is_mine and not self._is_mine:
                self._is_mine = True
                self._forget()
            if not is_mine:
                self._watched, self._is_mine = {}, False
                with self.database.read() as connection:
                    kept = drifts.states(connection)
                self._told = {key: kept[key] for key in self._told if key in kept}
            elif self._catch_up():
                self._forget()

    def _forget(self) -> None:
        """Go on from what is stored."""
        self._watched = {}
        self._reload()

    def _catch_up(self) -> bool:
        """Take the parts that came since. Whether somebody else has changed what is stored."""
        went_on = []
        with self.database.read() as connection:
            kept = drifts.seeds(connection)
            if any(kept.get(key) != one.monitor.seed for key, one in self._watched.items()):
                return True
            for watched in self._watched.values():
                rows = drifts.parts(connection, watched.revision, watched.last, None)
                for row in rows:
                    self._take(watched, row.id, row.time, row.score)
                if rows:
                    went_on.append(watched)
        return not self._save(went_on)

    def _reload(self) -> None:
        with self.database.write() as connection:
            kept = drifts.states(connection)
            watched, told = {}, {}
            for revision in stations.deciding(connection):
                if revision.made_from == FROM_MODEL:
                    continue
                key = (revision.station, revision.category)
                state = kept.get(key)
                now = self._watched.get(key)
                if state is None or state.calibration != revision.id:
                    begun = self._begun(connection, revision)
                    if begun is not None:
                        watched[key], told[key] = begun, _state(begun)
                    continue
                told[key] = state
                is_known = now is not None and now.revision.id == revision.id
                if now is not None and is_known and now.monitor.seed == state.seed:
                    watched[key] = now
                elif self._is_mine:
                    watched[key] = self._resumed(connection, revision, state)
            self._watched = watched if self._is_mine else {}
            self._told = told

    def _standing(self, key: tuple[str, str]) -> _Standing | None:
        if (watched := self._watched.get(key)) is not None:
            return watched.standing
        told = self._told.get(key)
        if told is None:
            return None
        evidence = told.state["log_evidence"]
        return _Standing(
            every=told.every,
            log_evidence=float("-inf") if evidence is None else evidence,
            since=told.state["since_id"],
            **{name: told.state[name] for name in ("parts", "effect", "alarmed")},
        )

    def acknowledge(self, station: str, category: str, who: str, why: str) -> None:
        """Begin anew: the cause is known. Raises Refused (404) where nothing is watched."""
        with self._lock:
            standing = self._standing((station, category))
            if standing is None:
                raise Refused(f"station {station} is not watched for this category", 404)
            with self.database.write() as connection:
                begun = self._begun(connection, _deciding(connection, station, category))
                told = {"station": station, "category": category, "why": why, "since": standing.since}
                note(connection, who, "acknowledge drift", told)
            if begun is not None:
                self._told[station, category] = _state(begun)
                if self._is_mine:
                    self._watched[station, category] = begun

    def report(self, revision: Revision, most_points: int) -> DriftReport:
        """How a revision that is in force fares."""
        with self._lock:
            standing = self._standing((revision.station, revision.category))
        now = standing or _Standing()
        is_noticed = now.log_evidence >= math.log(self.settings.evidence)
        with self.database.read() as connection:
            last = np.array(drifts.last_scores(connection, revision, WINDOW))
            points = drifts.points(connection, revision.station, revision.category, most_points)
            since = now.since if is_noticed else None
            sides = None if since is None else drifts.pictures(connection, revision, since, WINDOW)
        calibration = revision.calibration
        limit = calibration.score_limits()[0]
        judged = [(len(last), calibration.n)]
        return DriftReport(
            station=revision.station,
            category=revision.category or None,
            phase=_phase(standing, is_noticed),
            parts=now.parts,
            every=now.every,
            log10_evidence=now.log10_evidence,
            effect=now.effect,
            since=since,
            hints=() if sides is None else hints(*sides),
            log10_needed=math.log10(self.settings.evidence),
            floor=self.settings.floor,
            window=len(last),
            flagged=int((last > limit).sum()),
            flagged_limit=count_interval(judged, calibration.rates.review, CHART_CONFIDENCE)[1],
            points=[*points, *now.points][-most_points:],
        )

    def alarmed(self, station: str) -> bool:
        """Whether parts of the station have come to look different."""
        return any((self._standing(key) or _Standing()).alarmed for key in [*self._told] if key[0] == station)

    def refresh_metrics(self) -> None:
        """Figures for Prometheus."""
        with self._lock:
            found = {key: self._standing(key) for key in self._told}
        for (station, category), standing in found.items():
            if standing is not None:
                self.metrics.drift_evidence.labels(station, category).set(standing.log10_evidence)
                self.metrics.drift_effect.labels(station, category).set(standing.effect)
                self.metrics.drift_alarm.labels(station, category).set(standing.alarmed)

    def close(self) -> None:
        """Store all states."""
        try:
            with self._lock:
                self._save(list(self._watched.values()))
        except (SQLAlchemyError, DataError) as error:  # the results are there, and are replayed
            LOG.error("the state of drift was not stored: %s", said(error))

    def _begun(self, connection: Connection, revision: Revision) -> Watched | None:
        """A new monitor, from the next part on; None where the calibration has too few scores."""
        every = thinning(np.array(revision.calibration.scores))
        settings = replace(self.settings, every=every)
        try:
            monitor = start(revision.calibration, settings, secrets.randbits(62))
        except DataError as error:
            LOG.warning("station %s is not watched for drift: %s", revision.station, error)
            return None
        newest = results.newest_id(connection) or ""
        begun = Watched(
            revision=revision, monitor=monitor, started=newest, last=newest, kept=newest, since=newest
        )
        drifts.save(connection, _state(begun))
        return begun

    def _resumed(self, connection: Connection, revision: Revision, state: DriftState) -> Watched:
        """The monitor as it was, and the parts since."""
        settings = replace(self.settings, every=state.every)
        monitor = start(revision.calibration, settings, state.seed)
        room = settings.most - len(monitor.reference)
        rows = drifts.parts(
            connection, revision, state.started, state.last, 2 * settings.most * settings.every
        )
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
        resumed = Watched(
            revision=revision,
            monitor=monitor,
            started=state.started,
            last=state.last,
            kept=state.last,
            since=state.state["since_id"],
        )
        drifts.forget_points(connection, revision.station, revision.category, state.last)
        for row in drifts.parts(connection, revision, state.last, None):
            self._take(resumed, row.id, row.time, row.score)
        return resumed

    def _take(self, watched: Watched, id: str, time: int, score: float) -> None:
        before = watched.monitor.alarmed
        reading = watched.monitor.update(score)
        watched.last = id
        if reading.since == watched.monitor.parts:
            watched.since = id
        if reading.alarm and not before:
            LOG.warning(
                "drift: parts at station %s look different since %s", watched.revision.station, watched.since
            )
        if watched.monitor.parts % POINT_EVERY == 0 or (reading.alarm and not before):
            watched.points.append(
                DriftPoint(
                    result=id,
                    time=time,
                    log10_evidence=watched.standing.log10_evidence,
                    effect=reading.effect,
                    alarm=reading.alarm,
                )
            )

    def _save(self, all_watched: Sequence[Watched]) -> bool:
        """Whether all of these go on; one that somebody else has begun anew, or stored, does not."""
        if not all_watched:
            return True
        with self.database.write() as connection:
            went_on = [drifts.advance(connection, _state(one), one.kept, one.points) for one in all_watched]
        for watched in all_watched:
            watched.points, watched.kept = [], watched.last
        return all(went_on)


def _deciding(connection: Connection, station: str, category: str) -> Revision:
    here = (one for one in stations.deciding(connection) if one.station == station)
    return next(one for one in here if one.category == category)


def _state(watched: Watched) -> DriftState:
    monitor = watched.monitor
    state: dict[str, Any] = {name: getattr(monitor, name) for name in KEPT}
    if monitor.log_evidence == float("-inf"):
        state["log_evidence"] = None  # JSON has no infinity
    return DriftState(
        station=watched.revision.station,
        category=watched.revision.category,
        calibration=watched.revision.id,
        started=watched.started,
        last=watched.last,
        seed=monitor.seed,
        every=monitor.settings.every,
        state={**state, "since_id": watched.since},
    )


def _phase(standing: _Standing | None, is_noticed: bool) -> str:
    if standing is None:
        return "commissioning"
    if standing.alarmed:
        return "alarm"
    return "notice" if is_noticed else "watching"
