"""Random outlines for mixtures, white on a black canvas; lengths in its pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from invad.data.synthetic.fields import Rng

Points = NDArray[np.float64]
Shape = Callable[[Rng, ImageDraw.ImageDraw, Points, float], None]


def _fill(draw: ImageDraw.ImageDraw, points: Points, tone: int = 255) -> None:
    draw.polygon([(float(x), float(y)) for x, y in points], fill=tone)


def _turn(points: Points, centre: Points, angle: float) -> Points:
    c, s = np.cos(angle), np.sin(angle)
    turned: Points = points @ np.array([[c, s], [-s, c]]) + centre
    return turned


def _disc(draw: ImageDraw.ImageDraw, centre: Points, radius: float, tone: int = 255) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=tone)


def polygon_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
    lengths = radius * rng.uniform(0.6, 1.0, len(angles))
    _fill(draw, centre + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None])


def _gear_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    teeth = int(rng.integers(3, 24))
    angles = np.linspace(0, 2 * np.pi, 4 * teeth, endpoint=False) + rng.uniform(0, 2 * np.pi)
    lengths = radius * np.where(np.arange(4 * teeth) % 4 < 2, 1.0, rng.uniform(0.5, 0.9))
    _fill(draw, centre + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None])
    if rng.random() < 0.7:
        _disc(draw, centre, radius * rng.uniform(0.1, 0.4), 0)


def _ring_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    _disc(draw, centre, radius)
    _disc(draw, centre, radius * rng.uniform(0.3, 0.85), 0)
    if rng.random() < 0.4:
        _disc(draw, centre, radius * rng.uniform(0.1, 0.3))


def _plate_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    """A rectangle, often with holes."""
    half = radius * rng.uniform(0.15, 1.0, 2)
    angle = rng.choice([0.0, rng.uniform(0, np.pi)])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    _fill(draw, _turn(corners, centre, angle))
    if rng.random() < 0.5:
        for hole in _turn(corners * 0.7, centre, angle):
            _disc(draw, hole, float(half.min()) * rng.uniform(0.08, 0.2), 0)


def _screw_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    """A threaded shaft with a head, from the side."""
    angle, thick, turns = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.1, 0.3), int(rng.integers(8, 26))
    along = np.linspace(-radius, radius, 2 * turns)
    zigzag = thick * np.where(np.arange(2 * turns) % 2, 1.0, rng.uniform(0.6, 0.9))
    lower = np.stack([along, zigzag], 1)
    upper = np.stack([along, -np.roll(zigzag, 1)], 1)[::-1]
    _fill(draw, _turn(np.concatenate([lower, upper]), centre, angle))
    head = np.array([[0, -1], [0.5, -0.8], [0.5, 0.8], [0, 1]]) * thick * rng.uniform(1.4, 2.4)
    _fill(draw, _turn(head + np.array([radius, 0]), centre, angle))
    for a, b in zip(lower[1::2], upper[::-1][::2], strict=False):
        line = _turn(np.stack([a, b]), centre, angle)
        draw.line([tuple(map(float, p)) for p in line], fill=int(rng.integers(90, 170)), width=1)


def _glyph_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    """Lines of text-like strokes."""
    step, angle = radius * rng.uniform(0.12, 0.5), rng.choice([0.0, rng.uniform(-0.5, 0.5)])
    lines, letters = int(rng.integers(1, 5)), int(rng.integers(2, 9))
    nodes = np.array([[i, j] for i in (0, 0.3, 0.6) for j in (0, 0.35, 0.7)]) * step
    for row in range(lines):
        for column in range(letters):
            origin = np.array([column - letters / 2, (row - lines / 2) * 1.3]) * step
            stroke = _turn(nodes[rng.integers(0, 9, int(rng.integers(3, 6)))] + origin, centre, angle)
            path = [tuple(map(float, p)) for p in stroke]
            draw.line(path, fill=255, width=max(1, int(step * 0.14)), joint="curve")


def _pad_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    """A regular grid of pads, some missing."""
    across, down = (int(n) for n in rng.integers(2, 9, 2))
    pitch = 1.6 * radius / max(across, down)
    half = pitch * rng.uniform(0.15, 0.42, 2)
    angle, is_round, keep = (
        rng.choice([0.0, rng.uniform(-0.3, 0.3)]),
        rng.random() < 0.4,
        rng.uniform(0.8, 1.1),
    )
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    for i in range(across):
        for j in range(down):
            place = np.array([i - (across - 1) / 2, j - (down - 1) / 2]) * pitch
            if rng.random() > keep:
                continue
            if is_round:
                _disc(draw, _turn(place[None], centre, angle)[0], float(half.min()))
            else:
                _fill(draw, _turn(corners + place, centre, angle))


def _cable_shape(rng: Rng, draw: ImageDraw.ImageDraw, centre: Points, radius: float) -> None:
    steps = np.linspace(-1, 1, 24)
    a, b = rng.uniform(-1, 1, 2)
    curve = np.stack([steps * 2, a * steps**2 + b * np.sin(steps * rng.uniform(1, 6))], 1) * radius
    path = [tuple(map(float, p)) for p in _turn(curve, centre, rng.uniform(0, np.pi))]
    draw.line(path, fill=255, width=max(1, int(radius * rng.uniform(0.03, 0.3))), joint="curve")


SHAPES: tuple[Shape, ...] = (
    polygon_shape,
    _gear_shape,
    _ring_shape,
    _plate_shape,
    _screw_shape,
    _glyph_shape,
    _pad_shape,
    _cable_shape,
)
