"""Train, calibrate and evaluate on folders in MVTec layout, beside a nearest-neighbour baseline.

    python benchmarks/five_sets.py ../shared/data/* --seeds 0,1,2 --output benchmarks/results/five_sets.json

One row per set and seed: the seven metrics and false alarms of the preset, the paper's protocol on the same
trained model, and a PatchCore-style detector (greedy coreset of 10 % of the cells of all training images, the
same features and grid) with the largest cell and with the mean of the top 2 % as image score. Rows already in
the output are kept, so an interrupted run goes on. `summary` holds mean and spread over the seeds.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import nearest_neighbour_maps

import invad
from invad.data.datasets import Dataset, load_dataset
from invad.data.images import read_image, read_mask
from invad.data.preprocess import resize_map, resize_mask
from invad.detector import Detector
from invad.evaluation import evaluate
from invad.metrics import SEVEN_METRICS, image_metrics, pixel_metrics
from invad.scoring import image_scores


def features(detector: Detector, samples: Any) -> np.ndarray:
    return np.concatenate([detector.model.extract(read_image(s.path)).cpu().numpy() for s in samples])


def baseline(detector: Detector, dataset: Dataset, seed: int) -> dict[str, Any]:
    started = time.perf_counter()
    train, test = features(detector, dataset.train), features(detector, dataset.test)
    maps = nearest_neighbour_maps(train, test, 0.1, seed)
    seconds = time.perf_counter() - started
    labels = np.array([s.is_anomalous for s in dataset.test])
    row: dict[str, Any] = {"seconds": round(seconds, 1)}
    for name, share in (("max", 1e-9), ("top2", 0.02)):
        row[f"image_auroc_{name}"] = image_metrics(image_scores(maps, share).double().numpy(), labels)[
            "image_auroc"
        ]
    known = [i for i, s in enumerate(dataset.test) if s.mask_path or not s.is_anomalous]
    if any(dataset.test[i].mask_path for i in known):
        hw = detector.info.input_hw
        masks = [
            resize_mask(read_mask(s.mask_path), hw) if s.mask_path else np.zeros(hw, bool)
            for s in (dataset.test[i] for i in known)
        ]
        row |= pixel_metrics([resize_map(maps[i].numpy(), hw) for i in known], masks)
    return row


def latency(detector: Detector) -> float:
    """Median milliseconds of one 256 x 256 image, pixels to prediction."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    times = []
    for _ in range(25):
        started = time.perf_counter()
        detector.predict(image)
        times.append(time.perf_counter() - started)
    return round(1000 * statistics.median(times[5:]), 2)


def run(folder: Path, seed: int, preset: str, with_baseline: bool) -> dict[str, Any]:
    dataset = load_dataset(folder)
    detector = Detector.fit(dataset.train, preset=preset, seed=seed)
    calibrated = evaluate(detector, dataset.test).metrics
    paper = evaluate(detector, dataset.test, protocol="paper").metrics
    keep = (
        *SEVEN_METRICS,
        "mad",
        "false_alarm_rate",
        "false_alarms",
        "calibration_n",
        "n_normal",
        "n_anomalous",
    )
    row = {
        "set": folder.name,
        "seed": seed,
        "preset": preset,
        "train_seconds": detector.info.fit.seconds,
        "steps": detector.info.fit.steps,
        "latency_ms": latency(detector),
        **{k: calibrated[k] for k in keep},
        "paper_protocol": {k: paper[k] for k in SEVEN_METRICS},
    }
    if with_baseline:
        row["nearest_neighbour"] = baseline(detector, dataset, seed)
    return row


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def mean_spread(values: list[float]) -> dict[str, float]:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return {"mean": round(statistics.mean(values), 4), "std": round(spread, 4)}

    sets: dict[str, Any] = {}
    for name in dict.fromkeys(r["set"] for r in rows):
        own = [r for r in rows if r["set"] == name]
        sets[name] = {
            k: mean_spread([r[k] for r in own])
            for k in (*SEVEN_METRICS, "false_alarm_rate", "train_seconds", "latency_ms")
            if all(r[k] is not None for r in own)
        }
        sets[name]["paper_image_auroc"] = mean_spread([r["paper_protocol"]["image_auroc"] for r in own])
        nearest = [r["nearest_neighbour"] for r in own if "nearest_neighbour" in r]
        if nearest:
            for key in ("image_auroc_max", "image_auroc_top2", "pixel_auroc", "pixel_aupro"):
                if all(n.get(key) is not None for n in nearest):
                    sets[name][f"nn_{key}"] = mean_spread([n[key] for n in nearest])
        inside = [
            low <= r["false_alarms"]["review"]["count"] <= high
            for r in own
            for low, high in [r["false_alarms"]["review"]["expected_count_95"]]
        ]
        sets[name]["false_alarms_within_interval"] = f"{sum(inside)} of {len(inside)} seeds"
    keys = ("image_auroc", "paper_image_auroc", "nn_image_auroc_max", "nn_image_auroc_top2")
    overall = {
        k: round(statistics.mean(s[k]["mean"] for s in sets.values()), 4)
        for k in keys
        if all(k in s for s in sets.values())
    }
    return {"mean_over_sets": overall, "sets": sets}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--baseline-seeds", default="0,1,2")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    wanted_baselines = {int(s) for s in args.baseline_seeds.split(",")}
    for seed in (int(s) for s in args.seeds.split(",")):
        for folder in (f for f in args.folders if f.is_dir()):
            if any((r["set"], r["seed"], r["preset"]) == (folder.name, seed, args.preset) for r in rows):
                continue
            rows.append(run(folder, seed, args.preset, seed in wanted_baselines))
            revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
            document = {
                "what": __doc__.strip().splitlines()[0],
                "date": date.today().isoformat(),
                "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
                "threads": torch.get_num_threads(),
                "versions": {"invad": invad.__version__, "torch": torch.__version__},
                "revision": revision.stdout.strip(),
                "summary": summarise(rows),
                "rows": rows,
            }
            args.output.write_text(json.dumps(document, indent=1) + "\n")
            last = rows[-1]
            nn = last.get("nearest_neighbour", {})
            print(
                f"{last['set']} seed {seed}: image AUROC {last['image_auroc']:.4f}, paper "
                f"{last['paper_protocol']['image_auroc']:.4f}, NN {nn.get('image_auroc_max')} / "
                f"{nn.get('image_auroc_top2')}, false alarms {last['false_alarms']['review']['count']} in "
                f"{last['false_alarms']['review']['expected_count_95']}, {last['train_seconds']} s, "
                f"{last['latency_ms']} ms",
                flush=True,
            )


if __name__ == "__main__":
    main()
