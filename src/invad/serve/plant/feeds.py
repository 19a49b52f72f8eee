"""What a camera gives once it is open: one frame after the other."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from invad.data.formats import HEAD_BYTES, format_of
from invad.data.images import read_image
from invad.errors import DataError
from invad.records import Hw
from invad.runtime.predictor import Pixels

LOOKED_AT = 6
"""Frames whose rate is told."""


class SpoiledFrame(DataError):
    """One frame cannot be used; those after it may be."""


class NoFrame(DataError):
    """None came in time, from a camera that is there and may wait for something itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """body: the picture file that the camera sent, or what makes the pixels. arrived: when the last of it
    came, on the clock that only rises. at: seconds by which frames are thinned out: those of a video file, or
    `arrived`. name: of this very frame, where it can come again; else None."""

    body: bytes | Callable[[], Pixels]
    arrived: float
    at: float
    name: str | None = None


class Feed(ABC):
    """A camera that is open. One thread uses it."""

    @abstractmethod
    def read(self) -> Frame | None:
        """The next frame, None at the end of a video file. Raises SpoiledFrame for one that cannot be used,
        NoFrame, and DataError, in one line, when the camera has to be opened again; never waits for ever."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the camera."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What a camera sends. size_hw: height and width. words: size, depth and rate."""

    size_hw: Hw
    words: str


def described(feed: Feed, seconds: float) -> Sent:
    """What a camera sends, by frames of so many seconds at most. Raises DataError."""
    frames: list[Frame] = []
    until = time.monotonic() + seconds
    while len(frames) < LOOKED_AT and (not frames or time.monotonic() < until):
        frame = feed.read()
        if frame is None:
            break
        frames.append(frame)
    if not frames:
        raise DataError("has no frames")
    body = frames[0].body
    pixels = body() if callable(body) else read_image(body)
    spent = frames[-1].at - frames[0].at
    rate = f", {(len(frames) - 1) / spent:.3g} frames a second" if spent > 0 else ""
    look = look_of(pixels) if callable(body) else f"{8 * pixels.dtype.itemsize} bit {look_of(body)}"
    words = f"{pixels.shape[1]} x {pixels.shape[0]} pixels, {look}{rate}"
    return Sent((pixels.shape[0], pixels.shape[1]), words)


def look_of(body: bytes | Pixels) -> str:
    """What is known of a picture besides its size, in words."""
    if isinstance(body, bytes):
        return format_of(body[:HEAD_BYTES], "frame").name
    return f"{8 * body.dtype.itemsize} bit {'colour' if body.ndim == 3 else 'grey'}"


def are_same(one: Frame, other: Frame) -> bool:
    """Whether two frames are the same picture, to the bit."""
    if isinstance(one.body, bytes) or isinstance(other.body, bytes):
        return one.body == other.body
    return np.array_equal(one.body(), other.body())
