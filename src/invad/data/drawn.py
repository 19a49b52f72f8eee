"""Defects of known size, drawn on pictures of good parts: discs, ellipses and bars, lighter or darker."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.records import Hw

LONGEST_SIDE = 1024
"""Pixels; larger pictures are averaged down first, as a network's input is."""

SMALLEST, LARGEST = 0.75, 8.0
"""Cells: lengths that are drawn unless another is given; none is longer than half of the shorter side of the
picture."""

THINNEST = 0.3
"""Cells: the least width, and at least 2 pixels."""

FAINTEST, STRONGEST = 0.01, 0.5
"""Contrast, in shares of the range from black to white: from what no model sees to what each does."""


MOST_FADE = 0.8
"""Real defects are seldom even: half of those drawn fade along their length, by so much at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One defect in pixels. round: an ellipse, else a bar. angle: of its length, radians. contrast: added
    levels, in shares of the range. fade: the share of it that is lost from one end to the other."""

    round: bool
    length: float
    width: float
    x: float
    y: float
    angle: float
    contrast: float
    fade: float = 0.0

    @property
    def feret(self) -> tuple[float, float]:
        """Largest and smallest Feret diameter, in pixels."""
        return (self.length if self.round else float(np.hypot(self.length, self.width))), self.width

    @property
    def area(self) -> float:
        """In pixels."""
        return self.length * self.width * (np.pi / 4 if self.round else 1.0)


def draw_size(rng: np.random.Generator, size_hw: Hw, cell: float, largest: float = LARGEST) -> Drawing:
    """A defect that lies inside a picture of this size. cell: of the model, in pixels. largest: in cells."""
    height, width = size_hw
    longest = max(min(largest * cell, min(size_hw) / 2), 4.0)
    shortest = min(max(SMALLEST * cell, 3.0), longest)
    length = float(np.exp(rng.uniform(np.log(shortest), np.log(longest))))
    # A third are as wide as long: of those that are not there is no end.
    aspect = 1.0 if rng.random() < 1 / 3 else float(np.exp(rng.uniform(0, np.log(8))))
    across = min(length, max(length / aspect, THINNEST * cell, 2.0))
    angle = float(rng.uniform(0, np.pi))
    half = np.array([np.hypot(length, across)] * 2) / 2
    x, y = rng.uniform(np.minimum(half, [width / 2, height / 2]), np.maximum([width, height] - half, half))
    contrast = float(rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(FAINTEST), np.log(STRONGEST))))
    return Drawing(
        round=bool(rng.random() < 0.5),
        length=length,
        width=across,
        x=float(x),
        y=float(y),
        angle=angle,
        contrast=contrast,
        fade=float(rng.uniform(0, MOST_FADE)) if rng.random() < 0.5 else 0.0,
    )


def cover(one: Drawing, size_hw: Hw) -> NDArray[np.float64]:
    """0..1 for each pixel H x W, with soft edges of a pixel."""
    y, x = (np.mgrid[: size_hw[0], : size_hw[1]] + 0.5).astype(np.float64)
    dx, dy = x - one.x, y - one.y
    along = np.cos(one.angle) * dx + np.sin(one.angle) * dy
    across = np.cos(one.angle) * dy - np.sin(one.angle) * dx
    if not one.round:
        distance = np.maximum(np.abs(along) - one.length / 2, np.abs(across) - one.width / 2)
        return _edge(distance)
    a, b = one.length / 2, one.width / 2
    r, slope = np.hypot(along / a, across / b), np.hypot(along / a**2, across / b**2)
    # The distance from an ellipse to first order: the level over its slope.
    distance = np.where(r > 1e-6, (r - 1) * r / np.maximum(slope, 1e-9), -b)
    return _edge(distance)


def _edge(distance_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    """From distances outside an outline, in pixels, to the share of each pixel inside."""
    covered: NDArray[np.float64] = np.clip(0.5 - distance_HW, 0, 1)
    return covered


def drawn_on(pixels: NDArray[Any], one: Drawing, levels: tuple[float, float]) -> NDArray[Any]:
    """The picture H x W x 3 with the defect; same type. levels: black and white. Where a lighter defect would
    be lost in white it is drawn darker, and the other way."""
    # Around the defect alone: of a picture of millions of pixels the rest would take most of the time.
    reach = np.hypot(one.length, one.width) / 2 + 2
    top, left = max(0, int(one.y - reach)), max(0, int(one.x - reach))
    box = np.s_[top : int(one.y + reach) + 1, left : int(one.x + reach) + 1]
    drawn = pixels.copy()
    ends = min(levels[0], float(pixels.min())), max(levels[1], float(pixels.max()))
    drawn[box] = _drawn_in(pixels[box], replace(one, x=one.x - left, y=one.y - top), levels, ends)
    return drawn


def _drawn_in(
    pixels: NDArray[Any], one: Drawing, levels: tuple[float, float], ends: tuple[float, float]
) -> NDArray[Any]:
    """ends: the darkest and the lightest level that there may be."""
    black, white = levels
    size_hw = pixels.shape[0], pixels.shape[1]
    covered = cover(one, size_hw)[..., None]
    before = pixels.astype(np.float64)
    step = one.contrast * (white - black)
    inside = before[covered[..., 0] > 0.5]
    if inside.size and np.abs(np.clip(inside + step, black, white) - inside).mean() < abs(step) / 2:
        step = -step
    y, x = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    along = (np.cos(one.angle) * (x - one.x) + np.sin(one.angle) * (y - one.y)) / one.length + 0.5
    left = 1 - one.fade * np.clip(along, 0, 1)
    after = np.clip(before + step * covered * left[..., None], *ends)
    return _as_levels(after, pixels.dtype)


def reduced(pixels: NDArray[Any]) -> NDArray[Any]:
    """The picture averaged over whole blocks, so that no side is far above LONGEST_SIDE; same type."""
    factor = -(-max(pixels.shape[:2]) // LONGEST_SIDE)
    if factor == 1:
        return pixels
    h, w = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).astype(np.float64)
    mean = blocks.mean(axis=(1, 3))
    return _as_levels(mean, pixels.dtype)


def _as_levels(values: NDArray[np.float64], kind: np.dtype[Any]) -> NDArray[Any]:
    levels: NDArray[Any] = (values if kind.kind == "f" else values.round()).astype(kind)
    return levels
