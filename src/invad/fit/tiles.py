"""From normal pictures that are cut into tiles to a model of tiles and held-out readings of all of them.

The networks learn from some tiles of each picture and from its overview: a feature space and a bank of cells
need no more, however many tiles there are. What is held out are pictures, and of those every tile is read.
Every picture is decoded twice, once for each, and never more than a few at a time are held.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.data.ahead import read_ahead
from invad.data.content import copies, copies_in_words, pixel_digest, short_digests
from invad.data.preprocess import levelled
from invad.data.samples import read_sample, source_of
from invad.data.tiling import OVERVIEW, TILE, Cut, Tiling, overview, place_of, tiles_at_once
from invad.errors import ConfigError, DataError
from invad.fit.features import COMPARED_VALUES, Features, independent, require_pictures
from invad.fit.fit import FitRecord, Job
from invad.fit.plan import plan
from invad.fit.run import Run
from invad.fit.tile_choice import of_tiles, tile_settings
from invad.model.reading import FeatureExtractor, Model
from invad.model.settings import Preset
from invad.observer import Observer
from invad.records import Hw, Sample
from invad.runtime.kept_tiles import HeldPicture
from invad.scoring.holding import WHOLE, turns

TRAINED_TILES, TRAINED_CELLS = 400, 400 * 24**2
"""Tiles that the networks learn from, and their cells, at most; or one tile of each picture where that is
more."""

TRAINED_PICTURES = 400
"""Pictures that they learn from; of others there are held-out readings alone."""

BATCH, BATCH_CELLS = 8, 8 * 24**2
"""Tiles that pass the networks at a time, and their cells, at most; one at least."""

READING = 1.3
"""What a tile takes with its reading, as a multiple of its features alone."""

RUN = Run()


@dataclass(frozen=True, slots=True)
class FittedTiles:
    """A trained model of tiles, and pictures read by a model that never saw them. groups: of each of them."""

    model: Model
    held: tuple[HeldPicture, ...]
    groups: tuple[int, ...]
    record: FitRecord


def fit_tiles(
    samples: Sequence[Sample],
    tiling: Tiling,
    settings: Preset,
    backbone: Backbone,
    *,
    strict: bool = False,
    run: Run = RUN,
) -> FittedTiles:
    """Train on tiles of normal pictures, holding pictures out as `fit` does images.

    Raises DataError when fewer than two pictures can be read and cut, ConfigError for several processes, and
    TrainingError as `train_denoiser`.
    """
    started = time.perf_counter()
    for sample in samples:
        if sample.is_anomalous:
            raise DataError(f"{sample.path}: is {sample.defect}; training takes normal images only")
    if run.workers.size > 1:
        raise ConfigError("tiles are trained by one process; leave torchrun or accelerate launch away")
    extract = plan(samples, settings, backbone, strict=strict, tile_px=tiling.tile_px)
    with ExitStack() as stack:
        seen = _learn(samples, tiling, extract, settings, strict, run, stack)
        pictures, together = seen.pictures, seen.groups
        job = Job(extract, settings, seen.tiles, (), run)
        held: list[int] = []
        read: list[HeldPicture] = []
        categories, seed = [sample.category for sample in pictures.samples], settings.train.seed
        # Recalibrating reads all tiles of what was held out, in seconds that somebody waits for.
        how = turns(categories, together, seed, once=True)
        for number, (rest, out) in enumerate(how.parts, start=1):
            model, loss = job.train(how.name(number), seen.rows_of(rest))
            read += read_pictures([pictures.samples[i] for i in out], tiling, model, run.observer)
            held += out.tolist()
        if how.whole:
            model, loss = job.train(WHOLE, seen.rows_of(np.arange(len(categories))))
    held_categories = [categories[i] for i in held]
    unlearned = set(how.unlearned.tolist())
    kept = {digest for i, digest in enumerate(pictures.pixels) if i not in unlearned}
    record = FitRecord(
        normals=_count(categories),
        held_out=_count(held_categories),
        folds=len(how.parts),
        steps=settings.steps_for(len(seen.tiles.samples)),
        skipped=pictures.skipped,
        copies=pictures.copies,
        final_loss=None if loss is None else round(loss, 5),
        seconds=round(time.perf_counter() - started, 2),
        threads=torch.get_num_threads(),
        device=str(extract.device),
        precision=run.execution.precision_on(extract.device),
        groups=_count([categories[i] for i in sorted(set(together))]),
        trained=short_digests(kept),
    )
    return FittedTiles(model, tuple(read), tuple(together[i] for i in held), record)


def read_pictures(
    samples: Sequence[Sample], tiling: Tiling, model: Model, observer: Observer
) -> Iterator[HeldPicture]:
    """All tiles of readable pictures, read by a model. Raises DataError for one that cannot be read."""
    observer.stage("held-out pictures", len(samples))
    for sample, pixels in _decoded(samples):
        if isinstance(pixels, DataError):
            raise pixels
        cut, maps_TLhw = read_tiles(pixels, tiling, model)
        yield held_picture(sample, cut, maps_TLhw.numpy())
        observer.advance()


def held_picture(sample: Sample, cut: Cut, maps_TLhw: NDArray[np.float32]) -> HeldPicture:
    """What was read of a picture, as that of its sample."""
    if sample.member is None:
        return HeldPicture(sample.category, cut, maps_TLhw)
    return HeldPicture(sample.category, replace(cut, member=sample.member), maps_TLhw, sample.sample_id)


def read_tiles(pixels: NDArray[Any], tiling: Tiling, model: Model) -> tuple[Cut, torch.Tensor]:
    """The tiles of a picture and the norm maps T x L x h x w of all of them, that of the overview last."""
    extract = model.extract
    cut = tiling.cut((pixels.shape[0], pixels.shape[1]), extract.grid_hw)
    seen = tiling.seen(pixels)
    maps = [model.read_batch(z_BChw) for z_BChw in _features(seen, cut, range(len(cut)), extract)]
    return cut, torch.cat(maps)


def _features(
    pixels: NDArray[Any], cut: Cut, numbers: Sequence[int], extract: FeatureExtractor
) -> Iterator[torch.Tensor]:
    """Raw features of the tiles of these numbers, some at a time, then of the overview."""
    tiles, wanted, size = list(cut.tiles()), iter(numbers), tiles_at_once(cut.grid_hw, BATCH, BATCH_CELLS)
    while batch := list(islice(wanted, size)):
        yield extract.features(torch.stack([extract.preprocess(tiles[i].of(pixels)) for i in batch]))
    yield extract.features(extract.preprocess(overview(pixels))[None])


@dataclass(frozen=True, slots=True)
class Cost:
    """What tiles take on this machine, about: tiles a picture, seconds a picture, seconds to train."""

    tiles: int
    picture: float
    training: float


def cost(samples: Sequence[Sample], tiling: Tiling, settings: Preset, backbone: Backbone) -> Cost:
    """Measured on a few tiles of the first picture that can be read. Raises DataError where there is none.

    settings: of whole pictures.
    """
    settings, backbone = of_tiles(settings, backbone)
    settings = tile_settings(settings, backbone, tiling.tile_px, tiling.positions, tiling.cells)
    sample, pixels = next(
        (sample, found) for sample, found in _decoded(samples) if not isinstance(found, DataError)
    )
    extract = plan(samples[:1], settings, backbone, strict=False, tile_px=tiling.tile_px)
    cut = _cut(tiling, sample, pixels, extract.grid_hw)
    started = time.perf_counter()
    read_sample(sample)
    decoding = time.perf_counter() - started
    some = [i % len(cut) for i in range(tiles_at_once(cut.grid_hw, BATCH, BATCH_CELLS))]
    timed = []
    for _ in range(3):
        started = time.perf_counter()
        next(_features(pixels, cut, some, extract))
        timed.append((time.perf_counter() - started) / len(some))
    tile = READING * min(timed)
    learned = 1 + _share(min(len(samples), TRAINED_PICTURES), cut.grid_hw)
    read = (len(cut) + 1) * tile
    picture = 2 * decoding + min(learned, len(cut) + 1) * tile + read
    return Cost(len(cut), decoding + read, len(samples) * picture)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was learned from all pictures. pictures: the distinct ones, with a part of the features of their
    overviews. groups: of each of them. tiles: features of chosen tiles and of overviews; own: of each picture
    its places among them."""

    pictures: Features
    groups: tuple[int, ...]
    tiles: Features
    own: tuple[tuple[int, ...], ...]

    def rows_of(self, pictures: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.array([place for i in pictures for place in self.own[i]], dtype=np.intp)


def _learn(
    samples: Sequence[Sample],
    tiling: Tiling,
    extract: FeatureExtractor,
    settings: Preset,
    strict: bool,
    run: Run,
    stack: ExitStack,
) -> _Seen:
    """One look at every picture: features of its overview and of some tiles, digests, copies and groups."""
    rng = np.random.default_rng(settings.train.seed)
    chosen = set(rng.permutation(len(samples))[:TRAINED_PICTURES].tolist())
    share = _share(len(chosen), extract.grid_hw)
    shape = (extract.channels, *extract.grid_hw)
    z_RChw = run.empty((len(chosen) * (share + 1), *shape), stack)
    compared = np.random.default_rng(0).choice(
        math.prod(shape), min(math.prod(shape), COMPARED_VALUES), replace=False
    )
    described, digests, unreadable = [], {}, {}
    rows: dict[int, list[int]] = {}
    used = 0
    run.observer.stage("features", len(samples))
    for number, (sample, pixels) in enumerate(_decoded(samples)):
        own: list[int] = []
        try:
            if isinstance(pixels, DataError):
                raise pixels
            cut = _cut(tiling, sample, pixels, extract.grid_hw)
        except DataError as error:
            if strict:
                raise
            unreadable[number] = str(error)
            run.observer.note(f"skipped: {error}")
        else:
            some = rng.permutation(len(cut))[:share].tolist() if number in chosen else []
            z_BChw = torch.cat(list(_features(tiling.seen(pixels), cut, some, extract))).cpu().numpy()
            described.append(z_BChw[-1].reshape(-1)[compared])
            digests[number] = pixel_digest(pixels)
            if number in chosen:
                own = list(range(used, used + len(z_BChw)))
                z_RChw[own] = z_BChw
                used += len(own)
        rows[number] = own
        run.observer.advance()
    pictures = _distinct(samples, described, digests, unreadable, run.observer)
    require_pictures(2, pictures)
    pictures, groups = independent(pictures, run.observer)
    require_pictures(2, pictures)
    readable = list(digests)
    own_rows = [rows[readable[place]] for place in pictures.rows.tolist()]
    order = [row for own in own_rows for row in own]
    places = iter(range(len(order)))
    own_places = tuple(tuple(islice(places, len(own))) for own in own_rows)
    labelled = [
        (replace(sample, category=kind), f"{digest} {i}")
        for sample, digest, own in zip(pictures.samples, pictures.pixels, own_rows, strict=True)
        for i, kind in enumerate(
            place_of(sample.member or "", place) for place in [TILE] * (len(own) - 1) + [OVERVIEW] * bool(own)
        )
    ]
    tiles = Features(
        z_RChw,
        tuple(sample for sample, _ in labelled),
        np.array(order, dtype=np.intp),
        tuple(mark for _, mark in labelled),
    )
    return _Seen(pictures, groups, tiles, own_places)


def _distinct(
    samples: Sequence[Sample],
    described: Sequence[NDArray[np.float32]],
    digests: dict[int, str],
    unreadable: dict[int, str],
    observer: Observer,
) -> Features:
    """The readable pictures, each once, with what describes them in place of features."""
    readable = list(digests)
    copied = copies([(samples[i].category, digests[i]) for i in readable])
    if copied:
        told = copies_in_words(copied, [samples[i].path for i in readable])
        observer.note(f"{told}: they have the same pixels, or show one colour only, and count once")
    kept = [place for place in range(len(readable)) if place not in copied]
    return Features(
        np.array(described, np.float32).reshape(len(described), -1, 1, 1),
        tuple(samples[readable[place]] for place in kept),
        np.array(kept, dtype=np.intp),
        tuple(digests[readable[place]] for place in kept),
        tuple(str(samples[i].path) for i in unreadable),
        tuple(str(samples[readable[place]].path) for place in copied),
    )


def _decoded(samples: Sequence[Sample]) -> Iterator[tuple[Sample, NDArray[Any] | DataError]]:
    """One picture is decoded while the networks are busy with the one before."""
    ahead = read_ahead([source_of(sample) for sample in samples], 1, 1)
    return (
        (sample, pixels if isinstance(pixels, DataError) else levelled(pixels, sample.window))
        for sample, (_, pixels) in zip(samples, ahead, strict=True)
    )


def _cut(tiling: Tiling, sample: Sample, pixels: NDArray[Any], grid_hw: Hw) -> Cut:
    try:
        return tiling.cut((pixels.shape[0], pixels.shape[1]), grid_hw)
    except DataError as error:
        raise DataError(str(error).replace("<array>", str(sample.path), 1)) from None


def _share(pictures: int, grid_hw: Hw) -> int:
    """Tiles of each picture that the networks learn from."""
    return math.ceil(min(TRAINED_TILES, TRAINED_CELLS // math.prod(grid_hw)) / pictures)


def _count(categories: Sequence[str]) -> dict[str, int]:
    return {c: categories.count(c) for c in sorted(set(categories))}
