"""Integers of 8 bits for the backbone and the denoiser, fitted to normal images after training.

The projection into the feature space, distances, comparison with the normals and everything after stay
float32: an anomaly is a small number there. What may be quantised is found by the parameters it uses.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.images import read_image
from invad.data.listing import list_images
from invad.data.members import Rule, member_samples, with_windows
from invad.data.samples import read_sample
from invad.errors import ConfigError, DataError
from invad.export.formats import quiet
from invad.records import Hw, Sample
from invad.runtime.detector import grey_levels
from invad.runtime.engines import Array
from invad.scoring.fusion import Fusion

PARTS = re.compile(r"['.]features\.parts\.\d+\.backbone|['.]reader\.network")
"""Where in the graph a network is."""

MOST_IMAGES = 128
HEAVY = ("Conv", "Gemm", "MatMul")
FEW_CHANNELS = 4
"""A convolution that sums over at most so many of them stays float32: the first one, which sees the picture,
and those of each channel by itself. They are a small part of the work, and the fine grid shows what 8 bits
leave out of a smooth picture."""


def calibration_images(
    folder: Path, size_hw: Hw | None, pixels: str | None, fusion: Fusion | None = None
) -> list[NDArray[Any]]:
    """Up to 128 images of a folder, spread over it. pixels: their type, None for any. fusion: of parts, whose
    pictures they then are.

    Raises DataError for one of another size or type, and for a file that is of no part.
    """
    paths = list_images(folder)
    if not paths:
        raise DataError(f"{folder}: no images in it; give a folder of normal images")
    count = min(len(paths), MOST_IMAGES)
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    if fusion is None:
        images = [read_image(path) for path in chosen]
    else:
        samples = [Sample(path=path, category="") for path in chosen]
        members = with_windows(member_samples(samples, Rule.parse(fusion.rule), folder), fusion.by_member)
        chosen, images = [sample.path for sample in members], [read_sample(sample) for sample in members]
    for path, image in zip(chosen, images, strict=True):
        if size_hw is not None and image.shape[:2] != size_hw:
            given, asked = ("{}x{}".format(*hw[:2]) for hw in (image.shape, size_hw))
            raise DataError(
                f"{path}: height x width is {given}, not the {asked} of --size; calibrate with images of "
                "that size, or leave --size away"
            )
        if pixels is not None and image.dtype != pixels:
            raise DataError(f"{path}: {image.dtype} pixels, the graph takes {pixels}; give --bits of theirs")
    return images


def feeds(
    images: Sequence[NDArray[Any]], window: tuple[float, float], batch: int | None, as_pixels: bool = False
) -> Iterator[dict[str, Array]]:
    """What a graph is given for each image, repeated where it takes several at a time. as_pixels: it has the
    range in it."""
    for image in images:
        count = batch or 1
        category = np.zeros(count, np.int64)
        if as_pixels:
            yield {"image": np.stack([image] * count), "category": category}
            continue
        levels, black_white = grey_levels([image] * count, window)
        yield {"image": levels, "range": black_white, "category": category}


def heavy_nodes(model: Any) -> list[str]:
    """Names of the ONNX nodes of the networks that may be quantised: of what the image changes, by weights.

    The exporter notes at every node the modules it came from. A product of two things that the image changes
    stays float32, because no limit bounds either of them (see `quantise_onnx`), and so does a convolution of
    FEW_CHANNELS.
    """
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    changing = {value.name for value in model.graph.input}
    names = []
    for node in model.graph.node:
        if not changing.intersection(node.input):
            continue
        changing.update(node.output)
        scopes = {p.key: p.value for p in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
        if not PARTS.search(scopes) or node.op_type not in HEAVY or node.input[1] not in weights:
            continue
        if node.op_type != "Conv" or weights[node.input[1]][1] > FEW_CHANNELS:
            names.append(node.name)
    return names


def quantise_onnx(source: Path, target: Path, data: Iterator[dict[str, Array]]) -> None:
    """QDQ nodes around the heavy nodes of the networks, and around nothing else.

    Sums and products would be cut off at the largest value of normal images, which an anomaly exceeds.

    A processor without VNNI adds two products of an activation, 0 to 255, and a weight in 16 bits, and cuts
    the sum off at 32,767. Weights of seven bits, -64 to 64, keep every such sum within 2 x 255 x 64 = 32,640:
    all processors then find the same integers.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Array] | None:
            return next(data, None)

    heavy = heavy_nodes(onnx.load(source))
    require_some(heavy)
    with quiet():
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=heavy,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def require_some(nodes: Sequence[str]) -> None:
    if not nodes:
        raise ConfigError("int8: the graph has no layer that could be quantised; export fp32")
