"""How well sizes of the defect table are known: drawn discs and bars of known size at three scales.

    python benchmarks/defect_sizes.py --output benchmarks/results/defect_sizes.json
    python benchmarks/defect_sizes.py --preset fast --tile 256 --output benchmarks/results/tile_sizes.json

A part of 50 mm is photographed at 256, 512 and 1024 pixels. For each scale a model learns from good pictures,
and sizes from defects that `learn_sizes` draws on them. Then it judges other pictures with one drawn disc (4
to 16 mm across) or bar (6 to 25 mm by 2 to 8 mm, turned by any angle), lighter or darker than the part, from
faint to strong. A size is right when it lies within the uncertainty that the table prints beside it. Nothing
is tuned on these pictures; what is not found is counted by itself.
"""

import argparse
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad import Detector, TiledDetector, Tiling
from invad.detector.measuring import learn_sizes
from invad.evaluation.machine import facts
from invad.scoring.scale import Scale
from invad.system.files import write_atomically

SIDES = (256, 512, 1024)
PART_MM = 50.0
NORMALS, DEFECTS = 40, 40
"""Good pictures to learn from, and pictures of each shape, for each scale."""

TILED_NORMALS, TILED_DEFECTS = 24, 20
"""The same where they are cut into tiles, each of which costs as much as a picture."""

FIGURES = ("length", "width", "area")


