"""From normal images to a trained model and the held-out norm maps that calibrate it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.data.content import short_digests
from invad.data.region import Region
from invad.diffusion.base import Denoiser
from invad.diffusion.denoiser import build_denoiser
from invad.diffusion.empirical import EmpiricalConfig, EmpiricalDenoiser, draw_cells
from invad.errors import DataError
from invad.fit.features import (
    Features,
    backbone_digest,
    balance,
    extract_features,
    independent,
    moments,
    require_pictures,
)
from invad.fit.moving import draw_moves
from invad.fit.plan import mean_pictures, means_by_category, plan
from invad.fit.run import Run
from invad.fit.training import Checkpoint, fingerprint, train_denoiser
from invad.model.inspected import inspect
from invad.model.reading import Bank, FeatureExtractor, Model
from invad.model.settings import Preset
from invad.model.space import FeatureSpace
from invad.records import Hw, Sample
from invad.scoring.holding import WHOLE, Turns, apart, turns
from invad.scoring.offsets import as_the_last_reads

RUN = Run()


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """What a fit did, as plain data for the model card.

    normals: distinct readable images by category. groups: the independent groups of them, as far as is known
    (see `groups_of_samples`). skipped, copies: paths of those that could not be read or
    have the pixels of another. final_loss: None where nothing was trained. trained: of the pictures that the
    networks saw (see `short_digests`); empty where that was not recorded.
    """

    normals: dict[str, int]
    held_out: dict[str, int]
    folds: int
    steps: int
    skipped: tuple[str, ...]
    copies: tuple[str, ...] = ()
    final_loss: float | None
    seconds: float
    threads: int
    device: str
    processes: int = 1
    precision: str = "fp32"
    groups: dict[str, int] = field(default_factory=dict)
    trained: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained model, and norm maps L x h x w of held-out normals, read by a model that never saw them.

    held_samples: what was held out. held_pixels: the digests of their pixels. held_groups: the number of the
    group of each. means: see `mean_pictures`; means_of: of each of several categories.
    """

    model: Model
    held_maps_NLhw: torch.Tensor
    held_samples: tuple[Sample, ...]
    held_pixels: tuple[str, ...]
    held_groups: tuple[int, ...]
    record: FitRecord
    means: Mapping[Hw, torch.Tensor]
    means_of: Mapping[str, Mapping[Hw, torch.Tensor]] = field(default_factory=dict)

    @property
    def held_categories(self) -> tuple[str, ...]:
        return tuple(sample.category for sample in self.held_samples)


def fit(
    samples: Sequence[Sample],
    settings: Preset,
    backbone: Backbone,
    *,
    region: Region | None = None,
    strict: bool = False,
    run: Run = RUN,
) -> Fitted:
    """Train on normal samples, holding out what calibrates.

    What is held out is what `turns` says, and images that are not independent (`groups_of_samples`) together,
    as an image and its moved copy are.
    region: the part of the pictures that counts; those of another size are passed over like unreadable ones.
    Raises DataError when fewer than two images can be read, TrainingError as `train_denoiser`.
    """
    started = time.perf_counter()
    for sample in samples:
        if sample.is_anomalous:
            raise DataError(f"{sample.path}: is {sample.defect}; training takes normal images only")
    if settings.denoiser is None and settings.train.steps is not None:
        run.observer.note(f"steps = {settings.train.steps}: these settings have no network to train")
    extract = plan(samples, settings, backbone, strict=strict, region=region)
    means = mean_pictures(samples, extract.preprocess, region)
    if region is not None:
        extract = replace(extract, inspected=inspect(region, means, extract.grid_hw))
    with ExitStack() as stack:
        job = prepared(samples, extract, settings, strict=strict, run=run, stack=stack)
        how = job.turns
        model, maps, held, loss = job.in_turns(how)
    features, together, taken = job.features, job.groups, range(job.taken)
    out = tuple(features.samples[i] for i in held)
    pixels = tuple(features.pixels[i] for i in held)
    unlearned = [features.pixels[i] for i in how.unlearned]
    record = FitRecord(
        normals=_count([features.samples[i].category for i in taken]),
        held_out=_count([features.samples[i].category for i in held if i in taken]),
        folds=len(how.parts),
        steps=settings.steps_for(len(features.samples) - len(unlearned)),
        skipped=features.skipped,
        copies=features.copies,
        final_loss=None if loss is None else round(loss, 5),
        seconds=round(time.perf_counter() - started, 2),
        threads=torch.get_num_threads(),
        device=extract.device.type if run.workers.size > 1 else str(extract.device),
        processes=run.workers.size,
        precision=run.execution.precision_on(extract.device),
        groups=_count([features.samples[i].category for i in sorted(set(together))]),
        trained=short_digests({*features.pixels[: job.taken]}.difference(unlearned)),
    )
    means_of = means_by_category(samples, extract.preprocess)
    own_groups = tuple(together[i] for i in held)
    return Fitted(model, maps, out, pixels, own_groups, record, means, means_of)


