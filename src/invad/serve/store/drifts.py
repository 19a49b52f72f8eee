"""What is remembered of the drift of each station and category."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, delete, or_, select
from sqlalchemy.sql.elements import ColumnElement

from invad.serve.store.schema import drift, drift_point, result
from invad.serve.store.stations import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """calibration: id of the revision that the monitor began with. started, last: ids of results: those after
    the first, up to the second, are in the state."""

    station: str
    category: str
    calibration: int
    started: str
    last: str
    seed: int
    every: int
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPoint:
    """A point of the chart, after the part `result`."""

    result: str
    time: int
    log10_evidence: float
    effect: float
    alarm: bool


def states(connection: Connection) -> dict[tuple[str, str], DriftState]:
    """By station and category."""
    names = ("station", "category", "calibration", "started", "last", "seed", "every")
    return {
        (row.station, row.category): DriftState(
            state=json.loads(row.state), **{name: getattr(row, name) for name in names}
        )
        for row in connection.execute(select(drift))
    }


def seeds(connection: Connection) -> dict[tuple[str, str], int]:
    """Which monitor it is, by station and category: each has random numbers of its own."""
    found = connection.execute(select(drift.c.station, drift.c.category, drift.c.seed))
    return {(row.station, row.category): row.seed for row in found}


def save(connection: Connection, one: DriftState) -> None:
    """Begin a chart anew: this is its state, whatever there was."""
    of_place = (drift.c.station == one.station, drift.c.category == one.category)
    values = _values(one)
    if not connection.execute(drift.update().where(*of_place).values(**values)).rowcount:
        place = {"station": one.station, "category": one.category}
        connection.execute(drift.insert().values(**place, **values))


def advance(connection: Connection, one: DriftState, before: str, points: Sequence[DriftPoint]) -> bool:
    """The state goes on, with points for its chart; False where it is not the one that went up to `before`
    any more, because somebody else has begun it anew or stored it."""
    of_place = (drift.c.station == one.station, drift.c.category == one.category)
    is_that = (drift.c.seed == one.seed, drift.c.last == before)
    if not connection.execute(drift.update().where(*of_place, *is_that).values(**_values(one))).rowcount:
        return False
    if points:
        rows = [
            {
                "station": one.station,
                "category": one.category,
                "result": point.result,
                "time": point.time,
                "log10_evidence": point.log10_evidence,
                "effect": point.effect,
                "alarm": point.alarm,
            }
            for point in points
        ]
        connection.execute(drift_point.insert(), rows)
    return True


def _values(one: DriftState) -> dict[str, Any]:
    values = {name: getattr(one, name) for name in ("calibration", "started", "last", "seed", "every")}
    return {**values, "state": json.dumps(dict(one.state))}


def forget_points(connection: Connection, station: str, category: str, after: str) -> None:
    """Take points back that the state does not go up to."""
    connection.execute(
        delete(drift_point).where(
            drift_point.c.station == station, drift_point.c.category == category, drift_point.c.result > after
        )
    )


def points(connection: Connection, station: str, category: str, most: int) -> list[DriftPoint]:
    """The newest points of a chart, oldest first."""
    of_place = (drift_point.c.station == station, drift_point.c.category == category)
    wanted = select(drift_point).where(*of_place).order_by(drift_point.c.result.desc()).limit(most)
    names = ("result", "time", "log10_evidence", "effect", "alarm")
    rows = connection.execute(wanted).all()
    return [DriftPoint(**{name: getattr(row, name) for name in names}) for row in reversed(rows)]


def parts(
    connection: Connection, revision: Revision, after: str, until: str | None, limit: int | None = None
) -> list[Row[Any]]:
    """(id, time, score) of the parts that a revision decided, in the order of storing."""
    where = [*_of(revision), result.c.id > after]
    if until is not None:
        where.append(result.c.id <= until)
    columns = (result.c.id, result.c.time, result.c.score)
    wanted = select(*columns).where(*where).order_by(result.c.id).limit(limit)
    return list(connection.execute(wanted))


def pictures(
    connection: Connection, revision: Revision, since: str, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(grey, clipped, sharpness) of the newest parts up to `since`, and of the newest ones after it."""
    columns = (result.c.grey, result.c.clipped, result.c.sharpness)
    sides = []
    for side in (result.c.id <= since, result.c.id > since):
        wanted = select(*columns).where(*_of(revision), side).order_by(result.c.id.desc()).limit(count)
        rows = [tuple(row) for row in connection.execute(wanted)]
        sides.append(np.array(rows, np.float64).reshape(-1, len(columns)))
    return sides[0], sides[1]


def last_scores(connection: Connection, revision: Revision, count: int) -> list[float]:
    """Of the newest parts that a revision decided."""
    wanted = select(result.c.score).where(*_of(revision)).order_by(result.c.id.desc()).limit(count)
    return list(connection.scalars(wanted))


def _of(revision: Revision) -> list[ColumnElement[bool]]:
    of_category = result.c.category == revision.category
    if not revision.category:
        of_category = or_(of_category, result.c.category.is_(None))
    return [
        result.c.station == revision.station,
        of_category,
        result.c.model_version == revision.model_version,
        result.c.calibration == revision.revision,
    ]
