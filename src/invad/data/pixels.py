"""Arrays as pixels: what counts as an image, and in which range."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError

_FLOAT_SLACK = 1e-4  # float images that were resized elsewhere overshoot [0, 1] by rounding


def fit_uint16(array: NDArray[Any], name: str) -> NDArray[Any]:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: values {low} to {high} do not fit 16 bits; rescale the image to 0..65535")
    return array.astype(np.uint8 if array.dtype.itemsize == 1 else np.uint16)


def to_rgb(array: NDArray[Any], name: str) -> NDArray[Any]:
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if channels not in (1, 2, 3, 4):
        shape = " x ".join(map(str, array.shape)) or "a scalar"
        raise DataError(
            f"{name}: shape {shape} is no image; give H x W or H x W x 1, 2, 3, 4 (tensors: C x H x W)"
        )
    if array.size == 0:
        raise DataError(f"{name}: has no pixels; give an image of at least 1 x 1")
    array = array.reshape(*array.shape[:2], channels)
    array = array[..., :3] if channels > 2 else np.repeat(array[..., :1], 3, axis=2)
    return np.ascontiguousarray(_pixel_values(array, name))


def _pixel_values(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind != "f":
        raise DataError(
            f"{name}: dtype {array.dtype} is ambiguous; convert to uint8, uint16 or float in [0, 1]"
        )
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{name}: holds values that are not finite; replace NaN and infinity")
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise DataError(f"{name}: float values {low:g} to {high:g} leave [0, 1]; divide by full scale")
    return np.clip(array.astype(np.float32, copy=False), 0, 1)
