"""How well a network separates after so many passes, trained on whole images or on cells of many.

    python benchmarks/passes.py DATA/kolektor_sdd DATA/magnetic_tile --cache features \
        --output benchmarks/results/passes.json

One network is trained for each set, number of passes, way of drawing batches and seed, beside the known
cells of `standard`, on all normal images but the held-out share. What is read: the network at single levels,
at 200, 300 and 400 together, the banks, and both together, by the mean of their maps and by their scores
combined as in `standard`. Rows already in the output are kept.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import masks_of
from torch import Tensor

from invad.backbones.registry import load_backbone
from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.layouts.base import Dataset
from invad.data.preprocess import resize_map
from invad.diffusion.denoiser import SIZES
from invad.diffusion.readings import ReadingConfig
from invad.evaluation.machine import facts
from invad.fit.fit import train_apart
from invad.fit.run import Run
from invad.fit.training import PRECISIONS, Execution
from invad.metrics.exact import image_metrics, pixel_metrics
from invad.model.reading import Model
from invad.model.settings import DRAWN, Preset, preset_named
from invad.scoring.typicality import (
    ScoreRule,
    fit_position_stats,
    fit_score_stats,
    judge,
    predictor_scores,
)

STANDARD = Preset()
SHARES = preset_named("standard").top_fractions or ()
"""Of the highest cells in the score of a bank: on the grid, on the fine one."""
OPTIONS = ("passes", "draw", "seeds", "denoiser", "lr", "precision")
READ_AT = (50, 100, 200, 300, 400)

OWN = tuple(READ_AT.index(t) for t in STANDARD.reading.timesteps)
BANKS = (len(READ_AT), len(READ_AT) + 1)
READINGS: dict[str, tuple[tuple[int, ...], ScoreRule]] = {
    **{f"network at {t}": ((i,), ScoreRule.of((1,), floor=STANDARD.floor)) for i, t in enumerate(READ_AT)},
    "network": (OWN, ScoreRule.of((len(OWN),), floor=STANDARD.floor)),
    "banks": (BANKS, ScoreRule.of((1, 1), floor=STANDARD.floor, top_fractions=SHARES)),
    "network and banks": (OWN + BANKS, ScoreRule.of((len(OWN), 1, 1), floor=STANDARD.floor)),
    "network and banks, scores combined": (
        OWN + BANKS,
        ScoreRule.of((len(OWN), 1, 1), floor=STANDARD.floor, top_fractions=(0.02, *SHARES)),
    ),
    **{
        f"network at {' and '.join(map(str, levels))} and banks, scores combined": (
            (*map(READ_AT.index, levels), *BANKS),
            ScoreRule.of((len(levels), 1, 1), floor=STANDARD.floor, top_fractions=(0.02, *SHARES)),
        )
        for levels in ((50,), (100,), (100, 200))
    },
}
"""Which norm maps are read, and how: of the network at READ_AT, of the bank on the grid, of the fine one."""


def accuracy(held_NLhw: Tensor, maps_NLhw: Tensor, model: Model, dataset: Dataset) -> dict[str, Any]:
    """Image AUROC and AUPRO of each reading; the latter None where no defect has a mask."""
    labels = np.array([s.is_anomalous for s in dataset.test])
    hw = model.extract.preprocess.input_hw
    masks = masks_of(dataset, hw)
    made = {}
    for name, (chosen, rule) in READINGS.items():
        held = held_NLhw[:, list(chosen)]
        stats = fit_position_stats(held)
        if rule.top_fractions is not None:
            stats = replace(stats, scores=fit_score_stats(predictor_scores(held, stats, rule)))
        scores, map_Nhw = judge(maps_NLhw[:, list(chosen)], stats, rule)
        auroc = image_metrics(scores.double().numpy(), labels)["image_auroc"]
        found: dict[str, Any] = {"image_auroc": auroc, "aupro": None}
        if masks:
            resized = [resize_map(map_Nhw[i].numpy().astype(np.float32), hw) for i in masks]
            found["aupro"] = pixel_metrics(resized, list(masks.values()))["pixel_aupro"]
        made[name] = {key: value and round(value, 4) for key, value in found.items()}
    return made


def run(folder: Path, preset: Preset, how: Run, tested: dict[Path, list[Tensor]]) -> dict[str, Any]:
    """A row. tested: the features of the test images of each folder, added where they are not there yet."""
    dataset = load_dataset(folder)
    train = preset.train
    settings = replace(preset, reading=ReadingConfig(timesteps=READ_AT))
    net = load_backbone(settings.backbone, strides=settings.strides, image_size=settings.area_side).freeze()
    started = time.process_time()
    model, held = train_apart(dataset.train, settings, net, run=how)
    seconds = time.process_time() - started
    held_maps = torch.stack([model.read(torch.from_numpy(z[None])) for z in held])
    if folder not in tested:
        tested[folder] = [model.extract(read_image(s.path)) for s in dataset.test]
    maps = torch.stack([model.read(z) for z in tested[folder]])
    return {
        "set": folder.name,
        "denoiser": next(name for name, size in SIZES.items() if size == preset.denoiser),
        "lr": train.lr,
        "precision": how.execution.precision,
        "draw": train.draw,
        "passes": train.epochs,
        "seed": train.seed,
        "steps": train.steps_for(len(dataset.train) - len(held)),
        "cpu_seconds": round(seconds),
        "readings": accuracy(held_maps, maps, model, dataset),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--passes", default="5,25,50,100")
    parser.add_argument("--draw", default=",".join(DRAWN))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--denoiser", default="mlp-s", choices=SIZES)
    parser.add_argument("--lr", type=float, default=STANDARD.train.lr, help="peak learning rate")
    parser.add_argument("--precision", default="fp32", choices=PRECISIONS)
    parser.add_argument("--cache", type=Path, help="folder that keeps the features")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    key = ("set", "denoiser", "passes", "draw", "seed")
    done = {tuple({"denoiser": "mlp-s", **row}[k] for k in key) for row in rows}  # older rows name none
    how = Run(cache=args.cache, execution=Execution(precision=args.precision))
    wanted = product(
        args.data, map(int, args.passes.split(",")), args.draw.split(","), map(int, args.seeds.split(","))
    )
    tested: dict[Path, list[Tensor]] = {}
    for folder, passes, draw, seed in wanted:
        if (folder.name, args.denoiser, passes, draw, seed) in done:
            continue
        train = replace(STANDARD.train, epochs=passes, min_steps=1, lr=args.lr, draw=draw, seed=seed)
        preset = replace(STANDARD, denoiser=SIZES[args.denoiser], train=train)
        rows.append(run(folder, preset, how, tested) | {"machine": facts()})
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "machine"}), flush=True)
        asked = " ".join(f"--{name} {getattr(args, name)}" for name in OPTIONS)
        command = f"python benchmarks/passes.py {' '.join(f.name for f in args.data)} {asked}"
        document = {"what": __doc__.splitlines()[0], "command": command, "rows": rows}
        args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
