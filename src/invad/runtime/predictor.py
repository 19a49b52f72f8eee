"""What every detector does with images: decode ahead, group what can share a run, answer in order."""

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from invad.data.ahead import Decoded, read_ahead
from invad.data.images import ImageSource, is_bytes_like, read_image
from invad.data.members import PartFiles
from invad.data.pages import Page
from invad.data.preprocess import levelled
from invad.data.region import Region, inside_of
from invad.data.video import Frame, Seconds, read_video
from invad.errors import ConfigError, DataError
from invad.records import Hw, PartPrediction, Prediction
from invad.runtime.parts import Decoded as DecodedPart
from invad.runtime.parts import (
    JudgedPart,
    Members,
    decoded,
    judge_part,
    parts_in,
    require_fusion,
    require_single,
)
from invad.scoring.calibration import Calibration, for_category, known_category
from invad.scoring.defects import Defect, defects, require_map
from invad.scoring.fusion import Fusion
from invad.scoring.lengths import SizeModel
from invad.scoring.scale import Scale
from invad.scoring.sizes import Smallest
from invad.system.arguments import require

Pixels = NDArray[Any]
"""A decoded image, H x W x 3, uint8, uint16 or float32 in [0, 1]."""

Judged = tuple[Pixels, Prediction]
"""An image that could be read, and what the detector says of it."""

