"""Processor time of `invad calibrate` without pictures, from the start of its process, in turns with another.

    invad train bsdata --output screws --preset fast --smallest-defect 16px
    python benchmarks/recalibrating.py screws --ignore 400,150,600,300 --min-area 1000 \\
        --before OTHER/src --output benchmarks/results/recalibrating.json

MODEL is copied for each run. `--ignore`: corners of a box in pixels of the pictures, which have the size that
the model keeps. `--before`: the sources of another version, run in turns with these; none by default. Seconds
are those of the processor, user and system, of one thread; `import torch` is what of them no change of
invad can save. Runs are in turns, the first one uncounted.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from invad.detector.tiled import TiledDetector
from invad.evaluation.speed import machine

HERE = Path(__file__).resolve().parents[1] / "src"


def processor_seconds(command: list[str], sources: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--ignore", required=True)
    parser.add_argument("--min-area", required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    kept = TiledDetector.load(args.model).kept
    if kept is None:
        parser.error(f"{args.model}: keeps no maps of tiles")
    height, width = kept.sizes[0]
    left, top, right, bottom = (float(one) for one in args.ignore.split(","))
    box = [[left, top], [right, top], [right, bottom], [left, bottom]]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        region, copy = Path(scratch) / "region.json", Path(scratch) / "model"
        region.write_text(json.dumps({"frame": [width, height], "ignore": [box]}))
        asked = {
            "--roi": ["--roi", str(region)],
            "--min-area": ["--min-area", args.min_area],
            "--roi --min-area": ["--roi", str(region), "--min-area", args.min_area],
        }
        sources = {"after": HERE} | ({} if args.before is None else {"before": args.before.resolve()})
        for run in range(args.runs + 1):
            rows = {"import torch": processor_seconds([sys.executable, "-c", "import torch"], HERE)}
            for name, options in asked.items():
                for when, source in sources.items():
                    shutil.rmtree(copy, ignore_errors=True)
                    shutil.copytree(args.model, copy)
                    command = [sys.executable, "-m", "invad", "calibrate", str(copy), *options]
                    rows[f"{name}, {when}"] = processor_seconds(command, source)
            if run:
                for name, seconds in rows.items():
                    found.setdefault(name, []).append(round(seconds, 2))
            print(rows, file=sys.stderr, flush=True)
    document = {
        "what": (__doc__ or "").splitlines()[0],
        "date": date.today().isoformat(),
        "machine": machine(),
        "pictures": len(kept.sizes),
        "maps": len(kept.offsets_TLhw),
        "cpu_seconds": {
            name: {"median": statistics.median(all_), "all": all_} for name, all_ in found.items()
        },
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
