"""What tiles find that the whole picture hides, and what they cost.

    python benchmarks/tiles.py found --bsdata ../shared/data/bsdata --output benchmarks/results/tiles.json
    python benchmarks/tiles.py speed --output benchmarks/results/tiles_speed.json

found: image AUROC and false alarms of the preset `fast` with and without tiles, on BSData (ball screws, 1130
x 460, pits of a median 0.03 % of the picture; CC BY-SA 4.0, https://github.com/2Obe/BSData) and on drawn
parts of 2048 x 2048 pixels with defects of 10 to 20 pixels; how far scores move when a drawn picture moves by
half a tile; and a defect on a seam beside the same one in a core. speed: a picture of 4096 x 3000 pixels at
half scale in OpenVINO: seconds, memory, and the share of the engine's own throughput that tiles keep.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from child import alone, peak_memory_mb
from numpy.typing import NDArray
from PIL import Image

from invad import Detector, Sample, TiledDetector, Tiling, evaluate
from invad.data.tiling import TILE
from invad.evaluation.machine import facts
from invad.scoring.rates import POOLED
from invad.system.files import write_atomically

SIDE, MARGIN = 2048, 160
"""Pixels of a drawn part, and more of them on each side, into which a window can be moved."""

NORMALS, TESTED = 40, 12
"""Drawn parts to learn from, and of each kind to test."""

PITS, SPOTS = 16, 20
"""The smallest defect that is asked for, in pixels: of BSData and of drawn parts."""


def part(rng: np.random.Generator, spot: bool) -> NDArray[np.uint8]:
    """A brushed plate with bolts in places of their own, perhaps with a spot of 10 to 20 pixels near its
    middle; larger than SIDE by MARGIN all around."""
    side = SIDE + 2 * MARGIN
    y, x = np.mgrid[:side, :side].astype(np.float32)
    grey = 120 + 8 * np.cos(2 * np.pi * x / side + rng.uniform(0, 7))
    grey += rng.normal(0, 3, (side, 1)) + rng.normal(0, 4, (side, side))
    for _ in range(12):
        row, column, radius = *rng.uniform(100, side - 100, 2), rng.uniform(25, 60)
        box = np.s_[
            int(row - radius) : int(row + radius) + 1, int(column - radius) : int(column + radius) + 1
        ]
        inside = np.hypot(y[box] - row, x[box] - column) < radius
        grey[box] += 35 * inside
    if spot:
        size = rng.uniform(10, 20)
        row, column = rng.uniform(3 * MARGIN, side - 3 * MARGIN, 2)
        box = np.s_[int(row - 20) : int(row + 21), int(column - 20) : int(column + 21)]
        long, short = np.hypot(y[box] - row, x[box] - column), np.abs(y[box] - row + 0.5 * (x[box] - column))
        grey[box] += rng.choice((-40, 40)) * ((long < size / 2) & (short < size / 3))
    return np.repeat(grey.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


def window(picture: NDArray[np.uint8], moved: int = 0) -> NDArray[np.uint8]:
    low = MARGIN - moved
    return picture[low : low + SIDE, low : low + SIDE]


def compared(train: list[Sample], test: list[Sample], tiling: Tiling) -> tuple[dict[str, Any], TiledDetector]:
    """Both detectors of `fast` on the same pictures."""
    rows: dict[str, Any] = {}
    started = time.perf_counter()
    whole = Detector.fit(train, preset="fast", device="cpu")
    tiled = TiledDetector.fit(train, tiling=tiling, preset="fast", device="cpu")
    for name, detector in (("whole", whole), ("tiled", tiled)):
        metrics = evaluate(detector, test).metrics
        review = metrics["false_alarms"]["review"]
        rows[name] = {
            "image_auroc": round(metrics["image_auroc"], 4),
            "pixel_aupro": metrics["pixel_aupro"] and round(metrics["pixel_aupro"], 4),
            "good": metrics["n_normal"],
            "defective": metrics["n_anomalous"],
            "false_alarms": review["count"],
            "expected_95": review["expected_count_95"],
            "train_seconds": detector.info.fit.seconds,
            "calibration_n": metrics["calibration_n"],
        }
    rows["gained"] = round(rows["tiled"]["image_auroc"] - rows["whole"]["image_auroc"], 4)
    rows["tile_px"], rows["seconds"] = tiling.tile_px, round(time.perf_counter() - started)
    return rows, tiled


def samples_of(root: Path, part: str, most: int | None = None) -> list[Sample]:
    found = []
    for folder in sorted((root / part).iterdir()):
        masks = root / "ground_truth" / folder.name
        for path in sorted(folder.iterdir())[:most]:
            mask = masks / f"{path.stem}_mask.png"
            kind = {} if folder.name == "good" else {"defect": folder.name, "mask_path": mask}
            found.append(Sample(path=path, category=root.name, **kind))  # type: ignore[arg-type]
    return found


def bsdata(root: Path) -> dict[str, Any]:
    tiling = Tiling(tile_px=12 * PITS)
    rows, _ = compared(samples_of(root, "train"), samples_of(root, "test"), tiling)
    return rows


def drawn(folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pictures = {
        "train": [part(rng, False) for _ in range(NORMALS)],
        "good": [part(rng, False) for _ in range(TESTED)],
        "spot": [part(rng, True) for _ in range(TESTED)],
    }
    samples: dict[str, list[Sample]] = {}
    for kind, own in pictures.items():
        for i, picture in enumerate(own):
            path = folder / f"{kind}_{i}.png"
            Image.fromarray(window(picture)).save(path, compress_level=1)
            defect = "spot" if kind == "spot" else "good"
            samples.setdefault(kind, []).append(Sample(path=path, category="plate", defect=defect))
    tiling = Tiling(tile_px=12 * SPOTS)
    rows, tiled = compared(samples["train"], samples["good"] + samples["spot"], tiling)
    half = tiling.tile_px // 2
    spread = float(np.std(tiled.calibrations[POOLED].scores))
    moved = {
        kind: [
            abs(tiled.reading(window(p))[0] - tiled.reading(window(p, half))[0]) for p in pictures[kind][:6]
        ]
        for kind in ("good", "spot")
    }
    rows["shift"] = {
        "pixels": half,
        "spread_of_normals": round(spread, 3),
        **{f"mean_change_{kind}": round(float(np.mean(own)), 3) for kind, own in moved.items()},
        **{f"largest_change_{kind}": round(float(np.max(own)), 3) for kind, own in moved.items()},
    }
    rows["seam"] = seam(tiled, window(pictures["good"][0]))
    return rows


def seam(tiled: TiledDetector, picture: NDArray[np.uint8]) -> dict[str, Any]:
    """The same spot in the middle of a tile and in the middle of the overlap of two, in many columns."""
    cut = tiled.cut((SIDE, SIDE))
    cell = SIDE / cut.cells_hw[1]
    places = {"core": [], "seam": []}
    for number, origin in enumerate(cut.along.origins[2:-2], start=2):
        after = cut.along.origins[number + 1]
        shared = origin + cut.grid_hw[1] - after
        places["core"].append((origin + cut.grid_hw[1] / 2) * cell)
        places["seam"].append((after + shared / 2) * cell)
    scores = {}
    for kind, columns in places.items():
        found = []
        for column in columns[:4]:
            spoilt = picture.copy()
            top, left = SIDE // 2 - 8, int(column) - 8
            spoilt[top : top + 16, left : left + 16] = 30
            found.append(tiled.reading(spoilt)[0])
        scores[kind] = round(float(np.mean(found)), 3)
    return {**scores, "difference": round(abs(scores["seam"] / scores["core"] - 1), 4)}


def bundle_for_speed(folder: str) -> None:
    from invad.export import ExportConfig, export

    rng = np.random.default_rng(0)
    train = []
    for i in range(8):
        grey = 120 + rng.normal(0, 5, (3000, 4096, 1))
        path = Path(folder) / f"{i}.png"
        Image.fromarray(np.repeat(grey.round().astype(np.uint8), 3, axis=2)).save(path, compress_level=1)
        train.append(Sample(path=path, category="plate"))
    detector = TiledDetector.fit(train, tiling=Tiling(tile_px=384), preset="fast", device="cpu")
    export(detector, Path(folder) / "bundle", ExportConfig(format="openvino", batch=None))


def judged(folder: str, batch: int) -> dict[str, Any]:
    """In a process of its own: seconds a picture, its peak memory, and the engine alone on as many tiles."""
    import invad.runtime.tiled
    from invad import runtime
    from invad.data.images import read_image

    invad.runtime.tiled.BATCH = batch
    detector = runtime.load(Path(folder) / "bundle", "openvino", threads=2)
    path = Path(folder) / "0.png"
    detector.predict(path)
    judging, reading = [], []
    for _ in range(3):
        started = time.perf_counter()
        pixels = read_image(path)
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        detector.judge([pixels])
        judging.append(time.perf_counter() - started)
    memory = peak_memory_mb()
    cut = detector.cut((3000, 4096))
    tile = next(iter(cut.tiles())).of(pixels)
    info, engine = detector.info, detector.engine
    given = np.stack([tile] * batch).astype(np.float32)
    number = np.full(batch, list(info.calibrations).index(TILE), np.int64)
    limits = np.array([0, 255], np.float32)
    engine.run(given, limits, number)
    alone_s = []
    for _ in range(3):
        started = time.perf_counter()
        for _ in range(len(cut) // batch):
            engine.run(given, limits, number)
        alone_s.append((time.perf_counter() - started) / (len(cut) // batch * batch))
    return {
        "batch": batch,
        "tiles": len(cut),
        "seconds_judging": round(min(judging), 3),
        "seconds_reading_png": round(min(reading), 3),
        "peak_memory_mb": memory,
        "engine_tiles_per_second": round(1 / min(alone_s), 1),
        "share_of_engine": round(min(alone_s) * (len(cut) + 1) / min(judging), 3),
        "load": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("found", "speed"))
    parser.add_argument("--bsdata", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    result: dict[str, Any] = {"machine": facts()}
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "found":
            result["load"] = round(os.getloadavg()[0], 1)
            if given.bsdata:
                result["bsdata"] = bsdata(given.bsdata)
                print(json.dumps(result["bsdata"]), flush=True)
            result["drawn"] = drawn(Path(folder))
            print(json.dumps(result["drawn"]), flush=True)
        else:
            bundle_for_speed(folder)
            result["rows"] = [alone(judged, folder, batch) for batch in (1, 8)]
            print(json.dumps(result["rows"]), flush=True)
    write_atomically(given.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
