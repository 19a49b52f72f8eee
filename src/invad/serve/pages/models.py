"""The page /models: versions with where they come from, upload, shadow, activate, roll back; what
of a picture counts."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from invad.serve import versions
from invad.serve.pages.frame import Frame
from invad.serve.pages.region import with_pictures
from invad.serve.records import Refused
from invad.serve.store import stations
from invad.serve.web.administration import region_record, region_records
from invad.serve.web.auth import Caller
from invad.serve.web.versions import version_records

LISTED = 20
"""Parts whose decision differs."""


def router(frame: Frame) -> APIRouter:
    """It, and the comparison that it loads again and again."""
    api = APIRouter(include_in_schema=False)
    allowed = Annotated[Caller, Depends(frame.needs("read"))]

    @api.get("/models")
    def page(request: Request, caller: allowed, station: str | None = None) -> Response:
        chosen = frame.one_station(caller, station)
        with frame.service.database.read() as connection:
            past = stations.activated(connection, chosen)
        found = version_records(frame.service, None)
        return frame.html(
            request,
            caller,
            "models.html",
            title="Models",
            station=chosen,
            all_stations=False,
            versions=found,
            model=frame.service.active(chosen).name,
            previous=next((one for one in found if len(past) > 1 and one.hash == past[1]), None),
            may_change=caller.may("admin"),
            most_megabytes=frame.service.options.max_model >> 20,
            region=region_record(frame.service, chosen),
            regions=region_records(frame.service, chosen),
            picture=next(iter(with_pictures(frame, chosen, 1)), None),
            **_compared(frame, chosen),
        )

    @api.get("/models/comparison")
    def comparison(caller: allowed, station: str | None = None) -> Response:
        chosen = frame.one_station(caller, station)
        return frame.part_of_page(caller, "_comparison.html", station=chosen, **_compared(frame, chosen))

    return api


def _compared(frame: Frame, station: str) -> dict[str, Any]:
    try:
        found = versions.compare(frame.service, station, LISTED)
    except Refused:
        return {"comparison": None}
    return {"comparison": found}
