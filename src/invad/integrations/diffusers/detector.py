"""A pipeline of diffusers, read and calibrated as a detector."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from math import gcd
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from invad.data.datasets import all_samples, normal_images
from invad.data.images import read_image
from invad.data.preprocess import Preprocess, choose_window, resize_map
from invad.detector import calibrating
from invad.detector.folder import AGAIN, CALIBRATION, CONFIG, read_bundle, write_bundle
from invad.diffusion.readings import ReadingConfig, read
from invad.diffusion.schedule import SCHEDULE
from invad.errors import ArtifactError, ConfigError, DataError, in_one_line
from invad.integrations.diffusers.models import NoiseModel, noise_model, require_runs
from invad.integrations.diffusers.noise import matching_levels, require_levels
from invad.observer import Observer, Silent
from invad.records import Hw, Prediction, Sample
from invad.runtime.predictor import Pixels, Predictor
from invad.scoring.calibration import Calibration, for_category, known_category
from invad.scoring.rates import POOLED, Rates
from invad.scoring.typicality import PositionStats, ScoreRule
from invad.system.devices import choose_device
from invad.system.digests import file_sha256
from invad.system.files import is_folder, writing
from invad.system.packages import importing, version
from invad.system.plain import from_plain, to_plain
from invad.system.version import __version__

with importing(("diffusers",), "diffusers", __package__):
    from diffusers import DiffusionPipeline

DEFAULT_RATES = Rates()
MOST_CELLS = 32
"""Cells along the longer side of the map, unless another size of a cell is asked."""

FLOOR = 0.5
"""See `invad.scoring.typicality.less_floor`; as in the presets."""

PIPELINE = "pipeline"
"""Folder of the pipeline inside that of the detector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineInfo:
    """What `config.json` says of a saved detector.

    pipeline: class of the pipeline. pipeline_files: SHA-256 of each of its files. dtype: of its network, such
    as float32. reading, rule: how it is read and scored. input_hw, window: see Preprocess. cell: side of a
    cell of the map, in pixels or latents of the model. calibrated: UTC time in ISO 8601.
    """

    pipeline: str
    pipeline_files: dict[str, str]
    dtype: str
    reading: ReadingConfig
    rule: ScoreRule
    input_hw: Hw
    window: tuple[float, float]
    cell: int
    grid_hw: Hw
    calibrated: str
    invad_version: str
    diffusers_version: str


@dataclass(frozen=True, slots=True)
class _Calibrations:
    calibrations: dict[str, Calibration]


