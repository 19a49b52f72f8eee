"""The page /history: what has passed, newest first, and how to find a part again."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.pages.frame import Frame
from invad.serve.records import Refused
from invad.serve.store import results
from invad.serve.web.answers import time_of
from invad.serve.web.auth import Caller

PAGE = 50
DECISIONS = {"good": "good", "review": "review", "bad": "bad"}
VERDICTS = {"good": "good", "bad": "bad", "unsure": "unsure", "none": "none yet"}
FIELDS = ("station", "decision", "verdict", "part_id", "lot", "since", "until", "least", "most")
Word = Annotated[str, Query(max_length=200)]


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]

    @api.get("/history")
    def page(
        request: Request,
        caller: allowed,
        station: Word = "",
        decision: Word = "",
        verdict: Word = "",
        part_id: Word = "",
        lot: Word = "",
        since: Word = "",
        until: Word = "",
        least: Word = "",
        most: Word = "",
        cursor: Word = "",
    ) -> Response:
        given = (station, decision, verdict, part_id, lot, since, until, least, most)
        asked = dict(zip(FIELDS, (one.strip() for one in given), strict=True))
        wrong, further = "", None
        found: list[results.Stored] = []
        chosen = frame.station(caller, station)
        try:
            query = _query(asked, caller, cursor)
        except Refused as error:
            wrong = str(error)
        else:
            found, further = frame.service.history(query)
        kept = {name: value for name, value in asked.items() if value}
        return frame.html(
            request,
            caller,
            "history.html",
            title="History",
            station=chosen,
            status=400 if wrong else 200,
            wrong=wrong,
            asked=asked,
            parts=[one.result for one in found],
            decisions=DECISIONS,
            verdicts=VERDICTS,
            is_first=not cursor,
            first=f"{frame.prefix}/history?{urlencode(kept)}",
            further=further and f"{frame.prefix}/history?{urlencode({**kept, 'cursor': further})}",
            looked_at=results.LOOKED_AT if asked["least"] or asked["most"] else None,
        )

    return api


def _query(asked: dict[str, str], caller: Caller, cursor: str) -> results.Query:
    """Raises Refused (400) in one line for what cannot be asked."""
    for name, known in (("decision", DECISIONS), ("verdict", VERDICTS)):
        if asked[name] and asked[name] not in known:
            raise Refused(f"{name} {asked[name]}: give one of {', '.join(known)}", 400)
    verdict: Any = asked["verdict"]
    decision: Any = asked["decision"] or None
    return results.Query(
        station=asked["station"] or None,
        stations=caller.stations,
        decision=decision,
        verdict=verdict if verdict and verdict != "none" else None,
        reviewed=False if verdict == "none" else None,
        part_id=asked["part_id"] or None,
        lot=asked["lot"] or None,
        since=time_of("from", asked["since"] or None),
        until=time_of("until", asked["until"] or None),
        least=_score("score from", asked["least"]),
        most=_score("score to", asked["most"]),
        before=cursor or None,
        limit=PAGE,
    )


def _score(name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = float("nan")
    if value != value:
        raise Refused(f"{name} = {text}: give a number", 400)
    return value
