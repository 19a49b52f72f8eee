"""Features of all images of a set, once, in memory or on disk, by one process or shared among many."""

import hashlib
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.data.content import copies, copies_in_words, file_digest, pixel_digest
from invad.data.images import read_image
from invad.errors import DataError
from invad.fit.cache import Decoded, FeatureCache, require_room
from invad.fit.distributed import Solo, Workers
from invad.fit.training import fingerprint
from invad.model.reading import FeatureExtractor
from invad.observer import Observer
from invad.records import Sample
from invad.scoring.likeness import near_copies

MEMORY_LIMIT = 1 << 30
"""Arrays larger than this many bytes are memory-mapped files. Several processes share such a file always."""

COMPARED_VALUES, COMPARED_IMAGES = 512, 2000
"""Of the features of an image, and of the images of a category, when near copies are looked for."""


@dataclass(frozen=True, slots=True)
class Features:
    """Raw features and what they belong to.

    z_NChw: a row for each image, float32. samples: the readable ones, each picture once in its category.
    rows: where in z_NChw the features of each of them lie. pixels: the digest of its pixels. skipped: paths
    of those that cannot be read, whose rows mean nothing. copies: paths of those whose pixels a sample has.
    """

    z_NChw: NDArray[np.float32]
    samples: tuple[Sample, ...]
    rows: NDArray[np.intp]
    pixels: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """Where large arrays go. cache: a folder whose features outlive the job; work: one that is kept until it
    succeeds; without both a temporary one. All workers must see the same folders.
    """

    work: Path | None = None
    cache: Path | None = None
    workers: Workers = field(default_factory=Solo)

    def in_memory(self, shape: tuple[int, ...]) -> bool:
        return self.workers.size == 1 and 4 * math.prod(shape) <= MEMORY_LIMIT

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Whether features of this shape are written where another run finds them."""
        return self.cache is not None or (self.work is not None and not self.in_memory(shape))

    def empty(self, shape: tuple[int, ...], stack: ExitStack) -> NDArray[np.float32]:
        """An array to fill that all workers see, until the stack is left."""
        if self.in_memory(shape):
            return np.empty(shape, np.float32)
        folder = self.temporary(stack)
        path = folder / "array.npy"
        if self.workers.rank == 0:
            # Asked before: a memory map that finds the disk full kills the process.
            require_room(folder, 4 * math.prod(shape))
            np.lib.format.open_memmap(path, "w+", np.float32, shape)
        self.workers.wait()
        return np.lib.format.open_memmap(path, "r+")

    def temporary(self, stack: ExitStack) -> Path:
        """A new folder, the same for all workers, that goes when the stack is left."""
        own = {}
        if self.workers.rank == 0:
            if self.work is not None:
                self.work.mkdir(parents=True, exist_ok=True)
            made = tempfile.TemporaryDirectory(prefix="invad-features-", dir=self.work)
            own[0] = stack.enter_context(made)
        return Path(self.workers.gather(own)[0])

    def mine(self, items: int) -> range:
        """The numbers of this worker's share."""
        return range(self.workers.rank, items, self.workers.size)


def extract_features(
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    *,
    strict: bool,
    observer: Observer,
    place: Place,
    stack: ExitStack,
) -> Features:
    """Features of all readable images, computed once; others are skipped and named, or fail if strict.

    Of several images of a category with the same pixels the first is kept, and it is said: counted as often
    as they were copied, they would be trained on and held out at once.
    """
    shape = (len(samples), extract.channels, *extract.grid_hw)
    size, count = 4 * math.prod(shape), place.workers.size
    where = "on disk" if place.keeps(shape) or not place.in_memory(shape) else "in memory"
    by = f", {count} processes" if count > 1 else ""
    observer.note(f"features: {len(samples)} images, {size / 2**20:,.0f} MB {where}{by}")
    if where == "in memory":
        z_NChw: NDArray[np.float32] = np.empty(shape, np.float32)
        observer.stage("features", len(samples))
        decoded = _fill(z_NChw, range(len(samples)), samples, extract, strict, observer)
    else:
        z_NChw, decoded = _on_disk(shape, samples, extract, strict, observer, place, stack)
    for why in decoded.unreadable.values():
        observer.note(f"skipped: {why}")
    readable = [row for row in range(len(samples)) if row not in decoded.unreadable]
    copied = copies([(samples[row].category, decoded.pixels[row]) for row in readable])
    if copied:
        told = copies_in_words(copied, [samples[row].path for row in readable])
        observer.note(f"{told}: they have the same pixels, or show one colour only, and count once")
    rows = [row for i, row in enumerate(readable) if i not in copied]
    return Features(
        z_NChw,
        tuple(samples[row] for row in rows),
        np.array(rows, dtype=np.intp),
        tuple(decoded.pixels[row] for row in rows),
        tuple(str(samples[row].path) for row in decoded.unreadable),
        tuple(str(samples[readable[i]].path) for i in copied),
    )


