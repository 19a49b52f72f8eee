"""The one loop over images whose truth is known: read, judge, read the mask, name what cannot be read."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from invad.data.images import ImageSource, read_image
from invad.data.masks import doubt, read_mask_codes
from invad.data.preprocess import resize_mask
from invad.data.samples import read_sample
from invad.errors import DataError
from invad.observer import Observer
from invad.records import Hw, Sample

Answer = TypeVar("Answer")
MaskCodes = tuple[NDArray[np.uint8], int]
"""As `read_mask_codes` gives them."""


@dataclass(frozen=True, slots=True)
class Labelled(Generic[Answer]):
    """A readable image and what was said of it.

    size_hw: of the image. mask_codes: None for a normal image, and for a defective one without a readable
    mask. seconds: that reading the image and judging it took.
    """

    sample: Sample
    size_hw: Hw
    answer: Answer
    mask_codes: MaskCodes | None
    seconds: float

    def mask(self, size_hw: Hw) -> NDArray[np.bool_] | None:
        """Defective pixels in the frame `size_hw`; None where they are unknown. A normal image has none."""
        if self.mask_codes is None:
            return None if self.sample.is_anomalous else np.zeros(size_hw, dtype=bool)
        codes, least = self.mask_codes
        return resize_mask(codes >= least, size_hw)


@dataclass(slots=True)
class Unreadable:
    """The files that were passed over, in the order in which they were met.

    doubtful: masks that were read and can hardly be meant so, and why.
    """

    images: list[Path] = field(default_factory=list)
    masks: list[Path] = field(default_factory=list)
    doubtful: list[tuple[Path, str]] = field(default_factory=list)

    def doubts(self) -> tuple[str, ...]:
        """One line when there are masks in doubt."""
        if not self.doubtful:
            return ()
        path, why = self.doubtful[0]
        more = len(self.doubtful) - 1
        return (
            f"{path}: {why}" + (f"; {more} more in doubt, which 'invad data check' lists" if more else ""),
        )


def judge_labelled(
    samples: Sequence[Sample],
    judge: Callable[[Sample, NDArray[Any]], Answer],
    unreadable: Unreadable,
    *,
    stage: str,
    observer: Observer,
    masks: bool = True,
    strict: bool = False,
    decode: Callable[[ImageSource], NDArray[Any]] = read_image,
) -> Iterator[Labelled[Answer]]:
    """What `judge` says of each image's pixels, with its mask, in the order of the samples.

    A file that cannot be read goes to `unreadable` and is noted: of an image nothing is yielded, of a mask
    only it is missing. Masks in doubt go there, too, for the caller to name. masks: read them. strict: raise
    the DataError of the first unreadable file. decode: reads an image. Raises DataError in the end when none
    of the images, of which there must be some, could be read.
    """
    observer.stage(stage, len(samples))
    judged = 0
    for sample in samples:
        started = time.perf_counter()
        try:
            pixels = read_sample(sample, decode)
            answer = judge(sample, pixels)
        except DataError as error:
            if strict:
                raise
            unreadable.images.append(sample.path)
            observer.note(f"skipped: {error}")
        else:
            seconds = time.perf_counter() - started
            judged += 1
            size_hw = (pixels.shape[0], pixels.shape[1])
            codes = _mask_codes(sample, size_hw, unreadable, observer, strict) if masks else None
            yield Labelled(sample, size_hw, answer, codes, seconds)
        observer.advance()
    if not judged:
        raise DataError(f"{samples[0].path.parent}: none of {len(samples)} test images could be read")


def _mask_codes(
    sample: Sample, size_hw: Hw, unreadable: Unreadable, observer: Observer, strict: bool
) -> MaskCodes | None:
    if sample.mask_path is None or not sample.is_anomalous:
        return None
    try:
        codes, least = read_mask_codes(sample.mask_path, size_hw=size_hw, above=sample.mask_above)
        if why := doubt(codes >= least):
            unreadable.doubtful.append((sample.mask_path, why))
        return codes, least
    except DataError as error:
        if strict:
            raise
        unreadable.masks.append(sample.mask_path)
        observer.note(f"mask skipped: {error}")
        return None
