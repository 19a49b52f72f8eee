"""A trained detector as one folded graph of this process."""

from dataclasses import replace

import torch

from invad.data.preprocess import Preprocess
from invad.data.region import framed
from invad.detector.calibrating import Limits, limits_of_kept
from invad.detector.handing import held_of, seen_by, takes_regions
from invad.detector.parts import DetectorInfo, Parts, now
from invad.errors import ConfigError
from invad.graph.graph import Graph, categories
from invad.graph.looking import LookingGraph, View
from invad.records import Hw
from invad.runtime import ExportedDetector
from invad.runtime.bundle import ExportInfo
from invad.runtime.torch_engine import TorchEngine
from invad.scoring.calibration import Calibration
from invad.scoring.fusion import Fusion
from invad.scoring.rates import POOLED
from invad.system.arguments import require, shown
from invad.system.version import __version__


def compiled(
    parts: Parts, size_hw: Hw | None, low: torch.dtype | None, model_hash: str | None
) -> ExportedDetector:
    """As `Detector.compile`. model_hash: of the folder of the detector, None where it was not saved."""
    require(size_hw=(size_hw, tuple[int, int] | None))
    if low not in (None, torch.float16, torch.bfloat16):
        raise ConfigError(f"low = {shown(low)}: give torch.float16 or torch.bfloat16")
    info, extract = parts.info, parts.model.extract
    _require_one_frame(parts)
    for region in (info.region, *info.regions.values()):
        size_hw = framed(region, size_hw)
    preprocess = extract.preprocess.alone(size_hw)
    model = replace(parts.model, extract=replace(extract, preprocess=preprocess))
    limits, calibrations = limits_without_sizes(parts), parts.all_calibrations
    views = {name: _view(view, name) for name, view in parts.views.items()}
    deciding = {**limits.calibrations, **{name: view.calibration for name, view in views.items()}}
    names = categories(deciding)
    seen = seen_by(parts, names) if views or takes_regions(parts) else []
    graph = Graph(model, limits.stats, deciding, size_hw=size_hw, low=low, seen=seen)
    if views:
        graph = LookingGraph(graph, model, views, names)
    told = exported_info(
        info,
        preprocess,
        precision={None: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[low],
        size_hw=size_hw,
        parameters=sum(p.numel() for p in graph.parameters()),
        model_hash=model_hash,
        calibrations={name: calibrations[name] for name in categories(calibrations)},
        fusion=parts.fusion,
    )
    exported = ExportedDetector(told, TorchEngine(graph, extract.device))
    exported.held = held_of(parts)
    return exported


def _require_one_frame(parts: Parts) -> None:
    """Raises ConfigError where the regions of categories are of pictures of several sizes."""
    regions = [parts.info.region, *parts.info.regions.values()]
    sizes = sorted({f"{one.frame[0]} x {one.frame[1]}" for one in regions if one is not None})
    if len(sizes) > 1:
        raise ConfigError(
            f"the regions of interest of its categories are drawn on pictures of {' and '.join(sizes)} pixels"
            ", and a graph takes one size: export a copy for each, with the regions of that size alone"
        )


def _view(view: Parts, name: str) -> View:
    limits, inspected = limits_without_sizes(view), view.model.extract.inspected
    assert inspected is not None
    return View(inspected, limits.stats[name], limits.calibrations[name])


def limits_without_sizes(parts: Parts) -> Limits:
    """A graph knows no connected parts, so with a smallest area of defects it calls images without them."""
    if parts.info.smallest is None:
        return Limits(parts.stats, parts.calibrations)
    info, rates = parts.info, parts.calibrations[POOLED].rates
    inspected = parts.model.extract.inspected
    return limits_of_kept(parts.kept, inspected, info.grid_hw, info.settings.score_rule, rates)


def exported_info(
    info: DetectorInfo,
    preprocess: Preprocess,
    *,
    precision: str,
    size_hw: Hw | None,
    parameters: int,
    model_hash: str | None,
    calibrations: dict[str, Calibration],
    fusion: Fusion | None,
) -> ExportInfo:
    """What is said of a graph of this process, made of a model; see ExportInfo."""
    return ExportInfo(
        format="torch",
        graph="",
        precision=precision,
        size_hw=size_hw,
        batch=None,
        window=preprocess.window,
        preset=info.preset,
        backbone=info.settings.backbone,
        backbone_licence=info.backbone_licence,
        input_hw=preprocess.input_hw,
        grid_hw=info.grid_hw,
        parameters=parameters,
        model_hash=model_hash,
        created=now(),
        invad_version=__version__,
        calibrations=calibrations,
        region=info.region,
        regions=info.regions,
        smallest=info.smallest,
        sizes=info.sizes,
        parts=fusion,
    )
