"""Features of all images of a set, once, in memory or on disk, by one process or shared among many."""

import hashlib
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.data.content import copies, copies_in_words, file_digest, pixel_digest
from invad.data.samples import read_sample
from invad.errors import DataError
from invad.fit.cache import Decoded, FeatureCache
from invad.fit.moving import Move, moved
from invad.fit.run import Run
from invad.fit.training import fingerprint
from invad.model.reading import FeatureExtractor
from invad.observer import Observer
from invad.records import Sample
from invad.scoring.groups import groups_in_words, groups_of_samples, require_groups
from invad.scoring.likeness import near_copies

COMPARED_VALUES, COMPARED_IMAGES = 2048, 2000
"""Of the features of an image when those that belong together are looked for, and of the images of a category
when near copies are."""


@dataclass(frozen=True, slots=True)
class Features:
    """Raw features and what they belong to.

    z_NChw: a row for each image, float32. samples: the readable ones, each picture once in its category.
    rows: where in z_NChw the features of each of them lie. pixels: the digest of its pixels. skipped: paths
    of those that cannot be read, whose rows mean nothing. copies: paths of those whose pixels a sample has.
    moved: how many rows after its own the features of a sample's moved copy lie; 0 where there are none.
    """

    z_NChw: NDArray[np.float32]
    samples: tuple[Sample, ...]
    rows: NDArray[np.intp]
    pixels: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    moved: int = 0

    def with_moved(self) -> "Features":
        """The same with a second sample for each, its moved copy, after all of them."""
        parts = (sample.sample_id for sample in self.samples)
        other = (None if part is None else f"{part}, moved" for part in parts)
        return replace(
            self,
            samples=(
                *self.samples,
                *(replace(s, sample_id=o) for s, o in zip(self.samples, other, strict=True)),
            ),
            rows=np.concatenate([self.rows, self.rows + self.moved]),
            pixels=(*self.pixels, *(f"{digest}, moved" for digest in self.pixels)),
            moved=0,
        )


@dataclass(frozen=True, slots=True)
class _Picture:
    """What features are computed of: an image, or its moved copy."""

    sample: Sample
    move: Move | None = None

    def read(self, extract: FeatureExtractor) -> NDArray[Any]:
        pixels = read_sample(self.sample, extract.decode)
        return pixels if self.move is None else moved(pixels, self.move)


def extract_features(
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    *,
    moves: Sequence[Move] = (),
    strict: bool,
    run: Run,
    stack: ExitStack,
) -> Features:
    """Features of all readable images, computed once; others are skipped and named, or fail if strict.

    Of several images of a category with the same pixels the first is kept, and it is said: counted as often
    as they were copied, they would be trained on and held out at once. moves: of a copy of each image.
    """
    copied_too = (_Picture(sample, move) for sample, move in zip(samples, moves, strict=bool(moves)))
    pictures = (*map(_Picture, samples), *copied_too)
    shape = (len(pictures), extract.channels, *extract.grid_hw)
    size, count = 4 * math.prod(shape), run.workers.size
    where = "on disk" if run.keeps(shape) or not run.in_memory(shape) else "in memory"
    what = f"{len(samples)} images{' and a moved copy of each' if moves else ''}"
    by = f", {count} processes" if count > 1 else ""
    run.observer.note(f"features: {what}, {size / 2**20:,.0f} MB {where}{by}")
    if where == "in memory":
        z_NChw: NDArray[np.float32] = np.empty(shape, np.float32)
        run.observer.stage("features", len(pictures))
        decoded = _fill(z_NChw, range(len(pictures)), pictures, extract, strict, run.observer)
    else:
        z_NChw, decoded = _on_disk(shape, pictures, extract, strict, run, stack)
    unreadable = {row % len(samples): why for row, why in decoded.unreadable.items()}
    for why in unreadable.values():
        run.observer.note(f"skipped: {why}")
    readable = [row for row in range(len(samples)) if row not in unreadable]
    copied = copies([(samples[row].category, decoded.pixels[row]) for row in readable])
    if copied:
        told = copies_in_words(copied, [samples[row].path for row in readable])
        run.observer.note(f"{told}: they have the same pixels, or show one colour only, and count once")
    rows = [row for i, row in enumerate(readable) if i not in copied]
    return Features(
        z_NChw,
        tuple(samples[row] for row in rows),
        np.array(rows, dtype=np.intp),
        tuple(decoded.pixels[row] for row in rows),
        tuple(str(samples[row].path) for row in unreadable),
        tuple(str(samples[readable[i]].path) for i in copied),
        len(samples) if moves else 0,
    )


