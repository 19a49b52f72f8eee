"""The page /drift."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.report.wording import counted
from invad.serve.ids import time_of_id
from invad.serve.pages.frame import Frame
from invad.serve.pages.words import percent
from invad.serve.records import utc
from invad.serve.store import stations
from invad.serve.watching import DriftReport
from invad.serve.web.auth import Caller

LOOKS = {"alarm": "bad", "notice": "review", "watching": "good", "commissioning": "plain"}
"""Of the badge of a phase; the most urgent first."""

OVER_ALL = "over all"

CHARTS = (
    (
        "evidence",
        "Evidence of a change",
        "Powers of ten by which bets against “all is as before” have grown. Above the line it is a notice.",
    ),
    (
        "effect",
        "Size of the change",
        "Mean rank among the scores that the limits were made from. Below one half scores have risen; "
        "outside the lines a notice becomes an alarm.",
    ),
    (
        "flagged",
        "Share flagged",
        "Parts above the review limit, which the watch for drift leaves out. The band is what chance does to "
        "limits made of so few parts.",
    ),
    ("false-alarms", "False alarms, by verdicts", "Good parts that were flagged, dated by when they came."),
    ("missed", "Missed defects, by audited parts", "Bad parts among the good ones that were drawn by lot."),
    ("grey", "Mean grey", "0 is black. It moves with the lamp and the exposure."),
    ("clipped", "Clipped share", "Pixels that are all black or all white."),
    ("sharpness", "Sharpness", "It falls with focus, vibration and dirt."),
)
"""Name, title, what it shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A report in words. name: of the category, or of several. look: of its badge."""

    category: str | None
    name: str
    phase: str
    look: str
    lines: Sequence[str]
    since: str | None
    since_time: str | None
    hints: Sequence[str]


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]

    @api.get("/drift")
    def page(request: Request, caller: allowed, station: str | None = None) -> Response:
        chosen = frame.one_station(caller, station)
        with frame.service.database.read() as connection:
            found = [one for one in stations.deciding(connection) if one.station == chosen]
        reports = [frame.service.watch.report(one, 1) for one in found]
        return frame.html(
            request,
            caller,
            "drift.html",
            title="Drift",
            station=chosen,
            all_stations=False,
            reports=all_in_words(reports),
            categories=sorted(one.category or "" for one in reports),
            usual=frame.usual_category(chosen),
            charts=CHARTS,
            may_apply=caller.may("admin"),
        )

    return api


def all_in_words(reports: Sequence[DriftReport]) -> list[Said]:
    """Of the categories of a station, the most urgent first; those that are not watched yet are one."""
    phases = list(LOOKS)
    ordered = sorted(reports, key=lambda one: (phases.index(one.phase), one.category or ""))
    watched = [in_words(one) for one in ordered if one.phase != "commissioning"]
    others = [one for one in ordered if one.phase == "commissioning"]
    if not others:
        return watched
    names = ", ".join(one.category or OVER_ALL for one in others)
    one = replace(in_words(others[0]), name=names if len(reports) > 1 else "")
    return [*watched, one if len(others) == 1 else replace(one, lines=one.lines[:1])]


def in_words(report: DriftReport) -> Said:
    """What a person has to know of it, the most important first."""
    lines = [_state(report)]
    if report.window and report.flagged > report.flagged_limit:
        lines.append(
            f"{report.flagged} of the last {counted(report.window, 'part')} were flagged; chance brings more "
            f"than {report.flagged_limit} once in a thousand windows. Those are defects or a drift upwards: "
            "review tells."
        )
    elif report.window:
        lines.append(
            f"{report.flagged} of the last {counted(report.window, 'part')} were flagged "
            f"({percent(report.flagged / report.window)}); up to {report.flagged_limit} may be chance."
        )
    if report.every > 1:
        lines.append(f"Neighbours are alike here, so each {report.every}th part is watched.")
    return Said(
        category=report.category,
        name=report.category or OVER_ALL,
        phase=report.phase,
        look=LOOKS[report.phase],
        lines=lines,
        since=report.since,
        since_time=utc(time_of_id(report.since)) if report.since else None,
        hints=report.hints,
    )


def _state(report: DriftReport) -> str:
    risen = "risen" if report.effect < 0.5 else "fallen"
    seen = f"{counted(report.parts, 'part')} {'was' if report.parts == 1 else 'were'} watched"
    return {
        "commissioning": "The limits are still those of the training. Let the line run, judge what is "
        "flagged, and make limits of the line on the page Limits: from then on it is watched.",
        "watching": f"Parts look as they did when the limits were made; {seen} since.",
        "notice": f"There is evidence that scores have {risen}, by little; {seen}. More of it is an alarm.",
        "alarm": f"Parts look different: their scores have {risen}. The watch stands still until the cause "
        "is known or new limits are in force.",
    }[report.phase]
