"""A trained detector as one folded graph of this process."""

from dataclasses import replace

import torch

from invad.data.region import framed
from invad.detector.calibrating import Limits, limits_of_kept
from invad.detector.parts import Parts, exported_info
from invad.graph.graph import Graph, categories
from invad.records import Hw
from invad.runtime import ExportedDetector
from invad.runtime.torch_engine import TorchEngine
from invad.scoring.rates import POOLED


def compiled(
    parts: Parts, size_hw: Hw | None, low: torch.dtype | None, model_hash: str | None
) -> ExportedDetector:
    """As `Detector.compile`. model_hash: of the folder of the detector, None where it was not saved."""
    info, extract = parts.info, parts.model.extract
    size_hw = framed(info.region, size_hw)
    preprocess = extract.preprocess.alone(size_hw)
    model = replace(parts.model, extract=replace(extract, preprocess=preprocess))
    limits = limits_without_sizes(parts)
    graph = Graph(model, limits.stats, limits.calibrations, size_hw=size_hw, low=low)
    told = exported_info(
        info,
        preprocess,
        precision={None: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[low],
        size_hw=size_hw,
        parameters=sum(p.numel() for p in graph.parameters()),
        model_hash=model_hash,
        calibrations={name: parts.calibrations[name] for name in categories(parts.calibrations)},
        fusion=parts.fusion,
    )
    return ExportedDetector(told, TorchEngine(graph, extract.device))


def limits_without_sizes(parts: Parts) -> Limits:
    """A graph knows no connected parts, so with a smallest area of defects it calls images without them."""
    if parts.info.smallest is None:
        return Limits(parts.stats, parts.calibrations)
    info, rates = parts.info, parts.calibrations[POOLED].rates
    inspected = parts.model.extract.inspected
    return limits_of_kept(parts.kept, inspected, info.grid_hw, info.settings.score_rule, rates)
