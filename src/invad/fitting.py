"""From normal images to a trained model and the held-out norm maps that calibrate it."""

import hashlib
import math
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.calibration import folds, hold_out
from invad.data.images import read_image
from invad.data.preprocess import Preprocess, choose_input_hw, choose_window
from invad.diffusion.denoiser import DenoiserModule, build_denoiser
from invad.diffusion.empirical import EmpiricalDenoiser, draw_cells
from invad.diffusion.gaussian import GaussianPreconditioned
from invad.errors import DataError, TrainingError
from invad.features import FeatureSpace
from invad.model import SCHEDULE, FeatureExtractor, FineReader, Model
from invad.presets import Preset
from invad.records import Sample
from invad.training import Checkpoint, fingerprint, train_denoiser

LARGEST_MULTIPLE = 64
"""Pixels; an input is not stretched further than this only to fit the grid to the backbone."""

PROBED_IMAGES = 64
"""Images read to choose the input size and the 16-bit window."""

FEW_IMAGES = 60
"""Below this many normals, holding a fifth out would leave too few: every image is held out once instead."""

FOLDS = 4
MEMORY_LIMIT = 1 << 30
"""Features larger than this many bytes are kept in a memory-mapped temporary file."""


class Observer(Protocol):
    """Told how a long job goes."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` items or steps begins."""

    def advance(self, detail: str = "") -> None:
        """One item or step of the stage is done."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """An observer that says nothing."""

    def stage(self, name: str, total: int) -> None: ...
    def advance(self, detail: str = "") -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """What a fit did, as plain data for the model card. final_loss: None where nothing was trained."""

    normals: dict[str, int]
    held_out: dict[str, int]
    folds: int
    steps: int
    skipped: tuple[str, ...]
    final_loss: float | None
    seconds: float
    threads: int
    device: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model, and norm maps L x h x w of held-out normals, read by a model that never saw them."""

    model: Model
    held_maps_NLhw: torch.Tensor
    held_categories: tuple[str, ...]
    record: FitRecord


@dataclass(frozen=True, slots=True)
class Features:
    """Raw features of the readable images, N x C x h x w, their samples, and the paths that were skipped."""

    z_NChw: NDArray[np.float32]
    samples: tuple[Sample, ...]
    skipped: tuple[str, ...] = field(default=())


def fit(
    samples: Sequence[Sample],
    settings: Preset,
    backbone: Backbone,
    *,
    strict: bool = False,
    work_dir: Path | None = None,
    observer: Observer | None = None,
) -> Fitted:
    """Train on normal samples, holding out what calibrates.

    Of 60 or more normals, a fifth (at least 8) of each category is held out for good. Of fewer, each of four
    models is trained without a quarter, which it then reads, and a fifth model is trained on all. work_dir
    keeps checkpoints, so that the same call continues after an interruption.
    Raises DataError when fewer than two images can be read, TrainingError as `train_denoiser`.
    """
    observer = observer or Silent()
    started = time.perf_counter()
    for sample in samples:
        if sample.is_anomalous:
            raise DataError(f"{sample.path}: is {sample.defect}; training takes normal images only")
    extract = plan(samples, settings, backbone, strict=strict)
    with ExitStack() as stack:
        features = cache_features(samples, extract, strict=strict, observer=observer, stack=stack)
        if len(features.samples) < 2:
            raise DataError(
                f"{len(features.samples)} readable image: training needs at least 2 normal images, "
                "60 or more for a useful calibration"
            )
        job = _Job(extract, settings, features, work_dir, observer)
        few = len(features.samples) < FEW_IMAGES
        model, maps, held, loss = job.k_fold() if few else job.split()
    categories = [features.samples[i].category for i in held]
    record = FitRecord(
        normals=_count([s.category for s in features.samples]),
        held_out=_count(categories),
        folds=FOLDS if few else 1,
        steps=settings.train.steps_for(len(features.samples) - (0 if few else len(held))),
        skipped=features.skipped,
        final_loss=round(loss, 5),
        seconds=round(time.perf_counter() - started, 2),
        threads=torch.get_num_threads(),
        device=str(extract.device),
    )
    return Fitted(model, maps, tuple(categories), record)


def train_apart(
    samples: Sequence[Sample],
    settings: Preset,
    backbone: Backbone,
    *,
    work_dir: Path | None = None,
    observer: Observer | None = None,
) -> tuple[Model, NDArray[np.float32]]:
    """One model trained without the held-out share, however few images, and that share's raw features.

    For studies that read one network in many ways; `fit` trains once per fold when images are few.
    work_dir keeps the trained network, so that the same call does not train again.
    """
    observer = observer or Silent()
    extract = plan(samples, settings, backbone, strict=False)
    with ExitStack() as stack:
        features = cache_features(samples, extract, strict=False, observer=observer, stack=stack)
        if len(features.samples) < 4:
            raise DataError(
                f"{len(features.samples)} readable normal images: give at least 4, half of them are held out"
            )
        job = _Job(extract, settings, features, work_dir, observer)
        kept, held = job.shares()
        model, _ = job.train("denoiser", np.array(kept))
        return model, np.array(features.z_NChw[held])


