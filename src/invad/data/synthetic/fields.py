"""Grids, noise and blurs that every drawing starts from.

Coordinates are in units of the picture's side (0..1, y down), so that a part looks alike at every size.
Fields are float32 H x W; colour pictures are float32 H x W x 3 with values about 0..1 until the camera
model turns them into uint8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[np.floating[Any]]  # float32 wherever speed matters
Rng = np.random.Generator


def grid(size: int) -> tuple[Field, Field]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return axis[:, None], axis[None, :]


def smooth(field: Field, sigma: float | tuple[float, float]) -> Field:
    blurred: Field = ndimage.gaussian_filter(field, sigma, mode="nearest", truncate=3.0)
    return blurred


def unit(field: Field) -> Field:
    """Shifted and scaled to mean 0, standard deviation 1."""
    centred = field - field.mean()
    scaled: Field = centred / max(float(centred.std()), 1e-6)
    return scaled


def spectral(rng: Rng, size: int, beta: float, stretch: float = 1.0, angle: float = 0.0) -> Field:
    """Periodic noise with power spectrum 1/f^(2 beta), drawn out `stretch` times along `angle` (radians)."""
    v = np.fft.fftfreq(size).astype(np.float32)[:, None] * size
    u = np.fft.rfftfreq(size).astype(np.float32)[None, :] * size
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    frequency = np.hypot(along * stretch, across)
    frequency[0, 0] = np.inf
    white = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    return unit(np.fft.irfft2(white * frequency**-beta, s=(size, size)).astype(np.float32))


def relief(height: Field, azimuth: float) -> Field:
    """Slope of `height` (in pixels) towards a lamp at `azimuth`: positive on faces turned to the lamp."""
    down, right = np.gradient(height)
    slope: Field = (-(np.cos(azimuth) * right + np.sin(azimuth) * down)).astype(np.float32)
    return slope