def independent(features: Features, observer: Observer) -> tuple[Features, tuple[int, ...]]:
    """Each scene of a category once, and for each sample that is left the first one it is not independent of.

    Where many images of a category are much nearer than its images differ, what was left out counts among
    the copies. The groups are those of `groups_of_samples`. Both are said. Raises as `require_groups`.
    """
    size = math.prod(features.z_NChw.shape[1:])
    some = np.sort(np.random.default_rng(0).choice(size, min(size, COMPARED_VALUES), replace=False))
    x_NK = np.stack([features.z_NChw[row].reshape(-1)[some] for row in features.rows])
    scenes = _scenes(features.samples, x_NK, observer)
    kept = [i for i in range(len(features.samples)) if i not in scenes]
    if scenes:
        features = replace(
            features,
            samples=tuple(features.samples[i] for i in kept),
            rows=features.rows[kept],
            pixels=tuple(features.pixels[i] for i in kept),
            copies=(*features.copies, *(str(features.samples[i].path) for i in sorted(scenes))),
        )
    x_NK = x_NK[kept]
    groups = groups_of_samples(features.samples, lambda own: x_NK[list(own)])
    if len(features.samples) > 1:  # of one picture another line says more
        require_groups(groups)
    for words in groups_in_words(features.samples, groups):
        observer.note(words)
    return features, groups


def _scenes(samples: Sequence[Sample], x_NK: NDArray[np.float32], observer: Observer) -> set[int]:
    """The samples that nearly repeat an earlier one of their category, where these are many."""
    left_out: set[int] = set()
    for category in dict.fromkeys(sample.category for sample in samples):
        own = [i for i, sample in enumerate(samples) if sample.category == category][:COMPARED_IMAGES]
        spread_K = x_NK[own].std(axis=0)
        if not spread_K.any():  # one image, or several of one scene
            near = dict.fromkeys(range(1, len(own)), 0)
        else:
            varied = spread_K > 0
            near = near_copies(x_NK[own][:, varied] / spread_K[varied], math.sqrt(2))
        if near:
            words = copies_in_words(near, [samples[i].path for i in own], "are nearly copies")
            observer.note(
                f"{words}, as frames of a video or of a camera that stands still, and count once; give "
                "images of different parts"
            )
            left_out |= {own[i] for i in near}
    return left_out


def require_pictures(least: int, features: Features) -> None:
    """Raises DataError with fewer distinct pictures than `least`."""
    pictures = len(set(features.pixels))
    if pictures < least:
        what = "different picture" if features.copies else "readable image"
        raise DataError(
            f"{pictures} {what}{'' if pictures == 1 else 's'}: training needs at least {least} normal "
            "images, 60 or more for a useful calibration"
        )


def balance(groups: Sequence[str]) -> NDArray[np.intp]:
    """Indices of the items, those of smaller groups repeated: up to the size of the largest group, or as far
    as the whole at most doubles. A single group stays as it is.
    """
    own: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        own.setdefault(group, []).append(i)
    wanted = max(map(len, own.values()))
    while sum(max(wanted, len(index)) for index in own.values()) > 2 * len(groups):
        wanted -= 1
    return np.concatenate([np.resize(index, max(wanted, len(index))) for index in own.values()])


