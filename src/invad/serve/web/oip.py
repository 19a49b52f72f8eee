"""The Open Inference Protocol, version 2, for the clients of KServe and Triton.

Here is the protocol; a `Judge` says which models there are and judges the images.
"""

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import numpy as np
from fastapi import APIRouter, Depends, Request
from numpy.typing import NDArray
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from invad.records import Decision, Hw
from invad.serve.models import Loaded
from invad.serve.records import Refused
from invad.serve.web.answers import NO_KEY, NOT_THERE, error
from invad.serve.web.auth import Caller
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
from invad.system.version import __version__

DECISIONS = ("good", "review", "bad")
MAP, RESULT = "anomaly_map", "result_id"
WORDS = ("station", "part_id", "lot", "request_id")
"""Parameters of a request that say something of its parts."""

INPUTS = [
    {"name": "image", "datatype": BYTES, "shape": [-1]},
    {"name": "category", "datatype": BYTES, "shape": [1]},
]
OUTPUTS = [
    {"name": "score", "datatype": "FP32", "shape": [-1]},
    {"name": "p_value", "datatype": "FP32", "shape": [-1]},
    {"name": "decision", "datatype": "INT64", "shape": [-1]},
    {"name": "decision_name", "datatype": BYTES, "shape": [-1]},
    {"name": RESULT, "datatype": BYTES, "shape": [-1]},
    {"name": MAP, "datatype": "FP32", "shape": [-1, -1, -1]},
]
IMAGE = "BYTES [N]: encoded images, in JSON as base 64; or UINT8, UINT16, FP32 in 0..1, [N, H, W, 3]"
CATEGORY = "optional; the name of a category"

Image: TypeAlias = "bytes | NDArray[Any]"
"""An encoded image, or pixels H x W x 3 of uint8, uint16 or float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What is said of one image. model, version: which judged it. anomaly_map: gives the map, float32 and of
    size_hw, when it is asked for. result_id: of what was stored, if anything was."""

    model: str
    version: str
    score: float
    p_value: float
    decision: Decision
    size_hw: Hw
    anomaly_map: Callable[[], NDArray[np.float32]]
    result_id: str | None = None


class Judge(ABC):
    """Judges what comes by the protocol.

    words: those of WORDS that it does something with; others are refused. keeps: whether it stores results.
    map_note: of the output anomaly_map, for the metadata of a model.
    """

    words: tuple[str, ...] = ()
    keeps: bool
    map_note: str

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether images are judged now."""

    @abstractmethod
    def active(self) -> Sequence[Loaded]:
        """The models that can be asked."""

    @abstractmethod
    def chosen(self, caller: Caller, name: str, version: str | None, words: Mapping[str, str]) -> Loaded:
        """The model that a request is for. Raises Refused."""

    @abstractmethod
    async def judge(
        self, model: Loaded, images: Sequence[Image], category: str | None, words: Mapping[str, str]
    ) -> Sequence[Judged]:
        """What is said of each image, in their order. Raises Refused."""

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """Name, datatype and shape of what it gives."""
        return [one for one in OUTPUTS if self.keeps or one["name"] != RESULT]


def fitting(there: Sequence[Loaded], name: str, version: str | None, where: str = "") -> list[Loaded]:
    """Those of a name and, if given, a version. where: words for the refusal. Raises Refused (404)."""
    of_model = [one for one in there if one.name == name]
    if not of_model:
        names = ", ".join(sorted({repr(one.name) for one in there}))
        raise Refused(f"no model {name!r}{where}; it is {names}", 404)
    found = [one for one in of_model if version in (None, one.hash)]
    if not found:
        hashes = ", ".join(sorted(one.hash for one in of_model))
        raise Refused(f"version {version!r} is not active{where}; it is {hashes}", 404)
    return found


def router(judge: Judge, caller_who_infers: Callable[..., Any]) -> APIRouter:
    """These calls. caller_who_infers: a dependency of FastAPI that gives a Caller or raises Refused."""
    api = APIRouter(prefix="/v2", responses=NO_KEY)
    inferring = Annotated[Caller, Depends(caller_who_infers)]

    @api.get("/health/live", summary="Whether the process answers.")
    async def live() -> dict[str, bool]:
        """Nothing else is looked at."""
        return {"live": True}

    @api.get("/health/ready", summary="Whether images are judged.")
    async def ready() -> Response:
        """As /readyz."""
        is_ready = await run_in_threadpool(judge.is_ready)
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    @api.get("", summary="The server.")
    @api.get("/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        """Its name, version and extensions of the protocol."""
        return {"name": "invad", "version": __version__, "extensions": ["binary_tensor_data"]}

    @api.get("/models/{name}", summary="What a model takes and gives.", responses=NOT_THERE)
    @api.get("/models/{name}/versions/{version}", summary="The same of a version.", responses=NOT_THERE)
    def model(caller: inferring, name: str, version: str | None = None) -> dict[str, Any]:
        """A version is named by the hash of its content."""
        found = fitting(judge.active(), name, version)
        words = {"parameters": ", ".join(judge.words)} if judge.words else {}
        return {
            "name": name,
            "versions": [one.hash for one in found],
            "platform": f"invad_{found[0].engine}",
            "inputs": INPUTS,
            "outputs": judge.outputs,
            "properties": {"image": IMAGE, "category": CATEGORY, MAP: judge.map_note, **words},
        }

    @api.get("/models/{name}/ready", summary="Whether a model is loaded.", responses=NOT_THERE)
    @api.get("/models/{name}/versions/{version}/ready", summary="The same of a version.", responses=NOT_THERE)
    async def model_ready(name: str, version: str | None = None) -> Response:
        """404 for any other."""
        fitting(judge.active(), name, version)
        is_ready = await run_in_threadpool(judge.is_ready)
        return JSONResponse({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    @api.post(
        "/models/{name}/infer",
        summary="Judge images.",
        responses={**NOT_THERE, 400: error("The request is none."), 503: error("The line is full.")},
    )
    @api.post(
        "/models/{name}/versions/{version}/infer",
        summary="The same by a version.",
        responses={**NOT_THERE, 400: error("The request is none."), 503: error("The line is full.")},
    )
    async def infer(request: Request, caller: inferring, name: str, version: str | None = None) -> Response:
        """JSON, or JSON and binary tensors; the answer comes when all images are judged."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refused("compressed requests are not taken", 415)
        body = await request.body()
        asked = await run_in_threadpool(read_request, body, request.headers.get(LENGTH_HEADER))
        wanted, words = _wanted(asked, judge.outputs), _words(asked, judge.words)
        model = judge.chosen(caller, name, version, words)
        images, category = await run_in_threadpool(_given, asked, tuple(model.detector.calibrations))
        found = await judge.judge(model, images, category, words)
        content, headers = await run_in_threadpool(_answer, asked, wanted, found)
        return Response(content, headers=headers)

    return api


