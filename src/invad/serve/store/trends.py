"""Sums over the parts of a station, block by block of the time at which they came."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from invad.scoring.labels import Labels
from invad.serve.ids import smallest_id
from invad.serve.store.schema import result


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Parts that one revision decided from `since` on, in milliseconds. grey, clipped, sharpness: means."""

    revision: int
    since: int
    labels: Labels
    grey: float
    clipped: float
    sharpness: float


def beginning(connection: Connection, station: str, since: int, until: int, most: int) -> str:
    """The id from which on about the newest `most` parts of a time lie, by an index alone."""
    ids = (result.c.id >= smallest_id(since), result.c.id < smallest_id(until))
    wanted = select(result.c.id).where(result.c.station == station, *ids).order_by(result.c.id.desc())
    found: str | None = connection.scalar(wanted.offset(most).limit(1))
    return found or smallest_id(since)


def first_and_last(
    connection: Connection, station: str, category: str, since: int, until: int, begin: str
) -> tuple[int, int] | None:
    """When the first and the last part of a time came; None where there is none. begin: smallest id."""
    wanted = select(result.c.time).where(*_of(station, category, since, until, begin)).limit(1)
    first = connection.scalar(wanted.order_by(result.c.id))
    last = connection.scalar(wanted.order_by(result.c.id.desc()))
    return None if first is None or last is None else (first, last)


def blocks(
    connection: Connection, station: str, category: str, since: int, until: int, begin: str, length: int
) -> list[Block]:
    """Those with parts, oldest first. begin: smallest id. length: in milliseconds, from midnight UTC on."""
    start = ((result.c.time // length) * length).label("start")
    is_flagged, is_said = result.c.decision != "good", result.c.verdict.in_(("good", "bad"))
    wanted = (
        select(
            result.c.calibration,
            start,
            func.count(),
            _number(is_flagged),
            _number(and_(is_flagged, is_said)),
            _number(and_(is_flagged, result.c.verdict == "good")),
            _number(and_(~is_flagged, result.c.audit, is_said)),
            _number(and_(~is_flagged, result.c.audit, result.c.verdict == "bad")),
            func.avg(result.c.grey),
            func.avg(result.c.clipped),
            func.avg(result.c.sharpness),
        )
        .where(*_of(station, category, since, until, begin))
        .group_by(result.c.calibration, start)
        .order_by(start, result.c.calibration)
    )
    return [
        Block(
            revision=row[0],
            since=row[1],
            labels=Labels(
                parts=row[2],
                flagged=row[3],
                said=row[4],
                false_alarms=row[5],
                audited=row[6],
                missed=row[7],
            ),
            grey=row[8],
            clipped=row[9],
            sharpness=row[10],
        )
        for row in connection.execute(wanted)
    ]


def _number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


def _of(station: str, category: str, since: int, until: int, begin: str) -> list[ColumnElement[bool]]:
    of_category = result.c.category == category
    if not category:
        of_category = or_(of_category, result.c.category.is_(None))
    return [
        result.c.station == station,
        of_category,
        result.c.time >= since,
        result.c.time < until,
        result.c.id >= begin,  # an id is made after its part has come
    ]
