"""A graph as a file: ONNX, OpenVINO's own format, or a program of torch.export."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from invad.graph.graph import INPUTS, OUTPUTS, Graph
from invad.graph.pixels import PixelGraph
from invad.records import Hw
from invad.runtime.cache import some_home

LONGEST_SIDE = 32768
EXAMPLE_HW = (200, 300)
NO_LIMIT = 1 << 62
IN_ONE_FILE = 1_800_000_000
"""Bytes of weights; ONNX files above 2 GB cannot be read, the weights then lie in a file beside."""


def traced(graph: Graph | PixelGraph, size_hw: Hw | None, batch: int | None) -> torch.export.ExportedProgram:
    """The graph as a program; None leaves a size or the number of images open."""
    h, w = size_hw or EXAMPLE_HW
    whole = graph.whole if isinstance(graph, PixelGraph) else graph
    device = whole.judge.median.device
    # One image would be taken for a constant.
    count = batch or 2
    dtype = graph.dtype if isinstance(graph, PixelGraph) else torch.float32
    levels = () if isinstance(graph, PixelGraph) else (torch.tensor([0.0, 255.0], device=device),)
    example = (
        torch.zeros(count, h, w, 3, dtype=dtype, device=device),
        *levels,
        torch.zeros(count, dtype=torch.int64, device=device),
    )
    free: dict[int, Any] = {}
    images = torch.export.Dim("images", min=1, max=4096)
    if batch is None:
        free[0] = images
    if size_hw is None:
        free |= {
            1: torch.export.Dim("height", min=1, max=LONGEST_SIDE),
            2: torch.export.Dim("width", min=1, max=LONGEST_SIDE),
        }
    shapes = (free or None, *(None for _ in levels), {0: images} if batch is None else None)
    with quiet(), torch.no_grad():
        return torch.export.export(graph, example, dynamic_shapes=shapes)


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    in_one_file: int = IN_ONE_FILE,
    inputs: Sequence[str] = INPUTS,
    outputs: Sequence[str] = OUTPUTS,
) -> None:
    """Write an ONNX model; weights of more than `in_one_file` bytes go into `path`.data."""
    from onnxscript.optimizer import optimize

    with quiet():
        made = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
            optimize=False,  # below, without its limits of size
        )
    assert made is not None
    # What the noise level alone decides becomes constants, and one layer at several levels stays one.
    with quiet():
        optimize(made.model, input_size_limit=NO_LIMIT, output_size_limit=NO_LIMIT)
    weights = [value.const_value for value in made.model.graph.initializers.values()]
    size = sum(weight.nbytes for weight in weights if weight is not None)
    made.save(path, external_data=size > in_one_file)


def tidy_onnx(path: Path) -> None:
    """Names for the open axes of an ONNX file, and no traces of where it was made."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    _tidy(model)
    onnx.save(model, path)


def write_openvino(onnx_path: Path, path: Path) -> None:
    """Convert an ONNX model to `path` (.xml) and a .bin beside it."""
    with some_home(), quiet():
        import openvino as ov

        ov.save_model(ov.convert_model(onnx_path), path, compress_to_fp16=False)


def write_torch(program: torch.export.ExportedProgram, path: Path) -> None:
    with quiet():
        torch.export.save(program, path)


def _tidy(model: Any) -> None:
    names = {0: "images", 1: "height", 2: "width"}
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                dim.dim_param = names[axis]
    del model.graph.value_info[:]
    model.graph.name = "invad"
    model.doc_string = model.graph.doc_string = ""
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.doc_string = ""
        if hasattr(part, "metadata_props"):
            del part.metadata_props[:]
    del model.metadata_props[:], model.graph.metadata_props[:]


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters talk a lot, of things that the comparison with PyTorch settles."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
