"""Anomaly maps as 16-bit PNG, and pictures made of them."""

import io
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad.data.images import read_image
from invad.data.png import encode_png
from invad.data.preprocess import resize_map
from invad.report.colours import display, layer, overlay

MOST_PIXELS = 65_536
"""Of a map that is kept: it has no detail below the cells of the model, of which there are a few thousand."""

LAYER_SIDE = 1024
"""Pixels of the longer side of a heat map that lies over its image."""

MASK_COLOUR = (0, 213, 255, 150)
IGNORED_ALPHA, LIGHT_STRIPE = 160, 96
RANGE = "invad:range"
"""Text of the PNG: the values of black and white, as a JSON list."""


def statistics(
    pixels: NDArray[Any], inside_HW: NDArray[np.bool_] | None = None
) -> tuple[float, float, float]:
    """(grey, clipped, sharpness) of H x W x 3 pixels: they tell a lamp or a lens that has moved.

    inside_HW: the pixels that count, None where all do. grey: their mean level, in 0..1 of the range of the
    type. clipped: share of pixels whose channels are all black or all white. sharpness: mean absolute
    difference of neighbours in a row, as a share of grey. Of a picture above 65536 pixels every n-th row
    counts, with all its columns.
    """
    step = int(np.ceil(pixels.size / 3 / MOST_PIXELS))
    red, green, blue = np.moveaxis(pixels[step // 2 :: step], 2, 0)
    is_float = red.dtype.kind == "f"
    full = 1.0 if is_float else float(np.iinfo(red.dtype).max)
    # Whole channels one after the other: numpy is slow along an axis of three.
    levels = (red.astype(np.float32) + green + blue) / np.float32(3 * full)
    if is_float:
        black = (red == 0) & (green == 0) & (blue == 0)
        white = (red == full) & (green == full) & (blue == full)
    else:
        black, white = (red | green | blue) == 0, (red & green & blue) == np.iinfo(red.dtype).max
    clipped, steps = black | white, np.abs(levels[:, 1:] - levels[:, :-1])
    if inside_HW is not None:
        inside = inside_HW[step // 2 :: step]
        levels, clipped, steps = levels[inside], clipped[inside], steps[inside[:, 1:] & inside[:, :-1]]
    if not levels.size:  # what counts lies between the rows that are looked at
        return 0.0, 0.0, 0.0
    grey = float(levels.mean())
    return grey, float(clipped.mean()), float(steps.mean()) / grey if steps.size and grey else 0.0


def encode_map(map_HW: NDArray[np.float32]) -> bytes:
    """A grey PNG of 16 bits; of a map above 65536 pixels every n-th row and column.

    A value is black + level / 65535 (white - black), with the range in the text `invad:range`.
    """
    step = int(np.ceil(np.sqrt(map_HW.size / MOST_PIXELS)))
    thin = map_HW[step // 2 :: step, step // 2 :: step]
    black, white = float(thin.min()), float(thin.max())
    spread = white - black or 1.0
    levels = np.round((thin.astype(np.float64) - black) / spread * 65535).astype(np.uint16)
    return encode_png(levels, is_smooth=True, text={RANGE: json.dumps([black, black + spread])})


def decode_map(content: bytes) -> NDArray[np.float32]:
    """The reverse of `encode_map`, thinned as it is."""
    with Image.open(io.BytesIO(content)) as image:
        black, white = json.loads(image.info[RANGE])
        levels = np.asarray(image).astype(np.float64)
    return np.asarray(black + levels / 65535 * (white - black), np.float32)


def draw_overlay(image: bytes, map_png: bytes, limits: tuple[float, float], side: int | None = None) -> bytes:
    """PNG of an image under its heat map. limits: (review, bad) of the map. side: pixels of its longer side
    at most. Raises DataError."""
    pixels = np.asarray(_shown(image, side))
    whole = resize_map(decode_map(map_png), (pixels.shape[0], pixels.shape[1]))
    return _png(Image.fromarray(overlay(pixels, whole, limits)))


def draw_layer(map_png: bytes, limits: tuple[float, float], size: tuple[int, int]) -> bytes:
    """PNG of a heat map alone, to be laid over its image. limits: (review, bad). size: height and width of
    the image; the layer has its shape, and 1024 pixels on the longer side at most."""
    shrunk = min(1.0, LAYER_SIDE / max(size))
    height, width = (max(1, round(side * shrunk)) for side in size)
    return _png(Image.fromarray(layer(resize_map(decode_map(map_png), (height, width)), limits)))


def draw_mask(mask_HW: NDArray[np.bool_]) -> bytes:
    """PNG of a mask, to be laid over its image: blue where it is true, else nothing."""
    drawn = np.zeros((*mask_HW.shape, 4), np.uint8)
    drawn[mask_HW] = MASK_COLOUR
    return _png(Image.fromarray(drawn))


def draw_ignored(inside_HW: NDArray[np.bool_]) -> bytes:
    """PNG of what a region of interest ignores, to be laid over an image: dark and light stripes, which are
    seen on any picture, else nothing. It has the shape of the image, and 1024 pixels on the longer side at
    most."""
    alpha = Image.fromarray(np.where(inside_HW, 0, IGNORED_ALPHA).astype(np.uint8))
    alpha.thumbnail((LAYER_SIDE, LAYER_SIDE))
    width, height = alpha.size
    stripe = max(2, max(width, height) // 48)
    across = np.arange(height)[:, None] + np.arange(width)
    grey = np.where(across // stripe % 2, LIGHT_STRIPE, 0).astype(np.uint8)
    return _png(Image.merge("LA", (Image.fromarray(grey), alpha)))


def shown_png(image: bytes, side: int | None = None) -> bytes:
    """PNG of 8 bits of any image that can be read, for browsers. side: as above. Raises DataError."""
    return _png(_shown(image, side))


def _shown(image: bytes, side: int | None) -> Image.Image:
    drawn = Image.fromarray(display(read_image(image)))
    if side is not None:
        drawn.thumbnail((side, side), reducing_gap=2.0)
    return drawn


def _png(drawn: Image.Image) -> bytes:
    stream = io.BytesIO()
    drawn.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