def train_apart(
    samples: Sequence[Sample],
    settings: Preset,
    backbone: Backbone,
    *,
    run: Run = RUN,
) -> tuple[Model, NDArray[np.float32]]:
    """One model trained without the held-out share, however few images, and that share's raw features.

    For studies that read one network in many ways; `fit` trains once per fold when images are few.
    The work folder of `run` keeps the trained network, so that the same call does not train again.
    """
    extract = plan(samples, settings, backbone, strict=False)
    with ExitStack() as stack:
        job = prepared(samples, extract, settings, least=4, strict=False, run=run, stack=stack)
        kept, held = apart(job.categories, job.groups, settings.train.seed)
        model, _ = job.train(WHOLE, np.array(job.unseen(kept.tolist(), held.tolist())))
        return model, np.array(job.features.z_NChw[job.features.rows[held]])


def prepared(
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    settings: Preset,
    *,
    least: int = 2,
    strict: bool,
    run: Run,
    stack: ExitStack,
) -> "Job":
    """What is to be learned from: the features of independent images, and of their moved copies if they have
    such. Raises DataError for fewer than `least` pictures."""
    drawn = draw_moves(samples, settings.moved, settings.train.seed) if settings.moved else ()
    features = extract_features(samples, extract, moves=drawn, strict=strict, run=run, stack=stack)
    require_pictures(least, features)
    features, together = independent(features, run.observer)
    require_pictures(least, features)
    if drawn:
        features, together = features.with_moved(), together * 2
    return Job(extract, settings, features, together, run)


