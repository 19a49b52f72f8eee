"""A detector as a bundle that runs without PyTorch, proved to say the same.

`export` traces the graph, writes it, runs probe images through PyTorch and through the engine that will read
the bundle, and leaves nothing behind when the two differ by more than the precision explains.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from invad.data.images import read_image
from invad.detector.detector import Detector
from invad.errors import ArtifactError, ConfigError
from invad.export.formats import require, tidy_onnx, traced, write_onnx, write_openvino, write_torch
from invad.export.int8 import calibration_images, feeds, quantise_onnx
from invad.export.probes import write_probes
from invad.graph.graph import Graph
from invad.records import Hw
from invad.runtime.bundle import CERTIFICATE, ExportInfo, write_bundle
from invad.runtime.certificate import PROBES, TOLERANCES, Certificate, certify, compare, store_probes
from invad.runtime.detector import ExportedDetector
from invad.runtime.engines import AUTO, Options, open_engine, report_nothing
from invad.scoring.rates import POOLED

FORMATS = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """format: onnx, openvino or torch. precision: of the backbone and the denoiser; the comparison with the
    normals is float32 always. size_hw: the one size of images, None for any. batch: images at a time, None
    for any number. calibration: folder of normal images that int8 is fitted to. max_changed: share of images
    whose decision int8 may change, see `Tolerance.allows`."""

    format: str = "onnx"
    precision: str = "fp32"
    size_hw: Hw | None = None
    batch: int | None = 1
    calibration: Path | None = None
    max_changed: float = 0.01

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


def export(detector: Detector, output: str | Path, config: ExportConfig) -> tuple[str, Certificate]:
    """Write a bundle; returns its content hash and what the comparison with PyTorch found.

    Raises ConfigError for what cannot be had here, ArtifactError when the folder cannot be written or the
    engine says something else than PyTorch; nothing is left behind then.
    """
    import torch

    report_nothing()
    if config.precision == "int8" and config.format == "torch":
        raise ConfigError("int8 is for onnx and openvino; export torch as fp32 or bf16")
    if config.precision == "int8" and config.calibration is None:
        raise ConfigError("int8 needs normal images to be fitted to; give --calibration FOLDER")
    if config.precision == "int8":
        require("onnxruntime", "onnx")
    if config.format != "torch":
        require("onnx", "onnx")
        require("onnxscript", "onnx")
        require(*(("openvino", "openvino") if config.format == "openvino" else ("onnxruntime", "onnx")))
    if (config.format, config.precision) == ("onnx", "bf16"):
        _require_bf16()
    types = {"fp16": torch.float16, "bf16": torch.bfloat16}
    compiled = detector.compile(size_hw=config.size_hw, low=types.get(config.precision))
    info = replace(
        compiled.info,
        format=config.format,
        graph=FORMATS[config.format],
        precision=config.precision,
        batch=config.batch,
    )
    normals = [] if config.calibration is None else calibration_images(config.calibration, config.size_hw)
    proved: list[Certificate] = []

    def fill(folder: Path) -> None:
        _write_graph(compiled, folder / info.graph, config, normals)
        _ask_pytorch(detector, folder, info)
        proved.append(_prove(detector, folder, info, normals, config))

    content = write_bundle(Path(output), info, fill)
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
    compiled: ExportedDetector, path: Path, config: ExportConfig, normals: Sequence[NDArray[Any]]
) -> None:
    graph, window = _graph(compiled), compiled.info.window
    program = traced(graph, config.size_hw, config.batch)
    if config.format == "torch":
        write_torch(program, path)
        return
    data = feeds(normals, window, config.batch)
    with tempfile.TemporaryDirectory() as folder:
        made, between = path, Path(folder) / "model.onnx"
        if config.format == "openvino":
            made = Path(folder) / "made.onnx"
        if config.precision == "int8":
            write_onnx(program, between)
            quantise_onnx(between, made, data)
        else:
            write_onnx(program, made)
        if config.format == "openvino":
            write_openvino(made, path)
    if config.format == "onnx":
        tidy_onnx(path)


def _ask_pytorch(detector: Detector, folder: Path, info: ExportInfo) -> None:
    """Every probe by the limits over all categories, and the first one by each category's."""
    names = write_probes(folder / PROBES, info.size_hw, info.window)
    cases = [(name, None) for name in names] + [(names[0], c) for c in info.calibrations if c]
    told = [(n, detector.predict(read_image(folder / PROBES / n), category=c)) for n, c in cases]
    store_probes(folder, told)


def _prove(
    detector: Detector,
    folder: Path,
    info: ExportInfo,
    normals: Sequence[NDArray[Any]],
    config: ExportConfig,
) -> Certificate:
    """The certificate, over the probes and the normal images; written into the bundle."""
    allowed = TOLERANCES[info.precision]
    if info.precision == "int8":
        allowed = replace(allowed, changed=config.max_changed)
    exported = ExportedDetector(info, open_engine(AUTO, info.format, folder / info.graph, Options()))
    probes = certify(exported, folder, allowed)
    n = info.calibrations[POOLED].n
    rows = [
        compare(f"normal {i}", n, detector.predict(image), exported.predict(image))
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
