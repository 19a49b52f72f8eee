"""A detector as a bundle that runs without PyTorch, proved to say the same.

`export` traces the graph, writes it, runs probe images through PyTorch and through the engine that will read
the bundle, and leaves nothing behind when the two differ by more than the precision explains.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from invad.data.images import read_image
from invad.data.preprocess import grey_range
from invad.detector.opening import Trained
from invad.errors import ArtifactError, ConfigError
from invad.export import triton
from invad.export.formats import tidy_onnx, traced, write_onnx, write_openvino, write_torch
from invad.export.int8 import calibration_images, feeds, quantise_onnx
from invad.export.probes import write_probes
from invad.graph.graph import INPUTS, OUTPUTS, Graph
from invad.graph.pixels import PIXEL_INPUTS, PIXEL_OUTPUTS, PixelGraph
from invad.records import Hw
from invad.runtime.bundle import CERTIFICATE, ExportInfo, write_bundle
from invad.runtime.certificate import PROBES, TOLERANCES, Certificate, certify, compare, store_probes
from invad.runtime.detector import ExportedDetector
from invad.runtime.engines import AUTO, Options, open_engine, report_nothing
from invad.runtime.held import HELD, write_held
from invad.runtime.held_tiles import HeldTiles, write_held_tiles
from invad.runtime.tiled import TiledPredictor, made_whole
from invad.scoring.rates import POOLED
from invad.system.packages import require

FORMATS = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
BUNDLE, TRITON = LAYOUTS = ("bundle", "triton")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """format: onnx, openvino or torch. precision: of the backbone and the denoiser; the comparison with the
    normals is float32 always. size_hw: the one size of images, None for any. batch: images at a time, None
    for any number; with the layout triton the most that it gathers. calibration: folder of normal images that
    int8 is fitted to. max_changed: share of images whose decision int8 may change, see `Tolerance.allows`.
    layout: bundle, or triton for the folder of a model in its repository. bits: of the pixels that Triton is
    sent, 8 or 16."""

    format: str = "onnx"
    precision: str = "fp32"
    size_hw: Hw | None = None
    batch: int | None = 1
    calibration: Path | None = None
    max_changed: float = 0.01
    layout: str = "bundle"
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ConfigError(f"format {self.format!r} is unknown; choose one of {', '.join(FORMATS)}")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision {self.precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
            )
        if self.size_hw is not None and min(self.size_hw) < 1:
            raise ConfigError(f"size = {self.size_hw}: give height and width in pixels")
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch = {self.batch}: give an integer of at least 1, or dynamic")
        if self.layout not in LAYOUTS:
            raise ConfigError(f"layout {self.layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
        if self.layout == TRITON and self.format != "onnx":
            raise ConfigError(f"layout triton holds an ONNX graph, not {self.format}; leave --format away")
        if self.layout == TRITON and self.batch is None:
            raise ConfigError("layout triton: give --batch the number of images that Triton may gather")
        if self.bits is not None and (self.layout != TRITON or self.bits not in (8, 16)):
            raise ConfigError(f"bits = {self.bits}: give 8 or 16, for the layout triton")

    @property
    def pixels(self) -> Literal["uint8", "uint16"] | None:
        """The one type of pixels that the graph takes, if it takes pixels."""
        if self.layout != TRITON:
            return None
        return "uint16" if self.bits == 16 else "uint8"


def export(detector: Trained, output: str | Path, config: ExportConfig) -> tuple[str, Certificate]:
    """Write a bundle; returns its content hash and what the comparison with PyTorch found.

    Raises ConfigError for what cannot be had here, ArtifactError when the folder cannot be written or the
    engine says something else than PyTorch; nothing is left behind then.
    """
    import torch

    report_nothing()
    if detector.smallest is not None and config.layout == TRITON:
        raise ConfigError(
            "layout triton: the graph alone knows no smallest area of defects, by which this model calls "
            "images; take it away first: invad calibrate MODEL --min-area none"
        )
    if isinstance(detector, TiledPredictor) and config.layout == TRITON:
        raise ConfigError(
            "layout triton: Triton runs one graph of whole pictures, and this model cuts them; 'invad serve "
            "MODEL --stateless' speaks its protocol and cuts"
        )
    if config.precision == "int8" and config.format == "torch":
        raise ConfigError("int8 is for onnx and openvino; export torch as fp32 or bf16")
    if config.precision == "int8" and config.calibration is None:
        raise ConfigError("int8 needs normal images to be fitted to; give --calibration FOLDER")
    if config.precision == "int8":
        require(("onnxruntime",), "onnx", "precision int8")
    if config.format != "torch":
        own = ("openvino", "openvino") if config.format == "openvino" else ("onnxruntime", "onnx")
        require(("onnx", "onnxscript", own[0]), own[1], f"export to {config.format}")
    if (config.format, config.precision) == ("onnx", "bf16"):
        _require_bf16()
    if config.layout == TRITON and detector.fusion is not None:
        raise ConfigError(
            "layout triton takes one image for each answer, and this model judges parts; leave it"
        )
    types = {"fp16": torch.float16, "bf16": torch.bfloat16}
    compiled = detector.compile(size_hw=config.size_hw, low=types.get(config.precision))
    info = replace(
        compiled.info,
        format=config.format,
        graph=triton.GRAPH if config.layout == TRITON else FORMATS[config.format],
        precision=config.precision,
        batch=None if config.layout == TRITON else config.batch,
        pixels=config.pixels,
    )
    held = compiled.held if config.layout == BUNDLE else None
    if held is not None:
        info = replace(info, held=HELD)
    normals: list[NDArray[Any]] = []
    if config.calibration is not None:
        normals = calibration_images(config.calibration, info.size_hw, config.pixels, detector.fusion)
    proved: list[Certificate] = []

    def fill(folder: Path) -> None:
        _write_graph(compiled, info, folder / info.graph, normals)
        if isinstance(held, HeldTiles):
            write_held_tiles(folder / HELD, held)
        elif held is not None:
            write_held(folder / HELD, held)
        if config.layout == TRITON:
            triton.write_config(folder, info, config.batch or 1)
        _ask_pytorch(detector, folder, info)
        proved.append(_prove(detector, folder, info, normals, config))

    changeable = (triton.CONFIG,) if config.layout == TRITON else ()
    content = write_bundle(Path(output), info, fill, changeable)
    return content, proved[0]


def _require_bf16() -> None:
    """ONNX Runtime has no convolutions of bfloat16 for CPUs, so no certificate could be made."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ConfigError(
            f"bf16: ONNX Runtime {onnxruntime.__version__} here has no GPU, and runs none on a CPU; choose "
            "format openvino or torch"
        )