def _wanted(asked: InferenceRequest, outputs: Sequence[Mapping[str, Any]]) -> tuple[Wanted, ...]:
    """Outputs to give. A map is large, so it comes only when it is named."""
    known = [str(output["name"]) for output in outputs]
    if asked.outputs is None:
        return tuple(Wanted(name=name, binary=asked.binary) for name in known if name != MAP)
    for one in asked.outputs:
        if one.name not in known:
            raise Refused(f"no output {one.name!r}; there are {', '.join(known)}", 400)
    return asked.outputs


def _words(asked: InferenceRequest, known: Sequence[str]) -> dict[str, str]:
    """Those of WORDS that a request has."""
    words = {}
    for name in WORDS:
        value = asked.parameters.get(name)
        if value is not None and not isinstance(value, str):
            raise Refused(f"parameter {name}: give a text", 400)
        if value and name not in known:
            raise Refused(f"parameter {name}: nothing is kept here; leave it away", 400)
        if value:
            words[name] = value
    return words


def _given(asked: InferenceRequest, categories: Sequence[str]) -> tuple[list[Image], str | None]:
    """Images, and the name of their category if they have one."""
    for name in asked.inputs:
        if name not in ("image", "category"):
            raise Refused(f"no input {name!r}; there are image, category", 400)
    if "image" not in asked.inputs:
        raise Refused("there is no input 'image'", 400)
    return _images(asked.inputs["image"]), _category(asked.inputs.get("category"), categories)


def _images(image: Tensor) -> list[Image]:
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
    return list(image.data)


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
    asked: InferenceRequest, wanted: Sequence[Wanted], found: Sequence[Judged]
) -> tuple[bytes, dict[str, str]]:
    # That which judged, where a switch came in between.
    head: dict[str, Any] = {"model_name": found[0].model, "model_version": found[0].version}
    if asked.id is not None:
        head["id"] = asked.id
    return write_answer(head, [(_output(one.name, found), one.binary) for one in wanted])


def _output(name: str, found: Sequence[Judged]) -> Tensor:
    if name == "score":
        return array(name, "FP32", [one.score for one in found])
    if name == "p_value":
        return array(name, "FP32", [one.p_value for one in found])
    if name == "decision":
        return array(name, "INT64", [DECISIONS.index(one.decision) for one in found])
    if name == "decision_name":
        return texts(name, [one.decision for one in found])
    if name == RESULT:
        return texts(name, [str(one.result_id) for one in found])
    if len({one.size_hw for one in found}) > 1:
        raise Refused(f"{MAP}: the images have different sizes; ask for one at a time", 400)
    return array(name, "FP32", np.stack([one.anomaly_map() for one in found]))
