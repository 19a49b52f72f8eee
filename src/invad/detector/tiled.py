"""A trained detector of large pictures, which it cuts into tiles: made, calibrated, saved and exported."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.data.content import pixel_digest
from invad.data.datasets import load_dataset, normal_set
from invad.data.region import Region, region_of, regions_of
from invad.data.samples import first_size
from invad.data.tiling import OVERVIEW, Cut, Tiling, place_of
from invad.detector import calibrating
from invad.detector.card import model_card
from invad.detector.detector import Detector
from invad.detector.fusing import plan_parts, planned, root_of, samples_of
from invad.detector.parts import DetectorInfo, Parts, described, load_parts, now, save_parts
from invad.detector.views import require_regions
from invad.errors import ArtifactError, ConfigError
from invad.fit.fit import FitRecord
from invad.fit.run import Run
from invad.fit.tile_choice import choose_tiling, of_tiles, tile_settings
from invad.fit.tiles import fit_tiles, held_picture, read_tiles
from invad.model.reading import Model
from invad.model.settings import Preset, preset_of
from invad.observer import Observer, Silent
from invad.records import Hw, Sample
from invad.runtime import ExportedDetector, tile_anew
from invad.runtime.fusing import Tiled
from invad.runtime.held_tiles import HeldTiles
from invad.runtime.kept_tiles import HeldPicture, KeptTiles, doubts_of, keep_tiles
from invad.runtime.limits import GIVE_PICTURES, advised
from invad.runtime.part_limits import PartPlan
from invad.runtime.tile_controls import passing, require_controls
from invad.runtime.tile_limits import TileLimits, fit_tile_limits, top_cells
from invad.runtime.tile_views import wanted_regions
from invad.runtime.tiled import TiledPredictor
from invad.scoring.fusion import Fusion
from invad.scoring.groups import groups_in_words, require_groups
from invad.scoring.rates import POOLED, Rates
from invad.scoring.typicality import PositionStats
from invad.system.arguments import path_of, require
from invad.system.devices import choose_device
from invad.system.waiting import sleep_beside_the_user

DEFAULT_RATES = Rates()
RUN = Run()

FRAME_PIXELS = 1_000_000
"""Of the frame in which maps and masks of a test are compared, at most: all of them are held at once."""


class TiledDetector(TiledPredictor):
    """A trained and calibrated detector of tiles. Make one with `TiledDetector.fit` or `TiledDetector.load`.

    detector: of tiles and overviews, which are categories of it. kept: what is kept of the pictures that set
    the limits.
    """

    inside: Detector

    def __init__(
        self,
        detector: Detector,
        tiled: Tiled,
        kept: KeptTiles | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        super().__init__(detector, tiled, fusion=fusion)
        self.kept = kept
        self._doubts: tuple[str, ...] = ()

    # ------------------------------------------------------------------ making one

    @classmethod
    def fit(
        cls,
        data: str | Path | Sequence[Sample],
        *,
        smallest_defect: float | None = None,
        tiling: Tiling | None = None,
        regions: Mapping[str, Region | str | Path] | None = None,
        preset: str | Preset = "standard",
        backbone: str | Backbone | None = None,
        steps: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
        rates: Rates = DEFAULT_RATES,
        parts: str | None = None,
        fusion: str = "scores",
        strict: bool = False,
        device: str | None = None,
        run: Run = RUN,
    ) -> "TiledDetector":
        """Train and calibrate on normal pictures.

        smallest_defect: in pixels, from which tiles are chosen for the first picture that can be read (see
        `choose_tiling`); or tiling itself. regions: of categories that look at a part of their own. The rest
        is as for `Detector.fit`; pictures of a part have places of their own. Raises as it does, ConfigError
        also where the whole picture in one shows such a defect already.
        """
        sleep_beside_the_user()
        require(rates=(rates, Rates), run=(run, Run), parts=(parts, str | None))
        require(smallest_defect=(smallest_defect, float | None), tiling=(tiling, Tiling | None))
        wanted, settings = regions_of(regions), preset_of(preset)
        samples: Sequence[Sample] = samples_of(data, parts, load_dataset)
        require_regions(wanted or {}, samples, parts)
        region = None if tiling is None else tiling.region
        samples, plan = plan_parts(samples, parts, fusion, root_of(data), region, run.observer)
        name = backbone.info.name if isinstance(backbone, Backbone) else backbone
        settings = settings.override(backbone=name, steps=steps, batch=batch, seed=seed)
        net = backbone if isinstance(backbone, Backbone) else settings.load_backbone()
        net = net.freeze().to(run.workers.device or choose_device(device))
        if tiling is None:
            tiling = choose_tiling(first_size(samples), settings, net, smallest_defect=smallest_defect)
        if tiling is None:
            raise ConfigError("the whole picture shows such a defect already; use Detector.fit")
        settings, net = of_tiles(settings, net)
        settings = tile_settings(settings, net, tiling.tile_px, tiling.positions, tiling.cells)
        fitted = fit_tiles(samples, tiling, settings, net, strict=strict, run=run)
        rule, named = settings.score_rule.of_cells, preset if isinstance(preset, str) else "custom"
        limits, fused = fit_tile_limits(fitted.held, fitted.groups, rule, rates), None
        if plan is not None:
            fused = tile_anew.fused(fitted.held, fitted.groups, limits, plan, rates, rule)
        detector = cls.made(fitted.model, tiling, limits, fitted.record, named, fused)
        detector.kept = keep_tiles(fitted.held, fitted.groups, tiling.region, run.observer)
        if wanted and detector.kept is None:
            run.observer.note("the regions of categories do not count yet: they take good images, as it says")
        elif wanted:
            detector.calibrate(regions=wanted, observer=run.observer)
        for warning in (*detector.warnings(), *([limits.hint] if limits.hint else [])):
            run.observer.note(warning)
        return detector

    @classmethod
    def made(
        cls,
        model: Model,
        tiling: Tiling,
        limits: TileLimits,
        record: FitRecord,
        preset: str,
        fusion: Fusion | None = None,
    ) -> "TiledDetector":
        """From what it consists of. fusion: of several pictures of a part; None for single ones."""
        info = described(model, preset, record)
        tiled = Tiled(
            tiling=tiling,
            grid_hw=info.grid_hw,
            top_cells=top_cells(info.settings.score_rule.of_cells, info.grid_hw),
            places=limits.places,
            calibrations=limits.pictures,
        )
        detector = cls(_with_limits(model, info, limits), tiled, fusion=fusion)
        detector._doubts = tuple(passing(detector).values())
        return detector

    @classmethod
    def load(cls, folder: str | Path, *, device: str | None = None) -> "TiledDetector":
        """Read a saved detector. Raises ArtifactError when it is missing, altered, truncated or of whole
        pictures."""
        parts, content_hash = load_parts(path_of(folder, "folder"), choose_device(device))
        return cls.of(parts, content_hash, Path(folder))

    @classmethod
    def of(cls, parts: Parts, content_hash: str, folder: Path) -> "TiledDetector":
        """From the parts of a model folder."""
        if parts.info.tiles is None:
            raise ArtifactError(f"{folder}: holds a detector of whole pictures; read it with Detector.load")
        inside = Detector(parts.model, parts.info, parts.stats, parts.calibrations)
        detector = cls(inside, parts.info.tiles, parts.kept_tiles, parts.fusion)
        detector.content_hash = content_hash
        return detector

    def save(self, folder: str | Path, card: str = "") -> str:
        """Write the model folder; returns its content hash. Raises ArtifactError when it cannot be written.

        card: the README.md in place of the one that `model_card` makes.
        """
        inside = self.inside
        info = replace(inside.info, tiles=self.tiled)
        parts = Parts(
            info,
            inside.model,
            inside.stats,
            inside.calibrations,
            fusion=self.fusion,
            kept_tiles=self.kept,
        )
        card = card or model_card(info, self.calibrations, self.warnings(), self.fusion)
        self.content_hash = save_parts(path_of(folder, "folder"), parts, card)
        return self.content_hash

    # ------------------------------------------------------------------ using one

    @property
    def model(self) -> Model:
        """The networks that see tiles."""
        return self.inside.model

    @property
    def rates(self) -> Rates:
        """The false-alarm rates that the limits keep."""
        return self.calibrations[POOLED].rates

    def warnings(self) -> tuple[str, ...]:
        """What the calibration cannot promise, one line each."""
        lines = tuple(calibrating.warnings_of(self.calibrations))
        if self.fusion is not None:
            lines = self.fusion.calibration.warnings("normal parts")
        return (*lines, *self._doubts, *doubts_of(self.tiled))

    def frame_for(self, size_hw: Hw) -> Hw:
        """Height and width in which maps and masks of a picture are compared: whole pixels a cell."""
        rows, columns = self.grid_for(size_hw)
        cell = self.inside.info.settings.cell_px(self.inside.model.extract.backbone)
        scale = max(1, min(cell, int((FRAME_PIXELS / rows / columns) ** 0.5)))
        return rows * scale, columns * scale

    def compile(self, *, size_hw: Hw | None = None, low: torch.dtype | None = None) -> ExportedDetector:
        """The graph of tiles, as `Detector.compile`; its `info` knows how pictures are cut.

        Raises ConfigError for a size: tiles and overviews have several.
        """
        if size_hw is not None:
            raise ConfigError(f"size = {size_hw}: tiles and overviews differ in size; leave the size away")
        compiled = self.inside.compile(low=low)
        compiled.info = replace(
            compiled.info, tiles=self.tiled, parts=self.fusion, model_hash=self.content_hash
        )
        compiled.fusion = self.fusion
        if self.kept is not None:
            rule, stats = self.inside.info.settings.score_rule.of_cells, self.inside.stats
            compiled.held = HeldTiles(rule, self.kept, {name: one.of_cells for name, one in stats.items()})
        return compiled

    # ------------------------------------------------------------------ calibrating one

    def calibrate(
        self,
        normals: str | Path | Sequence[Sample] | None = None,
        *,
        rates: Rates | None = None,
        region: Region | str | Path | None = None,
        regions: Mapping[str, Region | str | Path] | None = None,
        min_area: float | Literal["none"] | None = None,
        strict: bool = False,
        observer: Observer | None = None,
    ) -> tuple[str, ...]:
        """Fit statistics and limits anew, as `Detector.calibrate`; returns warnings.

        normals: None for those so far, of which the model keeps the maps of all tiles (unless these are many,
        see `keep_tiles`). region, regions, min_area: as before unless given; an area is in pixels of a
        picture, whatever its size. Raises DataError and ConfigError as it does.
        """
        observer = observer or Silent()
        require(rates=(rates, Rates | None))
        rates, inside = rates or self.rates, self.inside
        region, regions = region_of(region), regions_of(regions)
        asked_for = (region, regions or None, min_area)
        if normals is None and asked_for == (None, None, None):
            tiled, fusion = tile_anew.with_rates(self.tiled, self.fusion, rates)
            self._take(TiledDetector(inside, tiled, self.kept, fusion), advised(None, None))
            return self.warnings()
        kept, recalibrated = self.kept, inside.info.recalibrated
        rule = inside.info.settings.score_rule.of_cells
        if normals is None:
            anew = tile_anew.of_kept(
                self.tiled,
                self.fusion,
                kept,
                rule,
                rates,
                region=region,
                regions=regions,
                min_area=min_area,
                mend=GIVE_PICTURES,
            )
        else:
            plan = None if self.fusion is None else PartPlan.of(self.fusion, region)
            wanted = wanted_regions(self.tiled, self.calibrations, regions, self.fusion)
            tiled = tile_anew.asked(self.tiled, self.fusion, None, region, min_area)
            tiled = replace(tiled, tiling=replace(tiled.tiling, in_sight=False, hidden=None))
            samples: Sequence[Sample] = samples_of(normals, None if plan is None else plan.rule, normal_set)
            if plan is not None:
                samples = planned(samples, plan, root_of(normals), observer)

            def read(name: str, tiling: Tiling) -> tuple[Sequence[HeldPicture], Sequence[int]]:
                return self._read([s for s in samples if s.category == name], tiling, strict, observer)

            held, groups = self._read(samples, tiled.tiling, strict, observer)
            kept, recalibrated = keep_tiles(held, groups, tiled.tiling.region, observer), now()
            anew = tile_anew.fitted(held, groups, tiled, plan, wanted, read, "pictures", rule, rates)
        changed = _with_limits(inside.model, replace(inside.info, recalibrated=recalibrated), anew.limits)
        advice = advised(next(iter((regions or {}).values()), region), min_area)
        if normals is not None and asked_for == (None, None, None):
            advice = "Give more good images, or train a new model if all look so"
        self._take(TiledDetector(changed, anew.tiled, kept, anew.fusion), advice)
        return (*self.warnings(), *([anew.limits.hint] if anew.limits.hint else []))

    def _take(self, after: "TiledDetector", advice: str) -> None:
        """Judge by the limits of another one. Raises DataError as `require_controls`."""
        self._doubts = require_controls(self, after, advice)
        self.inside, self.tiled, self.calibrations = after.inside, after.tiled, after.calibrations
        self.fusion, self.kept, self.content_hash = after.fusion, after.kept, None

    def _read(
        self, samples: Sequence[Sample], tiling: Tiling, strict: bool, observer: Observer
    ) -> tuple[Sequence[HeldPicture], Sequence[int]]:
        """The tiles of the good pictures that count, and the groups of these. Raises DataError as
        `calibrate`."""
        read: dict[str, tuple[Cut, NDArray[np.float32]]] = {}

        def overview_maps(pixels: NDArray[Any]) -> torch.Tensor:
            # What tells copies from others is the overview; all tiles are kept beside it.
            cut, maps_TLhw = read_tiles(pixels, tiling, self.inside.model)
            read[pixel_digest(pixels)] = cut, maps_TLhw.numpy()
            return maps_TLhw[-1]

        inside = self.inside
        given = calibrating.read_normals(samples, overview_maps, strict, observer)
        given = calibrating.untrained(given, inside.info.fit.trained, observer)
        members = [""] if self.fusion is None else self.fusion.members
        known = {member: inside.stats[place_of(member, OVERVIEW)] for member in members}
        used = calibrating.distinct(given, known, observer)
        groups = calibrating.groups_of(used)
        require_groups(groups)
        for words in groups_in_words(used.samples, groups):
            observer.note(words)
        return [
            held_picture(sample, *read[mark]) for sample, mark in zip(used.samples, used.pixels, strict=True)
        ], groups


def _with_limits(model: Model, info: DetectorInfo, limits: TileLimits) -> Detector:
    """The detector of tiles."""
    stats = {place: PositionStats.of(one) for place, one in limits.stats.items()}
    return Detector(model, info, stats, limits.calibrations)
