"""What people say of parts. A verdict is added, never changed, and the decision of a part stays."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, literal, or_, select, text
from sqlalchemy.sql.elements import ColumnElement

from invad.records import Decision
from invad.serve.records import Judgement, Verdict
from invad.serve.store import results
from invad.serve.store.database import now_ms
from invad.serve.store.schema import WAITING, claim, result, review

CLAIM_MS = 5 * 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """verdict: open takes the one before back. mask: lengths of runs of pixels that are not, and are,
    defective, in turn, by rows."""

    result: str
    time: int
    who: str
    verdict: Judgement
    defect: str | None
    note: str | None
    mask: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a recalibration asks of a part."""

    id: str
    score: float
    peak: float
    decision: Decision
    verdict: Verdict | None
    audit: bool
    image_sha256: str


def add(connection: Connection, one: Review) -> None:
    """Add a review; it is the result's verdict from now on, or takes that back. Whoever had the part lets go
    of it."""
    mask = None if one.mask is None else json.dumps(one.mask)
    values = {name: getattr(one, name) for name in ("result", "time", "who", "verdict", "defect", "note")}
    connection.execute(review.insert().values(**values, mask=mask))
    verdict = None if one.verdict == "open" else one.verdict
    connection.execute(result.update().where(result.c.id == one.result).values(verdict=verdict))
    connection.execute(delete(claim).where(claim.c.result == one.result))


def of_result(connection: Connection, id: str) -> list[Review]:
    """All reviews of a result, the newest first."""
    rows = connection.execute(select(review).where(review.c.result == id).order_by(review.c.id.desc()))
    return [
        Review(
            result=row.result,
            time=row.time,
            who=row.who,
            verdict=row.verdict,
            defect=row.defect,
            note=row.note,
            mask=None if row.mask is None else tuple(json.loads(row.mask)),
        )
        for row in rows
    ]


def claim_next(
    connection: Connection,
    who: str,
    limit: int,
    station: str | None = None,
    stations: Sequence[str] | None = None,
) -> list[results.Stored]:
    """The oldest parts that wait for a verdict and that nobody else looks at; they are this person's for five
    minutes. In a write transaction, so that two people never get one."""
    now = now_ms()
    connection.execute(delete(claim).where(claim.c.until <= now))
    others = select(literal(1)).where(claim.c.result == result.c.id, claim.c.who != who).exists()
    wanted = select(result.c.id).where(~others, *_waiting(station, stations)).order_by(result.c.id)
    wanted = wanted.limit(limit)
    ids = list(connection.scalars(wanted))
    connection.execute(delete(claim).where(claim.c.result.in_(ids)))
    if ids:
        rows = [{"result": id, "who": who, "until": now + CLAIM_MS} for id in ids]
        connection.execute(claim.insert(), rows)
    found = [results.by_id(connection, id) for id in ids]
    return [one for one in found if one is not None]


def waiting(
    connection: Connection, station: str | None = None, stations: Sequence[str] | None = None
) -> tuple[int, int | None]:
    """How many parts wait for a verdict, and since when the oldest does."""
    wanted = select(func.count(), func.min(result.c.time)).where(*_waiting(station, stations))
    row = connection.execute(wanted).one()
    return row[0], row[1]


def _waiting(station: str | None, stations: Sequence[str] | None) -> list[ColumnElement[bool]]:
    where: list[ColumnElement[bool]] = [text(WAITING)]  # type: ignore[list-item]
    if station is not None:
        where.append(result.c.station == station)
    if stations is not None:
        where.append(result.c.station.in_(stations))
    return where


def waiting_at(connection: Connection, station: str) -> int:
    """How many parts of a station wait for a verdict."""
    wanted = select(func.count()).where(text(WAITING), result.c.station == station)
    return connection.scalar(wanted) or 0


def window(
    connection: Connection,
    station: str,
    category: str,
    version: str,
    since: int | None,
    until: int | None,
    most: int,
) -> list[Seen]:
    """The newest `most` parts of a station, category and version in a time, all of them, newest first."""
    where: list[ColumnElement[bool]] = [*_of(station, category, version)]
    if since is not None:
        where.append(result.c.time >= since)
    if until is not None:
        where.append(result.c.time < until)
    return _seen(connection, where, most)


def known_bad(connection: Connection, station: str, category: str, version: str, most: int) -> list[Seen]:
    """The newest parts that people called bad, whenever they came."""
    where = [*_of(station, category, version), result.c.verdict == "bad"]
    return _seen(connection, where, most)


def _of(station: str, category: str, version: str) -> list[ColumnElement[bool]]:
    of_category = result.c.category == category
    if not category:  # the limits over all categories judge parts without one
        of_category = or_(of_category, result.c.category.is_(None))
    return [result.c.station == station, of_category, result.c.model_version == version]


def _seen(connection: Connection, where: Sequence[ColumnElement[bool]], most: int) -> list[Seen]:
    names = ("id", "score", "peak", "decision", "verdict", "audit", "image_sha256")
    columns = [result.c[name] for name in names]
    rows: Any = connection.execute(select(*columns).where(*where).order_by(result.c.id.desc()).limit(most))
    return [Seen(**{name: getattr(row, name) for name in names}) for row in rows]
