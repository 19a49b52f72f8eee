"""The Open Inference Protocol, version 2, for the clients of KServe and Triton.

What is inferred is a part like any other: it is queued, judged, stored and found in the history.
"""

import asyncio
import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from invad._version import __version__
from invad.data.preprocess import resize_map
from invad.serve.models import Loaded
from invad.serve.options import DEFAULT_STATION
from invad.serve.pictures import decode_map
from invad.serve.records import Part, Refused, Result
from invad.serve.service import Service
from invad.serve.web.answers import NO_KEY, NOT_THERE, error
from invad.serve.web.auth import Caller, Gate
from invad.serve.web.tensors import (
    BYTES,
    LENGTH_HEADER,
    InferenceRequest,
    Tensor,
    Wanted,
    array,
    read_request,
    texts,
    write_answer,
)

DECISIONS = ("good", "review", "bad")
MAP = "anomaly_map"
GIVEN = ("score", "p_value", "decision", "decision_name", "result_id")
"""Outputs that are given when none are named: a map is large, so it comes when it is asked for."""

INPUTS = [
    {"name": "image", "datatype": BYTES, "shape": [-1]},
    {"name": "category", "datatype": BYTES, "shape": [1]},
]
OUTPUTS = [
    {"name": "score", "datatype": "FP32", "shape": [-1]},
    {"name": "p_value", "datatype": "FP32", "shape": [-1]},
    {"name": "decision", "datatype": "INT64", "shape": [-1]},
    {"name": "decision_name", "datatype": BYTES, "shape": [-1]},
    {"name": "result_id", "datatype": BYTES, "shape": [-1]},
    {"name": MAP, "datatype": "FP32", "shape": [-1, -1, -1]},
]
PROPERTIES = {
    "image": "BYTES [N]: encoded images, in JSON as base 64; or UINT8, UINT16, FP32 in 0..1, [N, H, W, 3]",
    "category": "optional; the name of a category",
    MAP: "only when it is named in outputs; as it is kept, in 65536 levels",
    "parameters": "station, part_id, lot, request_id",
}


