"""Training throughput of two processes against one, a thread each.

    python benchmarks/scaling.py --output benchmarks/results/scaling.json

Trains the preset's network on made-up features, in turns: one process, two by torchrun, and two that know
nothing of each other (what the machine has to give), three times over. Run it on an idle machine with at
least two cores: `load` says how busy it was.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from invad.diffusion.denoiser import build_denoiser
from invad.fit.distributed import workers
from invad.fit.launch import launched
from invad.fit.training import train_denoiser
from invad.model.settings import preset_named

CHANNELS, GRID, IMAGES = 256, (16, 16), 64
WARM = 5
ROUNDS = 3


def measure(preset: str, steps: int, output: Path) -> None:
    """Images a second of a training, in each of the processes it was started in; the leading one writes."""
    torch.set_num_threads(1)
    settings = preset_named(preset)
    times: list[float] = []
    x = np.random.default_rng(0).normal(size=(IMAGES, CHANNELS, *GRID)).astype(np.float32)
    with workers("cpu") as team:
        config = type(settings.train)(steps=WARM + steps, batch=settings.train.batch)
        train_denoiser(
            build_denoiser(settings.denoiser, CHANNELS, GRID),
            x,
            np.arange(IMAGES),
            config,
            device=torch.device("cpu"),
            on_step=lambda step, loss: times.append(time.perf_counter()),
            workers=team,
        )
        if team.rank == 0:
            output.write_text(str(steps * config.batch / (times[-1] - times[WARM - 1])))


def throughput(processes: int, preset: str, steps: int) -> float:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "rate"
        command = [
            sys.executable,
            *(launch if processes > 1 else []),
            __file__,
            "--measure",
            "--preset",
            preset,
        ]
        subprocess.run(
            [*command, "--steps", str(steps), "--output", str(output)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return float(output.read_text())


def apart(preset: str, steps: int) -> float:
    """Two trainings at once that share nothing: what this machine can give two processes at most."""
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda _: throughput(1, preset, steps), range(2)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--preset", default="dit")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure or launched() > 1:
        measure(args.preset, args.steps, args.output)
        return
    load = os.getloadavg()[0]
    run = {"1": partial(throughput, 1), "2": partial(throughput, 2), "2 apart": apart}
    rates: dict[str, list[float]] = {name: [] for name in run}
    for _ in range(ROUNDS):
        for name, found in rates.items():
            found.append(run[name](args.preset, args.steps))
    one, two, limit = (statistics.median(found) for found in rates.values())
    document: dict[str, Any] = {
        "what": (__doc__ or "").strip().splitlines()[0],
        "command": "python benchmarks/scaling.py --output benchmarks/results/scaling.json",
        "date": date.today().isoformat(),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "load": round(load, 2)},
        "torch": torch.__version__,
        "preset": args.preset,
        "steps": args.steps,
        "images_per_second": {n: [round(rate, 2) for rate in found] for n, found in rates.items()},
        "times_one_process": round(two / one, 3),
        "times_one_process_apart": round(limit / one, 3),
        "goal": 1.6,
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
