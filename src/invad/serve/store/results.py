"""Results: written many in one transaction, read one by one and page by page."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, func, select, tuple_
from sqlalchemy.sql.elements import ColumnElement

from invad.records import Decision
from invad.scoring.regions import Region, share_of_limit
from invad.serve.ids import smallest_id
from invad.serve.records import SCHEMA, Member, Milliseconds, Picture, Result, Verdict, milliseconds, utc
from invad.serve.store.prepared import Prepared
from invad.serve.store.schema import outbox, region, result

NEAREST = 1000
AT_A_TIME = 500
LOOKED_AT = 50_000
"""Results whose scores a page asks for."""

OF_ONE_PART = 20
"""Results of parts of one name: pictures that are met again are those of the last ones."""

_RESULTS, _REGIONS, _OUTBOX = (Prepared(table.insert()) for table in (result, region, outbox))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A result and what of its row is no part of it."""

    result: Result
    map_sha256: str | None
    map_limits: tuple[float, float]

    @property
    def time_ms(self) -> int:
        """When the part came in, in milliseconds since 1970."""
        return milliseconds(self.result.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which results: all that are given have to fit. since, until: milliseconds, the latter excluded. least,
    most: scores, both included. before: an id, of the last one of the page before."""

    station: str | None = None
    stations: tuple[str, ...] | None = None
    decision: Decision | None = None
    verdict: Verdict | None = None
    least: float | None = None
    most: float | None = None
    part_id: str | None = None
    lot: str | None = None
    reviewed: bool | None = None
    since: int | None = None
    until: int | None = None
    before: str | None = None
    limit: int = 50


def insert(
    connection: Connection, stored: Sequence[Stored], sinks: Callable[[Result], Sequence[str]]
) -> None:
    """Add results, their regions, and a row of the outbox for each and each of its sinks."""
    _RESULTS.run(connection, [_columns(one) for one in stored])
    found = [
        {"result": one.result.id, "number": number, **_region_columns(place)}
        for one in stored
        for number, place in enumerate(one.result.regions)
    ]
    if found:
        _REGIONS.run(connection, found)
    waiting = [
        {
            "result": one.result.id,
            "sink": sink,
            "attempts": 0,
            "next_try": 0,  # at once, whatever the clock does
        }
        for one in stored
        for sink in sinks(one.result)
    ]
    if waiting:
        _OUTBOX.run(connection, waiting)


def known(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Which of these ids are stored."""
    return set(connection.scalars(select(result.c.id).where(result.c.id.in_(ids))))


def of_requests(connection: Connection, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Stored]:
    """What came of requests that callers named, by (station, request_id)."""
    if not names:
        return {}
    wanted = select(result).where(tuple_(result.c.station, result.c.request_id).in_(names))
    found = _with_regions(connection, connection.execute(wanted).all())
    return {(one.result.station, str(one.result.request_id)): one for one in found}


def mark_late(connection: Connection, id: str) -> None:
    """Whoever waited for it was told that it was late while it was being stored."""
    connection.execute(result.update().where(result.c.id == id).values(late=True))


def name_maps(connection: Connection, digests: Mapping[str, str]) -> None:
    """The maps of these results are kept now. digests: by id."""
    for id, digest in digests.items():
        row = result.update().where(result.c.id == id)
        connection.execute(row.values(map_sha256=digest, map_kept=True))


def by_id(connection: Connection, id: str) -> Stored | None:
    return _one(connection, select(result).where(result.c.id == id))


def by_ids(connection: Connection, ids: Sequence[str]) -> list[Stored]:
    """Those that are stored, in no order."""
    found = []
    for some in in_parts(ids):
        rows = connection.execute(select(result).where(result.c.id.in_(some))).all()
        found += _with_regions(connection, rows)
    return found


def in_parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """As many at a time as every database takes in one statement."""
    for begin in range(0, len(ids), AT_A_TIME):
        yield ids[begin : begin + AT_A_TIME]


def by_request(connection: Connection, station: str, request_id: str) -> Stored | None:
    """What came of a request that the caller named."""
    wanted = select(result).where(result.c.station == station, result.c.request_id == request_id)
    return _one(connection, wanted)


def of_part(connection: Connection, station: str, prefix: str, digits: int) -> list[Result]:
    """What came of parts whose requests begin with `prefix` and end in so many hexadecimal digits, newest
    first, as many as matter."""
    name = result.c.request_id
    is_wanted = name.between(prefix + "0" * digits, prefix + "f" * digits)
    wanted = select(result).where(result.c.station == station, is_wanted)
    rows = connection.execute(wanted.order_by(result.c.id.desc()).limit(OF_ONE_PART)).all()
    return [_stored(row, ()).result for row in rows if row.members is not None]


def page(connection: Connection, query: Query) -> tuple[list[Stored], str | None]:
    """The newest that fit, newest first, and `before` of the page after, where there may be one.

    Scores have no index of use to an order by time: of what fits otherwise the newest `LOOKED_AT` are read.
    """
    of_scores = [
        *([] if query.least is None else [result.c.score >= query.least]),
        *([] if query.most is None else [result.c.score <= query.most]),
    ]
    newest_first = result.c.id.desc()
    if not of_scores:
        wanted = select(result).where(*_fits(query)).order_by(newest_first).limit(query.limit)
        rows = connection.execute(wanted).all()
        return _with_regions(connection, rows), rows[-1].id if len(rows) == query.limit else None
    ids = select(result.c.id).where(*_fits(query)).order_by(newest_first).limit(LOOKED_AT).subquery("newest")
    wanted = select(result).join(ids, ids.c.id == result.c.id).where(*of_scores)
    rows = connection.execute(wanted.order_by(newest_first).limit(query.limit)).all()
    if len(rows) == query.limit:
        return _with_regions(connection, rows), rows[-1].id
    looked_at, last = connection.execute(select(func.count(), func.min(ids.c.id))).one()
    return _with_regions(connection, rows), last if looked_at == LOOKED_AT else None


def count_since(connection: Connection, station: str, since: int) -> int:
    """How many parts of a station have come since then, in milliseconds."""
    of_station = (result.c.station == station, result.c.id >= smallest_id(since))
    return connection.scalar(select(func.count()).select_from(result).where(*of_station)) or 0


def _fits(query: Query) -> list[ColumnElement[bool]]:
    """All but the scores."""
    where = [
        result.c[name] == value
        for name in ("station", "decision", "verdict", "part_id", "lot")
        if (value := getattr(query, name)) is not None
    ]
    if query.reviewed is not None:
        where.append(result.c.verdict.is_not(None) if query.reviewed else result.c.verdict.is_(None))
    if query.stations is not None:
        where.append(result.c.station.in_(query.stations))
    if query.since is not None:
        # An id is made after its part has come, and ids never fall: so this leaves none out, and is quick.
        where += [result.c.time >= query.since, result.c.id >= smallest_id(query.since)]
    if query.until is not None:
        # Ids rise with time, but where a clock was set back: so the largest id of the parts nearest in time
        # bounds the search. Without it every newer part would be looked at.
        near = select(result.c.id).where(result.c.time < query.until).order_by(result.c.time.desc())
        nearest = near.limit(NEAREST).subquery("nearest")
        where += [
            result.c.time < query.until,
            result.c.id <= select(func.max(nearest.c.id)).scalar_subquery(),
        ]
    if query.before is not None:
        where.append(result.c.id < query.before)
    return where


def newest_id(connection: Connection) -> str | None:
    """The largest id there is."""
    newest: str | None = connection.scalar(select(func.max(result.c.id)))
    return newest


def _one(connection: Connection, wanted: Select[Any]) -> Stored | None:
    found = _with_regions(connection, connection.execute(wanted).all())
    return found[0] if found else None


def _with_regions(connection: Connection, rows: Sequence[Row[Any]]) -> list[Stored]:
    places: defaultdict[str, list[Region]] = defaultdict(list)
    limits = {row.id: row.map_review_limit for row in rows}
    wanted = select(region).where(region.c.result.in_([row.id for row in rows])).order_by(region.c.number)
    for place in connection.execute(wanted) if rows else ():
        values = {name: getattr(place, name) for name in _OF_REGION}
        share = share_of_limit(place.peak, limits[place.result])
        places[place.result].append(Region(**values, share_of_limit=share))
    return [_stored(row, tuple(places[row.id])) for row in rows]


_SAME = (
    *("id", "station", "part_id", "lot", "category", "source", "request_id", "image_sha256", "image_kept"),
    *("map_kept", "width", "height", "model", "model_version", "calibration", "score", "peak", "p_value"),
    *("decision", "review_limit", "bad_limit", "audit", "late", "verdict"),
)
"""What a row and a record call by one name."""

_OF_REGION = tuple(column.name for column in region.columns if column.name not in ("result", "number"))

_STEPS = ("queue", "decode", "infer", "store")


def _stored(row: Row[Any], regions: tuple[Region, ...]) -> Stored:
    record = Result(
        schema=SCHEMA,
        time=utc(row.time),
        regions=regions,
        picture=Picture(grey=row.grey, clipped=row.clipped, sharpness=row.sharpness),
        ms=Milliseconds(**{step: getattr(row, f"ms_{step}") for step in _STEPS}),
        **{name: getattr(row, name) for name in _SAME},
        **({} if row.members is None else _of_members(json.loads(row.members))),
    )
    return Stored(
        result=record, map_sha256=row.map_sha256, map_limits=(row.map_review_limit, row.map_bad_limit)
    )


def _of_members(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "members": tuple(map(Member.of_plain, said["members"])),
        "seen_by": said["seen_by"],
        "reason": said["reason"],
    }


def _members_text(record: Result) -> str | None:
    if not record.members:
        return None
    members = [asdict(one) for one in record.members]
    return json.dumps({"members": members, "seen_by": record.seen_by, "reason": record.reason})


def _columns(stored: Stored) -> dict[str, Any]:
    record = stored.result
    return {
        **{name: getattr(record, name) for name in _SAME},
        **{f"ms_{step}": getattr(record.ms, step) for step in _STEPS},
        "grey": record.picture.grey,
        "clipped": record.picture.clipped,
        "sharpness": record.picture.sharpness,
        "time": stored.time_ms,
        "members": _members_text(record),
        "map_sha256": stored.map_sha256,
        "map_review_limit": stored.map_limits[0],
        "map_bad_limit": stored.map_limits[1],
    }


def _region_columns(place: Region) -> dict[str, Any]:
    return {name: getattr(place, name) for name in _OF_REGION}
