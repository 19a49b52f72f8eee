"""The page /drift."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.pages.frame import Frame
from invad.serve.web.auth import Caller


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]

    @api.get("/drift")
    def page(request: Request, caller: allowed, station: str | None = None) -> Response:
        chosen = frame.one_station(caller, station)
        return frame.html(request, caller, "drift.html", title="Drift", station=chosen, all_stations=False)

    return api
