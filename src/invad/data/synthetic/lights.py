"""A turned plate under three grazing lights: what each shows of scratches, dents and stains.

A scratch is a groove, which a light along it does not see and a light across it does. A dent shows under all,
a stain as little under each.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad.data.synthetic.fields import Field, Rng, grid, relief, smooth, spectral

LIGHTS = {"light1": 0.0, "light2": math.pi / 3, "light3": 2 * math.pi / 3}
"""Azimuth of each lamp in radians, by the name of the picture it takes."""

DEFECTS = ("scratch", "dent", "stain")

_TEST = 500_000
_BY_DEFECT = 1_000_000


def draw_lights(seed: int, defect: str = "good", size: int = 256) -> dict[str, NDArray[np.uint8]]:
    """Grey pictures size x size of one plate, by light. defect: good or one of DEFECTS."""
    rng, hurt = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    v, u = grid(size)
    radius = np.hypot(v - rng.normal(0.5, 0.004), u - rng.normal(0.5, 0.004))
    height = 0.25 * spectral(rng, size, 0.9) + 0.5 * np.sin(2 * math.pi * 14 * radius) * (radius < 0.42)
    height = height + 3.0 / (1 + np.exp((radius - 0.43) * size / 1.5))
    tone = 0.42 + 0.012 * spectral(rng, size, 1.2)
    if defect != "good":
        height, tone = _hurt(hurt, defect, size, height, tone)
    pictures = {}
    for name, azimuth in LIGHTS.items():
        shading = 1 + 0.55 * np.tanh(relief(height.astype(np.float32), azimuth + rng.normal(0, 0.01)))
        seen = tone * shading * rng.normal(1, 0.02) + rng.normal(0, 0.012, (size, size))
        pictures[name] = (255 * seen).clip(0, 255).round().astype(np.uint8)
    return pictures


def _hurt(rng: Rng, defect: str, size: int, height: Field, tone: Field) -> tuple[Field, Field]:
    v, u = grid(size)
    at, angle = rng.uniform(0.3, 0.7, 2), rng.uniform(0, math.pi)
    along = (u - at[1]) * math.cos(angle) + (v - at[0]) * math.sin(angle)
    across = (v - at[0]) * math.cos(angle) - (u - at[1]) * math.sin(angle)
    if defect == "scratch":
        half, width = rng.uniform(0.05, 0.09), rng.uniform(0.7, 1.0) / size
        groove = np.exp(-((across / width) ** 2)) * (np.abs(along) < half)
        return height - rng.uniform(0.8, 1.2) * groove, tone
    if defect == "dent":
        bowl = np.exp(-(along**2 + across**2) / rng.uniform(0.014, 0.02) ** 2)
        return height - rng.uniform(1.5, 2.2) * bowl, tone
    spot = smooth((np.hypot(along, 1.4 * across) < rng.uniform(0.03, 0.04)).astype(np.float32), size / 128)
    return height, tone * (1 - rng.uniform(0.2, 0.3) * spot)


def write_lights(
    root: Path, *, train: int = 60, test_good: int = 30, per_defect: int = 10, size: int = 256, seed: int = 0
) -> Path:
    """Write plates in the layout of MVTec AD, each as part000_light1.png to _light3.png; returns root."""
    kinds = {("train", "good"): (0, train), ("test", "good"): (_TEST, test_good)}
    kinds |= {("test", d): (_BY_DEFECT * (i + 1), per_defect) for i, d in enumerate(DEFECTS)}
    for (part, kind), (first, count) in kinds.items():
        folder = root / part / kind
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            plate = draw_lights(10_000_000 * seed + first + number, kind, size)
            for light, pixels in plate.items():
                Image.fromarray(pixels).save(folder / f"part{number:03d}_{light}.png", compress_level=1)
    return root