def moments(x_NKhw: NDArray[np.float32], index: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance of each channel over the cells of the images `index`, K each, float64."""
    cells = len(index) * math.prod(x_NKhw.shape[2:])
    mean = sum(x_NKhw[i].sum((1, 2), dtype=np.float64) for i in index) / cells
    squares = sum(np.square(x_NKhw[i] - mean[:, None, None]).sum((1, 2), dtype=np.float64) for i in index)
    return torch.from_numpy(mean), torch.from_numpy(squares / cells)


def _fill(
    z_NChw: NDArray[np.float32],
    rows: range,
    pictures: Sequence[_Picture],
    extract: FeatureExtractor,
    strict: bool,
    observer: Observer,
) -> Decoded:
    """Write the features of the images `rows` to z_NChw, one after the other."""
    decoded = Decoded()
    for place, row in enumerate(rows):
        try:
            pixels = pictures[row].read(extract)
            z_NChw[place] = extract(pixels)[0].cpu().numpy()
            decoded.pixels[row] = pixel_digest(pixels)
        except DataError as error:
            if strict:
                raise
            decoded.unreadable[row] = str(error)
            z_NChw[place] = 0
        observer.advance()
    return decoded


def _on_disk(
    shape: tuple[int, ...],
    pictures: Sequence[_Picture],
    extract: FeatureExtractor,
    strict: bool,
    run: Run,
    stack: ExitStack,
) -> tuple[NDArray[np.float32], Decoded]:
    """Every worker computes its share of the blocks that are not there yet."""
    parent = run.cache or run.work or run.temporary(stack)
    cache = FeatureCache(parent / f"features-{_mark(pictures, extract, run)}", shape)
    with ExitStack() as held:
        if run.workers.rank == 0:
            cache.prepare(held, run.observer.note)
        run.workers.wait()
        decoded = _shared(cache, pictures, extract, strict, run)
        run.workers.wait()
    if strict and decoded.unreadable:
        raise DataError(next(iter(decoded.unreadable.values())))
    return cache.array(), decoded


def _shared(
    cache: FeatureCache,
    pictures: Sequence[_Picture],
    extract: FeatureExtractor,
    strict: bool,
    run: Run,
) -> Decoded:
    blocks = [cache.blocks()[i] for i in run.mine(len(cache.blocks()))]
    known = {block: cache.read_record(block) for block in blocks if cache.is_recorded(block)}
    for block in (block for block, record in known.items() if record is None):
        rows = cache.rows(block)
        run.observer.note(
            f"{cache.folder}: images {rows.start + 1} to {rows.stop} are damaged; computed again"
        )
    missing = [block for block in blocks if known.get(block) is None]
    if kept := sum(len(cache.rows(block)) for block in blocks if block not in missing):
        run.observer.note(f"features: {kept} found in {cache.folder}")
    run.observer.stage("features", sum(len(cache.rows(block)) for block in missing))
    own = reduce(or_, (record for record in known.values() if record is not None), Decoded())
    failure: dict[int, DataError] = {}
    try:
        for block in missing:
            own |= _compute(cache, block, pictures, extract, strict, run.observer)
    except DataError as error:
        failure[run.workers.rank] = error
    decoded = Decoded(run.workers.gather(own.unreadable), run.workers.gather(own.pixels))
    # All stop for the same reason, whoever met it.
    for met in run.workers.gather(failure).values():
        raise met
    return decoded


def _compute(
    cache: FeatureCache,
    block: int,
    pictures: Sequence[_Picture],
    extract: FeatureExtractor,
    strict: bool,
    observer: Observer,
) -> Decoded:
    rows = cache.rows(block)
    features = np.empty((len(rows), *cache.shape[1:]), np.float32)
    decoded = _fill(features, rows, pictures, extract, strict, observer)
    cache.write(block, features, decoded)
    return decoded


def _mark(pictures: Sequence[_Picture], extract: FeatureExtractor, run: Run) -> str:
    """A name that changes with the images, the weights, and everything done to the pixels."""
    samples = [picture.sample for picture in pictures if picture.move is None]
    moves = [astuple(picture.move) for picture in pictures if picture.move is not None]
    own = {i: file_digest(samples[i].path) for i in run.mine(len(samples))}
    contents = run.workers.gather(own).values()
    return fingerprint(
        [
            (str(s.path.absolute()), content, *filter(None, [s.page, s.window]))
            for s, content in zip(samples, contents, strict=True)
        ],
        *moves,
        backbone_digest(extract.backbone),
        # The same weights may be tapped at other strides.
        dict(extract.backbone.info.shape),
        repr((extract.preprocess, extract.grid_hw, extract.pooling, extract.scales, extract.fine)),
        extract.device.type,
        *([] if extract.inspected is None else [extract.inspected.mark()]),
    )


def backbone_digest(backbone: Backbone) -> str:
    """SHA-256 of all weights."""
    digest = hashlib.sha256()
    for value in backbone.state_dict().values():
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
