"""Time and peak memory of listing a large table of images.

    python benchmarks/manifest_speed.py --output benchmarks/results/manifest_speed.json

Makes empty files in folders of 1,000 and tables that name them, then lists each table in a process of its
own, so that its peak memory is its own. Target: 100,000 images in under 5 s and 500 MB. The time includes
the look whether every file exists and, with Parquet, the import of pyarrow. Needs a POSIX system (module
`resource`).
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def measure(table: Path) -> dict[str, Any]:
    from invad.data.datasets import load_dataset

    start, start_cpu = time.perf_counter(), time.process_time()
    dataset = load_dataset(table)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak,
        "listed": len(dataset.train) + len(dataset.test),
    }


def in_new_process(table: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", str(table)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def make(folder: Path, images: int) -> None:
    """Every tenth image is a defect with a mask; half of the good ones are for training."""
    lines = ["image_path,split,label,mask_path,category,sample_id"]
    for i in range(images):
        name = f"cam{i // 1000:03}/part_{i:06}.png"
        if i % 1000 == 0:
            (folder / name).parent.mkdir()
        (folder / name).touch()
        is_bad, mask = i % 10 == 9, f"{name[:-4]}_mask.png"
        if is_bad:
            (folder / mask).touch()
        split = "test" if is_bad or i % 2 else "train"
        lines.append(f"{name},{split},{'dent' if is_bad else 'good'},{mask if is_bad else ''},part,s{i // 5}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")


def summary(images: int, repeats: int) -> dict[str, Any]:
    from invad.data.datasets import load_dataset
    from invad.data.layouts.manifest import write_manifest

    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        make(folder, images)
        write_manifest(load_dataset(folder / "list.csv"), folder / "list.parquet")
        for form in ("csv", "parquet"):
            runs = [in_new_process(folder / f"list.{form}") for _ in range(repeats)]
            assert {run["listed"] for run in runs} == {images}
            rows[form] = {
                "seconds_of_repeats": [round(run["seconds"], 2) for run in runs],
                "cpu_seconds_of_repeats": [round(run["cpu_seconds"], 2) for run in runs],
                "peak_mb": round(max(run["peak_mb"] for run in runs)),
            }
    return {
        "benchmark": "invad.data.datasets.load_dataset of a table",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "images": images,
        **rows,
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000, help="rows of the table (default 100000)")
    parser.add_argument("--repeats", type=int, default=3, help="processes to run (default 3)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    text = json.dumps(summary(arguments.images, arguments.repeats), indent=2) + "\n"
    print(text, end="")
    if arguments.output is not None:
        partial = arguments.output.with_name(arguments.output.name + ".partial")
        partial.write_text(text, encoding="utf-8")
        partial.replace(arguments.output)


if __name__ == "__main__":
    main()
