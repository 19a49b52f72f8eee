"""Requests and answers of the Open Inference Protocol, version 2: JSON, and tensors in binary after it.

github.com/kserve/open-inference-protocol, and its extension binary_tensor_data as Triton describes it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.serve.records import Refused

LENGTH_HEADER = "Inference-Header-Content-Length"
BYTES = "BYTES"
DTYPES = {
    "BOOL": "?",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
MOST_ITEMS = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """data: an array of the shape; of BYTES a list of bytes, one for each item. binary: how it was sent."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    binary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An output that was asked for, and whether in binary."""

    name: str
    binary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRequest:
    """outputs: None when none are named, which means all that are given without being asked for."""

    id: str | None
    parameters: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    outputs: tuple[Wanted, ...] | None
    binary: bool = False


def read_request(body: bytes, header_length: str | None) -> InferenceRequest:
    """What a body asks for. header_length: of the JSON before the binary tensors; None: it is JSON alone.

    Raises Refused (400) that says what is wrong.
    """
    if header_length is None:
        length = len(body)
    elif header_length.isascii() and header_length.isdigit() and 0 < int(header_length) <= len(body):
        length = int(header_length)
    else:
        raise _wrong(f"{LENGTH_HEADER} is {header_length[:20]!r}, the body has {len(body)} bytes")
    try:
        plain = json.loads(body[:length])
    except (ValueError, RecursionError):
        raise _wrong("the request is no JSON") from None
    plain = _of(dict, plain, "the request")
    rest = memoryview(body)[length:]
    inputs = {}
    for number, one in enumerate(_of(list, plain.get("inputs"), "inputs")):
        tensor, rest = _input(_of(dict, one, f"inputs[{number}]"), rest)
        inputs[tensor.name] = tensor
    if len(rest):
        raise _wrong(f"{len(rest)} bytes follow the last tensor")
    parameters = _of(dict, plain.get("parameters", {}), "parameters")
    binary = parameters.get("binary_data_output") is True
    id = plain.get("id")
    return InferenceRequest(
        id=None if id is None else _of(str, id, "id"),
        parameters=parameters,
        inputs=inputs,
        outputs=_outputs(plain.get("outputs"), binary),
        binary=binary,
    )


def write_answer(
    head: Mapping[str, Any], tensors: Sequence[tuple[Tensor, bool]]
) -> tuple[bytes, dict[str, str]]:
    """Body and headers. head: model_name, model_version and, if the request had one, id. Each tensor comes
    with whether it is wanted in binary."""
    outputs, binaries = [], []
    for tensor, binary in tensors:
        plain: dict[str, Any] = {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
        }
        if binary:
            content = _to_binary(tensor)
            plain["parameters"] = {"binary_data_size": len(content)}
            binaries.append(content)
        else:
            plain["data"] = _to_json(tensor)
        outputs.append(plain)
    text = json.dumps({**head, "outputs": outputs}, allow_nan=False).encode()
    if not binaries:
        return text, {"Content-Type": "application/json"}
    headers = {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(len(text))}
    return b"".join([text, *binaries]), headers


def array(name: str, datatype: str, values: Any) -> Tensor:
    """A tensor of numbers."""
    found = np.asarray(values, DTYPES[datatype])
    return Tensor(name=name, datatype=datatype, shape=found.shape, data=found)


def texts(name: str, values: Sequence[str]) -> Tensor:
    """A tensor of text."""
    content = [value.encode() for value in values]
    return Tensor(name=name, datatype=BYTES, shape=(len(content),), data=content)


