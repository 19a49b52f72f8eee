"""The page /region: draw what of the pictures of a station counts, on a recent one, and save it as a file.

The script and the part of the page that it draws with are those of `invad roi draw`.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import FileResponse, Response

import invad.report
from invad.runtime.predictor import Predictor
from invad.serve.models import Loaded
from invad.serve.pages.frame import Frame
from invad.serve.pictures import draw_ignored
from invad.serve.records import Refused, Result
from invad.serve.store import results, stations
from invad.serve.web.auth import Caller

SIDE = 1600
"""Pixels of the longer side of the picture as it is shown; the region is in pixels of the picture itself."""

LOOKED_AT = 100
"""Newest parts among which those are looked for whose picture is kept."""

OFFERED = 12
"""Of these, to draw on."""

SHARED = Path(invad.report.__file__).parent


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]
    changing = Annotated[Caller, Depends(frame.needs("admin"))]

    @api.get("/region")
    def page(
        request: Request, caller: changing, station: str | None = None, part: str | None = None
    ) -> Response:
        """part: the id of one whose picture is drawn on; the last one unless given."""
        chosen = frame.one_station(caller, station)
        judge, recent = frame.service.active(chosen), with_pictures(frame, chosen, OFFERED)
        drawn_on = recent[0] if recent else None
        if part is not None and (drawn_on := next((one for one in recent if one.id == part), None)) is None:
            raise Refused(f"no recent part {part[:64]} of station {chosen} has a picture", 404)
        return frame.html(
            request,
            caller,
            "region.html",
            title="Region of interest",
            station=chosen,
            all_stations=False,
            part=drawn_on,
            recent=recent,
            side=SIDE,
            uri=f"{frame.prefix}/api/v1/results/{drawn_on.id}/image?side={SIDE}" if drawn_on else "",
            name=(drawn_on.part_id or drawn_on.id) if drawn_on else "",
            width=drawn_on.width if drawn_on else 0,
            height=drawn_on.height if drawn_on else 0,
            region=_start(judge.detector, drawn_on) if drawn_on else {},
            category=drawn_on.category if drawn_on and drawn_on.category in judge.detector.regions else None,
            model=judge.name,
            made_from=_trained(frame, judge),
            bundle=getattr(judge.detector, "held", None) is not None,
        )

    @api.get("/region/ignored")
    def ignored(caller: allowed, station: str, category: str | None = None) -> Response:
        """What the version that judges there ignores, to be laid over a picture."""
        detector = frame.service.active(frame.one_station(caller, station)).detector
        known = category if category in detector.regions else None
        if (inside := detector.inside_for(known)) is None:
            raise Refused(f"at station {station!r} all of a picture counts", 404)
        return Response(draw_ignored(inside), media_type="image/png", headers={"Cache-Control": "no-store"})

    @api.get("/static/region.js")
    def script() -> Response:
        return FileResponse(SHARED / "region.js", headers={"Cache-Control": "no-cache"})

    @api.get("/static/region.css")
    def style() -> Response:
        return FileResponse(SHARED / "region.css", headers={"Cache-Control": "no-cache"})

    return api


def with_pictures(frame: Frame, station: str, most: int) -> list[Result]:
    """The newest parts there whose pictures are kept, newest first."""
    with frame.service.database.read() as connection:
        found, _ = results.page(connection, results.Query(station=station, limit=LOOKED_AT))
    return [one.result for one in found if one.result.image_kept][:most]


def _trained(frame: Frame, judge: Loaded) -> str | None:
    """Content hash of the trained model that a version is or was made from; None where that is unknown."""
    with frame.service.database.read() as connection:
        known = stations.version(connection, judge.hash)
    made_of: str | None = None if known is None else known.content.get("made_of")
    return made_of or getattr(getattr(judge.detector, "info", None), "model_hash", judge.hash)


def _start(detector: Predictor, part: Result) -> dict[str, Any]:
    """What the page begins with: the region of the part's category, where it is of pictures of this size."""
    region = detector.regions.get(part.category or "", detector.region)
    if region is not None and region.frame == (part.width, part.height):
        return asdict(region)
    return {"frame": [part.width, part.height], "include": [], "ignore": [], "min_cover": 0.5}
