"""The page /limits."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.serve.pages.frame import Frame
from invad.serve.store import stations
from invad.serve.web.administration import revision_record
from invad.serve.web.auth import Caller


def router(frame: Frame) -> APIRouter:
    """It, and what it loads."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]

    @api.get("/limits")
    def page(request: Request, caller: allowed, station: str | None = None) -> Response:
        chosen = frame.one_station(caller, station)
        with frame.service.database.read() as connection:
            found = stations.revisions(connection, chosen)
            deciding = {one.id for one in stations.deciding(connection)}
            active = next(one.active for one in stations.stations(connection) if one.name == chosen)
        return frame.html(
            request,
            caller,
            "limits.html",
            title="Limits",
            station=chosen,
            all_stations=False,
            revisions=[revision_record(one, one.id in deciding) for one in found],
            categories=sorted({one.category for one in found if one.id in deciding}),
            active=active,
            usual=frame.usual_category(chosen),
            may_apply=caller.may("admin"),
        )

    return api
