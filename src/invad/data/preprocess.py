"""From pixels to the network's input and from maps back to an image's own frame.

The way there is value scaling, one clamp and one linear resize. Antialiased bilinear resizing is
separable: each channel becomes A_h @ channel @ A_w.T with two constant matrices, which any other
inference engine can reproduce.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError, DataError
from invad.records import Hw

if TYPE_CHECKING:
    import torch

MAX_ASPECT = 4.0
WINDOW_IMAGES = 64
WINDOW_MARGIN = 0.05
STRIP = 64
"""Rows of a map that are made at a time."""


@dataclass(frozen=True)
class Preprocess:
    """How images become network input. Belongs to the model: it is saved with the weights.

    input_hw: height and width of the network's input in pixels. Images are stretched to it, whatever
        their aspect ratio: `choose_input_hw` takes the median ratio of the training images, so normal
        images are hardly distorted and nothing is cropped or padded.
    other_hw: further input sizes, of a model of products of very different shapes. An image is stretched
        to the size whose aspect ratio is nearest to its own.
    window: (low, high) as fractions of 65535, 0 <= low < high <= 1. Grey levels of 16-bit images from
        low to high are stretched to 0..1 and clamped, as sensors often use 12 bits of 16. 8-bit and
        float images always keep their full range.

    Raises ConfigError when a value is out of range.
    """

    input_hw: Hw
    window: tuple[float, float] = (0.0, 1.0)
    other_hw: tuple[Hw, ...] = ()

    def __post_init__(self) -> None:
        # PyTorch's antialiasing on the CPU leaves out the vertical filter when the result is 1 wide.
        for size_hw in (self.input_hw, *self.other_hw):
            if len(size_hw) != 2 or min(size_hw) < 2:
                raise ConfigError(f"input_hw is {size_hw}; give height and width of at least 2 pixels")
        if len(self.window) != 2 or not 0 <= self.window[0] < self.window[1] <= 1:
            raise ConfigError(f"window is {self.window}; give (low, high) with 0 <= low < high <= 1")

    def size_for(self, size_hw: Hw) -> Hw:
        """The input size for an image of this height and width; `input_hw` where two are as near."""
        own = log_aspect(size_hw)
        return min((self.input_hw, *self.other_hw), key=lambda input_hw: abs(log_aspect(input_hw) - own))

    def alone(self, size_hw: Hw | None) -> "Preprocess":
        """The same for images of one size, None for any size; it has one input size.

        Raises ConfigError for images of any size when there are several.
        """
        if size_hw is None and self.other_hw:
            sizes = ", ".join(f"{h} x {w}" for h, w in (self.input_hw, *self.other_hw))
            raise ConfigError(
                f"the model has several input sizes ({sizes}), by the shape of the image; a graph has one: "
                "give the size of the images, --size HxW, and export once for each"
            )
        return Preprocess(self.size_for(size_hw) if size_hw else self.input_hw, self.window)

    def __call__(self, pixels: NDArray[Any]) -> "torch.Tensor":
        """float32 3 x H x W in [0, 1], on the CPU, (H, W) = `size_for` the image.

        pixels: H x W x 3 of any size, uint8, uint16 or float32 in [0, 1], as `read_image` gives them.
        Raises DataError for another shape or dtype.
        """
        import torch

        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
            raise DataError(
                f"<array>: shape {pixels.shape} is no H x W x 3 image; pass it through read_image"
            )
        shape_hw = (pixels.shape[0], pixels.shape[1])
        values = self._unit_range(pixels)
        x_3HW = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))
        resized = torch.nn.functional.interpolate(
            x_3HW[None], size=self.size_for(shape_hw), mode="bilinear", antialias=True, align_corners=False
        )
        return resized[0].clamp(0, 1)

    def _unit_range(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        black, white = (np.float32(level) for level in grey_range(pixels.dtype, self.window))
        values: NDArray[np.float32] = pixels.astype(np.float32)
        # In place: a picture of a camera is larger than the processor's caches.
        if black:
            values -= black
        values /= white - black
        return values.clip(0, 1, out=values) if pixels.dtype == np.uint16 else values


def grey_range(dtype: "np.dtype[Any]", window: tuple[float, float]) -> tuple[float, float]:
    """The levels of black and white of uint8, uint16 or float32 pixels; window: see Preprocess.

    Raises DataError for another type.
    """
    if dtype == np.uint8:
        return 0.0, 255.0
    if dtype == np.uint16:
        return 65535 * window[0], 65535 * window[1]
    if dtype == np.float32:
        return 0.0, 1.0
    raise DataError(f"<array>: dtype {dtype} is no pixel type; pass the image through read_image")


def levelled(pixels: NDArray[Any], window: tuple[float, float] | None) -> NDArray[Any]:
    """16-bit pixels as float32 in [0, 1] by a window of their own (see `Preprocess`); others as they are."""
    if window is None or pixels.dtype != np.uint16:
        return pixels
    black, white = (np.float32(level) for level in grey_range(pixels.dtype, window))
    values: NDArray[np.float32] = (pixels.astype(np.float32) - black) / (white - black)
    return values.clip(0, 1, out=values)


def log_aspect(size_hw: Hw) -> float:
    """Logarithm of width over height."""
    return math.log(size_hw[1]) - math.log(size_hw[0])


def group_aspects(aspects: Sequence[float], factor: float) -> list[list[int]]:
    """Indices of log aspect ratios, grouped from the flattest on: a group spans at most `factor`."""
    groups: list[list[int]] = []
    for i in sorted(range(len(aspects)), key=lambda i: aspects[i]):
        if groups and aspects[i] - aspects[groups[-1][0]] <= math.log(factor) + 1e-9:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def choose_input_hw(
    sizes_hw: Sequence[Hw], area_side: int = 256, multiple: int = 32, square: bool = False
) -> Hw:
    """Input size (height, width) in pixels for images of these sizes.

    The aspect ratio is the median of the images' (in logarithms, so that turning all images by 90
    degrees turns the answer), clipped to [1/4, 4], or 1 if `square`. The area is about area_side**2
    pixels and both sides are rounded to a multiple of `multiple`, at least one.

    Raises DataError without sizes or with an empty one, ConfigError when area_side or multiple < 1.
    """
    if area_side < 1 or multiple < 1:
        raise ConfigError(f"area_side {area_side} and multiple {multiple} must be at least 1 pixel")
    if not sizes_hw or min(map(min, sizes_hw)) < 1:
        raise DataError("no image sizes to choose the input size from; give at least one image with pixels")
    limit = math.log(MAX_ASPECT)
    aspect = statistics.median(log_aspect(size_hw) for size_hw in sizes_hw)
    aspect = 0.0 if square else max(-limit, min(limit, aspect))
    height, width = (area_side * math.exp(sign * aspect / 2) for sign in (-1, 1))
    return _to_multiple(height, multiple), _to_multiple(width, multiple)


def choose_window(images: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Window (low, high) of `Preprocess` for these images, fractions of 65535.

    Without uint16 images, and when theirs are all of one level, the full range (0, 1). Otherwise the
    lowest and the highest level of the uint16 images among the first 64, and 5 % of their distance
    beyond on either side, within [0, 1].
    """
    first = islice(images, WINDOW_IMAGES)
    levels = [(int(image.min()), int(image.max())) for image in first if image.dtype == np.uint16]
    low = min((level for level, _ in levels), default=0)
    high = max((level for _, level in levels), default=0)
    if low == high:
        return 0.0, 1.0
    margin = WINDOW_MARGIN * (high - low)
    return max(0.0, (low - margin) / 65535), min(1.0, (high + margin) / 65535)