def frames_in_words(features: Features) -> Iterator[str]:
    """What is to be said of each category whose images are much nearer to each other than they differ."""
    size = math.prod(features.z_NChw.shape[1:])
    some = np.random.default_rng(0).choice(size, min(size, COMPARED_VALUES), replace=False)
    categories = [sample.category for sample in features.samples]
    for category in dict.fromkeys(categories):
        own = [i for i, c in enumerate(categories) if c == category][:COMPARED_IMAGES]
        x_NK = np.stack([features.z_NChw[features.rows[i]].reshape(-1)[some] for i in own])
        spread_K = x_NK.std(axis=0)
        near = near_copies(x_NK[:, spread_K > 0] / spread_K[spread_K > 0], math.sqrt(2))
        if near:
            words = copies_in_words(near, [features.samples[i].path for i in own], "are nearly copies")
            yield (
                f"{words}, as frames of a video or of a camera that stands still: they are trained on and "
                "held out at once, so the limits may be too low; give images of different parts"
            )


def require_pictures(least: int, features: Features) -> None:
    """Raises DataError with fewer distinct pictures than `least`."""
    found = len(set(features.pixels))
    if found < least:
        what = "different picture" if features.copies else "readable image"
        raise DataError(
            f"{found} {what}{'' if found == 1 else 's'}: training needs at least {least} normal images, "
            "60 or more for a useful calibration"
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
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    strict: bool,
    observer: Observer,
) -> Decoded:
    """Write the features of the images `rows` to z_NChw, one after the other."""
    decoded = Decoded()
    for place, row in enumerate(rows):
        try:
            pixels = read_image(samples[row].path)
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
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    strict: bool,
    observer: Observer,
    place: Place,
    stack: ExitStack,
) -> tuple[NDArray[np.float32], Decoded]:
    """Every worker computes its share of the blocks that are not there yet."""
    parent = place.cache or place.work or place.temporary(stack)
    cache = FeatureCache(parent / f"features-{_mark(samples, extract, place)}", shape)
    with ExitStack() as held:
        if place.workers.rank == 0:
            cache.prepare(held, observer.note)
        place.workers.wait()
        decoded = _shared(cache, samples, extract, strict, observer, place)
        place.workers.wait()
    if strict and decoded.unreadable:
        raise DataError(next(iter(decoded.unreadable.values())))
    return cache.array(), decoded


def _shared(
    cache: FeatureCache,
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    strict: bool,
    observer: Observer,
    place: Place,
) -> Decoded:
    blocks = [cache.blocks()[i] for i in place.mine(len(cache.blocks()))]
    known = {block: cache.read_record(block) for block in blocks if cache.is_recorded(block)}
    for block in (block for block, record in known.items() if record is None):
        rows = cache.rows(block)
        observer.note(f"{cache.folder}: images {rows.start + 1} to {rows.stop} are damaged; computed again")
    missing = [block for block in blocks if known.get(block) is None]
    if found := sum(len(cache.rows(block)) for block in blocks if block not in missing):
        observer.note(f"features: {found} found in {cache.folder}")
    observer.stage("features", sum(len(cache.rows(block)) for block in missing))
    own = reduce(or_, (record for record in known.values() if record is not None), Decoded())
    failure: dict[int, DataError] = {}
    try:
        for block in missing:
            own |= _compute(cache, block, samples, extract, strict, observer)
    except DataError as error:
        failure[place.workers.rank] = error
    decoded = Decoded(place.workers.gather(own.unreadable), place.workers.gather(own.pixels))
    # All stop for the same reason, whoever met it.
    for met in place.workers.gather(failure).values():
        raise met
    return decoded


def _compute(
    cache: FeatureCache,
    block: int,
    samples: Sequence[Sample],
    extract: FeatureExtractor,
    strict: bool,
    observer: Observer,
) -> Decoded:
    rows = cache.rows(block)
    features = np.empty((len(rows), *cache.shape[1:]), np.float32)
    decoded = _fill(features, rows, samples, extract, strict, observer)
    cache.write(block, features, decoded)
    return decoded


def _mark(samples: Sequence[Sample], extract: FeatureExtractor, place: Place) -> str:
    """A name that changes with the images, the weights, and everything done to the pixels."""
    own = {i: file_digest(samples[i].path) for i in place.mine(len(samples))}
    contents = place.workers.gather(own).values()
    return fingerprint(
        [(str(s.path.absolute()), content) for s, content in zip(samples, contents, strict=True)],
        backbone_digest(extract.backbone),
        repr((extract.preprocess, extract.grid_hw, extract.pooling, extract.scales, extract.fine)),
        extract.device.type,
    )


def backbone_digest(backbone: Backbone) -> str:
    """SHA-256 of all weights."""
    digest = hashlib.sha256()
    for value in backbone.state_dict().values():
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