class PipelineDetector(Predictor):
    """Get one with `from_pipeline` or `load`. `predict` and `predict_many` are those of any detector.

    pipe: the pipeline, which stays as it is but for being set to inference. model: see NoiseModel.
    """

    def __init__(
        self,
        pipe: Any,
        model: NoiseModel,
        info: PipelineInfo,
        stats: Mapping[str, PositionStats],
        calibrations: Mapping[str, Calibration],
        prompt_embeds: Tensor | None = None,
    ) -> None:
        self.pipe, self.model, self.info = pipe, model, info
        self.preprocess = Preprocess(info.input_hw, info.window)
        self.stats = dict(stats)
        self.calibrations: dict[str, Calibration] = dict(calibrations)
        self._prompt_embeds = prompt_embeds
        self._doubts: tuple[str, ...] = ()

    def judge(self, pixels: Sequence[Pixels], category: str | None = None) -> list[Prediction]:
        """Predictions of decoded images, which pass the network together."""
        calibration = for_category(self.calibrations, category)
        stats = self.stats[known_category(self.calibrations, category)]
        maps_BLhw = self.read_batch(torch.stack([self.preprocess(one) for one in pixels]))
        predictions = []
        for one, maps_Lhw in zip(pixels, maps_BLhw, strict=True):
            score, map_hw = calibrating.score_maps(maps_Lhw, stats, self.info.rule)
            map_HW = resize_map(map_hw, (one.shape[0], one.shape[1]))
            predictions.append(calibration.prediction(score, category, map_HW))
        return predictions

    @property
    def grid_hw(self) -> Hw:
        """Rows and columns of the cells of the map."""
        return self.info.grid_hw

    def kind(self, pixels: Pixels) -> Hashable:
        """All images are brought to one size."""
        return self.info.input_hw

    def read(self, pixels: NDArray[Any]) -> Tensor:
        """Norm maps L x h x w of one image's pixels, before any comparison with normals."""
        return self.read_batch(self.preprocess(pixels)[None])[0]

    @torch.inference_mode()
    def read_batch(self, x_B3HW: Tensor) -> Tensor:
        """Norm maps B x L x h x w float32 of preprocessed images: the length of the noise in each cell."""
        z_BChw = self.model.encode(x_B3HW)
        maps_BLhw = read(self.info.reading, self.model.predict_noise, z_BChw, self.model.schedule)
        return cell_lengths(maps_BLhw, self.info.cell).cpu()

    def calibrate(
        self,
        normals: str | Path | Sequence[Sample],
        *,
        rates: Rates | None = None,
        strict: bool = False,
        observer: Observer | None = None,
    ) -> tuple[str, ...]:
        """Fit statistics and limits anew on good images; the pipeline stays. Returns warnings.

        As `Detector.calibrate`, but what the pipeline was trained on nobody knows here: do not give it.
        """
        samples = normal_images(normals) if isinstance(normals, str | Path) else all_samples(normals)
        before = calibrating.Limits(self.stats, self.calibrations)
        controls = [(name, self.read(pixels)) for name, pixels in calibrating.controls(self.preprocess)]
        after = calibrating.recalibrated(
            samples,
            self.read,
            before,
            controls,
            self.info.rule,
            rates or self._rates(),
            strict=strict,
            observer=observer or Silent(),
        )
        self.stats, self.calibrations = dict(after.stats), dict(after.calibrations)
        self._doubts = tuple(calibrating.passing(after, controls, self.info.rule).values())
        self.content_hash = None
        self.info = replace(self.info, calibrated=_now())
        return self.warnings()

    def warnings(self) -> tuple[str, ...]:
        """What the calibration cannot promise, one line each."""
        return (*calibrating.warnings_of(self.calibrations), *self._doubts)

    def save(self, folder: str | Path) -> str:
        """Write the pipeline, as diffusers saves it, and what was calibrated; returns the content hash.

        Raises ArtifactError when the folder is not empty or cannot be written.
        """
        folder = Path(folder)
        with writing(folder, ArtifactError):
            if is_folder(folder) and any(folder.iterdir()):
                raise ArtifactError(f"{folder}: exists and is not empty; give a new folder")
            self.pipe.save_pretrained(folder / PIPELINE, safe_serialization=True)
            files = {name: file_sha256(folder / PIPELINE / name) for name in _files(folder / PIPELINE)}
        info = replace(self.info, pipeline_files=files)
        tensors = {} if self._prompt_embeds is None else {"prompt_embeds": self._prompt_embeds}
        for number, name in enumerate(sorted(self.stats)):
            tensors[f"{number}.median"] = self.stats[name].median_Lhw
            tensors[f"{number}.scale"] = self.stats[name].scale_Lhw
        card = CARD.format(pipeline=info.pipeline, rows="\n".join(f"- {line}" for line in self._told()))
        kept = to_plain(_Calibrations(self.calibrations))
        self.content_hash = write_bundle(folder, tensors, to_plain(info), kept, card)
        return self.content_hash

    def _rates(self) -> Rates:
        return self.calibrations[POOLED].rates if self.calibrations else DEFAULT_RATES

    def _told(self) -> Iterator[str]:
        levels = ", ".join(map(str, self.info.reading.timesteps))
        yield f"reading: {self.info.reading.kind} at levels {levels}"
        yield f"calibrated on {self.calibrations[POOLED].n} {self.calibrations[POOLED].unit}"
        yield from self.warnings()