def _input(plain: dict[str, Any], rest: memoryview) -> tuple[Tensor, memoryview]:
    """The tensor, and what follows its bytes."""
    name = _of(str, plain.get("name"), "name of an input")
    datatype = _of(str, plain.get("datatype"), f"datatype of {name}")
    if datatype != BYTES and datatype not in DTYPES:
        raise _wrong(f"{name}: datatype {datatype!r} is none of {', '.join((BYTES, *DTYPES))}")
    shape = tuple(_of(list, plain.get("shape"), f"shape of {name}"))
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) > MOST_ITEMS:
        raise _wrong(f"{name}: shape {list(shape)!r} is none")
    size = _of(dict, plain.get("parameters", {}), f"parameters of {name}").get("binary_data_size")
    if size is None:
        data = _from_json(name, datatype, shape, plain.get("data"))
        return Tensor(name=name, datatype=datatype, shape=shape, data=data), rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise _wrong(f"{name}: binary_data_size is {size!r}, {len(rest)} bytes are left")
    data = _from_binary(name, datatype, shape, rest[:size])
    return Tensor(name=name, datatype=datatype, shape=shape, data=data, binary=True), rest[size:]


def _from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Any:
    if datatype == BYTES:
        items = _of(list, data, f"data of {name}")
        if len(items) != math.prod(shape) or not all(isinstance(item, str) for item in items):
            raise _wrong(f"{name}: give {math.prod(shape)} texts as data")
        return [item.encode("utf-8", "surrogatepass") for item in items]
    if datatype == "FP16":
        raise _wrong(f"{name}: FP16 is not sent as JSON; use FP32 or binary data")
    try:
        values = np.array(_of(list, data, f"data of {name}"))
        if values.dtype.kind not in "bui" + ("f" if datatype.startswith("FP") else ""):
            raise ValueError
        limits = np.iinfo(DTYPES[datatype]) if datatype.startswith(("INT", "UINT")) else None
        if (
            limits is not None
            and values.size
            and not limits.min <= values.min() <= values.max() <= limits.max
        ):
            raise ValueError
        return values.astype(DTYPES[datatype]).reshape(shape)
    except (ValueError, TypeError, OverflowError):
        raise _wrong(f"{name}: data is no {datatype} of shape {list(shape)}") from None


def _from_binary(name: str, datatype: str, shape: tuple[int, ...], content: memoryview) -> Any:
    if datatype == BYTES:
        items: list[bytes] = []
        while len(content):
            length = int.from_bytes(content[:4], "little")
            if len(content) < 4 + length:
                raise _wrong(f"{name}: an item is longer than the tensor")
            items.append(bytes(content[4 : 4 + length]))
            content = content[4 + length :]
        if len(items) != math.prod(shape):
            raise _wrong(f"{name}: {len(items)} items, the shape is {list(shape)}")
        return items
    dtype = np.dtype(DTYPES[datatype])
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise _wrong(f"{name}: {len(content)} bytes are no {datatype} of shape {list(shape)}")
    found: NDArray[Any] = np.frombuffer(content, dtype).reshape(shape)
    return found


def _outputs(plain: Any, binary: bool) -> tuple[Wanted, ...] | None:
    if plain is None:
        return None
    wanted = []
    for number, one in enumerate(_of(list, plain, "outputs")):
        one = _of(dict, one, f"outputs[{number}]")
        name = _of(str, one.get("name"), "name of an output")
        own = _of(dict, one.get("parameters", {}), f"parameters of {name}").get("binary_data", binary)
        wanted.append(Wanted(name=name, binary=own is True))
    return tuple(wanted)


def _to_json(tensor: Tensor) -> list[Any]:
    if tensor.datatype == BYTES:
        return [item.decode() for item in tensor.data]
    values: list[Any] = tensor.data.ravel().tolist()
    return values


def _to_binary(tensor: Tensor) -> bytes:
    if tensor.datatype == BYTES:
        return b"".join(len(item).to_bytes(4, "little") + item for item in tensor.data)
    content: bytes = tensor.data.tobytes()
    return content


def _of(kind: type, value: Any, what: str) -> Any:
    if not isinstance(value, kind):
        words = {"dict": "an object", "list": "a list", "str": "a text"}[kind.__name__]
        raise _wrong(f"{what}: expected {words}")
    return value


def _wrong(text: str) -> Refused:
    return Refused(text, 400)
