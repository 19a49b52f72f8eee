"""How well a network separates after so many passes, trained on whole images or on cells of many.

    python benchmarks/passes.py DATA/kolektor_sdd DATA/magnetic_tile --cache features \
        --output benchmarks/results/passes.json

One network is trained for each set, number of passes, way of drawing batches and seed, with the settings of
`standard`, on all normal images but the held-out share. What is read: the network at single levels, at those
of the preset, and the preset as a whole, with its banks. Rows already in the output are kept.
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
from invad.diffusion.readings import ReadingConfig
from invad.evaluation.machine import facts
from invad.fit.fit import train_apart
from invad.fit.run import Run
from invad.metrics.exact import image_metrics, pixel_metrics
from invad.model.reading import Model
from invad.model.settings import DRAWN, Preset
from invad.scoring.typicality import fit_position_stats, image_scores, typicality_map

STANDARD = Preset()
READ_AT = (100, 200, 300, 400)

OWN = [READ_AT.index(t) for t in STANDARD.reading.timesteps]
BANKS = (len(READ_AT), len(READ_AT) + 1)
WEIGHTS: dict[str, dict[int, float]] = {
    **{f"network at {t}": {i: 1.0} for i, t in enumerate(READ_AT)},
    "network": dict.fromkeys(OWN, 1 / len(OWN)),
    "network and banks": dict.fromkeys(OWN, 1 / 3 / len(OWN)) | dict.fromkeys(BANKS, 1 / 3),
}
"""Weights of the norm maps: the network at READ_AT, the bank on the grid, the bank on the fine one."""


def accuracy(held_NLhw: Tensor, maps_NLhw: Tensor, model: Model, dataset: Dataset) -> dict[str, Any]:
    """Image AUROC and AUPRO of each reading; the latter None where no defect has a mask."""
    labels = np.array([s.is_anomalous for s in dataset.test])
    hw = model.extract.preprocess.input_hw
    masks = masks_of(dataset, hw)
    made = {}
    for name, weights in WEIGHTS.items():
        chosen, shares = list(weights), list(weights.values())
        stats = fit_position_stats(held_NLhw[:, chosen])
        map_Nhw = typicality_map(maps_NLhw[:, chosen], stats, shares, STANDARD.floor)
        scores = image_scores(map_Nhw, STANDARD.top_fraction).double().numpy()
        found: dict[str, Any] = {"image_auroc": image_metrics(scores, labels)["image_auroc"], "aupro": None}
        if masks:
            resized = [resize_map(map_Nhw[i].numpy().astype(np.float32), hw) for i in masks]
            found["aupro"] = pixel_metrics(resized, list(masks.values()))["pixel_aupro"]
        made[name] = {key: value and round(value, 4) for key, value in found.items()}
    return made


def run(
    folder: Path, passes: int, draw: str, seed: int, cache: Path | None, tested: dict[Path, list[Tensor]]
) -> dict[str, Any]:
    """A row. tested: the features of the test images of each folder, added where they are not there yet."""
    dataset = load_dataset(folder)
    train = replace(STANDARD.train, epochs=passes, min_steps=1, draw=draw, seed=seed)
    settings = replace(STANDARD, train=train, reading=ReadingConfig(timesteps=READ_AT))
    net = load_backbone(settings.backbone, strides=settings.strides, image_size=settings.area_side).freeze()
    started = time.process_time()
    model, held = train_apart(dataset.train, settings, net, run=Run(cache=cache))
    seconds = time.process_time() - started
    held_maps = torch.stack([model.read(torch.from_numpy(z[None])) for z in held])
    if folder not in tested:
        tested[folder] = [model.extract(read_image(s.path)) for s in dataset.test]
    maps = torch.stack([model.read(z) for z in tested[folder]])
    return {
        "set": folder.name,
        "draw": draw,
        "passes": passes,
        "seed": seed,
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
    parser.add_argument("--cache", type=Path, help="folder that keeps the features")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    key = ("set", "passes", "draw", "seed")
    done = {tuple(row[k] for k in key) for row in rows}
    wanted = product(
        args.data, map(int, args.passes.split(",")), args.draw.split(","), map(int, args.seeds.split(","))
    )
    tested: dict[Path, list[Tensor]] = {}
    for folder, passes, draw, seed in wanted:
        if (folder.name, passes, draw, seed) in done:
            continue
        rows.append(run(folder, passes, draw, seed, args.cache, tested) | {"machine": facts()})
        print(json.dumps({k: v for k, v in rows[-1].items() if k != "machine"}), flush=True)
        command = "python benchmarks/passes.py " + " ".join(str(f.name) for f in args.data)
        document = {"what": __doc__.splitlines()[0], "command": command, "rows": rows}
        args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
