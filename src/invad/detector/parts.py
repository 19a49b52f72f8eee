"""What a saved detector consists of, to the model folder and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, from_numpy

from invad.backbones.base import Backbone
from invad.backbones.registry import load_backbone
from invad.data.preprocess import Preprocess
from invad.data.region import Region
from invad.detector.folder import AGAIN, CALIBRATION, CONFIG, read_bundle, write_bundle
from invad.detector.kept import Kept, looking_at, of_category
from invad.diffusion.denoiser import build_denoiser
from invad.diffusion.empirical import EmpiricalDenoiser
from invad.errors import ArtifactError, InvadError
from invad.fit.fit import FitRecord
from invad.model.inspected import inspect
from invad.model.reading import Bank, FeatureExtractor, Model
from invad.model.settings import BankConfig, Preset
from invad.model.space import FeatureSpace
from invad.records import Hw
from invad.runtime.fusing import Tiled
from invad.runtime.kept_tiles import KeptTiles
from invad.scoring.calibration import Calibration
from invad.scoring.fusion import Fusion
from invad.scoring.lengths import SizeModel
from invad.scoring.rates import POOLED
from invad.scoring.sizes import Smallest
from invad.scoring.typicality import PositionStats, ScoreStats
from invad.system.plain import from_plain, to_plain
from invad.system.version import __version__

MEAN, HELD, HELD_TILES = "mean.", "held.", "held_tiles."
MEAN_OF, HELD_OF = "mean_of.", "held_of."
"""What the names of mean pictures and of kept maps begin with among the tensors; those of one category."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorInfo:
    """What `config.json` says of a saved detector, beside its settings.

    created, recalibrated: UTC times in ISO 8601; recalibrated is None as long as the calibration is the one
    of the training. backbone_shape: see BackboneInfo. region: the part of the pictures that counts, None
    where all of it does. smallest: of defects, None without one. tiles: of a model of tiles, which is no
    model of whole pictures. sizes: what drawings taught of the sizes of defects, None where
    nothing was drawn. regions: of categories that look at a part of the pictures of their own.
    """

    preset: str
    settings: Preset
    input_hw: Hw
    other_hw: tuple[Hw, ...] = ()
    window: tuple[float, float]
    grid_hw: Hw
    channels: int
    backbone_source: str
    backbone_licence: str
    backbone_shape: dict[str, Any] = field(default_factory=dict)
    fit: FitRecord
    created: str
    recalibrated: str | None = None
    invad_version: str
    region: Region | None = None
    smallest: Smallest | None = None
    tiles: Tiled | None = None
    sizes: SizeModel | None = None
    regions: dict[str, Region] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """A detector as data: stats and calibrations by category, POOLED among them.

    kept: norm maps of held-out images, None of a model from before they were kept. means: see
    `mean_pictures`. fusion: how several pictures of a part become one decision, None for a model of single
    images. kept_tiles: in place of `kept`, of a model of tiles. means_of: as means, of each of several
    categories. views: what judges the categories that have a region of their own, each with its limits under
    POOLED, too; the limits of these are not among those here.
    """

    info: DetectorInfo
    model: Model
    stats: dict[str, PositionStats]
    calibrations: dict[str, Calibration]
    kept: Kept | None = None
    means: Mapping[Hw, Tensor] = field(default_factory=dict)
    fusion: Fusion | None = None
    kept_tiles: KeptTiles | None = None
    means_of: Mapping[str, Mapping[Hw, Tensor]] = field(default_factory=dict)
    views: Mapping[str, "Parts"] = field(default_factory=dict)

    @property
    def all_calibrations(self) -> dict[str, Calibration]:
        """With those of the views."""
        return {**self.calibrations, **{name: view.calibrations[name] for name, view in self.views.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Category(Calibration):
    """A calibration as `calibration.json` has it. tensors: number of its statistics among the tensors."""

    tensors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """What `calibration.json` says of the kept maps, which are among the tensors; see `Kept`."""

    categories: tuple[str, ...]
    groups: tuple[int, ...]
    pictures: tuple[int, ...]
    region: Region | None
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeldTiles:
    """The same of kept tiles; see `KeptTiles`."""

    sizes: tuple[Hw, ...]
    categories: tuple[str, ...]
    groups: tuple[int, ...]
    region: Region | None
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Categories:
    categories: dict[str, _Category]
    held: _Held | None = None
    held_of: dict[str, _Held] = field(default_factory=dict)
    held_tiles: _HeldTiles | None = None
    parts: Fusion | None = None


def save_parts(folder: Path, parts: Parts, card: str) -> str:
    """Write a model folder; returns its content hash. Raises ArtifactError when it cannot be written."""
    model = parts.model
    tensors = {f"backbone.{k}": v for k, v in model.extract.backbone.state_dict().items()}
    tensors |= {f"space.{k}": v for k, v in model.space.tensors().items()}
    if model.denoiser is not None:
        tensors |= {f"denoiser.{k}": v for k, v in model.denoiser.state_dict().items()}
    for bank in model.banks:
        name = bank.config.name
        tensors |= {f"{name}space.{k}": v for k, v in bank.space.tensors().items()}
        tensors |= {f"{name}empirical.{k}": v for k, v in bank.empirical.state_dict().items()}
    told: dict[str, _Category] = {}
    all_stats = {**parts.stats, **{name: view.stats[name] for name, view in parts.views.items()}}
    for number, (category, stats) in enumerate(sorted(all_stats.items())):
        tensors[f"calibration.{number}.median"] = stats.median_Lhw
        tensors[f"calibration.{number}.scale"] = stats.scale_Lhw
        if stats.scores is not None:
            tensors[f"calibration.{number}.score_mean"] = stats.scores.mean_P
            tensors[f"calibration.{number}.score_std"] = stats.scores.std_P
        told[category] = _Category(tensors=number, **asdict(parts.all_calibrations[category]))
    tensors |= {f"{MEAN}{h}x{w}": mean for (h, w), mean in parts.means.items()}
    for name, means in parts.means_of.items():
        # Copies: the only category of a model has the mean picture of all, and safetensors writes none twice.
        tensors |= {f"{MEAN_OF}{h}x{w}.{name}": mean.clone() for (h, w), mean in means.items()}
    held = None if parts.kept is None else _hold(parts.kept, HELD, tensors)
    held_of = {
        name: _hold(view.kept, f"{HELD_OF}{name}.", tensors)
        for name, view in parts.views.items()
        if view.kept is not None and was_read_alone(view, parts)
    }
    held_tiles = None
    if (tiles := parts.kept_tiles) is not None:
        arrays = {"middles": tiles.middles_PLhw, "offsets": tiles.offsets_TLhw}
        tensors |= {HELD_TILES + name: from_numpy(array) for name, array in arrays.items()}
        held_tiles = _HeldTiles(
            sizes=tiles.sizes,
            categories=tiles.categories,
            groups=tiles.groups,
            region=tiles.region,
            parts=tiles.parts,
        )
    plain = to_plain(
        _Categories(categories=told, held=held, held_of=held_of, held_tiles=held_tiles, parts=parts.fusion)
    )
    return write_bundle(folder, tensors, to_plain(parts.info), plain, card)


def was_read_alone(view: Parts, whole: Parts) -> bool:
    """Whether the maps that a view keeps are of another reading than those of all."""
    return view.kept is not None and (whole.kept is None or view.kept.region != whole.kept.region)


def _hold(kept: Kept, prefix: str, tensors: dict[str, Tensor]) -> _Held:
    tensors |= {f"{prefix}middle": kept.middle_Lhw, f"{prefix}offsets": kept.offsets_NLhw}
    return _Held(
        categories=kept.categories,
        groups=kept.groups,
        pictures=kept.pictures,
        region=kept.region,
        parts=kept.parts,
    )


def _kept(held: _Held, prefix: str, tensors: Mapping[str, Tensor]) -> Kept:
    middle, offsets = (tensors[prefix + name] for name in ("middle", "offsets"))
    return Kept(middle, offsets, held.categories, held.groups, held.pictures, held.region, held.parts)


def load_parts(folder: Path, device: torch.device, backbone: Backbone | None = None) -> tuple[Parts, str]:
    """Read a model folder and its content hash. backbone: to be filled, for one that has no registered name.

    Raises ArtifactError when the folder is missing, altered, truncated, too new, or its parts do not fit.
    """
    bundle = read_bundle(folder)
    if "pipeline" in bundle.config:
        raise ArtifactError(
            f"{folder}: holds a pipeline of diffusers; read it in Python, invad.integrations.diffusers.load"
        )
    info = from_plain(DetectorInfo, bundle.config, str(folder / CONFIG), ArtifactError, AGAIN)
    told = from_plain(_Categories, bundle.calibration, str(folder / CALIBRATION), ArtifactError, AGAIN)
    try:
        means = _means(bundle.tensors)
        model = _model(info, bundle.tensors, device, backbone, means)
        stats, calibrations = _calibration(info.settings, bundle.tensors, told.categories)
        kept = None if told.held is None else _kept(told.held, HELD, bundle.tensors)
        alone = {n: _kept(held, f"{HELD_OF}{n}.", bundle.tensors) for n, held in told.held_of.items()}
        tiles = None
        if (own := told.held_tiles) is not None:
            middles, offsets = (bundle.tensors[HELD_TILES + name].numpy() for name in ("middles", "offsets"))
            tiles = KeptTiles(middles, offsets, own.sizes, own.categories, own.groups, own.region, own.parts)
        parts = Parts(info, model, stats, calibrations, kept, means, told.parts, tiles)
        parts = _with_views(parts, _means_of(bundle.tensors), alone)
    except (InvadError, KeyError, RuntimeError, ValueError) as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ArtifactError(
            f"{folder}: the parts of the model do not fit together ({line}); copy or train it again"
        ) from None
    return parts, bundle.content_hash


def _with_views(
    parts: Parts, means_of: Mapping[str, Mapping[Hw, Tensor]], alone: Mapping[str, Kept]
) -> Parts:
    """With what judges categories that have a region of their own. alone: the maps of readings of theirs."""
    info, views = parts.info, {}
    whole = Preprocess(info.input_hw, info.window, info.other_hw)
    for name, region in info.regions.items():
        model, means = looking_at(parts.model, whole, region, means_of.get(name, parts.means), ())
        kept = None if parts.kept is None else of_category(parts.kept, name)
        views[name] = Parts(
            replace(info, region=region, regions={}),
            model,
            {POOLED: parts.stats[name], name: parts.stats[name]},
            {POOLED: parts.calibrations[name], name: parts.calibrations[name]},
            alone.get(name, kept),
            means,
        )
    return replace(
        parts,
        stats={name: stats for name, stats in parts.stats.items() if name not in views},
        calibrations={name: one for name, one in parts.calibrations.items() if name not in views},
        means_of=means_of,
        views=views,
    )


def _means(tensors: Mapping[str, Tensor]) -> dict[Hw, Tensor]:
    sizes = {name: name.removeprefix(MEAN).split("x") for name in tensors if name.startswith(MEAN)}
    return {(int(h), int(w)): tensors[name] for name, (h, w) in sizes.items()}


def _means_of(tensors: Mapping[str, Tensor]) -> dict[str, dict[Hw, Tensor]]:
    found: dict[str, dict[Hw, Tensor]] = {}
    for name in tensors:
        if name.startswith(MEAN_OF):
            size, _, category = name.removeprefix(MEAN_OF).partition(".")
            h, w = size.split("x")
            found.setdefault(category, {})[int(h), int(w)] = tensors[name]
    return found


def _model(
    info: DetectorInfo,
    tensors: Mapping[str, Tensor],
    device: torch.device,
    backbone: Backbone | None,
    means: Mapping[Hw, Tensor],
) -> Model:
    settings = info.settings
    if backbone is None:
        backbone = load_backbone(
            settings.backbone,
            strides=settings.strides,
            pretrained=False,
            image_size=settings.area_side,
            shape=info.backbone_shape,
        )
    backbone.load_state_dict(_part(tensors, "backbone."))
    denoiser = None
    if settings.denoiser is not None:
        denoiser = build_denoiser(settings.denoiser, info.channels, info.grid_hw)
        weights = _part(tensors, "denoiser.")
        denoiser.before_loading(weights, info.grid_hw)
        denoiser.load_state_dict(weights)
    preprocess = Preprocess(info.input_hw, info.window, info.other_hw)
    inspected = None
    if info.region is not None:
        preprocess = preprocess.alone(info.region.size_hw)
        inspected = inspect(info.region, means, info.grid_hw)
    extract = FeatureExtractor(
        preprocess,
        backbone.freeze().to(device),
        info.grid_hw,
        settings.pooling,
        settings.scales,
        settings.fine,
        inspected,
    )
    space = FeatureSpace.from_tensors(settings.space, _part(tensors, "space."))
    banks = tuple(_bank(config, tensors) for config in settings.banks)
    return Model(extract, space, denoiser, banks, settings).to_device()


def _bank(config: BankConfig, tensors: Mapping[str, Tensor]) -> Bank:
    space = FeatureSpace.from_tensors(config.space, _part(tensors, f"{config.name}space."))
    prefix = f"{config.name}empirical."
    empirical = EmpiricalDenoiser(space.channels, len(tensors[f"{prefix}bank"]))
    empirical.load_state_dict(_part(tensors, prefix))
    return Bank(config, space, empirical)


def _calibration(
    settings: Preset, tensors: Mapping[str, Tensor], categories: Mapping[str, _Category]
) -> tuple[dict[str, PositionStats], dict[str, Calibration]]:
    stats, calibrations = {}, {}
    for category, row in categories.items():
        own, scores = f"calibration.{row.tensors}.", None
        if settings.top_fractions is not None:
            scores = ScoreStats(tensors[own + "score_mean"], tensors[own + "score_std"])
        stats[category] = PositionStats(tensors[own + "median"], tensors[own + "scale"], scores)
        calibrations[category] = Calibration(
            scores=row.scores, peaks=row.peaks, rates=row.rates, groups=row.groups
        )
    if POOLED not in calibrations:
        raise ArtifactError("no calibration over all categories")
    return stats, calibrations


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def described(model: Model, preset: str, record: FitRecord) -> DetectorInfo:
    """What is saved of a model that was just fitted."""
    extract, about = model.extract, model.extract.backbone.info
    return DetectorInfo(
        preset=preset,
        settings=model.settings,
        input_hw=extract.preprocess.input_hw,
        other_hw=extract.preprocess.other_hw,
        window=extract.preprocess.window,
        grid_hw=extract.grid_hw,
        channels=model.space.channels,
        backbone_source=about.source,
        backbone_licence=about.licence,
        backbone_shape=dict(about.shape),
        fit=record,
        created=now(),
        invad_version=__version__,
    )


def now() -> str:
    """UTC, in ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
