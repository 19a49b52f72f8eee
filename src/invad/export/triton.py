"""A folder of Triton's model repository around an exported graph: `config.pbtxt` and `1/model.onnx`.

Triton gathers images of several requests into one run when every input and output has their number as its
first dimension, which the configuration leaves out. A tensor that has no other one is `[1]` for clients.
"""

from collections.abc import Iterable
from pathlib import Path

from invad.runtime.bundle import ExportInfo

GRAPH, CONFIG = "1/model.onnx", "config.pbtxt"
TYPES = {"uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16"}
HEAD = """\
# The name is that of the folder. This file may be changed; the graph and the others may not.
backend: "onnxruntime"
max_batch_size: {batch}
dynamic_batching {{ }}
"""


def write_config(folder: Path, info: ExportInfo, batch: int) -> None:
    """Write `config.pbtxt`. batch: the most images of a run."""
    assert info.pixels is not None
    height, width = info.size_hw or (-1, -1)
    inputs = [("image", TYPES[info.pixels], (height, width, 3)), ("category", "TYPE_INT64", ())]
    outputs: list[tuple[str, str, tuple[int, ...]]] = [
        ("score", "TYPE_FP32", ()),
        ("p_value", "TYPE_FP32", ()),
        ("decision", "TYPE_INT64", ()),
        ("anomaly_map", "TYPE_FP32", (height, width)),
        ("grid_map", "TYPE_FP32", tuple(info.grid_hw)),
    ]
    text = HEAD.format(batch=batch) + _tensors("input", inputs) + _tensors("output", outputs)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _tensors(kind: str, tensors: Iterable[tuple[str, str, tuple[int, ...]]]) -> str:
    lines = []
    for name, datatype, dims in tensors:
        shown = f"dims: [ {', '.join(map(str, dims))} ]" if dims else "dims: [ 1 ] reshape: { shape: [ ] }"
        lines.append(f'{kind} {{ name: "{name}" data_type: {datatype} {shown} }}\n')
    return "".join(lines)