def plan(
    samples: Sequence[Sample], settings: Preset, backbone: Backbone, *, strict: bool
) -> FeatureExtractor:
    """Choose input size and 16-bit window from a spread of the images, the grid from the input size."""
    spread = np.linspace(0, len(samples) - 1, min(len(samples), PROBED_IMAGES)).round().astype(int)
    sizes, windows = [], []
    for i in spread:
        try:
            pixels = read_image(samples[i].path)
        except DataError:
            if strict:
                raise
            continue
        sizes.append((pixels.shape[0], pixels.shape[1]))
        windows.append(_extremes(pixels))
    if not sizes:
        raise DataError(
            f"{samples[0].path.parent if samples else 'data'}: no readable image among the normals; "
            "give a folder of good images"
        )
    input_hw, grid_hw = _sizes(sizes, settings, backbone)
    return FeatureExtractor(
        Preprocess(input_hw, choose_window(windows)),
        backbone,
        grid_hw,
        settings.pooling,
        settings.scales,
        settings.fine,
    )


def _sizes(
    sizes_hw: Sequence[tuple[int, int]], settings: Preset, backbone: Backbone
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Input size and grid. Where patches and grid do not go together (14 and 16) the patches are the grid."""
    multiple = math.lcm(backbone.size_multiple, settings.grid_stride)
    if multiple <= LARGEST_MULTIPLE:
        h, w = choose_input_hw(sizes_hw, settings.area_side, multiple, settings.square)
        return (h, w), (h // settings.grid_stride, w // settings.grid_stride)
    h, w = choose_input_hw(sizes_hw, settings.area_side, backbone.size_multiple, settings.square)
    grids = [(rows, columns) for _, rows, columns in backbone.probe((h, w))]
    return (h, w), min(grids, key=lambda grid: abs(h / grid[0] - settings.grid_stride))


def cache_features(
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    *,
    strict: bool,
    observer: Observer,
    stack: ExitStack,
) -> Features:
    """Features of all readable images, computed once; others are skipped and named, or fail if strict."""
    shape = (len(samples), extract.channels, *extract.grid_hw)
    size = 4 * math.prod(shape)
    place = "on disk" if size > MEMORY_LIMIT else "in memory"
    observer.note(f"features: {len(samples)} images, {size / 2**20:,.0f} MB {place}")
    z_NChw = _allocate(shape, size, stack)
    observer.stage("features", len(samples))
    kept: list[Sample] = []
    skipped: list[str] = []
    for sample in samples:
        try:
            z_NChw[len(kept)] = extract(read_image(sample.path))[0].cpu().numpy()
            kept.append(sample)
        except DataError as error:
            if strict:
                raise
            skipped.append(str(sample.path))
            observer.note(f"skipped: {error}")
        observer.advance()
    return Features(z_NChw[: len(kept)], tuple(kept), tuple(skipped))


def _allocate(shape: tuple[int, ...], size: int, stack: ExitStack) -> NDArray[np.float32]:
    if size <= MEMORY_LIMIT:
        return np.empty(shape, np.float32)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="invad-features-"))
    # Asked before: a memory map that finds the disk full kills the process.
    if shutil.disk_usage(folder).free < size:
        raise TrainingError(
            f"{folder}: no room for {size / 2**20:,.0f} MB of features; free space or set TMPDIR to "
            "a folder on a larger disk"
        )
    return np.lib.format.open_memmap(Path(folder) / "features.npy", "w+", np.float32, shape)


@dataclass(frozen=True, slots=True)
class _Job:
    extract: FeatureExtractor
    settings: Preset
    features: Features
    work_dir: Path | None
    observer: Observer

    @property
    def categories(self) -> list[str]:
        return [sample.category for sample in self.features.samples]

    def split(self) -> tuple[Model, torch.Tensor, list[int], float]:
        """One training without the held-out share of every category."""
        kept, held = self.shares()
        model, loss = self.train("denoiser", np.array(kept))
        return model, self.read(model, held), held, loss

    def shares(self) -> tuple[list[int], list[int]]:
        """Images to train on and images held out, of every category its share."""
        kept: list[int] = []
        held: list[int] = []
        categories = np.array(self.categories)
        for category in dict.fromkeys(self.categories):
            own = np.flatnonzero(categories == category)
            a, b = hold_out(len(own), self.settings.train.seed)
            kept += own[a].tolist()
            held += own[b].tolist()
        return kept, held

    def k_fold(self) -> tuple[Model, torch.Tensor, list[int], float]:
        """One training per fold, whose images that model reads, and one on all images to keep."""
        maps: list[torch.Tensor] = []
        held: list[int] = []
        parts = list(folds(self.categories, FOLDS, self.settings.train.seed))
        for number, (rest, fold) in enumerate(parts, start=1):
            model, _ = self.train(f"fold {number} of {len(parts)}", rest)
            maps.append(self.read(model, fold.tolist()))
            held += fold.tolist()
        model, loss = self.train("denoiser", np.arange(len(self.categories)))
        return model, torch.cat(maps), held, loss

    def train(self, name: str, index: NDArray[np.intp]) -> tuple[Model, float]:
        settings = self.settings
        z, z_fine = self.extract.split(self.features.z_NChw)
        space = FeatureSpace.fit(settings.space, z, index)
        denoiser = _fresh_denoiser(settings, space.channels, self.extract.grid_hw)
        with ExitStack() as stack:
            x_NKhw = _in_space(space, z, index, stack)
            if isinstance(denoiser, GaussianPreconditioned):
                denoiser.set_gaussian(*_moments(x_NKhw))
            self.observer.stage(name, settings.train.steps_for(len(index)))
            loss = train_denoiser(
                denoiser,
                x_NKhw,
                np.arange(len(index)),
                SCHEDULE,
                settings.train,
                device=self.extract.device,
                on_step=lambda step, loss: self.observer.advance(f"loss {loss:.3f}"),
                checkpoint=self._checkpoint(name, index),
            )
            empirical = self.remember(x_NKhw)
        fine = None
        if z_fine is not None:
            with ExitStack() as stack:
                space_fine = FeatureSpace.fit(settings.space, z_fine, index)
                bank = self.remember(_in_space(space_fine, z_fine, index, stack))
            fine = None if bank is None else FineReader(space_fine, bank)
        return Model(self.extract, space, denoiser, empirical, settings, fine).to_device(), loss

    def remember(self, x_NKhw: NDArray[np.float32]) -> EmpiricalDenoiser | None:
        """The predictor without training of these cells."""
        config, seed = self.settings.empirical, self.settings.train.seed
        if config is None:
            return None
        size = config.cells_for(len(set(self.categories)))
        empirical = EmpiricalDenoiser(x_NKhw.shape[1], size)
        empirical.set_bank(draw_cells(x_NKhw, size, seed), seed)
        return empirical

    def read(self, model: Model, index: Sequence[int]) -> torch.Tensor:
        z = self.features.z_NChw
        return torch.stack([model.read(torch.from_numpy(np.ascontiguousarray(z[i : i + 1]))) for i in index])

    def _checkpoint(self, name: str, index: NDArray[np.intp]) -> Checkpoint | None:
        if self.work_dir is None:
            return None
        files = [(s.path.name, s.category, s.path.stat().st_size) for s in self.features.samples]
        weights = _digest(self.extract.backbone)
        mark = fingerprint(repr(self.settings), repr(self.extract.preprocess), weights, files, index.tolist())
        return Checkpoint(self.work_dir / f"{name.replace(' ', '-')}.safetensors", mark)


def _in_space(
    space: FeatureSpace, z_NChw: NDArray[np.float32], index: NDArray[np.intp], stack: ExitStack
) -> NDArray[np.float32]:
    """The images `index` in the space that is noised, computed once."""
    shape = (len(index), space.channels, *z_NChw.shape[2:])
    x_NKhw = _allocate(shape, 4 * math.prod(shape), stack)
    for row, i in enumerate(index):
        x_NKhw[row] = space(torch.from_numpy(np.ascontiguousarray(z_NChw[i : i + 1])))[0].numpy()
    return x_NKhw


def _moments(x_NKhw: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel over all cells, K each, float64, image by image."""
    cells = len(x_NKhw) * math.prod(x_NKhw.shape[2:])
    mean = sum(x.sum((1, 2), dtype=np.float64) for x in x_NKhw) / cells
    squares = sum(np.square(x - mean[:, None, None]).sum((1, 2), dtype=np.float64) for x in x_NKhw)
    return torch.from_numpy(mean), torch.from_numpy(squares / cells)


def _fresh_denoiser(settings: Preset, channels: int, grid_hw: tuple[int, int]) -> DenoiserModule:
    """Initial weights depend on the seed alone, whatever the process did with torch's generator before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        return build_denoiser(settings.denoiser, channels, grid_hw)


def _digest(backbone: Backbone) -> str:
    digest = hashlib.sha256()
    for value in backbone.state_dict().values():
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _extremes(pixels: NDArray[Any]) -> NDArray[Any]:
    """All that choose_window needs of an image, so that 64 large ones need not stay in memory."""
    return np.array([pixels.min(), pixels.max()], dtype=pixels.dtype)


def _count(categories: Sequence[str]) -> dict[str, int]:
    return {c: categories.count(c) for c in sorted(set(categories))}
