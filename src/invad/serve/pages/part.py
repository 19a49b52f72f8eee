"""The page of one part."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.pages.frame import Frame
from invad.serve.records import Refused
from invad.serve.web.auth import Caller


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]

    @api.get("/parts/{id}")
    def page(request: Request, caller: allowed, id: str) -> Response:
        stored = frame.service.result(id)
        if caller.stations is not None and stored.result.station not in caller.stations:
            raise Refused(f"no result {id}", 404)  # what a key may not see is not there
        name = stored.result.station
        return frame.html(request, caller, "part.html", title="Part", station=name, stored=stored)

    return api
