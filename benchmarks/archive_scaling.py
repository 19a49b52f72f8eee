"""Images per second of `score_archive` with one worker and with two, one thread each.

    python benchmarks/archive_scaling.py MODEL FOLDER --output benchmarks/results/archive_scaling.json

In turns on one Ray that stays up, after a run that warms the file cache; medians of the repetitions. The time
counts from the call to the finished manifest, so starting the workers and loading the model are in it.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import date
from pathlib import Path

import ray

from invad.archive import score_archive
from invad.archive.sources import list_source


def seconds(model: Path, folder: Path, workers: int, block: int) -> float:
    with tempfile.TemporaryDirectory() as output:
        started = time.perf_counter()
        score_archive(model, folder, output, workers=workers, block=block)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--block", type=int, default=16, help="images a block")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init("local", include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    images = len(list_source(args.folder))
    seconds(args.model, args.folder, 1, args.block)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(args.repeats):
        for workers, taken in times.items():
            taken.append(seconds(args.model, args.folder, workers, args.block))
    rows = [
        {
            "workers": workers,
            "images": images,
            "seconds": [round(t, 2) for t in taken],
            "images_per_second": round(images / statistics.median(taken), 2),
        }
        for workers, taken in times.items()
    ]
    ratio = round(rows[1]["images_per_second"] / rows[0]["images_per_second"], 2)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    document = {"date": date.today().isoformat(), "machine": machine, "ratio": ratio, "rows": rows}
    args.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
