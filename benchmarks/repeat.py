"""How closely a training repeats: the same seed again, with other threads, and another seed beside it.

    python benchmarks/repeat.py DATA --output benchmarks/results/repeat.json

DATA: a folder in MVTec layout. The largest difference of any test score is given relative to the spread
(standard deviation) of the scores, so that 0.01 means "a hundredth of what images differ by".
"""

import argparse
import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import invad
from invad.detector.detector import Detector
from invad.evaluation.evaluate import evaluate
from invad.model.settings import preset_named

RUNS = {
    "first": {"seed": 0, "threads": 2},
    "again": {"seed": 0, "threads": 2},
    "one thread": {"seed": 0, "threads": 1},
    "another seed": {"seed": 1, "threads": 2},
}


def run(data: Path, seed: int, threads: int) -> tuple[Any, float]:
    """Scores of the test images and their AUROC."""
    torch.set_num_threads(threads)
    preset = preset_named("standard")
    detector = Detector.fit(data, preset=replace(preset, train=replace(preset.train, seed=seed)))
    evaluation = evaluate(detector, data)
    return np.array([s.score for s in evaluation.scored]), evaluation.metrics["image_auroc"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows: dict[str, Any] = {}
    reference = None
    for name, options in RUNS.items():
        scores, auroc = run(args.data, **options)
        reference = scores if reference is None else reference
        difference = float(np.abs(scores - reference).max() / reference.std())
        rows[name] = {**options, "image_auroc": auroc, "largest_score_difference": difference}
        print(name, rows[name], flush=True)
    document = {
        "what": __doc__.strip().splitlines()[0],
        "data": args.data.name,
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count()},
        "versions": {"invad": invad.__version__, "torch": torch.__version__},
        "runs": rows,
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
