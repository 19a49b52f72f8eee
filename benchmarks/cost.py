"""What a detector costs: training time, peak memory, milliseconds an image, in a process of its own.

    python benchmarks/cost.py DATA --output benchmarks/results/cost.json

DATA: a folder as `invad train` takes it. Each preset is trained by the command line, whose peak memory is
that of the process. Then both models score one 256 x 256 image, in turns, from pixels to decision and map.
Run it on an idle machine: `load` says how busy it was.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import invad
from invad.detector.detector import Detector

PRESETS = ("standard", "fast")
ROUNDS = 60


def train(data: Path, preset: str, output: Path) -> dict[str, Any]:
    command = ["-m", "invad", "train", str(data), "--preset", preset, "--output", str(output), "--json", "-"]
    process = subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    said = json.loads(process.stdout)
    return {
        "normals": sum(said["normals"].values()),
        "folds": said["folds"],
        "train_seconds": said["train_seconds"],
        # Of the largest child so far: the second training only shows when it takes more.
        "peak_memory_mb_so_far": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "model_mb": round(sum(f.stat().st_size for f in output.iterdir()) / 2**20, 1),
    }


def latencies(detectors: dict[str, Detector]) -> dict[str, dict[str, float]]:
    """Milliseconds, the detectors in turns, so that a slow moment meets all of them."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    times: dict[str, list[float]] = {name: [] for name in detectors}
    for _ in range(ROUNDS + 5):
        for name, detector in detectors.items():
            started = time.perf_counter()
            detector.predict(image)
            times[name].append(1000 * (time.perf_counter() - started))
    made = {}
    for name, values in times.items():
        cuts = statistics.quantiles(values[5:], n=20)
        made[name] = {"p25": cuts[4], "median": cuts[9], "p75": cuts[14], "p95": cuts[18]}
    return {name: {k: round(v, 1) for k, v in row.items()} for name, row in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        rows = {preset: train(args.data, preset, Path(folder) / preset) for preset in PRESETS}
        detectors = {preset: Detector.load(Path(folder) / preset) for preset in PRESETS}
        for preset, row in latencies(detectors).items():
            rows[preset]["milliseconds"] = row
    document = {
        "what": __doc__.strip().splitlines()[0],
        "data": args.data.name,
        "date": date.today().isoformat(),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "load": load},
        "threads": torch.get_num_threads(),
        "versions": {"invad": invad.__version__, "torch": torch.__version__},
        "presets": rows,
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
