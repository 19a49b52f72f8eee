"""Random textures for mixtures: each is a field of mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from invad.data.synthetic.fields import Field, Rng, grid, smooth, spectral, unit


def _rotated(rng: Rng, size: int) -> tuple[Field, Field]:
    y, x = grid(size)
    angle = rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)])
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return y * c - x * s, y * s + x * c


def _cloud_texture(rng: Rng, size: int) -> Field:
    return spectral(
        rng, size, rng.uniform(0.3, 2.4), rng.choice([1.0, rng.uniform(1, 5)]), rng.uniform(0, np.pi)
    )


def _brushed_texture(rng: Rng, size: int) -> Field:
    return spectral(
        rng, size, rng.uniform(0.7, 1.3), rng.uniform(8, 40), rng.choice([0.0, rng.uniform(0, np.pi)])
    )


def _stripe_texture(rng: Rng, size: int) -> Field:
    y, _ = _rotated(rng, size)
    bend = rng.choice([0.0, 0.02, 0.05]) * spectral(rng, size, 2.0)
    wave = np.sin((y + bend) * 2 * np.pi * rng.uniform(3, max(4, size / 5)))
    return unit(np.tanh(wave * rng.uniform(0.5, 6)).astype(np.float32))


def _weave_texture(rng: Rng, size: int) -> Field:
    y, x = _rotated(rng, size)
    pitch = rng.uniform(6, max(7, size / 8))
    wander = rng.uniform(0, 0.006) * spectral(rng, size, 1.5)
    v, u = (y + wander) * pitch * np.pi, (x + wander) * pitch * np.pi * rng.uniform(0.7, 1.4)
    over = np.sin(u) * np.sin(v) if rng.random() < 0.6 else np.sin(u + v)
    yarn = np.where(over > 0, np.abs(np.sin(u)), np.abs(np.sin(v)) * rng.uniform(0.6, 1.0))
    return unit((yarn + 0.15 * spectral(rng, size, 0.4)).astype(np.float32))


def _cell_texture(rng: Rng, size: int) -> Field:
    """Voronoi cells: flat tones, cell borders or domes."""
    seeds = np.ones((size, size), bool)
    count = int(rng.integers(12, 260))
    rows, columns = rng.integers(0, size, count), rng.integers(0, size, count)
    seeds[rows, columns] = False
    tone = np.zeros((size, size), np.float32)
    tone[rows, columns] = rng.random(count)
    distance, nearest = ndimage.distance_transform_edt(seeds, return_indices=True)
    flat = tone[nearest[0], nearest[1]]
    kind = rng.integers(3)
    if kind == 0:
        return unit(flat)
    if kind == 1:
        border = (ndimage.maximum_filter(flat, 3) - ndimage.minimum_filter(flat, 3)) > 0
        return unit(flat * 0.3 - border.astype(np.float32))
    return unit(-distance.astype(np.float32) + 2 * flat)


def _speckle_texture(rng: Rng, size: int) -> Field:
    dots = (rng.random((size, size)) < 10 ** rng.uniform(-3, -1)).astype(np.float32)
    dots *= rng.uniform(0.2, 1.0, dots.shape).astype(np.float32)
    return unit(smooth(dots, rng.uniform(0.5, 3)))


def _blotch_texture(rng: Rng, size: int) -> Field:
    return unit(np.tanh(rng.uniform(2, 12) * spectral(rng, size, rng.uniform(1.2, 2.2))).astype(np.float32))


def _tile_texture(rng: Rng, size: int) -> Field:
    y, x = _rotated(rng, size)
    across, down = rng.integers(2, 14, 2)
    row = np.floor(y * down)
    column = x * across + rng.choice([0.0, 0.5]) * (row % 2)
    tones = rng.random((37, 41)).astype(np.float32)
    tone = tones[row.astype(int) % 37, np.floor(column).astype(int) % 41]
    gap = rng.uniform(0.03, 0.15)
    joint = ((y * down) % 1 < gap) | (column % 1 < gap * across / down)
    return unit(np.where(joint, rng.uniform(-1, 2), tone * rng.uniform(0.1, 1)).astype(np.float32))


def _ring_texture(rng: Rng, size: int) -> Field:
    y, x = grid(size)
    cy, cx = rng.uniform(-0.5, 1.5, 2)
    stretch = rng.choice([1.0, rng.uniform(1, 6)])
    radius = np.hypot(y - cy, (x - cx) / stretch) + rng.uniform(0, 0.05) * spectral(rng, size, 1.8)
    return unit(np.sin(radius * 2 * np.pi * rng.uniform(2, 25)).astype(np.float32))


def _plain_texture(rng: Rng, size: int) -> Field:
    y, x = _rotated(rng, size)
    return unit((y + rng.uniform(-1, 1) * x * y + 0.05 * spectral(rng, size, 0.5)).astype(np.float32))


TEXTURES: tuple[Callable[[Rng, int], Field], ...] = (
    _cloud_texture,
    _brushed_texture,
    _stripe_texture,
    _weave_texture,
    _cell_texture,
    _speckle_texture,
    _blotch_texture,
    _tile_texture,
    _ring_texture,
    _plain_texture,
)