def part(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Grey levels of a good part: slow changes of light, a brushed texture, noise of the sensor."""
    y, x = np.mgrid[:side, :side] / side
    slow = sum(
        rng.normal(0, 4) * np.cos(2 * np.pi * (i * x + j * y) + rng.uniform(0, 7))
        for i in range(2)
        for j in range(2)
    )
    brushed = rng.normal(0, 3, (side, 1)) * np.ones((1, side))
    return 120 + slow + brushed + rng.normal(0, 3, (side, side))


def cover(shape: str, sizes: tuple[float, float], place: tuple[float, float], angle: float, side: int) -> Any:
    """0..1 for each pixel, with soft edges of a pixel. sizes, place: in mm."""
    y, x = (np.mgrid[:side, :side] + 0.5) * PART_MM / side
    dx, dy = x - place[0], y - place[1]
    if shape == "disc":
        distance = np.hypot(dx, dy) - sizes[0] / 2
    else:
        along = np.abs(np.cos(angle) * dx + np.sin(angle) * dy) - sizes[0] / 2
        across = np.abs(np.cos(angle) * dy - np.sin(angle) * dx) - sizes[1] / 2
        distance = np.maximum(along, across)
    return np.clip(0.5 - distance * side / PART_MM, 0, 1)


def true_sizes(shape: str, sizes: tuple[float, float]) -> dict[str, float]:
    """Largest and smallest Feret diameter and area, in mm and mm²."""
    if shape == "disc":
        return {"length": sizes[0], "width": sizes[0], "area": np.pi * sizes[0] ** 2 / 4}
    return {"length": float(np.hypot(*sizes)), "width": sizes[1], "area": sizes[0] * sizes[1]}


def picture(grey: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def measured(
    detector: Detector | TiledDetector, shape: str, side: int, rng: np.random.Generator
) -> dict[str, Any] | None:
    """One drawn defect: its truth and what the table says; None where nothing is found at its place."""
    if shape == "disc":
        sizes = (rng.uniform(4, 16),) * 2
    else:
        sizes = (rng.uniform(6, 25), rng.uniform(2, 8))
        sizes = (max(sizes), min(sizes))
    place = tuple(rng.uniform(15, PART_MM - 15, 2))
    covered = cover(shape, sizes, place, rng.uniform(0, np.pi), side)
    contrast = rng.choice([-1, 1]) * np.exp(rng.uniform(np.log(8), np.log(90)))
    found = detector.predict(picture(part(rng, side) + contrast * covered))
    x, y = (value * side / PART_MM for value in place)
    table = detector.defects(found, Scale.per_pixel(PART_MM / side))
    around = [d for d in table if d.x <= x <= d.x + d.width and d.y <= y <= d.y + d.height]
    if not around:
        return None
    one = max(around, key=lambda d: d.area_px)
    said = {"length": one.length_mm, "width": one.width_mm, "area": one.area_mm2}
    known = {
        "length": one.length_uncertainty_mm,
        "width": one.width_uncertainty_mm,
        "area": one.area_uncertainty_mm2,
    }
    truth = true_sizes(shape, sizes)
    return {
        "share_of_limit": one.share_of_limit,
        "cell_mm": one.cell_mm,
        "sized": one.size_of == "defect",
        "error": {name: said[name] - truth[name] for name in FIGURES},
        "uncertainty": {name: known[name] for name in FIGURES},
    }


def summary(rows: list[dict[str, Any] | None]) -> dict[str, Any]:
    """Shares that lie within the uncertainty, and errors in cells; areas beside their uncertainty."""
    found = [row for row in rows if row is not None]
    if not found:
        return {"drawn": len(rows), "found": 0}
    told: dict[str, Any] = {"drawn": len(rows), "found": len(found)}
    told["sized"] = sum(row["sized"] for row in found)
    told["median_share_of_limit"] = round(float(np.median([r["share_of_limit"] for r in found])), 2)
    for name in FIGURES:
        errors = np.array([row["error"][name] for row in found])
        bounds = np.array([row["uncertainty"][name] for row in found])
        relative = errors / bounds
        cells = np.array([row["cell_mm"] for row in found]) ** (2 if name == "area" else 1)
        bounds_in_cells = bounds / cells
        told[name] = {
            "within_uncertainty": round(float((np.abs(errors) <= bounds).mean()), 3),
            "median_uncertainty_cells": round(float(np.median(bounds_in_cells)), 3),
            "median_error_in_uncertainties": round(float(np.median(relative)), 3),
            "error_5_to_95_percent": [round(float(v), 3) for v in np.quantile(relative, [0.05, 0.95])],
        }
    return told


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--tile", type=int, help="cut pictures of 512 pixels into tiles of this side")
    options = parser.parse_args()
    fit, sides, normals, defects = Detector.fit, SIDES, NORMALS, DEFECTS
    if options.tile is not None:
        fit = partial(TiledDetector.fit, tiling=Tiling(tile_px=options.tile))
        sides, normals, defects = (512,), TILED_NORMALS, TILED_DEFECTS
    started, scales, everything = time.monotonic(), {}, []
    for side in sides:
        rng = np.random.default_rng(side)
        with tempfile.TemporaryDirectory() as folder:
            for i in range(normals):
                Image.fromarray(picture(part(rng, side))).save(Path(folder, f"{i:03d}.png"))
            detector = fit(folder, preset=options.preset, seed=0)
            before = time.monotonic()
            sizes = learn_sizes(detector, folder)
            seconds = time.monotonic() - before
        rows = {
            shape: [measured(detector, shape, side, rng) for _ in range(defects)] for shape in ("disc", "bar")
        }
        both = rows["disc"] + rows["bar"]
        everything += both
        scales[f"{side} pixels"] = {
            "mm_per_pixel": PART_MM / side,
            "cell_mm": PART_MM / min(detector.grid_for((side, side))),
            "learned_from": {"drawings": sizes.drawings, "seconds": round(seconds, 1)},
            **{shape: summary(own) for shape, own in rows.items()},
        }
        print(side, json.dumps(scales[f"{side} pixels"]), file=sys.stderr, flush=True)
    result = {
        "preset": options.preset,
        "normals": normals,
        **({} if options.tile is None else {"tile": options.tile}),
        "all": summary(everything),
        "scales": scales,
        "seconds": round(time.monotonic() - started),
        "machine": facts(),
    }
    write_atomically(options.output, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