MOST_CHANNELS = 4
"""Of an image; three sides of which none is so short are those of a stack of grey ones."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Predictor(ABC):
    """The way in of `Detector` and `ExportedDetector`; they say how decoded images are judged."""

    calibrations: Mapping[str, Calibration]
    """Limits by category; those over all categories under POOLED."""

    fusion: Fusion | None = None
    """How several pictures of a part become one decision; None where each image is judged by itself."""

    content_hash: str | None = None
    sizes: SizeModel | None = None
    """What drawings taught of the sizes of defects; None where nothing was drawn."""
    streams: int = 1
    """Runs that `predict_many` has going at the same time."""

    @abstractmethod
    def judge(self, pixels: Sequence[Pixels], category: str | None = None) -> list[Prediction]:
        """Predictions of decoded images of one `kind`, all in one run. Their `path` is None."""

    @property
    @abstractmethod
    def grid_hw(self) -> Hw:
        """Rows and columns of the cells that the model sees an image in."""

    def grid_for(self, size_hw: Hw) -> Hw:
        """Rows and columns of the cells of an image of this height and width: `grid_hw`, but for tiles."""
        return self.grid_hw

    @property
    def region(self) -> Region | None:
        """The part of the pictures that counts; None where all of it does."""
        return None

    @property
    def inside_HW(self) -> NDArray[np.bool_] | None:
        """The pixels that count, H x W in the frame of the region of interest; None where all do."""
        return None

    @property
    def smallest(self) -> Smallest | None:
        """The smallest area of a defect, by which images are called, too; None without one."""
        return None

    def least_pixels(self, size_hw: Hw) -> float:
        """The smallest area of a defect in an image of this height and width, in pixels; 0 without one."""
        return 0.0 if self.smallest is None else self.smallest.pixels(size_hw)

    @abstractmethod
    def kind(self, pixels: Pixels) -> Hashable:
        """What images of one run have in common."""

    @property
    def regions(self) -> Mapping[str, Region]:
        """Of categories that look at a part of the pictures of their own."""
        return {}

    def region_for(self, category: str | None) -> Region | None:
        """The part of the pictures of a category that counts; None where all of it does."""
        own = self.regions.get(known_category(self.calibrations, category)) if self.regions else None
        return self.region if own is None else own

    def inside_for(self, category: str | None) -> NDArray[np.bool_] | None:
        """The pixels of pictures of a category that count; None where all do."""
        own = self.region_for(category)
        return self.inside_HW if own is None or own == self.region else _inside_of(own)

    def decode(self, image: ImageSource, category: str | None = None) -> Pixels:
        """Pixels of one image of a category. Raises DataError when it cannot be read or cannot be judged."""
        return read_image(image)

    def group_size(self, batch: int) -> int:
        """Images of a run at most, when `batch` are asked for. Raises ConfigError where it cannot be."""
        return batch

    # A str is an iterable of str, too; the first overload takes it, as `is_one_image` does.
    @overload
    def predict(  # type: ignore[overload-overlap]
        self, x: ImageSource, *, category: str | None = None
    ) -> Prediction: ...
    @overload
    def predict(self, x: Iterable[ImageSource], *, category: str | None = None) -> list[Prediction]: ...
    def predict(self, x: Any, *, category: str | None = None) -> Prediction | list[Prediction]:
        """Score one image, or each of an iterable of images.

        x: a path, encoded bytes, a PIL image, an array H x W (x 3) of uint8, uint16 or float in [0, 1], or a
        tensor C x H x W. category: judge by that category's normals; None by those of all categories.
        The result does not depend on what else is scored. Raises DataError naming an unreadable image.
        """
        single = is_one_image(x)
        images = self.predict_many([x] if single else x, category=category, workers=0, strict=True)
        predictions = [one for one in images if isinstance(one, Prediction)]
        return predictions[0] if single else predictions

    def predict_many(
        self,
        images: Iterable[ImageSource],
        *,
        category: str | None = None,
        batch: int = 1,
        workers: int = 2,
        strict: bool = False,
    ) -> Iterator[Prediction | DataError]:
        """Score any number of images, in their order: each gives its prediction or why it cannot be read.

        images: as for `predict`; taken as they are needed. workers: threads that decode ahead of the network.
        batch: images that pass the networks together. With 1 a result is that of `predict`, bit by bit. With
        more, which pays on a GPU alone, rounding differs by the batch: a score by less than a thousandth of
        itself or of the spread of normal ones. About 2 `batch` + `workers` images are held at a time.
        strict: raise the DataError of the first unreadable image. Raises ConfigError for one image in the
        place of several, a batch below 1 or one that an exported bundle does not run, and for a category
        without limits of its own.
        """
        judged = self.judge_many(images, category=category, batch=batch, workers=workers, strict=strict)
        return (one if isinstance(one, DataError) else one[1] for one in judged)

    def judge_many(
        self,
        images: Iterable[ImageSource],
        *,
        category: str | None = None,
        batch: int = 1,
        workers: int = 2,
        strict: bool = False,
    ) -> Iterator[Judged | DataError]:
        """As `predict_many`, with the pixels that were judged: a pipe cannot be read again to show them."""
        require(batch=(batch, int), workers=(workers, int))
        if batch < 1 or workers < 0:
            raise ConfigError(f"batch = {batch}, workers = {workers}: give at least 1 and at least 0")
        if not _are_several(images):
            raise ConfigError(f"{type(images).__name__}: give a list of images, or one image to predict")
        require_single(self.fusion, category)
        known_category(self.calibrations, category)
        judged = self._judge_groups(images, category, self.group_size(batch), workers)
        return _strictly(judged) if strict else judged

    def predict_part(self, members: Members) -> PartPrediction:
        """Judge one part by its pictures, by the name of their member, such as {"light1": "a.png", ...}.

        Raises ConfigError for a model of single images.
        """
        return next(self.predict_parts([members], workers=0))

    def predict_parts(
        self, parts: "str | Path | Iterable[PartFiles | Members]", *, workers: int = 2
    ) -> Iterator[PartPrediction]:
        """Judge parts by their pictures: those of a folder, or of an iterable of pictures by member.

        A missing, unreadable or unknown picture is said in `reason`, and its part is never good. workers:
        threads that decode ahead. Raises ConfigError for a model of single images, DataError for a folder
        with files that are of no part.
        """
        return (prediction for _, prediction in self.judge_parts(parts, workers=workers))

    def judge_parts(
        self, parts: "str | Path | Iterable[PartFiles | Members]", *, workers: int = 2
    ) -> Iterator[JudgedPart]:
        """As `predict_parts`, with the pixels that were judged."""
        fusion = require_fusion(self.fusion)

        def read(part: "PartFiles | Members") -> "tuple[PartFiles | Members, DecodedPart]":
            return part, decoded(part, self.decode)

        ahead = _in_order(read, parts_in(parts, fusion.rule), max(1, workers))
        return (
            (pixels, judge_part(part, pixels, fusion, self.judge, self.smallest)) for part, pixels in ahead
        )

    def levelled(self, pixels: Sequence[Pixels], category: str | None) -> list[Pixels]:
        """Pixels of a member of a part by its own 16-bit window, any others as they are."""
        if self.fusion is None or category not in self.fusion.members:
            return list(pixels)
        return [levelled(one, self.fusion.window(category)) for one in pixels]

    def defects(self, prediction: Prediction, scale: Scale | str | Path | None = None) -> tuple[Defect, ...]:
        """What stands out of the map of a prediction of this detector, highest peak first, with its size.

        A defect is a connected part above the review limit of the map, in pixels of the image; scale: for
        millimetres, also as the length of a pixel, "0.05mm", or as the path of its file. Good images can have
        some, because the score looks at more than the highest cell, and bad ones none; of a model with a
        smallest area of defects smaller parts are left out. Raises DataError for a prediction without a map,
        and for an image that reaches the horizon of the scale, ConfigError for what is no prediction or no
        scale.
        """
        require(prediction=(prediction, Prediction))
        review, _ = for_category(self.calibrations, prediction.category).map_limits()
        require_map(prediction.anomaly_map)
        height, width = prediction.anomaly_map.shape
        grid_hw, least = self.grid_for((height, width)), self.least_pixels((height, width))
        lengths = Scale.of(scale)
        return defects(prediction.anomaly_map, review, grid_hw, lengths, least=least, sizes=self.sizes)

    def predict_video(
        self,
        path: "str | os.PathLike[str]",
        *,
        every: Seconds | None = None,
        category: str | None = None,
        batch: int = 1,
        strict: bool = False,
    ) -> Iterator[tuple[Frame, Prediction | DataError]]:
        """Score the frames of a video file, in the order of time: each with its prediction or why there is
        none.

        path: a file that `invad.data.video.read_video` reads. every: seconds between two frames that are
        scored, by default all of them. category, batch, strict: as for `predict_many`. A score is that of an
        image file with the same pixels. The frames come with their pixels as they were judged; no more than
        about 2 `batch` are held, however long the video is. Raises ConfigError for an `every` that is not
        above 0, and, when the first frame is asked for, DataError for a file that is no video.
        """
        waiting: deque[Frame] = deque()

        def readable(frames: Iterable[Frame]) -> Iterator[NDArray[Any]]:
            for frame in frames:
                waiting.append(frame)
                if not isinstance(frame.pixels, DataError):
                    yield frame.pixels

        def unreadable() -> Iterator[tuple[Frame, DataError]]:
            while waiting and isinstance(error := waiting[0].pixels, DataError):
                if strict:
                    raise error
                yield waiting.popleft(), error

        def answered(judged: Iterable[Judged | DataError]) -> Iterator[tuple[Frame, Prediction | DataError]]:
            for one in judged:
                yield from unreadable()
                frame = waiting.popleft()
                if isinstance(one, DataError):
                    said = str(one).removeprefix("<array>: ")
                    error = DataError(f"{path}: frame {frame.number} at {frame.time:.3f} s: {said}")
                    if strict:
                        raise error
                    yield replace(frame, pixels=error), error
                else:
                    yield replace(frame, pixels=one[0]), replace(one[1], path=os.fspath(path))
            yield from unreadable()

        frames = readable(read_video(path, every=every))
        return answered(self.judge_many(frames, category=category, batch=batch, workers=0))

    def _judge_groups(
        self, images: Iterable[ImageSource], category: str | None, size: int, workers: int
    ) -> Iterator[Judged | DataError]:
        def run(group: list[Decoded]) -> list[Judged | DataError]:
            readable = [pixels for _, pixels in group if not isinstance(pixels, DataError)]
            predictions = iter(self.judge(readable, category) if readable else ())
            return [
                found
                if isinstance(found, DataError)
                else (found, replace(next(predictions), path=_path(source)))
                for source, found in group
            ]

        decode = partial(self.decode, category=category)
        ahead = read_ahead(images, workers, size * self.streams + workers, decode)
        for group in _in_order(run, _groups(ahead, size, self.kind), self.streams):
            yield from group


_inside_of = lru_cache(maxsize=16)(inside_of)
"""Each part of a line is asked for it, and painting polygons takes long on large pictures."""


def is_one_image(x: Any) -> bool:
    from PIL.Image import Image

    # Only tensors have `detach`, and torch need not be there.
    known = isinstance(x, str | os.PathLike | Page | Image | np.ndarray) or is_bytes_like(x)
    return known or hasattr(x, "detach") or hasattr(x, "read")


def _are_several(images: Any) -> bool:
    """Not one path, whose letters would be taken for paths, and not one array, of which each row would be an
    image; a stack of arrays or tensors is, and an array of paths."""
    try:
        iter(images)
    except TypeError:
        return False
    if not is_one_image(images):
        return True
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) == 3:
        return bool(shape[0 if hasattr(images, "detach") else -1] > MOST_CHANNELS)
    return len(shape) > 3 or len(shape) == 1


def _groups(
    decoded: Iterable[Decoded], limit: int, kind: Callable[[Pixels], object]
) -> Iterator[list[Decoded]]:
    """Neighbours of one kind, at most `limit`, and the unreadable among them."""
    group: list[Decoded] = []
    kinds: set[object] = set()
    for source, image in decoded:
        own = set() if isinstance(image, DataError) else {kind(image)}
        if len(kinds | own) > 1:
            yield group
            group, kinds = [], set()
        group.append((source, image))
        kinds |= own
        if len(group) == limit:
            yield group
            group, kinds = [], set()
    if group:
        yield group


def _in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """work(item) of each item, as many at a time as there are threads; in this thread if there is one."""
    if threads == 1:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) == threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _strictly(judged: Iterable[Judged | DataError]) -> Iterator[Judged]:
    for one in judged:
        if isinstance(one, DataError):
            raise one
        yield one


def _path(source: ImageSource) -> str | None:
    if isinstance(source, Page):
        return str(source)
    return os.fspath(source) if isinstance(source, str | os.PathLike) else None
