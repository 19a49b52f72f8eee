"""The time of one image in several bundles of one model, in turns in one process, as a share of the first's.

    python benchmarks/bundles_in_turns.py fast-onnx fast-onnx-int8 --output ROWS.json

The bundles take one size of images (`invad export --size 256x256`), or any, and then --size says which. Each
turn runs every bundle and keeps its fastest run; a ratio is taken inside a turn, and its median and quartiles
over the turns are written.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from invad import runtime
from invad.evaluation.machine import facts


def milliseconds(detector: runtime.ExportedDetector, pixels: Any, runs: int) -> float:
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        detector.judge([pixels])
        best = min(best, time.perf_counter() - start)
    return 1000 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--runs", type=int, default=5, help="in a turn, of which the fastest counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("H", "W"))
    parser.add_argument("--output", type=Path, required=True, help="rows are added to what it holds")
    args = parser.parse_args()
    detectors = [runtime.load(bundle, threads=args.threads) for bundle in args.bundles]
    size = detectors[0].info.size_hw or tuple(args.size)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    taken = np.empty((args.turns + 1, len(detectors)))
    for turn in range(args.turns + 1):
        for i in range(len(detectors))[:: -1 if turn % 2 else 1]:
            taken[turn, i] = milliseconds(detectors[i], pixels, args.runs)
    taken = taken[1:]  # the first turn warms up
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    for i, (bundle, detector) in enumerate(zip(args.bundles, detectors, strict=True)):
        ratio = np.quantile(taken[:, i] / taken[:, 0], [0.25, 0.5, 0.75])
        row = {
            "bundle": bundle.name,
            "size": list(size),
            "preset": detector.info.preset,
            "engine": detector.engine.name,
        }
        figures = {"ms_median": round(float(np.median(taken[:, i])), 2), "ratio": ratio.round(3).tolist()}
        rows.append({**row, "precision": detector.info.precision, **figures})
        print(rows[-1], flush=True)
    document = {"machine": facts(), "threads": args.threads, "rows": rows}
    args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
