"""Parts in, results out: inspection, history, pictures."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from invad.records import Decision
from invad.serve.pictures import draw_layer, draw_overlay, shown_png
from invad.serve.records import Part, Refused, Result, Verdict
from invad.serve.service import Service
from invad.serve.store import results
from invad.serve.web.answers import (
    FILE_GONE,
    NO_KEY,
    NOT_THERE,
    ONLY_KNOWN,
    Responses,
    StationName,
    error,
    time_of,
)
from invad.serve.web.auth import Caller, Gate
from invad.serve.web.uploads import FIELD, WORDS, image_of, pictures_of, said_once

PNG, ANY = "image/png", "application/octet-stream"
LONGEST_PAGE = 1000
DRAWN_AT_A_TIME = 2
SMALL = 1 << 18
"""Bytes whose digest is quicker than a thread; that of more would hold up the loop that serves all."""

ResultId = Annotated[str, Path(description="The id of a result.")]
Side = Annotated[
    int | None, Query(ge=16, le=4096, description="Pixels of the longer side at most, of a PNG.")
]
MapAnswer = Literal["none", "url", "png16"]

UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {
                    FIELD: {"type": "string", "format": "binary"},
                    **{name: {"type": "string"} for name in WORDS},
                },
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
    },
}


INSPECT: Responses = {
    400: error("The image cannot be read, or a word cannot be."),
    404: error("There is no such station."),
    408: error("The request came too slowly."),
    409: error("The request_id came with another image before."),
    413: error("The request is too large."),
    415: error("Neither a form nor an image."),
    503: error("The line is full or cannot store; send it again after Retry-After seconds."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """results: newest first. next: the cursor of the page after, where there may be one."""

    results: list[Result]
    next: str | None


def router(service: Service, gate: Gate, prefix: str) -> APIRouter:
    """Parts that come in. prefix: path that a proxy puts before all others."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY, dependencies=ONLY_KNOWN)
    inferring = Annotated[Caller, Depends(gate.needs("infer"))]

    @api.post(
        "/stations/{station}/inspect",
        summary="Judge one part.",
        response_model=Result,
        responses=INSPECT,
        openapi_extra={"requestBody": UPLOAD},
    )
    async def inspect(
        request: Request,
        caller: inferring,
        station: StationName,
        part_id: Annotated[str | None, Query(description="The part's own name.")] = None,
        lot: Annotated[str | None, Query(description="What it belongs to.")] = None,
        category: Annotated[str | None, Query(description="Judge by the limits of this category.")] = None,
        request_id: Annotated[
            str | None, Query(description="The same one gives the stored result again.")
        ] = None,
        map: Annotated[
            MapAnswer, Query(description="Add `map`: its address, or the PNG in base 64.")
        ] = "none",
    ) -> Response:
        """The answer comes when the result is stored. The image is the field `image` of a form, or all.

        A model of parts takes a form with a file for each picture in the field of its member, as `light1`.
        A form may have the words of the address as fields, too; a field or a word that is unknown is refused.
        """
        caller.require(station)
        service.require_station(station)
        several = service.active(station).detector.fusion is not None
        body, words = await (pictures_of if several else image_of)(request)
        part = Part(
            body=body,
            several=several,
            station=station,
            part_id=said_once("part_id", part_id, words.get("part_id")),
            lot=said_once("lot", lot, words.get("lot")),
            category=said_once("category", category, words.get("category")),
            request_id=said_once("request_id", request_id, words.get("request_id")),
        )
        if len(part.body) > SMALL:
            record = await asyncio.wrap_future(await run_in_threadpool(service.submit, part))
        else:
            record = await asyncio.wrap_future(service.submit(part))
        plain = record.plain()
        if map == "url":
            plain["map"] = f"{prefix}/api/v1/results/{record.id}/map" if record.map_kept else None
        elif map == "png16":
            plain["map"] = await run_in_threadpool(_map_text, record)
        return JSONResponse(plain)

    def _map_text(record: Result) -> str | None:
        if not record.map_kept:
            return None
        return base64.b64encode(service.picture(service.result(record.id), "map")).decode()

    return api


