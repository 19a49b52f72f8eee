"""The page of one part: the picture under its map, and all that is known of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.pages.frame import Frame
from invad.serve.pictures import draw_ignored, draw_mask
from invad.serve.records import Refused, Result, utc
from invad.serve.store import reviews, shadows
from invad.serve.store.reviews import Review
from invad.serve.verdicts import Words, mask_of
from invad.serve.web.auth import Caller

WIDTH = 600.0
"""Of the drawing of the scale, in its own units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Places of a score and its limits along a line from 0 to `WIDTH`."""

    score: float
    review: float
    bad: float


def scale(part: Result) -> Scale:
    """Linear, with room beside the outer ones."""
    values = (part.score, part.review_limit, part.bad_limit)
    low, high = min(0.0, *values), max(values)
    spread = (high - low) * 1.08 or 1.0
    score, review, bad = ((value - low) / spread * WIDTH for value in values)
    return Scale(score=score, review=review, bad=bad)


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]

    @api.get("/parts/{id}")
    def page(request: Request, caller: allowed, id: str) -> Response:
        stored = frame.service.result(id)
        part = stored.result
        if caller.stations is not None and part.station not in caller.stations:
            raise Refused(f"no result {id}", 404)  # what a key may not see is not there
        with frame.service.database.read() as connection:
            said = reviews.of_result(connection, id)
            shadowed = shadows.of_result(connection, id)
        return frame.html(
            request,
            caller,
            "part.html",
            title=f"Part {part.part_id or part.id}",
            station=part.station,
            part=part,
            map_limits=stored.map_limits,
            scale=scale(part),
            width=WIDTH,
            reviews=[(utc(one.time), one) for one in said],
            painted=_painted(said),
            has_region=_inside(frame, part) is not None,
            shadowed=shadowed,
        )

    @api.get("/parts/{id}/mask")
    def mask(caller: allowed, id: str) -> Response:
        """What people painted last, to be laid over the picture."""
        part = frame.service.result(id).result
        with frame.service.database.read() as connection:
            painted = _painted(reviews.of_result(connection, id))
        if painted is None or (caller.stations is not None and part.station not in caller.stations):
            raise Refused(f"no mask of result {id}", 404)
        drawn = draw_mask(mask_of(painted, part.width, part.height))
        return Response(drawn, media_type="image/png", headers={"Cache-Control": "no-store"})

    @api.get("/parts/{id}/ignored")
    def ignored(caller: allowed, id: str) -> Response:
        """What the version that judged the part ignores, to be laid over the picture."""
        part = frame.service.result(id).result
        inside = _inside(frame, part)
        if inside is None or (caller.stations is not None and part.station not in caller.stations):
            raise Refused(f"no region of interest of result {id}", 404)
        drawn = draw_ignored(inside)
        return Response(drawn, media_type="image/png", headers={"Cache-Control": "no-store"})

    return api


def _inside(frame: Frame, part: Result) -> NDArray[np.bool_] | None:
    """The pixels that counted; None where all did, and where the version that judged is in use no more."""
    judge = frame.service.models.all_active().get(part.model_version)
    return None if judge is None else judge.detector.inside_for(part.category)


def _painted(said: list[Review]) -> Sequence[int] | None:
    """The mask that counts now."""
    return Words.of((one.verdict, one.defect, one.mask) for one in said).mask
