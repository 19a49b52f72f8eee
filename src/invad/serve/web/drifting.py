"""Whether a line still is what its limits were made from."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query

from invad.serve.ids import time_of_id
from invad.serve.records import utc
from invad.serve.service import Service
from invad.serve.store import stations
from invad.serve.store.database import now_ms
from invad.serve.trends import Trends, of_station
from invad.serve.watching import DriftReport
from invad.serve.web.answers import NO_KEY, NOT_THERE, ONLY_KNOWN, StationName, time_of
from invad.serve.web.auth import Caller, Gate

MOST_POINTS = 5000
DAY_MS, DEFAULT_DAYS = 86_400_000, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRecord:
    """After the part `result`."""

    result: str
    time: str
    log10_evidence: float
    effect: float
    alarm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftRecord:
    """phase: commissioning (limits are still those of the training), watching, notice or alarm. effect: 0.5
    without drift, below where scores rise. since: id of the part after which the change probably began, with
    its time. hints: what the pictures say of the cause. log10_needed: evidence of a notice; floor: distance
    of the effect from 0.5 that makes it an alarm. flagged: of the last `window` parts; chance brings more
    than flagged_limit once in a thousand windows."""

    station: str
    category: str | None
    phase: str
    parts: int
    every: int
    log10_evidence: float
    effect: float
    since: str | None
    since_time: str | None
    hints: tuple[str, ...]
    log10_needed: float
    floor: float
    window: int
    flagged: int
    flagged_limit: int
    points: list[PointRecord]


def router(service: Service, gate: Gate) -> APIRouter:
    """These calls."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY, dependencies=ONLY_KNOWN)
    reading = Annotated[Caller, Depends(gate.needs("read"))]
    administering = Annotated[Caller, Depends(gate.needs("admin"))]

    @api.get("/drift", summary="Whether parts still look as they did.")
    def drift(
        caller: reading,
        station: str | None = None,
        points: Annotated[int, Query(ge=0, le=MOST_POINTS, description="Of each chart, the newest.")] = 500,
    ) -> dict[str, list[DriftRecord]]:
        """For each station and category, by name."""
        if station is not None:
            caller.require(station)
            service.require_station(station)
        with service.database.read() as connection:
            deciding = stations.deciding(connection)
        mine = [
            one
            for one in deciding
            if station in (None, one.station) and (caller.stations is None or one.station in caller.stations)
        ]
        mine.sort(key=lambda one: (one.station, one.category))
        return {"drift": [_record(service.watch.report(one, points)) for one in mine]}

    @api.get(
        "/stations/{station}/trends",
        summary="How a line goes on: flagged parts, verdicts, pictures.",
        responses=NOT_THERE,
    )
    def trends_of(
        caller: reading,
        station: StationName,
        category: str | None = None,
        since: Annotated[str | None, Query(description="ISO date; 30 days ago unless given.")] = None,
        until: Annotated[str | None, Query(description="ISO date, itself excluded.")] = None,
    ) -> Trends:
        """In blocks of a minute to a week, at most 120 where a week is enough. Verdicts count for the time at
        which their parts came."""
        caller.require(station)
        service.require_station(station)
        now = now_ms()
        start, end = time_of("since", since), time_of("until", until)
        return of_station(
            service,
            station,
            category,
            now - DEFAULT_DAYS * DAY_MS if start is None else start,
            now + DAY_MS if end is None else end,  # a clock that was set back
        )

    @api.post(
        "/stations/{station}/drift:acknowledge",
        summary="Watch anew: the cause is known.",
        status_code=204,
        responses=NOT_THERE,
    )
    def acknowledge(
        caller: administering,
        station: StationName,
        why: Annotated[str, Body(embed=True, min_length=1, max_length=500)],
        category: str | None = None,
    ) -> None:
        """The limits stay as they are."""
        caller.require(station)
        service.require_station(station)
        key = service.in_force.key(station, category)
        service.watch.acknowledge(station, key, caller.name, why)

    return api


def _record(found: DriftReport) -> DriftRecord:
    points = [
        PointRecord(
            result=one.result,
            time=utc(one.time),
            log10_evidence=one.log10_evidence,
            effect=one.effect,
            alarm=one.alarm,
        )
        for one in found.points
    ]
    names = DriftRecord.__dataclass_fields__.keys() - {"points", "since_time"}
    since = utc(time_of_id(found.since)) if found.since else None
    return DriftRecord(points=points, since_time=since, **{name: getattr(found, name) for name in names})
