"""Watches each station for drift, part by part, and goes on after a restart as if there had been none.

A monitor begins when limits made of the line itself take force: the first days differ from the photographs of
the training nearly always, which is commissioning and no drift. Its state is stored now and then. What came
later is replayed from the results, with the same random numbers, so nothing is lost or counted twice.

Of several services on one database one watches. It takes all parts from the database, in the order in which
they were stored by whichever service; the others show what it has stored.
"""

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError
from invad.metrics.alarms import count_interval
from invad.scoring.drift import DriftSettings
from invad.serve.hints import hints
from invad.serve.metrics import Metrics
from invad.serve.monitors import Standing, Watched, begun, resumed
from invad.serve.records import Refused, Result, milliseconds
from invad.serve.store import drifts, stations
from invad.serve.store.database import Database, note, said
from invad.serve.store.drifts import DriftPoint, DriftState
from invad.serve.store.stations import FROM_MODEL, Revision

LOG = logging.getLogger("invad.serve")
SAVE_POINTS = 5
"""Points after which a state is stored."""

WINDOW, CHART_CONFIDENCE = 500, 0.998


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
                        watched.take(record.id, milliseconds(record.time), record.score)
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
                    watched.take(row.id, row.time, row.score)
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
                    made = begun(connection, revision, self.settings)
                    if made is not None:
                        watched[key], told[key] = made, made.state
                    continue
                told[key] = state
                is_known = now is not None and now.revision.id == revision.id
                if now is not None and is_known and now.monitor.seed == state.seed:
                    watched[key] = now
                elif self._is_mine:
                    watched[key] = resumed(connection, revision, state, self.settings)
            self._watched = watched if self._is_mine else {}
            self._told = told

    def _standing(self, key: tuple[str, str]) -> Standing | None:
        if (watched := self._watched.get(key)) is not None:
            return watched.standing
        told = self._told.get(key)
        if told is None:
            return None
        evidence = told.state["log_evidence"]
        return Standing(
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
                made = begun(connection, _deciding(connection, station, category), self.settings)
                told = {"station": station, "category": category, "why": why, "since": standing.since}
                note(connection, who, "acknowledge drift", told)
            if made is not None:
                self._told[station, category] = made.state
                if self._is_mine:
                    self._watched[station, category] = made

    def report(self, revision: Revision, most_points: int) -> DriftReport:
        """How a revision that is in force fares."""
        with self._lock:
            standing = self._standing((revision.station, revision.category))
        now = standing or Standing()
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
        return any((self._standing(key) or Standing()).alarmed for key in [*self._told] if key[0] == station)

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

    def _save(self, all_watched: Sequence[Watched]) -> bool:
        """Whether all of these go on; one that somebody else has begun anew, or stored, does not."""
        if not all_watched:
            return True
        with self.database.write() as connection:
            went_on = [drifts.advance(connection, one.state, one.kept, one.points) for one in all_watched]
        for watched in all_watched:
            watched.points, watched.kept = [], watched.last
        return all(went_on)


def _deciding(connection: Connection, station: str, category: str) -> Revision:
    here = (one for one in stations.deciding(connection) if one.station == station)
    return next(one for one in here if one.category == category)


def _phase(standing: Standing | None, is_noticed: bool) -> str:
    if standing is None:
        return "commissioning"
    if standing.alarmed:
        return "alarm"
    return "notice" if is_noticed else "watching"
