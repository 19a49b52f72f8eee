"""Time and peak memory of the four pixel metrics on made-up maps.

    python benchmarks/metrics_speed.py --output benchmarks/results/metrics_speed.json

Target: 500 images of 256 x 256 in under 20 s on 2 cores and under 2 GB. Each repeat is a fresh process, so
that its peak memory is its own; the peak includes the interpreter, numpy, scipy, the maps and the masks.
Needs a POSIX system (module `resource`). invad must be importable.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# numpy is imported by the measured process only: a child may inherit the peak memory of its parent.


def peak_mb() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(images: int, size: int) -> dict[str, Any]:
    """Score maps of continuous noise (no ties: the longest curve); every second image has two defects."""
    import numpy as np

    from invad.metrics.exact import pixel_metrics

    rng = np.random.default_rng(0)
    maps = [rng.standard_normal((size, size), dtype=np.float32) for _ in range(images)]
    masks = [np.zeros((size, size), dtype=bool) for _ in range(images)]
    side = size // 8
    for map_HW, mask_HW in zip(maps[::2], masks[::2], strict=True):
        for y, x in rng.integers(0, size - side, (2, 2)):
            mask_HW[y : y + side, x : x + side] = True
        map_HW[mask_HW] += 2
    before = peak_mb()
    start = time.perf_counter()
    metrics = pixel_metrics(maps, masks)
    return {
        "seconds": time.perf_counter() - start,
        "peak_mb": peak_mb(),
        "peak_mb_before": before,
        "anomalous_pixels": sum(int(mask.sum()) for mask in masks),
        "metrics": metrics,
        "numpy": np.__version__,
    }


def measure_in_new_process(images: int, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", "--images", str(images), "--size", str(size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def summary(images: int, size: int, repeats: int) -> dict[str, Any]:
    runs = [measure_in_new_process(images, size) for _ in range(repeats)]
    seconds = [round(run["seconds"], 2) for run in runs]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "benchmark": "invad.metrics.exact.pixel_metrics",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "images": images,
        "size": size,
        "anomalous_pixels": runs[0]["anomalous_pixels"],
        "seconds": statistics.median(seconds),
        "seconds_of_repeats": seconds,
        "peak_mb": round(max(run["peak_mb"] for run in runs)),
        "peak_mb_before": round(max(run["peak_mb_before"] for run in runs)),
        "metrics": runs[0]["metrics"],
        "machine": {
            "cores": allowed,
            "architecture": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
            "numpy": runs[0]["numpy"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500, help="number of maps (default 500)")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default 256)")
    parser.add_argument("--repeats", type=int, default=3, help="processes to run (default 3)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.images, arguments.size)))
        return
    text = json.dumps(summary(arguments.images, arguments.size, arguments.repeats), indent=2) + "\n"
    print(text, end="")
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        partial = arguments.output.with_name(arguments.output.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(arguments.output)


if __name__ == "__main__":
    main()
