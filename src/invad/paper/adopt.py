"""From a published checkpoint and a folder of good images to a detector that decides."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from invad.backbones.base import CELL, Backbone
from invad.backbones.registry import load_backbone
from invad.data.datasets import normal_set, not_taken
from invad.detector.detector import DEFAULT_RATES, Detector
from invad.detector.parts import DetectorInfo
from invad.errors import ConfigError
from invad.fit.fit import FitRecord
from invad.fit.plan import plan
from invad.model.reading import Model
from invad.model.settings import Preset, preset_named
from invad.model.space import FeatureSpace, Standardiser
from invad.observer import Observer, Silent
from invad.paper.reference import load_reference
from invad.records import Hw, Sample
from invad.scoring.rates import Rates
from invad.system.devices import choose_device
from invad.system.version import __version__


def adopt(
    checkpoint: str | Path,
    normals: str | Path | Sequence[Sample],
    *,
    heads: int | None = None,
    backbone: str | Backbone | None = None,
    weights: str | Path | None = None,
    rates: Rates = DEFAULT_RATES,
    device: str | None = None,
    observer: Observer | None = None,
) -> Detector:
    """A calibrated detector around a published denoiser, in the setting of the preset `paper`.

    checkpoint, heads: see `load_reference`. normals: good images that it was not trained on; they set the
    limits. backbone: what the checkpoint was trained on, by default the paper's; weights: a file for it.
    Raises WeightsError for a checkpoint that is not one, ConfigError when backbone or grid do not fit it,
    DataError for too few normals.
    """
    observer = observer or Silent()
    samples = normals if not isinstance(normals, str | Path) else _read(normals, observer)
    place = choose_device(device)
    denoiser, source = load_reference(checkpoint, heads=heads)
    if source.grid_hw[0] != source.grid_hw[1]:
        raise ConfigError(
            f"{checkpoint}: was trained on a grid {source.grid_hw}; only square grids are taken"
        )
    settings = _settings(preset_named("paper"), source.grid_hw[0], backbone)
    settings = replace(settings, denoiser=source.config)
    net = backbone if isinstance(backbone, Backbone) else _load(settings, weights)
    net = net.freeze().to(place)
    extract = plan(samples, settings, net, strict=False)
    if (extract.channels, extract.grid_hw) != (source.channels, source.grid_hw):
        raise ConfigError(
            f"{checkpoint}: takes {source.channels} channels on a {_size(source.grid_hw)} grid, but backbone "
            f"{net.info.name} gives {extract.channels} on {_size(extract.grid_hw)}; name the backbone it was "
            "trained on"
        )
    space = FeatureSpace(Standardiser.identity(source.channels))
    model = Model(extract, space, denoiser, (), settings).to_device()
    info = DetectorInfo(
        preset=f"paper, denoiser imported from {Path(checkpoint).name}",
        settings=settings,
        input_hw=extract.preprocess.input_hw,
        other_hw=extract.preprocess.other_hw,
        window=extract.preprocess.window,
        grid_hw=extract.grid_hw,
        channels=source.channels,
        backbone_source=net.info.source,
        backbone_licence=net.info.licence,
        backbone_shape=dict(net.info.shape),
        fit=_no_fit(place),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        invad_version=__version__,
    )
    detector = Detector(model, info, {}, {})
    for warning in detector.calibrate(samples, rates=rates, observer=observer):
        observer.note(warning)
    return detector


def _read(normals: str | Path, observer: Observer) -> Sequence[Sample]:
    good = normal_set(normals)
    for line in not_taken(good):
        observer.note(line)
    return good.train


def _settings(paper: Preset, cells: int, backbone: str | Backbone | None) -> Preset:
    """The paper's settings for a grid of this many cells a side."""
    name = backbone.info.name if isinstance(backbone, Backbone) else backbone or paper.backbone
    return replace(paper, backbone=name, area_side=cells * CELL)


def _load(settings: Preset, weights: str | Path | None) -> Backbone:
    return load_backbone(
        settings.backbone,
        weights=Path(weights) if weights is not None else None,
        strides=settings.strides,
        image_size=settings.area_side,
    )


def _no_fit(device: torch.device) -> FitRecord:
    """Nothing was trained here."""
    return FitRecord(
        normals={},
        held_out={},
        folds=1,
        steps=0,
        skipped=(),
        final_loss=None,
        seconds=0.0,
        threads=torch.get_num_threads(),
        device=str(device),
    )


def _size(hw: Hw) -> str:
    return f"{hw[0]} x {hw[1]}"
