"""How long the command line takes from the start of its process: the help, and one image from a bundle.

    invad train DATA --preset fast --steps 40 --output fast
    invad export fast --format onnx --output fast-onnx
    invad export fast --format openvino --output fast-openvino
    python benchmarks/startup.py IMAGE fast-onnx fast-openvino --output benchmarks/results/startup.json

Commands in turns, once uncounted, which also fills OpenVINO's cache of compiled graphs, then `--runs` times.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

from invad.evaluation.speed import machine


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    invad = str(Path(sys.executable).with_name("invad"))
    commands = {"invad --help": [invad, "--help"]}
    for bundle in args.bundles:
        commands[f"invad predict {bundle.name} IMAGE"] = [invad, "predict", str(bundle), str(args.image)]
    times: dict[str, list[float]] = {name: [] for name in commands}
    about = machine()
    for number in range(args.runs + 1):
        for name, command in commands.items():
            took = seconds(command)
            if number:
                times[name].append(round(took, 3))
    document = {
        "what": __doc__.strip().splitlines()[0],
        "date": date.today().isoformat(),
        "machine": about,
        "seconds": {name: {"median": statistics.median(all_), "all": all_} for name, all_ in times.items()},
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")
    for name, all_ in times.items():
        print(f"{statistics.median(all_):.2f} s  {name}")


if __name__ == "__main__":
    main()
