"""Realised false alarms beside the beta-binomial interval: sets x seeds, the closed forms of a preset.

    python benchmarks/alarms.py DATA/* --preset fast --output benchmarks/results/alarms_fast.json

Any folder in MVTec layout; of its test part the good images. The network is trained for 20 steps and read at
level 300, as in backbones.py: the limits are judged, not the detection. Features are extracted once a set;
the seed decides what is held out. Rows already in the output are kept.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import calibrated, data_hash, false_alarms

from backbones import LEVEL, STEPS
from invad.backbones.registry import load_backbone
from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.evaluation.machine import facts
from invad.fit.fit import fit
from invad.fit.run import Run
from invad.model.settings import preset_named


def rows_of(folder: Path, seeds: list[int], name: str) -> Iterator[dict[str, Any]]:
    preset, dataset = preset_named(name), load_dataset(folder)
    good = [sample for sample in dataset.test if not sample.is_anomalous]
    backbone = load_backbone(preset.backbone, image_size=preset.area_side)
    z_of_good: list[torch.Tensor] = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            settings = replace(
                preset,
                reading=replace(preset.reading, timesteps=(LEVEL,)),
                train=replace(preset.train, steps=STEPS, seed=seed),
            )
            fitted = fit(dataset.train, settings, backbone, run=Run(cache=Path(scratch)))
            # The seed has no part in features, so those of the first model serve all.
            z_of_good = z_of_good or [fitted.model.extract(read_image(s.path)).cpu() for s in good]
            maps = torch.stack([fitted.model.read(z) for z in z_of_good])
            every = tuple(range(maps.shape[1]))
            _, scores, calibration = calibrated(every, fitted, maps, settings.score_rule)
            yield {
                "set": folder.name,
                "seed": seed,
                "data": data_hash(dataset),
                "normals": fitted.record.normals,
                "groups": fitted.record.groups,
                "calibration_n": calibration.n,
                "false_alarms": false_alarms(scores, np.zeros(len(good), dtype=bool), calibration),
            }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """At each setting the rate over all rows, how many lie within their intervals, and which do not."""
    table = {}
    for name in ("5 %", "1 %"):
        told = [(f"{r['set']} seed {r['seed']}", r["false_alarms"][name]) for r in rows]
        table[name] = {
            "rate": round(sum(t["count"] for _, t in told) / sum(t["of"] for _, t in told), 4),
            "within": f"{sum(t['within'] for _, t in told)} of {len(told)}",
            "outside": {
                which: [t["count"], "of", t["of"], "expected", *t["expected"]]
                for which, t in told
                if not t["within"]
            },
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--preset", choices=("standard", "fast"), default="standard")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    for folder in filter(Path.is_dir, options.data):
        done = {r["seed"] for r in rows if r["set"] == folder.name}
        seeds = [seed for seed in map(int, options.seeds.split(",")) if seed not in done]
        for row in rows_of(folder, seeds, options.preset):
            rows.append(row)
            told = {
                "what": __doc__.split("\n")[0],
                "preset": options.preset,
                "machine": facts(),
                "summary": summary(rows),
            }
            options.output.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")
            print(row["set"], row["seed"], row["groups"], row["false_alarms"], flush=True)
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
