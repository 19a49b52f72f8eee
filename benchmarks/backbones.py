"""Backbones, alone and side by side, with everything else of `standard`: the closed forms on their features.

    python benchmarks/backbones.py DATA/* --backbones invad-s,efficientnet-lite2,invad-s+efficientnet-lite2 \
        --seeds 0 --output benchmarks/results/backbones.json
    python benchmarks/backbones.py DATA/* --patchcore --output benchmarks/results/patchcore_features.json

Any folder in MVTec layout. The network is trained for 20 steps, which leaves it the Gaussian that it starts
from, and is read at level 300: rows compare features, not trainings. `closed forms` weighs the Gaussian and
the two banks of normal cells the same, as `standard` does; `banks` and `Gaussian` are what each gives alone.
With `--patchcore` nothing is trained: the rows are PatchCore's scoring of the same features (three scales,
standardised per channel), with a greedy coreset of 10 % of the cells of all training images, as the
nearest neighbours of accuracy.py are. Every set has a process of its own, whose peak memory is given,
libraries and all. Times are CPU time, so that other work on the machine does not count: with
OMP_NUM_THREADS=1 what a core takes that has nothing else to do. An image is from pixels to maps in PyTorch.
Rows already in the output are kept.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import calibrated, data_hash, false_alarms, features_of, masks_of, seven
from baselines import NearestNeighbour
from child import alone, peak_memory_mb
from torch import Tensor

from invad.backbones.registry import load_backbone
from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.evaluation.machine import facts
from invad.fit.fit import fit
from invad.fit.plan import plan
from invad.model.settings import Preset
from invad.records import Sample
from invad.scoring.typicality import ScoreRule, image_scores

STEPS, LEVEL = 20, 300
CONFIGURATIONS = {
    "closed forms": (0, 1, 2),
    "banks": (1, 2),
    "Gaussian": (0,),
}
CORESET = 0.1
TOPS = {"PatchCore, largest cell": 1e-9, "PatchCore, top 2 %": 0.02}


def settings_of(backbone: str, seed: int, area_side: int) -> Preset:
    standard = Preset()
    return replace(
        standard,
        backbone=backbone,
        area_side=area_side,
        reading=replace(standard.reading, timesteps=(LEVEL,)),
        train=replace(standard.train, steps=STEPS, seed=seed),
    )


def patchcore_rows(folder: Path, backbone: str, seed: int, area_side: int) -> list[dict[str, Any]]:
    settings = replace(settings_of(backbone, seed, area_side), fine=None)
    dataset = load_dataset(folder)
    labels = np.array([s.is_anomalous for s in dataset.test])
    started = time.process_time()
    network = load_backbone(backbone, image_size=area_side)
    extract = plan(dataset.train, settings, network, strict=True)
    nearest = NearestNeighbour(features_of(extract, dataset.train), CORESET, seed)
    trained = time.process_time() - started
    maps, milliseconds = timed(lambda pixels: nearest(extract(pixels).cpu().numpy())[0], dataset.test)
    cost = costs(trained, milliseconds)
    hw = extract.preprocess.input_hw
    masks = masks_of(dataset, hw)
    return [
        {"set": folder.name, "backbone": backbone, "area_side": area_side, "seed": seed}
        | {"configuration": name, "data": data_hash(dataset), "cells": len(nearest.bank)}
        | seven(image_scores(maps, top), maps, labels, masks, hw)
        | cost
        for name, top in TOPS.items()
    ]


def timed(read: Callable[[Any], Tensor], samples: tuple[Sample, ...]) -> tuple[Tensor, float]:
    """What `read` makes of the pixels of each image, stacked, and the median CPU milliseconds it takes."""
    maps, times = [], []
    for sample in samples:
        pixels = read_image(sample.path)
        started = time.process_time()
        maps.append(read(pixels))
        times.append(1000 * (time.process_time() - started))
    return torch.stack(maps), statistics.median(times)


def costs(trained: float, milliseconds: float) -> dict[str, float]:
    return {
        "train_cpu_seconds": round(trained, 1),
        "cpu_milliseconds": round(milliseconds, 1),
        "peak_memory_mb": peak_memory_mb(),
    }


def rows_of(folder: Path, backbone: str, seed: int, area_side: int) -> list[dict[str, Any]]:
    settings = settings_of(backbone, seed, area_side)
    dataset = load_dataset(folder)
    started = time.process_time()
    fitted = fit(dataset.train, settings, load_backbone(backbone, image_size=area_side))
    trained = time.process_time() - started
    labels = np.array([s.is_anomalous for s in dataset.test])
    model = fitted.model
    maps, milliseconds = timed(lambda pixels: model.read(model.extract(pixels)), dataset.test)
    cost = costs(trained, milliseconds)
    hw = fitted.model.extract.preprocess.input_hw
    masks = masks_of(dataset, hw)
    rows = []
    for name, chosen in CONFIGURATIONS.items():
        rule = ScoreRule.of((1,) * len(chosen), floor=settings.floor)
        map_Nhw, scores, calibration = calibrated(chosen, fitted, maps, rule)
        rows.append(
            {"set": folder.name, "backbone": backbone, "area_side": area_side, "seed": seed}
            | {"configuration": name, "data": data_hash(dataset), "groups": fitted.record.groups}
            | seven(scores, map_Nhw, labels, masks, hw)
            | {"false_alarms": false_alarms(scores, labels, calibration), "calibration_n": calibration.n}
            | cost
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--backbones", default="invad-s")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--area-side", type=int, default=256)
    parser.add_argument("--patchcore", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    told: dict[str, Any] = {"rows": []}
    if options.output.exists():
        told = json.loads(options.output.read_text())
    known = {(r["set"], r["backbone"], r["area_side"], r["seed"]) for r in told["rows"]}
    for backbone in options.backbones.split(","):
        for seed in map(int, options.seeds.split(",")):
            for folder in filter(Path.is_dir, options.data):
                if (folder.name, backbone, options.area_side, seed) in known:
                    continue
                study = patchcore_rows if options.patchcore else rows_of
                made = alone(study, folder, backbone, seed, options.area_side)
                told = {"machine": facts(), "rows": [*told["rows"], *made]}
                options.output.write_text(json.dumps(told, indent=1) + "\n")
                first = made[0]
                print(folder.name, backbone, seed, first["image_auroc"], first["pixel_aupro"], flush=True)


if __name__ == "__main__":
    main()