def router(service: Service, gate: Gate) -> APIRouter:
    """These calls."""
    api = APIRouter(prefix="/v2", responses=NO_KEY)
    inferring = Annotated[Caller, Depends(gate.needs("infer"))]

    @api.get("/health/live", summary="Whether the process answers.")
    async def live() -> dict[str, bool]:
        """Nothing else is looked at."""
        return {"live": True}

    @api.get("/health/ready", summary="Whether parts are taken and kept.")
    async def ready() -> Response:
        """As /readyz."""
        found = await run_in_threadpool(service.readiness)
        return JSONResponse({"ready": found.ready}, 200 if found.ready else 503)

    @api.get("", summary="The server.")
    @api.get("/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        """Its name, version and extensions of the protocol."""
        return {"name": "invad", "version": __version__, "extensions": ["binary_tensor_data"]}

    def require(name: str, version: str | None, station: str | None = None) -> list[Loaded]:
        """The active versions of a model that fit; at one station, if given."""
        there = [service.active(station)] if station else list(service.models.all_active().values())
        of_model = [one for one in there if one.name == name]
        where = f" at station {station}" if station else ""
        if not of_model:
            names = ", ".join(sorted({repr(one.name) for one in there}))
            raise Refused(f"no model {name!r}{where}; it is {names}", 404)
        found = [one for one in of_model if version in (None, one.hash)]
        if not found:
            hashes = ", ".join(sorted(one.hash for one in of_model))
            raise Refused(f"version {version!r} is not active{where}; it is {hashes}", 404)
        return found

    @api.get("/models/{name}", summary="What a model takes and gives.", responses=NOT_THERE)
    @api.get("/models/{name}/versions/{version}", summary="The same of a version.", responses=NOT_THERE)
    def model(caller: inferring, name: str, version: str | None = None) -> dict[str, Any]:
        """A version is named by the hash of its content."""
        found = require(name, version)
        return {
            "name": name,
            "versions": [one.hash for one in found],
            "platform": f"invad_{found[0].engine}",
            "inputs": INPUTS,
            "outputs": OUTPUTS,
            "properties": PROPERTIES,
        }

    @api.get("/models/{name}/ready", summary="Whether a model is loaded.", responses=NOT_THERE)
    @api.get("/models/{name}/versions/{version}/ready", summary="The same of a version.", responses=NOT_THERE)
    async def model_ready(name: str, version: str | None = None) -> Response:
        """404 for any other."""
        require(name, version)
        found = await run_in_threadpool(service.readiness)
        return JSONResponse({"name": name, "ready": found.ready}, 200 if found.ready else 503)

    @api.post(
        "/models/{name}/infer",
        summary="Judge parts.",
        responses={**NOT_THERE, 400: error("The request is none."), 503: error("The line is full.")},
    )
    @api.post(
        "/models/{name}/versions/{version}/infer",
        summary="The same by a version.",
        responses={**NOT_THERE, 400: error("The request is none."), 503: error("The line is full.")},
    )
    async def infer(request: Request, caller: inferring, name: str, version: str | None = None) -> Response:
        """JSON, or JSON and binary tensors; the answer comes when all parts are stored."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused("compressed requests are not taken", 415)
        body = await request.body()
        asked = await run_in_threadpool(read_request, body, request.headers.get(LENGTH_HEADER))
        wanted, words = _wanted(asked), _words(asked)
        caller.require(words["station"])
        (model,) = require(name, version, words["station"])
        parts = await run_in_threadpool(_parts, asked, words, tuple(model.detector.calibrations))
        found = await _all(await run_in_threadpool(_submitted, service, parts))
        content, headers = await run_in_threadpool(_answer, service, asked, wanted, found)
        return Response(content, headers=headers)

    return api


def _submitted(service: Service, parts: Sequence[Part]) -> "list[Future[Result]]":
    """Admit all parts of a request; those before one that is refused are judged and stored nevertheless."""
    return [service.submit(part) for part in parts]


async def _all(answers: "Sequence[Future[Result]]") -> list[Result]:
    return list(await asyncio.gather(*(asyncio.wrap_future(one) for one in answers)))


def _wanted(asked: InferenceRequest) -> tuple[Wanted, ...]:
    if asked.outputs is None:
        return tuple(Wanted(name=name, binary=asked.binary) for name in GIVEN)
    known = [output["name"] for output in OUTPUTS]
    for one in asked.outputs:
        if one.name not in known:
            raise Refused(f"no output {one.name!r}; there are {', '.join(map(str, known))}", 400)
    return asked.outputs


def _words(asked: InferenceRequest) -> dict[str, str]:
    """Parameters that are of the parts; the station always."""
    words = {"station": DEFAULT_STATION}
    for name in ("station", "part_id", "lot", "request_id"):
        value = asked.parameters.get(name)
        if value is not None and not isinstance(value, str):
            raise Refused(f"parameter {name}: give a text", 400)
        if value:
            words[name] = value
    return words


def _parts(asked: InferenceRequest, words: Mapping[str, str], categories: Sequence[str]) -> list[Part]:
    for name in asked.inputs:
        if name not in ("image", "category"):
            raise Refused(f"no input {name!r}; there are image, category", 400)
    if "image" not in asked.inputs:
        raise Refused("there is no input 'image'", 400)
    bodies = _images(asked.inputs["image"])
    category = _category(asked.inputs.get("category"), categories)
    request_id = words.get("request_id")
    return [
        Part(
            body=body,
            station=words["station"],
            part_id=words.get("part_id"),
            lot=words.get("lot"),
            category=category,
            source="oip",
            request_id=f"{request_id}/{i}" if request_id and len(bodies) > 1 else request_id,
        )
        for i, body in enumerate(bodies)
    ]


def _images(image: Tensor) -> list[bytes]:
    """Encoded images. Tensors become files that hold every level, so a score is that of a file."""
    if not image.shape or image.shape[0] == 0:
        raise Refused("image: there is none in it", 400)
    if image.datatype == BYTES:
        if len(image.shape) not in (1, 2):
            raise Refused(f"image: shape {list(image.shape)}, BYTES come as [N]", 400)
        return list(image.data) if image.binary else [_from_base64(item) for item in image.data]
    if len(image.shape) != 4 or image.shape[3] != 3 or 0 in image.shape:
        raise Refused(f"image: shape {list(image.shape)}, expected [N, H, W, 3]", 400)
    if image.datatype not in ("UINT8", "UINT16", "FP32"):
        raise Refused(f"image: datatype {image.datatype}, expected BYTES, UINT8, UINT16 or FP32", 400)
    return [_as_file(pixels) for pixels in image.data]


def _as_file(pixels: NDArray[Any]) -> bytes:
    """PNG of 8 bits, TIFF of 16 bits or float."""
    stream = io.BytesIO()
    if pixels.dtype == np.uint8:
        Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    else:
        from tifffile import imwrite

        imwrite(stream, pixels, photometric="rgb")
    return stream.getvalue()


def _from_base64(item: bytes) -> bytes:
    try:
        return base64.b64decode(item, validate=True)
    except binascii.Error:
        raise Refused("image: in JSON an encoded image is base 64; or send binary data", 400) from None


def _category(tensor: Tensor | None, categories: Sequence[str]) -> str | None:
    """A name, or its number among the categories of the model."""
    if tensor is None:
        return None
    found = set(tensor.data) if tensor.datatype == BYTES else set(np.asarray(tensor.data).ravel().tolist())
    if len(found) != 1:
        raise Refused("category: give one for all images of a request", 400)
    (value,) = found
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace") or None
    if tensor.datatype != "INT64" or not 0 <= value < len(categories):
        raise Refused(f"category: give a name, or a number (INT64) below {len(categories)}", 400)
    return categories[value] or None


def _answer(
    service: Service, asked: InferenceRequest, wanted: Sequence[Wanted], found: Sequence[Result]
) -> tuple[bytes, dict[str, str]]:
    # That which judged, where a switch came in between.
    head: dict[str, Any] = {"model_name": found[0].model, "model_version": found[0].model_version}
    if asked.id is not None:
        head["id"] = asked.id
    return write_answer(head, [(_output(service, one.name, found), one.binary) for one in wanted])


def _output(service: Service, name: str, found: Sequence[Result]) -> Tensor:
    if name == "score":
        return array(name, "FP32", [one.score for one in found])
    if name == "p_value":
        return array(name, "FP32", [one.p_value for one in found])
    if name == "decision":
        return array(name, "INT64", [DECISIONS.index(one.decision) for one in found])
    if name == "decision_name":
        return texts(name, [one.decision for one in found])
    if name == "result_id":
        return texts(name, [one.id for one in found])
    if len({(one.height, one.width) for one in found}) > 1:
        raise Refused(f"{MAP}: the images have different sizes; ask for one at a time", 400)
    return array(name, "FP32", np.stack([_map(service, one) for one in found]))


def _map(service: Service, one: Result) -> NDArray[np.float32]:
    content = service.picture(service.result(one.id), "map")
    return resize_map(decode_map(content), (one.height, one.width))
