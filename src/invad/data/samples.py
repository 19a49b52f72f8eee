"""Pixels of a sample, whatever it is of its file, and as its member of a part sees grey levels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from invad.data.images import ImageSource, read_image
from invad.data.pages import Page
from invad.data.preprocess import levelled
from invad.errors import DataError
from invad.records import Hw, Sample


def source_of(sample: Sample) -> Path | Page:
    """The file, or the page of it."""
    return sample.path if sample.page is None else Page(sample.path, sample.page)


def read_sample(sample: Sample, decode: Callable[[ImageSource], NDArray[Any]] = read_image) -> NDArray[Any]:
    """Pixels H x W x 3 of the image, its page if it is one of several, 16 bits stretched by its window.

    decode: who refuses some images that `read_image` reads. Raises DataError as that does.
    """
    pixels = decode(source_of(sample))
    return levelled(pixels, sample.window)


def named(sample: Sample) -> str:
    """The file, and the page where it has several."""
    return str(source_of(sample))


def first_size(samples: Sequence[Sample]) -> Hw:
    """Height and width of the first picture that can be read. Raises DataError where there is none."""
    problem: DataError | None = None
    for sample in samples:
        try:
            height, width = read_sample(sample).shape[:2]
        except DataError as error:
            problem = problem or error
        else:
            return height, width
    raise problem or DataError("no picture to choose tiles from; give a folder of good images")
