"""Backbones, alone and side by side, with everything else of `standard`: the closed forms on their features.

    python benchmarks/backbones.py DATA/* --backbones invad-s,efficientnet-lite2,invad-s+efficientnet-lite2 \
        --seeds 0 --output benchmarks/results/backbones.json

Any folder in MVTec layout. The network is trained for 20 steps, which leaves it the Gaussian that it starts
from, and is read at level 300: rows compare features, not trainings. `closed forms` weighs the Gaussian and
the two banks of normal cells the same, as `standard` does; `banks` and `Gaussian` are what each gives alone.
Rows already in the output are kept.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import calibrated, data_hash, false_alarms, masks_of, read_maps, seven

from invad.backbones.registry import load_backbone
from invad.data.datasets import load_dataset
from invad.evaluation.machine import facts
from invad.fit.fit import fit
from invad.model.settings import preset_named

STEPS, LEVEL = 20, 300
CONFIGURATIONS = {
    "closed forms": {0: 1 / 3, 1: 1 / 3, 2: 1 / 3},
    "banks": {1: 1 / 2, 2: 1 / 2},
    "Gaussian": {0: 1.0},
}


def rows_of(folder: Path, backbone: str, seed: int, area_side: int) -> list[dict[str, Any]]:
    standard = preset_named("standard")
    settings = replace(
        standard,
        backbone=backbone,
        area_side=area_side,
        reading=replace(standard.reading, timesteps=(LEVEL,)),
        train=replace(standard.train, steps=STEPS, seed=seed),
    )
    dataset = load_dataset(folder)
    fitted = fit(dataset.train, settings, load_backbone(backbone, image_size=area_side))
    labels = np.array([s.is_anomalous for s in dataset.test])
    _, maps = read_maps(fitted.model, dataset.test)
    hw = fitted.model.extract.preprocess.input_hw
    masks = masks_of(dataset, hw)
    rows = []
    for name, weights in CONFIGURATIONS.items():
        map_Nhw, scores, calibration = calibrated(weights, fitted, maps)
        rows.append(
            {"set": folder.name, "backbone": backbone, "area_side": area_side, "seed": seed}
            | {"configuration": name, "data": data_hash(dataset), "groups": fitted.record.groups}
            | seven(scores, map_Nhw, labels, masks, hw)
            | {"false_alarms": false_alarms(scores, labels, calibration), "calibration_n": calibration.n}
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
                made = rows_of(folder, backbone, seed, options.area_side)
                told = {"machine": facts(), "rows": [*told["rows"], *made]}
                options.output.write_text(json.dumps(told, indent=1) + "\n")
                first = made[0]
                print(folder.name, backbone, seed, first["image_auroc"], first["pixel_aupro"], flush=True)


if __name__ == "__main__":
    main()