def _graph(compiled: ExportedDetector) -> Graph:
    graph = getattr(compiled.engine, "graph", None)
    assert isinstance(graph, Graph)
    return graph


def _write_graph(
    compiled: ExportedDetector, info: ExportInfo, path: Path, normals: Sequence[NDArray[Any]]
) -> None:
    import torch

    graph: Graph | PixelGraph = _graph(compiled)
    inputs: tuple[str, ...] = INPUTS
    outputs: tuple[str, ...] = OUTPUTS
    if info.pixels is not None:
        black_white = grey_range(np.dtype(info.pixels), info.window)
        graph = PixelGraph(_graph(compiled), getattr(torch, info.pixels), black_white)
        inputs, outputs = PIXEL_INPUTS, PIXEL_OUTPUTS
    path.parent.mkdir(exist_ok=True)
    program = traced(graph, info.size_hw, info.batch)
    if info.format == "torch":
        write_torch(program, path)
        return
    data = feeds(normals, info.window, info.batch, as_pixels=info.pixels is not None)
    with tempfile.TemporaryDirectory() as folder:
        made, between = path, Path(folder) / "model.onnx"
        if info.format == "openvino":
            made = Path(folder) / "made.onnx"
        if info.precision == "int8":
            write_onnx(program, between, inputs=inputs, outputs=outputs)
            quantise_onnx(between, made, data)
        else:
            write_onnx(program, made, inputs=inputs, outputs=outputs)
        if info.format == "openvino":
            write_openvino(made, path)
    if info.format == "onnx":
        tidy_onnx(path)


def _ask_pytorch(detector: Trained, folder: Path, info: ExportInfo) -> None:
    """Every probe by the limits over all categories, of parts by those of a member; the first one by all."""
    tiling = None if info.tiles is None else info.tiles.tiling
    names = write_probes(folder / PROBES, info.size_hw, info.window, info.pixels, tiling, _framed(info))
    usual = _usual(info)
    others = [category for category in detector.calibrations if category not in (POOLED, usual)]
    cases = [(name, usual) for name in names] + [(names[0], category) for category in others]
    told = [(n, detector.predict(read_image(folder / PROBES / n), category=c)) for n, c in cases]
    store_probes(folder, told)


def _framed(info: ExportInfo) -> Hw | None:
    """The size of pictures that the regions of a model of tiles are for. Raises ConfigError for several."""
    if info.tiles is None:
        return None
    tilings = (info.tiles.tiling, *info.tiles.of_category.values())
    frames = {tiling.region.size_hw: None for tiling in tilings if tiling.region is not None}
    if len(frames) > 1:
        said = " and ".join(f"{w} x {h}" for h, w in frames)
        raise ConfigError(f"regions of pictures of {said}: a bundle is for those of one size")
    return next(iter(frames), None)


def _usual(info: ExportInfo) -> str | None:
    """Whose limits judge an image of which nothing is known; of parts, those of their first member."""
    return None if info.parts is None else info.parts.members[0]


def _prove(
    detector: Trained,
    folder: Path,
    info: ExportInfo,
    normals: Sequence[NDArray[Any]],
    config: ExportConfig,
) -> Certificate:
    """The certificate, over the probes and the normal images; written into the bundle."""
    allowed = TOLERANCES[info.precision]
    if info.precision == "int8":
        allowed = replace(allowed, changed=config.max_changed)
    inside = ExportedDetector(info, open_engine(AUTO, info.format, folder / info.graph, Options()))
    exported = made_whole(inside)
    probes = certify(exported, folder, allowed)
    limits = detector.calibrations[POOLED]
    usual = _usual(info)
    rows = [
        compare(
            f"normal {i}",
            limits,
            detector.predict(image, category=usual),
            exported.predict(image, category=usual),
        )
        for i, image in enumerate(normals)
    ]
    certificate = replace(probes, rows=(*probes.rows, *rows))
    problems = certificate.problems
    if problems:
        raise ArtifactError(
            f"the exported graph differs from PyTorch on {certificate.engine} "
            f"{certificate.engine_version}: {problems[0]}; nothing was written"
        )
    text = json.dumps(certificate.to_plain(), indent=1, allow_nan=False) + "\n"
    (folder / CERTIFICATE).write_text(text, encoding="utf-8")
    return certificate