def history_router(service: Service, gate: Gate) -> APIRouter:
    """What was stored: results and their files."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY, dependencies=ONLY_KNOWN)
    reading = Annotated[Caller, Depends(gate.needs("read"))]

    @api.get("/results", summary="The history, newest first.", response_model=Page)
    def history(
        caller: reading,
        station: str | None = None,
        decision: Decision | None = None,
        part_id: str | None = None,
        lot: str | None = None,
        verdict: Annotated[Verdict | None, Query(description="What people said last.")] = None,
        least: Annotated[
            float | None, Query(description="Least score. With `most`, the newest 50,000 that fit are read.")
        ] = None,
        most: Annotated[float | None, Query(description="Largest score.")] = None,
        reviewed: Annotated[bool | None, Query(description="With a verdict, or without one.")] = None,
        since: Annotated[str | None, Query(description="ISO date, UTC unless it says otherwise.")] = None,
        until: Annotated[str | None, Query(description="ISO date, itself excluded.")] = None,
        cursor: Annotated[str | None, Query(description="`next` of the page before.")] = None,
        limit: Annotated[int, Query(ge=1, le=LONGEST_PAGE)] = 50,
    ) -> Response:
        """All that are given have to fit."""
        if station is not None:
            caller.require(station)
            service.require_station(station)
        found, further = service.history(
            results.Query(
                station=station,
                stations=caller.stations,
                decision=decision,
                part_id=part_id,
                lot=lot,
                verdict=verdict,
                least=least,
                most=most,
                reviewed=reviewed,
                since=time_of("since", since),
                until=time_of("until", until),
                before=cursor,
                limit=limit,
            )
        )
        rows = [one.result.plain() for one in found]
        return JSONResponse({"results": rows, "next": further})

    def _result(caller: Caller, id: str) -> results.Stored:
        stored = service.result(id)
        if caller.stations is not None and stored.result.station not in caller.stations:
            raise Refused(f"no result {id}", 404)  # what a key may not see is not there
        return stored

    @api.get("/results/{id}", summary="One result.", response_model=Result, responses=NOT_THERE)
    def one_result(caller: reading, id: ResultId) -> Response:
        """As it was answered; whether its files are kept may have changed."""
        return JSONResponse(_result(caller, id).result.plain())

    @api.get(
        "/results/{id}/image",
        summary="The image as it came.",
        response_class=Response,
        responses={**FILE_GONE, 200: {"content": {ANY: {}, PNG: {}}, "description": "The file."}},
    )
    async def image(
        request: Request,
        caller: reading,
        id: ResultId,
        form: Annotated[
            Literal["original", "png"], Query(description="png: 8 bits, which every browser shows.")
        ] = "original",
        side: Side = None,
        number: Annotated[
            int | None,
            Query(ge=0, description="Of several pictures: the place in `members`, else the one `seen_by`."),
        ] = None,
    ) -> Response:
        """Byte by byte, or drawn anew as PNG."""
        stored = await run_in_threadpool(_result, caller, id)
        place = stored.result.shown if number is None else number
        digest = stored.result.image_sha256 + ("" if place is None else f"-{place}")
        if form == "png" or side is not None:
            return await _drawn(
                request,
                f'"{digest}-png-{side}"',
                lambda: shown_png(service.picture(stored, "image", place), side),
            )
        if (unchanged := _unchanged(request, f'"{digest}"')) is not None:
            return unchanged
        content = await run_in_threadpool(service.picture, stored, "image", place)
        return _file(content, ANY, f'"{digest}"', f"{id}.image")

    @api.get(
        "/results/{id}/map",
        summary="The anomaly map.",
        response_class=Response,
        responses={**FILE_GONE, 200: {"content": {PNG: {}}, "description": "PNG."}},
    )
    async def anomaly_map(
        request: Request,
        caller: reading,
        id: ResultId,
        form: Annotated[
            Literal["values", "layer"],
            Query(description="values: grey, of 16 bits. layer: colours, to lay over the image."),
        ] = "values",
    ) -> Response:
        """Values run from black to white, which the text `invad:range` of the PNG gives as a JSON list."""
        stored = await run_in_threadpool(_result, caller, id)
        if form == "layer":
            tag = f'"{stored.result.id}-layer"'
            size = stored.result.height, stored.result.width

            def draw() -> bytes:
                return draw_layer(service.picture(stored, "map"), stored.map_limits, size)

            return await _drawn(request, tag, draw)
        tag = f'"{stored.map_sha256}"'
        if (unchanged := _unchanged(request, tag)) is not None:
            return unchanged
        return _file(await run_in_threadpool(service.picture, stored, "map"), PNG, tag)

    @api.get(
        "/results/{id}/overlay",
        summary="The image under its heat map.",
        response_class=Response,
        responses={**FILE_GONE, 200: {"content": {PNG: {}}, "description": "PNG."}},
    )
    async def overlay(request: Request, caller: reading, id: ResultId, side: Side = None) -> Response:
        """Coloured by the limits that decided."""
        stored = await run_in_threadpool(_result, caller, id)

        def draw() -> bytes:
            pictures = service.picture(stored, "image"), service.picture(stored, "map")
            return draw_overlay(*pictures, stored.map_limits, side)

        return await _drawn(request, f'"{stored.result.id}-overlay-{side}"', draw)

    drawing = asyncio.Semaphore(DRAWN_AT_A_TIME)

    async def _drawn(request: Request, tag: str, draw: Callable[[], bytes]) -> Response:
        """Few at a time: a page full of pictures must not hold up the parts of the line."""
        if (unchanged := _unchanged(request, tag)) is not None:
            return unchanged
        async with drawing:
            return _file(await run_in_threadpool(draw), PNG, tag)

    return api


def _unchanged(request: Request, tag: str) -> Response | None:
    """The answer to somebody who has the file already."""
    has = {one.strip() for one in request.headers.get("if-none-match", "").split(",")}
    return Response(status_code=304, headers={"ETag": tag}) if tag in has else None


def _file(content: bytes, kind: str, tag: str, name: str | None = None) -> Response:
    headers = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable"}
    if name is not None:  # bytes of somebody else: never shown as a page
        headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return Response(content, media_type=kind, headers=headers)