def resize_map(map_hw: NDArray[np.float32], size_hw: Hw) -> NDArray[np.float32]:
    """Anomaly map h x w float32 -> H x W float32 in the frame of an image of size_hw, bilinear.

    Pixel centres are aligned by area and no smoothing is added; a pixel is a mean of its four neighbours, so
    the result stays within the range of the map up to rounding.
    """
    # Not as matrix products: numpy's threads would stay awake and slow torch's down.
    (top, bottom, down), (left, right, along) = (
        _neighbours(before, after) for before, after in zip(map_hw.shape, size_hw, strict=True)
    )
    map_hw = np.asarray(map_hw, np.float32)
    one = np.float32(1)
    rows = map_hw[top] * (one - down[:, None]) + map_hw[bottom] * down[:, None]
    result: NDArray[np.float32] = np.empty(size_hw, np.float32)
    # In strips, which stay in the processor's caches: of a large picture several maps would not be small.
    for first in range(0, len(rows), STRIP):
        strip = np.s_[first : first + STRIP]
        result[strip] = rows[strip][:, left] * (one - along) + rows[strip][:, right] * along
    return result


def _neighbours(before: int, after: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Of each pixel of a resized side the two neighbours and the share of the second one."""
    place = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = np.minimum(place.astype(np.intp), max(before - 2, 0))
    return low, np.minimum(low + 1, before - 1), (place - low).astype(np.float32)


def resize_mask(mask: NDArray[np.bool_], size_hw: Hw) -> NDArray[np.bool_]:
    """Mask h x w bool -> H x W bool: the value at the nearest pixel centre ("nearest-exact").

    In integers, where floats would round ties to either side. Made smaller, a mask can lose lines
    thinner than one target pixel.
    """
    rows, columns = (
        (2 * np.arange(after) + 1) * before // (2 * after)
        for before, after in zip(mask.shape, size_hw, strict=True)
    )
    return np.asarray(mask, np.bool_)[np.ix_(rows, columns)]


def _to_multiple(side: float, multiple: int) -> int:
    return max(1, math.floor(side / multiple + 0.5)) * multiple
