"""The page /: how each station fares now, and a place to drop pictures on."""

import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.metrics.alarms import count_interval
from invad.serve.pages.frame import Frame
from invad.serve.records import Refused, Result, SinkState, SourceState
from invad.serve.store import results, reviews, stations
from invad.serve.store.database import now_ms
from invad.serve.store.stations import Revision
from invad.serve.watching import DriftReport
from invad.serve.web.administration import region_record
from invad.serve.web.auth import Caller

HOUR_MS = 3600 * 1000
REMEMBERED_SECONDS = 0.7
PHASES = {
    "commissioning": ("plain", "commissioning", "limits are still those of the training"),
    "watching": ("good", "no drift", "parts look as they did"),
    "notice": ("review", "drift noticed", "parts may look different"),
    "alarm": ("bad", "drift", "parts look different"),
}
"""Kind of badge, word, and what it means, by the phase of a monitor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """Of the last `window` parts that one revision decided, how many were flagged, and what is expected.

    expected: share that was asked for. low, high: what chance brings in 95 of 100 windows.
    """

    category: str | None
    window: int
    share: float | None
    expected: float
    low: float
    high: float
    phase: tuple[str, str, str]

    @property
    def kind(self) -> str:
        """Of the badge: more than chance brings is worth a look, fewer too, and few parts say nothing."""
        if self.share is None:
            return "plain"
        return "good" if self.low <= self.share <= self.high else "review"

    @property
    def word(self) -> str:
        if self.share is None:
            return "no parts yet"
        if self.share > self.high:
            return "more than expected"
        return "fewer than expected" if self.share < self.low else "as expected"


@dataclass(frozen=True, slots=True, kw_only=True)
class StationView:
    """per_hour: parts of the last hour. waiting: parts that wait for a verdict. source: what brings parts.
    outputs: who is told of results, by name. inspected: share of a picture that counts, None where all does.
    """

    name: str
    last: Result | None
    per_hour: int
    waiting: int
    flags: list[Flags]
    source: SourceState | None
    outputs: dict[str, SinkState]
    inspected: float | None

    @property
    def has_categories(self) -> bool:
        return any(one.category for one in self.flags)


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]
    service = frame.service

    def views(caller: Caller, station: str | None) -> list[StationView]:
        with service.database.read() as connection:
            deciding = stations.deciding(connection)
        names = [station] if station else frame.stations(caller)
        return [_view(frame, name, [one for one in deciding if one.station == name]) for name in names]

    remembered: dict[tuple[object, ...], tuple[float, str]] = {}

    def piece(caller: Caller, station: str | None) -> tuple[str, str]:
        """The cards of the stations, and their mark, which is another when something has changed.

        What was drawn a moment ago serves everybody who sees the same.
        """
        key = (caller.stations, caller.may("review"), station)
        drawn_at, text = remembered.get(key, (0.0, ""))
        if time.monotonic() - drawn_at > REMEMBERED_SECONDS:
            text = draw(caller, station)
            remembered[key] = (time.monotonic(), text)
        return text, sha256(text.encode()).hexdigest()[:16]

    def draw(caller: Caller, station: str | None) -> str:
        line = service.line
        return frame.text(
            caller,
            "_stations.html",
            views=views(caller, station),
            under_way=line.under_way,
            queue=service.options.queue,
            of_all=service.deliveries.states() if station is None and caller.stations is None else {},
            problems=service.readiness().problems,
            unread=service.unread,
        )

    @api.get("/")
    def page(request: Request, caller: allowed, station: str | None = None) -> Response:
        chosen = frame.station(caller, station)
        text, mark = piece(caller, chosen)
        with service.database.read() as connection:
            deciding = stations.deciding(connection)
        places = [chosen] if chosen else frame.stations(caller)
        categories = sorted({one.category for one in deciding if one.station in places and one.category})
        return frame.html(
            request,
            caller,
            "live.html",
            title="Live",
            station=chosen,
            cards=text,
            mark=mark,
            places=places,
            categories=categories,
            needs_category=bool(categories) and all(one.category for one in deciding),
        )

    @api.get("/live/stations")
    def cards(caller: allowed, station: str | None = None, mark: str = "") -> Response:
        """204 where nothing has changed since `mark`."""
        chosen = frame.station(caller, station)
        text, now = piece(caller, chosen)
        if now == mark:
            return Response(status_code=204)
        return frame.part_of_page(caller, "_cards.html", cards=text, mark=now, station=chosen)

    @api.get("/live/results/{id}")
    def judged(caller: allowed, id: str) -> Response:
        """One result in a few lines, for whoever sent the picture."""
        found = service.result(id).result
        if caller.stations is not None and found.station not in caller.stations:
            raise Refused(f"no result {id}", 404)
        return frame.part_of_page(caller, "_judged.html", part=found)

    return api


def _view(frame: Frame, name: str, deciding: list[Revision]) -> StationView:
    since = now_ms() - HOUR_MS
    with frame.service.database.read() as connection:
        last, _ = results.page(connection, results.Query(station=name, limit=1))
        per_hour = results.count_since(connection, name, since)
        waiting = reviews.waiting_at(connection, name)
    deciding.sort(key=lambda one: one.category)
    flags = [_flags(one, frame.service.watch.report(one, 1)) for one in deciding]
    return StationView(
        name=name,
        last=last[0].result if last else None,
        per_hour=per_hour,
        waiting=waiting,
        # Limits over all categories decide nothing where every part comes with its category.
        flags=[one for one in flags if one.window] or flags,
        source=frame.service.sources().get(name),
        outputs=frame.service.deliveries.states(name),
        inspected=None if (region := region_record(frame.service, name)) is None else region.inspected,
    )


def _flags(revision: Revision, report: DriftReport) -> Flags:
    rate, window = revision.calibration.rates.review, report.window
    low, high = _interval(window, revision.calibration.n, rate) if window else (0, 0)
    return Flags(
        category=report.category,
        window=window,
        share=report.flagged / window if window else None,
        expected=rate,
        low=low / max(window, 1),
        high=high / max(window, 1),
        phase=PHASES[report.phase],
    )


@lru_cache(maxsize=1024)
def _interval(window: int, n: int, rate: float) -> tuple[int, int]:
    return count_interval([(window, n)], rate)
