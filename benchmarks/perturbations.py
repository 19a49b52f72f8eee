"""What happens to pictures on a line, applied to test images: uint8 H x W x 3 in and out, seeded."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]


def _clip(values: NDArray[np.floating]) -> Pixels:
    return values.round().clip(0, 255).astype(np.uint8)


def gain(pixels: Pixels, factor: float) -> Pixels:
    return _clip(pixels.astype(np.float64) * factor)


def contrast(pixels: Pixels, factor: float) -> Pixels:
    mean = pixels.mean()
    return _clip(mean + (pixels.astype(np.float64) - mean) * factor)


def gamma(pixels: Pixels, exponent: float) -> Pixels:
    return _clip(255 * (pixels / 255.0) ** exponent)


def shift(pixels: Pixels, share: float) -> Pixels:
    """Down and to the right by a share of the sides, edges repeated."""
    dy, dx = (max(1, round(share * side)) for side in pixels.shape[:2])
    return np.pad(pixels, ((dy, 0), (dx, 0), (0, 0)), mode="edge")[: pixels.shape[0], : pixels.shape[1]]


def rotate(pixels: Pixels, degrees: float) -> Pixels:
    fill = tuple(int(v) for v in np.median(pixels[[0, -1]].reshape(-1, 3), axis=0))
    turned = Image.fromarray(pixels).rotate(degrees, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.asarray(turned)


def defocus(pixels: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def noise(pixels: Pixels, std: float) -> Pixels:
    return _clip(pixels + np.random.default_rng(0).normal(0, std, pixels.shape))


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


PERTURBATIONS: dict[str, Callable[[Pixels], Pixels] | None] = {
    "none": None,
    "brightness +10 %": partial(gain, factor=1.1),
    "brightness -10 %": partial(gain, factor=0.9),
    "contrast +10 %": partial(contrast, factor=1.1),
    "contrast -10 %": partial(contrast, factor=0.9),
    "gamma 1.2": partial(gamma, exponent=1.2),
    "shift 2 %": partial(shift, share=0.02),
    "rotation 2 degrees": partial(rotate, degrees=2),
    "defocus, 1 pixel": partial(defocus, radius=1),
    "sensor noise, 5 levels": partial(noise, std=5),
    "JPEG quality 50": partial(jpeg, quality=50),
}