def from_pipeline(
    pipe: Any,
    normals: str | Path | Sequence[Sample],
    *,
    reading: ReadingConfig | None = None,
    rates: Rates = DEFAULT_RATES,
    input_hw: Hw | None = None,
    cell: int | None = None,
    prompt_embeds: Tensor | None = None,
    strict: bool = False,
    observer: Observer | None = None,
) -> PipelineDetector:
    """A detector from a diffusion pipeline of normal images and from good images that it was not trained on.

    pipe: see `noise_model`; it stays on its device. normals: a folder, or samples, as for
    `Detector.calibrate`. reading: by default the early one, at the levels where this model has as much signal
    left as invad's own networks at 100, 200 and 300. input_hw: height and width that images are brought to,
    by default those of the pipeline. cell: side of a cell of the map in pixels or latents of the model, by
    default the smallest that gives at most 32 cells a side. prompt_embeds: see `noise_model`. rates, strict,
    observer: as for `Detector.calibrate`. Raises ConfigError for a pipeline that is not read and DataError
    for images that cannot calibrate it.
    """
    model = noise_model(pipe, prompt_embeds)
    size = input_hw or model.input_hw
    if size is None:
        raise ConfigError("the pipeline does not say the size of its images; give input_hw=(height, width)")
    reading = reading or _own_reading(model)
    require_levels(reading.timesteps, model.schedule)
    with torch.inference_mode():
        rows, columns = require_runs(model, size)
    side = gcd(rows, columns)
    cell = cell or next(
        (c for c in range(1, side) if side % c == 0 and max(rows, columns) <= MOST_CELLS * c), side
    )
    if cell < 1 or rows % cell or columns % cell:
        raise ConfigError(f"cell = {cell}: give a divisor of {rows} and {columns}, or leave it out")
    samples = normal_images(normals) if isinstance(normals, str | Path) else all_samples(normals)
    info = PipelineInfo(
        pipeline=type(pipe).__name__,
        dtype=str(model.dtype).removeprefix("torch."),
        pipeline_files={},
        reading=reading,
        rule=ScoreRule.of((len(reading.timesteps),), floor=FLOOR),
        input_hw=size,
        window=choose_window(_decoded(samples)),
        cell=cell,
        grid_hw=(rows // cell, columns // cell),
        calibrated=_now(),
        invad_version=__version__,
        diffusers_version=version("diffusers") or "unknown",
    )
    detector = PipelineDetector(pipe, model, info, {}, {}, prompt_embeds)
    observer = observer or Silent()
    for warning in detector.calibrate(samples, rates=rates, strict=strict, observer=observer):
        observer.note(warning)
    return detector


def load(folder: str | Path, *, device: str | None = None) -> PipelineDetector:
    """Read what `PipelineDetector.save` wrote, from the folder alone; nothing is fetched.

    device: a torch device, by default a CUDA GPU if there is one. Raises ArtifactError when it is missing,
    altered or truncated.
    """
    folder = Path(folder)
    bundle = read_bundle(folder)
    if "pipeline_files" not in bundle.config:
        raise ArtifactError(f"{folder}: is a trained model, no saved pipeline; Detector.load reads it")
    info = from_plain(PipelineInfo, bundle.config, str(folder / CONFIG), ArtifactError, AGAIN)
    told = from_plain(_Calibrations, bundle.calibration, str(folder / CALIBRATION), ArtifactError, AGAIN)
    for name, digest in info.pipeline_files.items():
        file = folder / PIPELINE / name
        if not file.is_file() or file_sha256(file) != digest:
            raise ArtifactError(f"{file}: missing, altered or truncated since it was saved; {AGAIN}")
    try:
        pipe = DiffusionPipeline.from_pretrained(
            folder / PIPELINE, local_files_only=True, use_safetensors=True
        )
        pipe.to(choose_device(device))
        if info.dtype != "float32":  # as which all weights are read
            pipe.to(getattr(torch, info.dtype))
        stats = {
            name: PositionStats(bundle.tensors[f"{number}.median"], bundle.tensors[f"{number}.scale"])
            for number, name in enumerate(sorted(told.calibrations))
        }
    except Exception as error:  # of whatever a component of a pipeline is read with
        raise ArtifactError(
            f"{folder}: the pipeline cannot be read ({in_one_line(error)}); {AGAIN}"
        ) from None
    embeds = bundle.tensors.get("prompt_embeds")
    detector = PipelineDetector(pipe, noise_model(pipe, embeds), info, stats, told.calibrations, embeds)
    detector.content_hash = bundle.content_hash
    return detector


def cell_lengths(maps_BLhw: Tensor, cell: int) -> Tensor:
    """Norm maps of cells of `cell` x `cell` pixels: the length over all that lies in one."""
    if cell == 1:
        return maps_BLhw
    return F.avg_pool2d(maps_BLhw.square(), cell, divisor_override=1).sqrt()


def _own_reading(model: NoiseModel) -> ReadingConfig:
    ours = ReadingConfig()
    levels = matching_levels(model.schedule, [SCHEDULE.abar(t) for t in ours.timesteps])
    return replace(ours, timesteps=levels)


def _decoded(samples: Sequence[Sample]) -> Iterator[NDArray[Any]]:
    for sample in samples:
        with suppress(DataError):  # told of when it is read to calibrate
            yield read_image(sample.path)


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


CARD = """\
# Anomaly detector (invad) from a {pipeline} of diffusers

{rows}

```python
from invad.integrations.diffusers import load
print(load("this-folder").predict("part.png").decision)
```
"""
