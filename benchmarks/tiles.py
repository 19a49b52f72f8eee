"""What tiles find that the whole picture hides, and what they cost.

    python benchmarks/tiles.py bsdata_whole --data BSDATA --output benchmarks/results/tiles.json
    (as bsdata_whole: bsdata_shared, bsdata_each)
    python benchmarks/tiles.py drawn --output benchmarks/results/tiles.json
    python benchmarks/tiles.py chance --output benchmarks/results/tiles.json
    python benchmarks/tiles.py speed --output benchmarks/results/tiles.json

bsdata, drawn: image AUROC and false alarms of the preset `fast` with and without tiles, on BSData (ball
screws, 1130 x 460, pits of a median 0.03 % of the picture; CC BY-SA 4.0, https://github.com/2Obe/BSData) and
on drawn sheets of 2048 x 2048 pixels with defects of 10 to 20 pixels; how far scores of normal ones move with
the picture by half a tile, as they are and on what both windows show from within, there also by the tiles
and by the overview alone; and a defect on a seam beside the same one in a core. chance: how far they move
where nothing but chance tells pictures apart. speed: a picture of 4096 x 3000 pixels at half scale in
OpenVINO, by a model of a few such pictures of noise: seconds, memory, and the share of the engine's
throughput that tiles keep; and one of 60 megapixels.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from child import alone, peak_memory_mb
from numpy.typing import NDArray
from PIL import Image

from invad.data.images import read_image
from invad.data.tiling import TILE, Tiling
from invad.evaluation.machine import facts
from invad.records import Hw, Sample
from invad.runtime.fusing import picture_score
from invad.runtime.tiled import TiledPredictor, cut_maps
from invad.scoring.rates import POOLED
from invad.scoring.spread import top_mean
from invad.system.files import write_atomically

if TYPE_CHECKING:
    from invad import Detector, TiledDetector

SIDE, MARGIN = 2048, 512
"""Pixels of a drawn sheet, and more of them on each side, into which a window can be moved."""

PITCH, HOLE = 128, 30
"""Distance and radius of the holes of a drawn sheet, in pixels."""

NORMALS, TESTED = 64, 20
"""Drawn sheets to learn from, so that a fifth is held out, and of each kind to test."""

MOVED = {"good": 12, "spot": 4}
"""Drawn sheets of each kind whose scores are compared with those of the same half a tile further on."""

LARGE, HALF_SCALE, NOISE = (3000, 4096), 32, 8
"""Height and width of the picture whose judging is timed, the smallest defect asked for, and how many
pictures of noise to learn from."""

PITS, SPOTS = 16, 20
"""The smallest defect that is asked for, in pixels: of BSData and of drawn sheets."""


def part(rng: np.random.Generator, spot: bool) -> NDArray[np.uint8]:
    """A brushed, perforated sheet that begins and is turned at random, perhaps with a spot of 10 to 20
    pixels; larger than SIDE by MARGIN all around."""
    side = SIDE + 2 * MARGIN
    y, x = np.mgrid[:side, :side].astype(np.float32)
    grey = 120 + 8 * np.cos(2 * np.pi * x / side + rng.uniform(0, 7))
    grey += rng.normal(0, 3, (side, 1)) + rng.normal(0, 4, (side, side))
    turned = np.deg2rad(rng.uniform(-1, 1))
    along = x * np.cos(turned) + y * np.sin(turned) + rng.uniform(0, PITCH)
    across = y * np.cos(turned) - x * np.sin(turned) + rng.uniform(0, PITCH)
    middle = np.hypot(along % PITCH - PITCH / 2, across % PITCH - PITCH / 2)
    grey += 35 * np.clip(HOLE - middle, 0, 1)
    if spot:
        size = rng.uniform(10, 20)
        row, column = rng.uniform(MARGIN + 40, side - MARGIN - 40, 2)
        box = np.s_[int(row) - 20 : int(row) + 21, int(column) - 20 : int(column) + 21]
        long, short = np.hypot(y[box] - row, x[box] - column), np.abs(y[box] - row + 0.5 * (x[box] - column))
        grey[box] += rng.choice((-40, 40)) * ((long < size / 2) & (short < size / 3))
    return grey.clip(0, 255).round().astype(np.uint8)


def window(picture: NDArray[np.uint8], moved: int = 0) -> NDArray[np.uint8]:
    """A sheet in the picture, three channels of it."""
    low = MARGIN - moved
    return np.repeat(picture[low : low + SIDE, low : low + SIDE, None], 3, axis=2)


def row(detector: "Detector | TiledDetector", test: list[Sample]) -> dict[str, Any]:
    from invad import evaluate

    metrics = evaluate(detector, test).metrics
    review = metrics["false_alarms"]["review"]
    return {
        "image_auroc": round(metrics["image_auroc"], 4),
        "pixel_aupro": metrics["pixel_aupro"] and round(metrics["pixel_aupro"], 4),
        "good": metrics["n_normal"],
        "defective": metrics["n_anomalous"],
        "false_alarms": review["count"],
        "expected_95": review["expected_count_95"],
        "calibration_n": metrics["calibration_n"],
        "train_seconds": detector.info.fit.seconds,
    }


def samples_of(root: Path, part: str, most: int | None = None) -> list[Sample]:
    found = []
    for folder in sorted((root / part).iterdir()):
        masks = root / "ground_truth" / folder.name
        for path in sorted(folder.iterdir())[:most]:
            mask = masks / f"{path.stem}_mask.png"
            kind = {} if folder.name == "good" else {"defect": folder.name, "mask_path": mask}
            found.append(Sample(path=path, category=root.name, **kind))  # type: ignore[arg-type]
    return found


def bsdata(root: Path, how: str) -> dict[str, Any]:
    """how: whole, or the positions of tiles."""
    from invad import Detector, TiledDetector

    train, test = samples_of(root, "train"), samples_of(root, "test")
    if how == "whole":
        return row(Detector.fit(train, preset="fast", device="cpu"), test)
    size = Image.open(train[0].path).size
    tiling = tiling_for((size[1], size[0]), PITS, each=how == "each")
    tiled = TiledDetector.fit(train, tiling=tiling, preset="fast", device="cpu")
    found = row(tiled, test)
    if how == "shared":
        half = half_a_tile(tiled, (size[1], size[0]))
        good = [read_image(sample.path) for sample in test if not sample.is_anomalous]
        pairs = [(pixels[:, half:], pixels[:, :-half]) for pixels in good]
        found["shift"] = {"pixels": half, "good": shift(tiled, pairs, (0, half))}
    return found


def tiling_for(size_hw: Hw, defect: int, each: bool = False) -> Tiling:
    """As `invad train --preset fast --smallest-defect` chooses it."""
    from invad.fit.tile_choice import choose_tiling
    from invad.model.settings import preset_named

    settings = preset_named("fast")
    tiling = choose_tiling(size_hw, settings, settings.load_backbone(), smallest_defect=defect, each=each)
    assert tiling is not None
    return tiling


def drawn(folder: Path) -> dict[str, Any]:
    from invad import Detector, TiledDetector

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
            Image.fromarray(window(picture)[..., 0]).save(path, compress_level=1)
            defect = "spot" if kind == "spot" else "good"
            samples.setdefault(kind, []).append(Sample(path=path, category="sheet", defect=defect))
    tiling = tiling_for((SIDE, SIDE), SPOTS)
    test = samples["good"] + samples["spot"]
    tiled = TiledDetector.fit(samples["train"], tiling=tiling, preset="fast", device="cpu")
    rows: dict[str, Any] = {"tiled": row(tiled, test)}
    half = half_a_tile(tiled, (SIDE, SIDE))
    rows["shift"] = {
        "pixels": half,
        "spread_of_held_out": round(float(np.std(tiled.calibrations[POOLED].scores)), 3),
        **{
            kind: shift(tiled, [(window(p), window(p, half)) for p in pictures[kind][:most]], (half, half))
            for kind, most in MOVED.items()
        },
    }
    rows["seam"] = seam(tiled, window(pictures["good"][0]))
    rows["whole"] = row(Detector.fit(samples["train"], preset="fast", device="cpu"), test)
    return rows


def half_a_tile(tiled: "TiledDetector", size_hw: Hw) -> int:
    """Half the width of a tile in pixels, of whole cells."""
    cut = tiled.cut(size_hw)
    return cut.along.place(cut.grid_hw[1] // 2, size_hw[1])


def shift(
    tiled: "TiledDetector", pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], pixels: Hw
) -> dict[str, float]:
    """How far scores move with the window, beside their spread. pairs: the second window begins as many
    pixels before the first, down and along.

    inside: of the cells alone that neither window has near its border, so that both have the same content;
    also of what the tiles alone say of them, and the overview alone.
    """
    scores: dict[str, list[list[float]]] = {}
    for pair in pairs:
        cut = tiled.cut(pair[0].shape[:2])
        y, x = (
            round(by * n / side) for by, n, side in zip(pixels, cut.cells_hw, cut.picture_hw, strict=True)
        )
        (h, w), e, top = cut.cells_hw, cut.edge, tiled.tiled.top_cells
        kept = np.s_[e : h - y - e, e : w - x - e], np.s_[y + e : h - e, x + e : w - e]
        read = [maps_of(tiled, one) for one in pair]
        scores.setdefault("whole", []).append([top_mean(maps["both"], top) for maps in read])
        for name, told in (("inside", "both"), ("inside_tiles", "tiles"), ("inside_overview", "overview")):
            own = [top_mean(maps[told][cells], top) for maps, cells in zip(read, kept, strict=True)]
            scores.setdefault(name, []).append(own)
    found: dict[str, float] = {}
    for name, both in scores.items():
        changes, spread = np.abs(np.diff(both)), float(np.std(both, ddof=1))
        found |= {
            f"{name}_mean_change": round(float(changes.mean()), 3),
            f"{name}_largest_change": round(float(changes.max()), 3),
            f"{name}_spread": round(spread, 3),
            f"{name}_share_of_spread": round(float(changes.mean()) / spread, 3),
        }
    return found


def maps_of(tiled: "TiledDetector", pixels: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """The map of a picture, and what it would be by its tiles or its overview alone."""
    cut, own = tiled.cut(pixels.shape[:2]), tiled.tiled
    maps = cut_maps(tiled.inside, own.tiling.seen(pixels), cut)
    nothing = np.full_like(maps[0], -1e6)
    told = {
        "both": maps,
        "tiles": [*maps[:-1], nothing],
        "overview": [*[nothing] * len(cut), maps[-1]],
    }
    return {name: picture_score(cut, some, own.places, own.top_cells)[1] for name, some in told.items()}


def chance(cells: int, anew: float, highest: int = 3, draws: int = 1500) -> dict[str, Any]:
    """What moving costs where nothing but chance tells pictures apart: the change of the mean of the highest
    of independent normal numbers when a share of them is drawn anew, beside its spread."""
    rng = np.random.default_rng(0)
    kept = round(cells * (1 - anew))
    scores = np.empty((draws, 2))
    for own in scores:
        same = rng.normal(size=kept)
        own[:] = [top_mean(np.append(same, rng.normal(size=cells - kept)), highest) for _ in range(2)]
    share = np.abs(np.diff(scores)).mean() / scores.std(ddof=1)
    return {"cells": cells, "drawn_anew": round(anew, 3), "share_of_spread": round(float(share), 3)}


def seam(tiled: "TiledDetector", picture: NDArray[np.uint8]) -> dict[str, Any]:
    """The same spot in the middle of a tile and in the middle of the overlap of two, in many columns."""
    cut = tiled.cut((SIDE, SIDE))
    cell = SIDE / cut.cells_hw[1]
    places: dict[str, list[float]] = {"core": [], "seam": []}
    for origin, after in pairwise(cut.along.origins):
        shared = origin + cut.grid_hw[1] - after
        places["core"].append((origin + cut.grid_hw[1] / 2) * cell)
        places["seam"].append((after + shared / 2) * cell)
    scores = {}
    for kind, columns in places.items():
        found = []
        for column in columns:
            spoilt = picture.copy()
            top, left = SIDE // 2 - 8, int(column) - 8
            spoilt[top : top + 16, left : left + 16] = 30
            found.append(tiled.reading(spoilt)[0])
        scores[kind] = round(float(np.mean(found)), 3)
    return {**scores, "difference": round(abs(scores["seam"] / scores["core"] - 1), 4)}


def half_scale_bundle(folder: Path) -> Path:
    """OpenVINO's, for any number of tiles, of `fast` for defects of two of the network's cells."""
    from invad import TiledDetector
    from invad.export import ExportConfig, export

    rng, samples = np.random.default_rng(1), []
    for number in range(NOISE):
        path = folder / f"{number}.bmp"
        Image.fromarray(rng.integers(90, 150, LARGE, np.uint8)).save(path)
        samples.append(Sample(path=path, category="noise"))
    tiling = tiling_for(LARGE, HALF_SCALE)
    detector = TiledDetector.fit(samples, tiling=tiling, preset="fast", device="cpu")
    export(detector, folder / "bundle", ExportConfig(format="openvino", batch=None))
    return folder / "bundle"


def opened(bundle: str) -> TiledPredictor:
    from invad import runtime

    detector = runtime.load(bundle, "openvino", threads=2, prove=False)
    assert isinstance(detector, TiledPredictor)
    return detector


def judged(bundle: str, batch: int) -> dict[str, Any]:
    """In a process of its own: seconds a picture, its peak memory, and the engine alone on as many tiles."""
    import invad.runtime.tiled

    detector = opened(bundle)
    invad.runtime.tiled.BATCH_CELLS = batch * math.prod(detector.tiled.grid_hw)
    pixels = np.random.default_rng(0).integers(90, 150, (*LARGE, 3), np.uint8)
    judging, cpu = [], []
    for _ in range(2):
        started, of_cpu = time.perf_counter(), time.process_time()
        detector.judge([pixels])
        judging.append(time.perf_counter() - started)
        cpu.append(time.process_time() - of_cpu)
    memory = peak_memory_mb()
    cut = detector.cut(LARGE)
    tile = next(iter(cut.tiles())).of(pixels)
    info, engine = detector.info, detector.engine
    given = np.stack([tile] * batch).astype(np.float32)
    number = np.full(batch, list(info.calibrations).index(TILE), np.int64)
    limits = np.array([0, 255], np.float32)
    engine.run(given, limits, number)
    alone_s, alone_cpu = [], []
    for _ in range(2):
        started, of_cpu = time.perf_counter(), time.process_time()
        for _ in range(len(cut) // batch):
            engine.run(given, limits, number)
        ran = len(cut) // batch * batch
        alone_s.append((time.perf_counter() - started) / ran)
        alone_cpu.append((time.process_time() - of_cpu) / ran)
    return {
        "batch": batch,
        "tiles": len(cut),
        "tile_px": detector.tiled.tiling.tile_px,
        "cells_of_a_tile": math.prod(cut.grid_hw),
        "seconds_judging": round(min(judging), 3),
        "cpu_seconds_judging": round(min(cpu), 3),
        "peak_memory_mb": memory,
        "engine_tiles_per_second": round(1 / min(alone_s), 1),
        "share_of_engine": round(min(alone_s) * (len(cut) + 1) / min(judging), 3),
        "share_of_engine_by_cpu_seconds": round(min(alone_cpu) * (len(cut) + 1) / min(cpu), 3),
        "load": round(os.getloadavg()[0], 1),
    }


def sixty_megapixels(bundle: str) -> dict[str, Any]:
    """As `judged`, of a picture of 7746 x 7746 pixels that is there already."""
    detector = opened(bundle)
    pixels = np.full((7746, 7746, 3), 120, np.uint8)
    pixels[::7, ::5] = 140
    started = time.perf_counter()
    detector.judge([pixels])
    return {
        "pixels": pixels.shape[0] * pixels.shape[1],
        "tiles": len(detector.cut(pixels.shape[:2])),
        "seconds_judging": round(time.perf_counter() - started, 2),
        "peak_memory_mb": peak_memory_mb(),
        "of_these_the_picture_mb": round(pixels.nbytes / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("bsdata_whole", "bsdata_shared", "bsdata_each", "drawn", "chance", "speed")
    parser.add_argument("what", choices=kinds)
    parser.add_argument("--data", type=Path, help="folder of BSData as MVTec AD lies")
    parser.add_argument("--output", type=Path, required=True, help="JSON, in which one part is replaced")
    given = parser.parse_args()
    made: dict[str, Any] = {"machine": facts(), "load_before": round(os.getloadavg()[0], 1)}
    with tempfile.TemporaryDirectory() as folder:
        if given.what.startswith("bsdata"):
            made |= bsdata(given.data, given.what.removeprefix("bsdata_"))
        elif given.what == "drawn":
            made |= drawn(Path(folder))
        elif given.what == "chance":
            # Half a tile is 19 and 14 cells: two edges of drawn sheets come in anew, one of screws.
            made["rows"] = [chance(98 * 98, 1 - (79 / 98) ** 2), chance(56 * 28, 14 / 56)]
        else:
            bundle = str(half_scale_bundle(Path(folder)))
            made["rows"] = [alone(judged, bundle, batch) for batch in (1, 2)]
            made["sixty_megapixels"] = alone(sixty_megapixels, bundle)
    print(json.dumps(made, indent=1))
    before = json.loads(given.output.read_text()) if given.output.exists() else {}
    write_atomically(given.output, (json.dumps({**before, given.what: made}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
