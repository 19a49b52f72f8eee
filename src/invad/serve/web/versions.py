"""Versions of models: uploaded, compared, switched, rolled back."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from invad.serve import arriving, versions
from invad.serve.records import Refused, utc
from invad.serve.service import Service
from invad.serve.store import stations
from invad.serve.store.stations import Station, Version
from invad.serve.web.answers import NO_KEY, NOT_THERE, ONLY_KNOWN, StationName, error
from invad.serve.web.auth import Caller, Gate

UPLOAD_PATH = re.compile(r"(?:/.*)?/api/v1/models/[^/]+/versions/?")
"""The one call whose body is larger than a picture; it goes to the disk as it comes."""

KINDS = ("application/zip", "application/x-tar", "application/gzip", "application/octet-stream")
ARCHIVE = {
    "required": True,
    "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in KINDS},
}
MOST_DIFFERING = 200
Reason = Annotated[str | None, Body(embed=True, description="Why; kept in the audit table.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """state: candidate, shadow, active or retired. stations: where it judges now. shadows: where it scores
    parts, too. proved: what 'invad verify' said here; None of versions that came with a start. by: who
    uploaded it. content: what it says of itself, such as preset, format, precision, created, grid_hw."""

    hash: str
    model: str
    added: str
    engine: str
    state: str
    stations: list[str]
    shadows: list[str]
    proved: Mapping[str, Any] | None
    by: str | None
    content: Mapping[str, Any]


def router(service: Service, gate: Gate) -> APIRouter:
    """These calls."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY, dependencies=ONLY_KNOWN)
    reading = Annotated[Caller, Depends(gate.needs("read"))]
    administering = Annotated[Caller, Depends(gate.needs("admin"))]

    @api.get("/models", summary="All versions of all models.")
    def models(caller: reading) -> dict[str, list[VersionRecord]]:
        """Newest first."""
        return {"versions": version_records(service, None)}

    @api.get("/models/{name}/versions", summary="The versions of a model.", responses=NOT_THERE)
    def of_model(caller: reading, name: str) -> dict[str, list[VersionRecord]]:
        """Newest first; a version is named by the hash of its content."""
        if not (found := version_records(service, name)):
            raise Refused(f"no model {name!r}; 'GET /api/v1/models' lists them", 404)
        return {"versions": found}

    @api.post(
        "/models/{name}/versions",
        summary="Upload a version.",
        status_code=201,
        responses={
            200: {"description": "It was there already."},
            400: error("No bundle, a broken file, or an archive that leads outside."),
            409: error("Of another model, or of another grid."),
            413: error("Too large."),
            415: error("A form."),
            422: error("It does not say here what it said where it was made."),
            507: error("The disk has no room."),
        },
        openapi_extra={"requestBody": ARCHIVE},
    )
    async def upload(request: Request, answer: Response, caller: administering, name: str) -> VersionRecord:
        """The body is a bundle or model folder as .zip, .tar or .tar.gz. It is proved on this machine, and
        then is a candidate: nothing runs it yet."""
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise Refused("send the archive itself, not a form: 'curl -T FILE -X POST', for instance", 415)
        declared = int(request.headers.get("content-length") or 0)
        with arriving.room_for_upload(service, declared) as folder:
            archive = folder / "archive"
            await _save(request, archive)
            made, is_new = await run_in_threadpool(arriving.add, service, name, archive, caller.name)
        answer.status_code = 201 if is_new else 200
        return await run_in_threadpool(_one, service, made.hash)

    @api.post(
        "/models/{name}/versions/{version}:shadow",
        summary="Let a version score the parts of a station, too.",
        responses={**NOT_THERE, 409: error("It judges there, or is retired.")},
    )
    def shadow(
        caller: administering, name: str, version: str, station: Annotated[str, Body(embed=True)] = "default"
    ) -> VersionRecord:
        """After the answer, when no part is under way; parts for which there is no time are left out."""
        caller.require(station)
        versions.put_shadow(service, station, name, version, caller.name)
        return _one(service, version)

    @api.get(
        "/stations/{station}/shadow",
        summary="How the shadow of a station fares.",
        responses=NOT_THERE,
    )
    def compare(
        caller: reading,
        station: StationName,
        differing: Annotated[int, Query(ge=0, le=MOST_DIFFERING, description="Parts to list.")] = 50,
    ) -> versions.Comparison:
        """Beside the active version, over the same parts."""
        caller.require(station)
        return versions.compare(service, station, differing)

    @api.delete("/stations/{station}/shadow", summary="End the shadow.", status_code=204, responses=NOT_THERE)
    def end_shadow(caller: administering, station: StationName) -> Response:
        """What it has scored stays."""
        caller.require(station)
        versions.end_shadow(service, station, caller.name)
        return Response(status_code=204)

    @api.post(
        "/models/{name}/versions/{version}:activate",
        summary="Let a version judge at a station.",
        responses={**NOT_THERE, 409: error("What speaks against it; a reason overrules that.")},
    )
    def activate(
        caller: administering,
        name: str,
        version: str,
        station: Annotated[str, Body(embed=True)] = "default",
        reason: Reason = None,
    ) -> VersionRecord:
        """From the next part on, by its own limits; parts under way are judged by the version before."""
        caller.require(station)
        versions.activate(service, station, name, version, caller.name, reason or None)
        return _one(service, version)

    @api.post(
        "/stations/{station}/version:rollback",
        summary="Let the version judge that did before.",
        responses={**NOT_THERE, 409: error("There was no other.")},
    )
    def roll_back(caller: administering, station: StationName, reason: Reason = None) -> VersionRecord:
        """By the limits that were in force for it. Doing it twice returns."""
        caller.require(station)
        model = versions.roll_back(service, station, caller.name, reason or None)
        return _one(service, model.hash)

    @api.post(
        "/models/{name}/versions/{version}:retire",
        summary="Take a version out of use.",
        responses={**NOT_THERE, 409: error("It runs somewhere.")},
    )
    def retire(caller: administering, name: str, version: str, reason: Reason = None) -> VersionRecord:
        """Its files are deleted; results go on naming it."""
        versions.retire(service, name, version, caller.name, reason or None)
        return _one(service, version)

    return api


async def _save(request: Request, path: Path) -> None:
    """The body as a file, piece by piece. Raises Refused (400)."""
    try:
        with path.open("wb") as file:
            async for piece in request.stream():
                await run_in_threadpool(file.write, piece)
    except ClientDisconnect:
        raise Refused("the request ended before its body did", 400) from None
    except OSError as failed:
        raise Refused(f"the upload cannot be kept: {failed.strerror}", 507) from None


def version_records(service: Service, model: str | None) -> list[VersionRecord]:
    with service.database.read() as connection:
        found, places = stations.versions(connection, model), stations.stations(connection)
    return [_record(one, places) for one in found]


def _one(service: Service, hash: str) -> VersionRecord:
    return next(one for one in version_records(service, None) if one.hash == hash)


def _record(one: Version, places: list[Station]) -> VersionRecord:
    active = [place.name for place in places if place.active == one.hash]
    shadowed = [place.name for place in places if place.shadow == one.hash]
    state = "active" if active else "shadow" if shadowed else "candidate"
    own = {"engine", "proved", "by"}
    return VersionRecord(
        hash=one.hash,
        model=one.model,
        added=utc(one.added),
        engine=one.content["engine"],
        state="retired" if one.retired is not None else state,
        stations=active,
        shadows=shadowed,
        proved=one.content.get("proved"),
        by=one.content.get("by"),
        content={key: value for key, value in one.content.items() if key not in own},
    )
