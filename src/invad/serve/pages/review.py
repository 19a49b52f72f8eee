"""The page /review."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.pages.frame import Frame
from invad.serve.web.auth import Caller


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("review"))]

    @api.get("/review")
    def page(request: Request, caller: allowed, station: str | None = None) -> Response:
        chosen = frame.station(caller, station)
        return frame.html(request, caller, "review.html", title="Review", station=chosen)

    return api
