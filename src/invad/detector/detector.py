"""The detector: what a newcomer reads first.

pixels -> features -> norms of predicted noise -> z-scores against held-out normals -> map, score, p-value
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.data.datasets import load_dataset
from invad.data.images import ImageSource
from invad.data.preprocess import resize_map
from invad.data.region import Region, cut, region_of, regions_of, whole_or
from invad.detector import calibrating
from invad.detector.card import model_card
from invad.detector.compiling import compiled
from invad.detector.fusing import plan_parts, root_of, samples_of
from invad.detector.kept import Kept, doubts_of, keep
from invad.detector.parts import DetectorInfo, Parts, described, load_parts, save_parts
from invad.detector.renewing import rule_of
from invad.detector.views import calibrated, doubts_of_views, require_regions
from invad.errors import ArtifactError, NotCalibratedError
from invad.fit.fit import fit
from invad.fit.run import Run
from invad.model.reading import Model
from invad.model.settings import Preset, preset_of
from invad.observer import Observer, Silent
from invad.records import Hw, Prediction, Sample
from invad.runtime import ExportedDetector
from invad.runtime.predictor import Pixels, Predictor
from invad.scoring.calibration import Calibration, for_category, known_category
from invad.scoring.rates import POOLED, Rates
from invad.scoring.sizes import Smallest
from invad.scoring.typicality import PositionStats, ScoreRule
from invad.system.arguments import path_of, require
from invad.system.devices import choose_device
from invad.system.waiting import sleep_beside_the_user

DEFAULT_RATES = Rates()
RUN = Run()


class Detector(Predictor):
    """A trained and calibrated detector. Make one with `Detector.fit` or `Detector.load`.

    `predict` and `predict_many` are those of `Predictor`, which decodes images and hands them to `judge`.
    """

    def __init__(
        self,
        model: Model,
        info: DetectorInfo,
        stats: Mapping[str, PositionStats],
        calibrations: Mapping[str, Calibration],
        kept: Kept | None = None,
        means: Mapping[Hw, torch.Tensor] | None = None,
    ):
        sleep_beside_the_user()
        self.model, self.info, self.sizes = model, info, info.sizes
        self.stats = dict(stats)
        self.calibrations: dict[str, Calibration] = dict(calibrations)
        self.kept = kept
        self.means = dict(means or {})
        self._means_of: Mapping[str, Mapping[Hw, torch.Tensor]] = {}
        self._views: Mapping[str, Parts] = {}
        self._looking: dict[str, Detector] = {}
        self._doubts: tuple[str, ...] = ()

    # ------------------------------------------------------------------ using one

    def judge(self, pixels: Sequence[Pixels], category: str | None = None) -> list[Prediction]:
        """Predictions of decoded images of one input size, which pass the networks together."""
        self._require_calibrated()
        if (judge := self.looking_at(category)) is not self:
            return judge.judge(pixels, category)
        maps_BLhw = self.read_many(self.levelled(pixels, category))
        return self.predictions(maps_BLhw, [(one.shape[0], one.shape[1]) for one in pixels], category)

    def read_many(self, pixels: Sequence[Pixels]) -> torch.Tensor:
        """Norm maps B x L x h x w of images of one input size, before any comparison with normals."""
        extract = self.model.extract
        x_B3HW = torch.stack([extract.preprocess(one) for one in pixels])  # window, one resize
        z_BChw = extract.features(x_B3HW)  # frozen backbone, maps brought to one grid
        return self.model.read_batch(z_BChw)  # length of the predicted noise of each cell

    def predictions(
        self, maps_BLhw: torch.Tensor, sizes_hw: Sequence[Hw], category: str | None = None
    ) -> list[Prediction]:
        """Predictions from norm maps of images of these sizes."""
        calibration = for_category(self.calibrations, category)
        inside = self.inside_for(category)
        predictions = []
        for maps_Lhw, size_hw in zip(maps_BLhw, sizes_hw, strict=True):
            score, map_hw = self.score(maps_Lhw, category)
            map_HW = cut(resize_map(map_hw, size_hw), inside)
            predictions.append(calibration.prediction(score, category, map_HW, map_hw))
        return predictions

    def decode(self, image: ImageSource, category: str | None = None) -> Pixels:
        """Pixels of one image. Raises DataError when it cannot be read, or has not the size of the region."""
        return self.looking_at(category).model.extract.decode(image)

    def looking_at(self, category: str | None) -> "Detector":
        """What judges the images of a category: this one, or one of the same networks that looks at the
        region of the category."""
        return self._looking.get(known_category(self.calibrations, category), self) if self._looking else self

    @property
    def regions(self) -> Mapping[str, Region]:
        """Of categories that look at a part of the pictures of their own."""
        return self.info.regions

    @property
    def region(self) -> Region | None:
        """The part of the pictures that counts; None where all of it does."""
        return self.info.region

    @property
    def smallest(self) -> Smallest | None:
        """The smallest area of a defect, by which images are called, too; None without one."""
        return self.info.smallest

    @property
    def rule(self) -> ScoreRule:
        """How norm maps become anomaly map and score."""
        return rule_of(self._parts)

    @property
    def inside_HW(self) -> NDArray[np.bool_] | None:
        """The pixels that count, H x W in the frame of the region; None where all do."""
        inspected = self.model.extract.inspected
        return None if inspected is None else inspected.inside_HW.numpy()

    def cell_maps(self, pixels: Sequence[Pixels], categories: Sequence[str]) -> list[NDArray[np.float32]]:
        """Anomaly maps h x w on the grid, each by the statistics of a category, all in one run."""
        if self._looking:
            return [self.reading(one, own)[1] for one, own in zip(pixels, categories, strict=True)]
        maps_BLhw = self.read_many(pixels)
        return [self.score(maps_Lhw, own)[1] for maps_Lhw, own in zip(maps_BLhw, categories, strict=True)]

    @property
    def grid_hw(self) -> Hw:
        """Rows and columns of the cells that the model sees an image in."""
        return self.info.grid_hw

    def kind(self, pixels: Pixels) -> Hashable:
        """The input size, which an image's aspect ratio chooses."""
        return self.model.extract.preprocess.size_for((pixels.shape[0], pixels.shape[1]))

    def read(self, pixels: NDArray[Any], category: str | None = None) -> torch.Tensor:
        """Norm maps L x h x w of one image's pixels, before any comparison; see `Model.read_batch`.

        category: whose region is looked at, if it has one.
        """
        model = self.looking_at(category).model
        return model.read(model.extract(pixels))

    def score(self, maps_Lhw: torch.Tensor, category: str | None = None) -> tuple[float, NDArray[np.float32]]:
        """Image score and h x w map of z-scores on the feature grid, from norm maps as `read` gives them for
        the category.

        With a region of interest the map is 0 in cells that do not count.
        """
        self._require_calibrated()
        if (judge := self.looking_at(category)) is not self:
            return judge.score(maps_Lhw, category)
        stats = self.stats[known_category(self.calibrations, category)]
        score, map_hw = calibrating.score_maps(maps_Lhw, stats, self.rule)
        inspected = self.model.extract.inspected
        if inspected is None:
            return score, map_hw
        return score, inspected.on_grid(torch.from_numpy(map_hw)[None])[0].numpy()

    def reading(self, pixels: Pixels, category: str | None = None) -> tuple[float, NDArray[np.float32]]:
        """Score of an image's pixels, and its map on the grid."""
        return self.score(self.read(pixels, category), category)

    def frame_for(self, size_hw: Hw) -> Hw:
        """Height and width in which maps and masks of an image are compared: the model's input."""
        return self.info.input_hw

    # ------------------------------------------------------------------ making one

    @classmethod
    def fit(
        cls,
        data: str | Path | Sequence[Sample],
        *,
        preset: str | Preset = "standard",
        backbone: str | Backbone | None = None,
        steps: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
        moved: float | None = None,
        rates: Rates = DEFAULT_RATES,
        region: Region | str | Path | None = None,
        regions: Mapping[str, Region | str | Path] | None = None,
        parts: str | None = None,
        fusion: str = "scores",
        strict: bool = False,
        device: str | None = None,
        run: Run = RUN,
    ) -> "Detector":
        """Train and calibrate on normal images.

        data: a folder (see `load_dataset`; only its normal training images are used) or samples.
        backbone, steps, batch, seed, moved override the preset; `Preset.load_backbone` makes a backbone with
        weights from a file. rates: false-alarm rates of the limits. region: the part of the pictures that
        counts, or the path of its file; pictures of another size than its frame are passed over. regions: of
        categories that look at a part of their own in place of that, by limits of the same held-out images.
        parts: how several pictures are of one part, as `invad train --parts` says it: an expression with the
        groups part and member, names, views or pages. fusion: scores, or cells for pictures of one frame
        (`invad.scoring.fusion`).
        strict: fail on an unreadable image. device: a torch device, by default a CUDA GPU if there is one.
        run: folders for checkpoints and features, processes, precision, and who is told; of several processes
        one should save the detector.
        Raises DataError, ConfigError, WeightsError, TrainingError with one line that says what to do.
        """
        sleep_beside_the_user()
        require(rates=(rates, Rates), run=(run, Run), parts=(parts, str | None))
        region, wanted = whole_or(region_of(region)), regions_of(regions)
        settings = preset_of(preset)
        samples: Sequence[Sample] = samples_of(data, parts, load_dataset)
        require_regions(wanted or {}, samples, parts)
        samples, plan = plan_parts(samples, parts, fusion, root_of(data), region, run.observer)
        name = backbone.info.name if isinstance(backbone, Backbone) else backbone
        settings = settings.override(backbone=name, steps=steps, batch=batch, seed=seed, moved=moved)
        net = backbone if isinstance(backbone, Backbone) else settings.load_backbone()
        net = net.freeze().to(run.workers.device or choose_device(device))
        fitted = fit(samples, settings, net, region=region, strict=strict, run=run)
        extract = fitted.model.extract
        named = preset if isinstance(preset, str) else "custom"
        info = replace(described(fitted.model, named, fitted.record), region=region)
        kept = keep(
            fitted.held_maps_NLhw,
            fitted.held_samples,
            fitted.held_groups,
            fitted.held_pixels,
            extract.inspected,
        )
        detector = cls(fitted.model, info, {}, {}, kept, fitted.means)
        limits = calibrating.limits_of(fitted.held_maps_NLhw, kept, settings.score_rule, rates, plan)
        detector.stats, detector.calibrations = dict(limits.stats), dict(limits.calibrations)
        detector.fusion = limits.fusion
        read = calibrating.read_controls(detector.model)
        detector._doubts = tuple(calibrating.passing(limits, read, detector.rule).values())
        if fitted.record.copies:
            calibrating.require_unlike(detector._doubts, samples)
        detector._means_of = fitted.means_of
        if wanted:
            detector.calibrate(regions=wanted, observer=run.observer)
        for warning in detector.warnings():
            run.observer.note(warning)
        return detector

    @classmethod
    def load(
        cls, folder: str | Path, *, device: str | None = None, backbone: Backbone | None = None
    ) -> "Detector":
        """Read a saved detector. backbone: one built as for `fit`, if it was fitted on one without a name.

        Raises ArtifactError when it is missing, altered, truncated or too new.
        """
        parts, content_hash = load_parts(path_of(folder, "folder"), choose_device(device), backbone)
        return cls.of(parts, content_hash, Path(folder))

    @classmethod
    def of(cls, parts: Parts, content_hash: str, folder: Path) -> "Detector":
        """From the parts of a model folder. Raises ArtifactError for one of tiles."""
        if parts.info.tiles is not None:
            raise ArtifactError(f"{folder}: holds a detector of tiles; read it with TiledDetector.load")
        detector = cls(parts.model, parts.info, {}, {})
        detector._become(parts)
        detector.content_hash = content_hash
        return detector

    def save(self, folder: str | Path, card: str = "") -> str:
        """Write the model folder; returns its content hash. Raises ArtifactError when it cannot be written.

        card: the README.md in place of the one that `model_card` makes.
        """
        self._require_calibrated()
        card = card or model_card(self.info, self.calibrations, self.warnings(), self.fusion)
        self.content_hash = save_parts(path_of(folder, "folder"), self._parts, card)
        return self.content_hash

    # ------------------------------------------------------------------ exporting one

    def compile(self, *, size_hw: Hw | None = None, low: torch.dtype | None = None) -> ExportedDetector:
        """One folded graph from pixels to decision, with `predict` as here, on the device of the detector.

        What the noise levels alone decide is computed once, batch norms go into the convolutions. size_hw:
        the one size of images it is for, None for any; with a region of interest it is that of its frame.
        low: float16 or bfloat16 for the networks. Later changes of this detector do not reach it. Raises
        ConfigError for images of any size when the model has several input sizes, and for another size than
        that of the region.
        """
        self._require_calibrated()
        return compiled(self._parts, size_hw, low, self.content_hash)

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
        """Fit statistics and limits anew; the networks stay. Returns warnings.

        normals: a folder, an image or samples; those that were trained on do not count. Each of their
        categories gets its own calibration, and all together the pooled one; what was calibrated before is
        replaced. Copies and near copies count once, and groups as one (`groups_of_samples`). A model of parts
        needs whole ones. None: of the good images that the limits were made of before, from the norm maps
        that the model keeps of them; with another region these were read with what it ignores in sight, so
        near its border they are an approximation. rates: as before unless given. region: the part of the
        pictures that counts, or the path of its file, "none" for all of it; as before unless given. regions:
        the same of single categories, in place of that, "none" for that of all; their images are read, and
        limits made, by it. min_area: pixels of a picture, "none" for no such rule; as before unless given.
        With it a defect is a part of the map of at least that area, and an image is called where one stands
        above the limit. Raises DataError when fewer than two distinct images can be read, when the kept maps
        do not show what the region counts, and when a black picture or one of noise, bad so far, would not be
        bad any more, ConfigError for an area below one cell.
        """
        require(rates=(rates, Rates | None))
        changed, doubts = calibrated(
            self._parts,
            self._doubts,
            normals,
            rates=rates or self.rates,
            region=region_of(region),
            regions=regions_of(regions),
            min_area=min_area,
            strict=strict,
            observer=observer or Silent(),
        )
        self._become(changed)
        self.content_hash, self._doubts = None, doubts
        return self.warnings()

    @property
    def rates(self) -> Rates:
        """The false-alarm rates that the limits keep. Raises NotCalibratedError before a calibration."""
        self._require_calibrated()
        return self.calibrations[POOLED].rates

    def warnings(self) -> tuple[str, ...]:
        """What the calibration cannot promise, one line each."""
        lines = tuple(calibrating.warnings_of(self.calibrations))
        if self.fusion is not None:
            lines = self.fusion.calibration.warnings("normal parts")
        return (
            *lines,
            *self._doubts,
            *doubts_of(self.kept, self.region),
            *doubts_of_views(self._parts),
        )

    @property
    def _parts(self) -> Parts:
        limits = {name: one for name, one in self.calibrations.items() if name not in self._views}
        own = (self.kept, self.means, self.fusion, None, self._means_of, self._views)
        return Parts(self.info, self.model, self.stats, limits, *own)

    def _become(self, parts: Parts) -> None:
        self.model, self.info, self.kept, self.means = parts.model, parts.info, parts.kept, dict(parts.means)
        self.stats, self.calibrations, self.fusion = parts.stats, parts.all_calibrations, parts.fusion
        self._means_of, self._views, self.sizes = parts.means_of, parts.views, parts.info.sizes
        self._looking = {}
        for name, view in parts.views.items():
            self._looking[name] = Detector(view.model, view.info, {}, {})
            self._looking[name]._become(view)

    def _require_calibrated(self) -> None:
        if POOLED not in self.calibrations:
            raise NotCalibratedError("the detector has seen no held-out normals; calibrate it first")