@dataclass(frozen=True, slots=True)
class Job:
    extract: FeatureExtractor
    settings: Preset
    features: Features
    groups: tuple[int, ...]
    run: Run

    @property
    def taken(self) -> int:
        """How many of the samples, the first ones, are images, and no moved copies."""
        return len(self.features.samples) // (2 if self.settings.moved else 1)

    @property
    def categories(self) -> list[str]:
        return [sample.category for sample in self.features.samples]

    @property
    def turns(self) -> Turns:
        once = self.settings.denoiser is not None  # a network is trained
        return turns(self.categories, self.groups, self.settings.train.seed, once=once)

    def in_turns(self, how: Turns) -> tuple[Model, torch.Tensor, list[int], float | None]:
        """The model that is kept, the maps of what was held out as it would read them, which that is, and the
        last loss, if any."""
        if self.settings.denoiser is None:  # else the trainings tell their steps
            self.run.observer.stage("models", len(how.parts) + how.whole)
        maps: list[torch.Tensor] = []
        held: list[int] = []
        readers: list[int] = []
        for number, (rest, out) in enumerate(how.parts, start=1):
            model, loss = self._told(how.name(number), self.unseen(rest.tolist(), out.tolist()))
            maps.append(self.read(model, out.tolist()))
            held += out.tolist()
            readers += [number] * len(out)
        if how.whole:
            model, loss = self._told(WHOLE, list(range(len(self.categories))))
            return model, torch.cat(maps), held, loss
        kinds, together = [self.categories[i] for i in held], [self.groups[i] for i in held]
        return model, as_the_last_reads(torch.cat(maps), readers, kinds, together), held, loss

    def _told(self, name: str, index: list[int]) -> tuple[Model, float | None]:
        """`train`, of which the observer hears also where it has no steps."""
        made = self.train(name, np.array(index))
        if self.settings.denoiser is None:
            self.run.observer.advance()
        return made

    def unseen(self, rest: Iterable[int], held: Iterable[int]) -> list[int]:
        """The images of `rest` that no held-out one equals: categories may share a picture."""
        pixels = self.features.pixels
        known = {pixels[i] for i in held}
        unseen = [i for i in rest if pixels[i] not in known]
        if not unseen:
            raise DataError(
                f"{len(set(pixels))} different pictures, the same in every category: nothing is left to "
                "train on; give each category its own"
            )
        return unseen

    def train(self, name: str, index: NDArray[np.intp]) -> tuple[Model, float | None]:
        """A model of the images `index`, all categories alike (see `balance`), and its last loss, if any."""
        settings = self.settings
        steps = settings.steps_for(len(index))
        z, rows = self.extract.learned(self.features.z_NChw), self.features.rows
        balanced = index[balance([self.categories[i] for i in index])]
        images, repeats = np.unique(balanced, return_inverse=True)
        space = FeatureSpace.fit(settings.space, z, rows[balanced])
        denoiser = _fresh_denoiser(settings, space.channels, self.extract.grid_hw)
        loss, banks = None, []
        with ExitStack() as stack:
            x_NKhw = self._in_space(space, z, rows[images], stack)
            if denoiser is not None:
                denoiser.before_training(partial(moments, x_NKhw, repeats))
                self.run.observer.stage(name, steps)
                loss = train_denoiser(
                    denoiser,
                    x_NKhw,
                    repeats,
                    replace(settings.train, steps=steps),
                    device=self.extract.device,
                    on_step=partial(self._on_step, name),
                    checkpoint=self._checkpoint(name, balanced),
                    execution=self.run.execution,
                    workers=self.run.workers,
                )
            for config in settings.banks[:1]:
                banks.append(Bank(config, space, self.remember(config.empirical, x_NKhw, repeats)))
        for config in settings.banks[1:]:
            cells = self.extract.known(self.features.z_NChw, config)
            with ExitStack() as stack:
                own = FeatureSpace.fit(config.space, cells, rows[balanced])
                x_NKhw = self._in_space(own, cells, rows[images], stack)
                banks.append(Bank(config, own, self.remember(config.empirical, x_NKhw, repeats)))
        return Model(self.extract, space, denoiser, tuple(banks), settings).to_device(), loss

    def _on_step(self, name: str, step: int, loss: float) -> None:
        self.run.recorder.record(name, step, {"loss": loss})
        self.run.observer.advance(f"loss {loss:.3f}")

    def remember(
        self, config: EmpiricalConfig, x_NKhw: NDArray[np.float32], index: NDArray[np.intp]
    ) -> EmpiricalDenoiser:
        """The predictor without training of the cells of the images `index`."""
        seed = self.settings.train.seed
        size = config.cells_for(len(set(self.categories)))
        empirical = EmpiricalDenoiser(x_NKhw.shape[1], size)
        empirical.set_bank(draw_cells(x_NKhw, index, size, seed, self._counting(x_NKhw)), seed)
        return empirical

    def _counting(self, x_NKhw: NDArray[np.float32]) -> NDArray[np.intp] | None:
        """Numbers of the cells that count, in each of the blocks of the grid that x_NKhw is made of."""
        if self.extract.inspected is None:
            return None
        cells, (h, w) = self.extract.inspected.cells_n.numpy(), self.extract.grid_hw
        blocks = np.arange(x_NKhw.shape[2] // h)[:, None] * h * w
        return np.asarray(blocks + cells, dtype=np.intp).reshape(-1)

    def read(self, model: Model, index: Sequence[int]) -> torch.Tensor:
        """Norm maps of these images, each read by one of the workers, in the order of `index`."""
        z, rows = self.features.z_NChw, self.features.rows
        own = {}
        for i in self.run.mine(len(index)):
            row = rows[index[i]]
            own[i] = model.read(torch.from_numpy(np.ascontiguousarray(z[row : row + 1])))
        return torch.stack(list(self.run.workers.gather(own).values()))

    def _in_space(
        self, space: FeatureSpace, z_NChw: NDArray[np.float32], rows: NDArray[np.intp], stack: ExitStack
    ) -> NDArray[np.float32]:
        """The images `rows` in the space that is noised, computed once, by all workers together."""
        x_NKhw = self.run.empty((len(rows), space.channels, *z_NChw.shape[2:]), stack)
        for i in self.run.mine(len(rows)):
            z = np.ascontiguousarray(z_NChw[rows[i] : rows[i] + 1])
            x_NKhw[i] = space(torch.from_numpy(z))[0].numpy()
        self.run.workers.wait()
        return x_NKhw

    def _checkpoint(self, name: str, index: NDArray[np.intp]) -> Checkpoint | None:
        if self.run.work is None:
            return None
        pictures = list(zip(self.categories, self.features.pixels, strict=True))
        weights = backbone_digest(self.extract.backbone)
        precision = self.run.execution.precision_on(self.extract.device)
        seen = self.extract.inspected
        mark = fingerprint(
            repr(self.settings),
            repr(self.extract.preprocess),
            weights,
            pictures,
            index.tolist(),
            precision,
            *([] if seen is None else [seen.mark()]),
        )
        return Checkpoint(self.run.work / f"{name.replace(' ', '-')}.safetensors", mark)


def _fresh_denoiser(settings: Preset, channels: int, grid_hw: Hw) -> Denoiser | None:
    """Initial weights depend on the seed alone, whatever the process did with torch's generator before."""
    if settings.denoiser is None:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.train.seed)
        return build_denoiser(settings.denoiser, channels, grid_hw)


def _count(categories: Sequence[str]) -> dict[str, int]:
    return {c: categories.count(c) for c in sorted(set(categories))}
