"""Random mixtures of textures, parts, marks and light, to teach features what surfaces look like."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from invad.data.synthetic.fields import Field, Rng, grid, relief, smooth, spectral
from invad.data.synthetic.shapes import SHAPES, polygon_shape
from invad.data.synthetic.textures import TEXTURES


def _random_colours(rng: Rng, count: int, grey: bool) -> Field:
    """count x 3 colours; saturation mostly low, as on technical objects."""
    value = rng.uniform(0.04, 0.98, (count, 1))
    tint = 0.0 if grey else rng.beta(1, 2) * rng.uniform(-1, 1, (count, 3))
    colours: Field = np.clip(value + 0.6 * tint, 0, 1).astype(np.float32)
    return colours


def _random_surface(rng: Rng, size: int, grey: bool) -> Field:
    """A textured surface, H x W x 3: one or two textures between two or three colours."""
    texture = TEXTURES[rng.integers(len(TEXTURES))](rng, size)
    if rng.random() < 0.35:
        texture = texture + rng.uniform(0.2, 1.0) * TEXTURES[rng.integers(len(TEXTURES))](rng, size)
    low, high, third = _random_colours(rng, 3, grey)
    contrast = rng.choice([0.12, 0.3, 0.6, 1.0])
    high = low + contrast * (high - low)
    mix = np.clip(0.5 + 0.28 * texture, 0, 1)[..., None]
    surface: Field = low + mix * (high - low)
    if rng.random() < 0.3:
        blend = np.clip(0.5 + 0.5 * spectral(rng, size, 2.0), 0, 1)[..., None]
        surface = surface + 0.6 * contrast * blend * (third - surface)
    return surface


def _add_random_shapes(rng: Rng, picture: Field, grey: bool) -> Field:
    """One layer: shapes of one kind with a surface of their own, a bevel and a soft shadow."""
    size = picture.shape[0]
    canvas = Image.new("L", (2 * size, 2 * size), 0)
    draw = ImageDraw.Draw(canvas)
    shape = SHAPES[rng.integers(len(SHAPES))]
    largest = rng.choice([0.12, 0.3, 0.6])
    for _ in range(int(rng.integers(1, 3 if largest > 0.3 else 8))):
        shape(rng, draw, rng.uniform(0, 2 * size, 2), 2 * size * largest * rng.uniform(0.5, 1.0))
    cover = np.asarray(canvas.reduce(2), np.float32) / 255
    shadow = 1 - rng.uniform(0, 0.6) * np.roll(
        smooth(cover, size * 0.015), tuple(rng.integers(-4, 5, 2)), (0, 1)
    )
    surface = _random_surface(rng, size, grey)
    bevel = relief(smooth(cover, rng.uniform(0.7, 4.0)), rng.uniform(0, 2 * np.pi)) * rng.uniform(0, 2.5)
    surface = surface * (1 + bevel[..., None]) + np.clip(bevel - 0.2, 0, None)[..., None]
    blended: Field = picture * shadow[..., None] * (1 - cover[..., None]) + surface * cover[..., None]
    return blended


def _add_random_marks(rng: Rng, picture: Field, grey: bool) -> Field:
    """Scratches and spots."""
    size = picture.shape[0]
    canvas = Image.new("L", (2 * size, 2 * size), 0)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(1, 6))):
        start, angle, length = rng.uniform(0, 2 * size, 2), rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.5)
        if rng.random() < 0.6:
            steps = np.linspace(0, 2 * size * length, 8)
            heading = angle + np.cumsum(rng.normal(0, 0.12, 8))
            path = start + np.stack([np.cos(heading), np.sin(heading)], 1) * steps[:, None]
            draw.line([tuple(map(float, p)) for p in path], fill=255, width=int(rng.integers(1, 5)))
        else:
            polygon_shape(rng, draw, start, size * 0.2 * length)
    cover = smooth(np.asarray(canvas.reduce(2), np.float32) / 255, rng.uniform(0.3, 2.0))
    colour = _random_colours(rng, 1, grey)[0]
    marked: Field = picture + rng.uniform(0.2, 1.0) * cover[..., None] * (colour - picture)
    return marked


def _random_camera(rng: Rng, picture: Field) -> NDArray[np.uint8]:
    """Uneven light, blur, sensor noise and gamma; to uint8."""
    size = picture.shape[0]
    y, x = grid(size)
    tilt_y, tilt_x = rng.normal(0, 0.35, 2)
    light = 1 + tilt_y * (y - 0.5) + tilt_x * (x - 0.5)
    if rng.random() < 0.4:
        cy, cx = rng.uniform(0, 1, 2)
        light = light + rng.uniform(-0.5, 0.6) * np.exp(
            -((y - cy) ** 2 + (x - cx) ** 2) / rng.uniform(0.02, 0.5)
        )
    lit = np.clip(picture, 0, 1.5) * light[..., None]
    if rng.random() < 0.75:
        lit = lit * (rng.uniform(0.5, 1.0) / max(float(np.percentile(lit[::4, ::4], 97)), 0.05))
    if rng.random() < 0.5:
        lit = ndimage.gaussian_filter(lit, (*[rng.choice([0.4, 0.7, 1.2, 2.0])] * 2, 0), truncate=3.0)
    noise = rng.standard_normal((size, size, 3), dtype=np.float32)
    lit = lit + rng.choice([0.002, 0.01, 0.03]) * noise
    gamma = rng.uniform(0.7, 1.4)
    levels: NDArray[np.uint8] = (np.clip(lit, 0, 1) ** gamma * 255 + 0.5).astype(np.uint8)
    return levels


def random_picture(rng: Rng, size: int) -> NDArray[np.uint8]:
    """A random mixture of textures, parts, marks and light, to teach features what surfaces look like.

    Returns uint8, `size` x `size` x 3; about a third of the pictures are grey. The same state of `rng`
    gives the same picture.
    """
    grey = rng.random() < 0.33
    picture = _random_surface(rng, size, grey)
    for _ in range(int(rng.choice([0, 1, 2, 2, 3, 4]))):
        picture = _add_random_shapes(rng, picture, grey)
    if rng.random() < 0.3:
        picture = _add_random_marks(rng, picture, grey)
    coloured = _random_camera(rng, picture)
    return np.repeat(coloured[..., :1], 3, axis=2) if grey else coloured
