"""Configurations x data sets x seeds: the seven metrics, false alarms and time, beside baselines.

    python benchmarks/accuracy.py DATA/* --seeds 0,1,2 --output benchmarks/results/accuracy.json
    python benchmarks/accuracy.py DATA/* --seeds 0,1,2 --preset fast --output .../accuracy_fast.json
    python benchmarks/accuracy.py DATA/* --study robustness --output benchmarks/results/robustness.json
    python benchmarks/accuracy.py DATA/* --study unified --output benchmarks/results/unified.json
    python benchmarks/accuracy.py DATA/* --study sizes --output benchmarks/results/sizes.json
    python benchmarks/accuracy.py DATA/* --study teacher --teachers FOLDER --output .../teacher.json

Any folder in MVTec layout. One network is trained per set and seed, with `--preset` (`standard`); the
configurations are what is read off it, each calibrated on the held-out normals for itself. Baselines work on
the same features (those of the preset, standardised per channel, no contrast step unless the name says so) of
*all* training images. Rows already in the output are kept. A Markdown table is written beside the JSON.
"""

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from baselines import NearestNeighbour, padim_maps, reconstruction_maps
from distill_invad_s import load_teachers
from perturbations import PERTURBATIONS
from torch import Tensor

from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.layouts.base import Dataset
from invad.data.masks import read_mask
from invad.data.preprocess import resize_map, resize_mask
from invad.diffusion.schedule import timesteps
from invad.evaluation.machine import facts
from invad.fit.fit import RUN, Fitted, fit
from invad.fit.plan import plan
from invad.fit.run import Run
from invad.fit.training import Execution
from invad.metrics.alarms import count_interval
from invad.metrics.exact import (
    SEVEN_METRICS,
    image_metrics,
    mean_ad,
    pixel_metrics,
)
from invad.metrics.intervals import bootstrap_interval
from invad.model.reading import FeatureExtractor, Model
from invad.model.settings import Preset, preset_named
from invad.model.space import FeatureSpace, SpaceConfig
from invad.records import Sample
from invad.scoring.calibration import Calibration, numbered
from invad.scoring.crossfit import cross_fit
from invad.scoring.rates import Rates
from invad.scoring.typicality import (
    ScoreRule,
    image_scores,
    judge,
    paper_fusion,
    paper_terms,
)
from invad.system.plain import to_plain

STUDIES = ("accuracy", "robustness", "sizes", "unified", "teacher")
STANDARD = preset_named("standard")
SIZES = (10, 20, 50, 100)

FIRST = "first backbone alone"
"""As if it were the only one: what judges is its grid and its fine one, what draws their banks in `space`."""
OF_FIRST = (0, 1, 2, 3)
OF_TWO = {
    FIRST: OF_FIRST,
    "grid of the first alone": (0, 1),
    "second backbone alone": (4, 5),
    "all banks averaged": (*OF_FIRST, 4, 5),
}
CONFIGURATIONS = {
    "standard": {"standard": (*OF_FIRST, 4, 5), **OF_TWO},
    "fast": {"fast": (0,)},
    "accurate": {"accurate": (*OF_FIRST, 4, 5), **OF_TWO},
}
"""By preset, the norm maps it uses: known cells of the first backbone on both grids, on each in both spaces,
and of the second one on both. But for the preset itself and FIRST their averaged map alone decides, as with
one predictor."""


def read_maps(model: Model, samples: tuple[Sample, ...], change: Callable[[Any], Any] | None = None) -> Any:
    """Raw features N x C x h x w and norm maps N x L x h x w of test images."""
    features, maps = [], []
    for sample in samples:
        pixels = read_image(sample.path)
        z = model.extract(pixels if change is None else change(pixels))
        features.append(z.cpu().numpy())
        maps.append(model.read(z))
    return np.concatenate(features), torch.stack(maps)


def masks_of(dataset: Dataset, hw: tuple[int, int]) -> dict[int, Any]:
    """Masks in the input frame, of normal images and of defects that have one; {} where no defect has one."""
    if not any(s.mask_path for s in dataset.test):
        return {}
    return {
        i: resize_mask(read_mask(s.mask_path, above=s.mask_above), hw) if s.mask_path else np.zeros(hw, bool)
        for i, s in enumerate(dataset.test)
        if s.mask_path or not s.is_anomalous
    }


def seven(scores_N: Tensor, map_Nhw: Tensor, labels: Any, masks: dict[int, Any], hw: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SEVEN_METRICS)
    row |= image_metrics(scores_N.double().numpy(), labels)
    if masks:
        maps = [resize_map(map_Nhw[i].numpy().astype(np.float32), hw) for i in masks]
        row |= pixel_metrics(maps, list(masks.values()))
    low_high = bootstrap_interval(scores_N.double().numpy(), labels)
    return {**row, "mad": mean_ad(row), "image_auroc_95": low_high}


def rule_of(preset: str, name: str) -> ScoreRule:
    """The preset's own rule, or that of another configuration, which scores the averaged map."""
    settings = preset_named(preset)
    if name in (preset, FIRST):
        return (settings if name == preset else settings.of_first_backbone).score_rule
    return ScoreRule.of((1,) * len(CONFIGURATIONS[preset][name]), floor=settings.floor)


def calibrated(
    chosen: tuple[int, ...], fitted: Fitted, maps_NLhw: Tensor, rule: ScoreRule
) -> tuple[Tensor, Tensor, Calibration]:
    """Test maps and scores of one configuration, and its calibration."""
    own = cross_fit(fitted.held_maps_NLhw[:, list(chosen)], rule, fitted.held_categories, fitted.held_groups)
    score_N, map_Nhw = judge(maps_NLhw[:, list(chosen)], own.stats, rule)
    groups = numbered(fitted.held_groups)
    return map_Nhw, score_N, Calibration(scores=own.scores, peaks=own.peaks, rates=Rates(), groups=groups)


def false_alarms(scores_N: Tensor, labels: Any, calibration: Calibration) -> dict[str, Any]:
    """At the 5 % and 1 % settings: normal test images called, the count to expect (95 %), whether within."""
    decisions = [calibration.decide(float(s)) for s, bad in zip(scores_N, labels, strict=True) if not bad]
    made = {}
    for name, rate, called in (("5 %", 0.05, ("review", "bad")), ("1 %", 0.01, ("bad",))):
        count = sum(d in called for d in decisions)
        low, high = count_interval([(len(decisions), calibration.n)], rate)
        made[name] = {
            "count": count,
            "of": len(decisions),
            "expected": [low, high],
            "within": low <= count <= high,
        }
    return made


def baselines(model: Model, train: Any, test: Any, seed: int) -> dict[str, tuple[Tensor, float]]:
    """Test maps and top fractions by name, on per-channel standardised features of all training images."""
    (train, train_fine), (test, test_fine) = model.extract.split(train), model.extract.split(test)
    space = FeatureSpace.fit(SpaceConfig(), train, np.arange(len(train)))
    x_train, x_test = (space(torch.from_numpy(x)).numpy() for x in (train, test))
    nearest = NearestNeighbour(x_train, 0.1, seed)(x_test)
    single = model.extract.backbone.apart[0].backbone.channels
    first = NearestNeighbour(x_train[:, :single], 0.1, seed)(x_test[:, :single])
    # Fully whitened, because the baseline standardises whatever it is given.
    noised = FeatureSpace.fit(STANDARD.space, train, np.arange(len(train)))
    own_train, own_test = (noised(torch.from_numpy(x)).numpy() for x in (train, test))
    own = NearestNeighbour(own_train, 0.1, seed)(own_test)
    maps = {
        "nearest neighbour, largest cell": (nearest, 1e-9),
        "nearest neighbour, top 2 %": (nearest, 0.02),
        "nearest neighbour, one scale, largest cell": (first, 1e-9),
        "nearest neighbour, one scale, top 2 %": (first, 0.02),
        "nearest neighbour in the detector's space, whitened, largest cell": (own, 1e-9),
        "nearest neighbour in the detector's space, whitened, top 2 %": (own, 0.02),
        "PaDiM, 100 channels, largest cell": (padim_maps(x_train, x_test, 100, seed), 1e-9),
    }
    if train_fine is not None:
        fine = unblock(NearestNeighbour(train_fine, 0.01, seed)(test_fine), model)
        maps["nearest neighbour, one scale, fine grid, 1 % coreset, largest cell"] = (fine, 1e-9)
    for level, steps in ((200, 3), (200, 10), (500, 3), (500, 10)) if model.denoiser is not None else ():
        name = f"DDIM reconstruction, level {level}, {steps} steps, largest cell"
        maps[name] = (reconstruction_maps(model, test, level, steps), 1e-9)
    return maps


def unblock(map_Nhw: Tensor, model: Model) -> Tensor:
    """The fine map N x (fine^2 h) x w, blocks below each other, as N x (fine h) x (fine w)."""
    return F.pixel_shuffle(map_Nhw.unflatten(1, (-1, model.extract.grid_hw[0])), model.extract.fine)[:, 0]


def paper(model: Model, test: Any) -> tuple[Tensor, Tensor]:
    """Maps and test-set fused scores of the published scoring, on the trained network."""
    maps, nll, diff = [], [], []
    with torch.inference_mode():
        for z in test:
            latent = model.invert(torch.from_numpy(z[None]), timesteps("reference", 3)).latent.float().cpu()
            one, a, b = paper_terms(latent)
            maps.append(one[0])
            nll.append(a)
            diff.append(b)
    return torch.stack(maps), paper_fusion(torch.cat(nll), torch.cat(diff))


def train(dataset: Dataset, preset: Preset, seed: int, where: Run = RUN) -> Fitted:
    settings = replace(preset, train=replace(preset.train, seed=seed))
    return fit(dataset.train, settings, settings.load_backbone(), run=where)


def digest(plain: Any) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def data_hash(dataset: Dataset) -> str:
    whole = hashlib.sha256()
    for sample in (*dataset.train, *dataset.test):
        whole.update(sample.path.read_bytes())
    return whole.hexdigest()[:12]


def run(folder: Path, seed: int, preset: str, with_baselines: bool, where: Run) -> list[dict[str, Any]]:
    """All rows of one set and seed."""
    dataset = load_dataset(folder)
    fitted = train(dataset, preset_named(preset), seed, where)
    model, labels = fitted.model, np.array([s.is_anomalous for s in dataset.test])
    test, maps = read_maps(model, dataset.test)
    hw = model.extract.preprocess.input_hw
    masks = masks_of(dataset, hw)
    common = {
        "set": folder.name,
        "seed": seed,
        "n_normal": int((~labels).sum()),
        "n_anomalous": int(labels.sum()),
        "data": data_hash(dataset),
        "settings": digest(to_plain(preset_named(preset))),
    }
    rows = []
    for name, chosen in CONFIGURATIONS[preset].items():
        map_Nhw, scores, calibration = calibrated(chosen, fitted, maps, rule_of(preset, name))
        rows.append(
            {**common, "configuration": name, **seven(scores, map_Nhw, labels, masks, hw)}
            | {"false_alarms": false_alarms(scores, labels, calibration), "calibration_n": calibration.n}
        )
        if name == preset:
            rows[-1] |= {"train_seconds": fitted.record.seconds}
    whole = replace(rule_of(preset, preset), floor=0.0)
    map_Nhw, scores, _ = calibrated(CONFIGURATIONS[preset][preset], fitted, maps, whole)
    rows.append(
        {**common, "configuration": f"{preset} with its whole floor"}
        | seven(scores, map_Nhw, labels, masks, hw)
    )
    if model.denoiser is not None:
        map_Nhw, scores = paper(model, test)
        rows.append(
            {**common, "configuration": "paper's scoring, same network"}
            | seven(scores, map_Nhw, labels, masks, hw)
        )
    if with_baselines:
        features = features_of(model.extract, dataset.train)
        for name, (map_Nhw, top) in baselines(model, features, test, seed).items():
            row = seven(image_scores(map_Nhw, top), map_Nhw, labels, masks, hw)
            rows.append({**common, "configuration": name, **row})
    return rows


def unified(folders: list[Path], seed: int, preset: str) -> list[dict[str, Any]]:
    """One model over all the sets, each judged by its own held-out normals."""
    sets = {folder.name: load_dataset(folder) for folder in folders}
    together = [replace(s, category=name) for name, dataset in sets.items() for s in dataset.train]
    first = next(iter(sets.values()))
    fitted = train(replace(first, train=tuple(together), test=()), preset_named(preset), seed)
    rows = []
    for name, dataset in sets.items():
        own = [i for i, category in enumerate(fitted.held_categories) if category == name]
        judged = replace(
            fitted,
            held_maps_NLhw=fitted.held_maps_NLhw[own],
            held_samples=tuple(replace(fitted.held_samples[i], category="") for i in own),
            held_groups=tuple(fitted.held_groups[i] for i in own),
        )
        labels = np.array([s.is_anomalous for s in dataset.test])
        _, maps = read_maps(fitted.model, dataset.test)
        hw = fitted.model.extract.preprocess.input_hw
        masks = masks_of(dataset, hw)
        own, rule = CONFIGURATIONS[preset][preset], rule_of(preset, preset)
        map_Nhw, scores, calibration = calibrated(own, judged, maps, rule)
        rows.append(
            {"set": name, "seed": seed, "configuration": f"{preset}, one model for all sets"}
            | {"train_seconds": fitted.record.seconds, "input_hw": hw, "calibration_n": calibration.n}
            | seven(scores, map_Nhw, labels, masks, hw)
            | {"false_alarms": false_alarms(scores, labels, calibration)}
        )
    return rows


def brief(fitted: Fitted, maps_NLhw: Tensor, labels: Any, preset: str, **common: Any) -> dict[str, Any]:
    """Image AUROC and false alarms of a preset alone."""
    own, rule = CONFIGURATIONS[preset][preset], rule_of(preset, preset)
    _, scores, calibration = calibrated(own, fitted, maps_NLhw, rule)
    auroc = image_metrics(scores.double().numpy(), labels)["image_auroc"]
    alarms = false_alarms(scores, labels, calibration)
    return {**common, "configuration": preset, "image_auroc": auroc, "false_alarms": alarms}


def features_of(extract: FeatureExtractor, samples: tuple[Sample, ...]) -> Any:
    return np.concatenate([extract(read_image(s.path)).cpu().numpy() for s in samples])


def robustness(folder: Path, seed: int, preset: str) -> list[dict[str, Any]]:
    """The same model and baseline on changed test images."""
    dataset = load_dataset(folder)
    fitted = train(dataset, preset_named(preset), seed)
    model, labels = fitted.model, np.array([s.is_anomalous for s in dataset.test])
    nearest = NearestNeighbour(on_grid(model, features_of(model.extract, dataset.train)), 0.02, seed)
    rows = []
    for change, apply in PERTURBATIONS.items():
        test, maps = read_maps(model, dataset.test, apply)
        common = {"set": folder.name, "seed": seed, "variant": change}
        rows.append(brief(fitted, maps, labels, preset, **common))
        auroc = largest_cell_auroc(nearest(on_grid(model, test)), labels)
        rows.append({**common, "configuration": "nearest neighbour, 2 % coreset", "image_auroc": auroc})
    return rows


def on_grid(model: Model, features: Any) -> Any:
    """Those of the grid, without the fine one."""
    return np.ascontiguousarray(model.extract.split(features)[0])


def largest_cell_auroc(map_Nhw: Tensor, labels: Any) -> float:
    return image_metrics(image_scores(map_Nhw, 1e-9).double().numpy(), labels)["image_auroc"]


def sizes(folder: Path, seed: int, preset: str) -> list[dict[str, Any]]:
    """Trained on the first 10, 20, 50 and 100 normals of a random order, and on all."""
    dataset = load_dataset(folder)
    labels = np.array([s.is_anomalous for s in dataset.test])
    order = np.random.default_rng(seed).permutation(len(dataset.train))
    rows = []
    for size in (*(n for n in SIZES if n < len(order)), len(order)):
        part = replace(dataset, train=tuple(dataset.train[i] for i in order[:size]))
        fitted = train(part, preset_named(preset), seed)
        model = fitted.model
        test, maps = read_maps(model, dataset.test)
        variant = f"{size} normals" if size in SIZES else "all normals"
        common = {"set": folder.name, "seed": seed, "variant": variant, "normals": size}
        rows.append(brief(fitted, maps, labels, preset, **common))
        nearest = NearestNeighbour(on_grid(model, features_of(model.extract, part.train)), 0.1, seed)
        auroc = largest_cell_auroc(nearest(on_grid(model, test)), labels)
        rows.append({**common, "configuration": "nearest neighbour, 10 % coreset", "image_auroc": auroc})
    return rows


def teacher(folder: Path, seed: int, teachers: Path) -> list[dict[str, Any]]:
    """Nearest neighbours on the features of a teacher, ResNet-50 from the stem to the third stage."""
    dataset = load_dataset(folder)
    labels = np.array([s.is_anomalous for s in dataset.test])
    backbone = load_teachers(teachers, ["resnet50"])[0]
    extract = plan(dataset.train, replace(STANDARD, scales=(1.0,), fine=None), backbone, strict=True)
    features = [features_of(extract, samples) for samples in (dataset.train, dataset.test)]
    map_Nhw = NearestNeighbour(features[0], 0.1, seed)(features[1])
    hw = extract.preprocess.input_hw
    masks = masks_of(dataset, hw)
    rows = []
    for name, top in (("largest cell", 1e-9), ("top 2 %", 0.02)):
        row = seven(image_scores(map_Nhw, top), map_Nhw, labels, masks, hw)
        rows.append(
            {"set": folder.name, "seed": seed, "configuration": f"nearest neighbour on ResNet-50, {name}"}
            | row
        )
    rows[-1]["milliseconds"] = times_beside(dataset, extract, features[0])
    return rows


def times_beside(dataset: Dataset, extract: FeatureExtractor, features: Any) -> dict[str, float]:
    """Median milliseconds from pixels to maps in PyTorch, in turns: the teacher with its neighbours, ours."""
    cells = round(0.1 * len(features) * features.shape[2] * features.shape[3])
    bank = torch.from_numpy(features).permute(0, 2, 3, 1).reshape(-1, features.shape[1])[:cells].contiguous()

    def nearest(pixels: Any) -> None:
        with torch.inference_mode():
            torch.cdist(extract(pixels)[0].flatten(1).T, bank).amin(dim=1)

    def ours(preset: Preset) -> Callable[[Any], Tensor]:
        # The time does not depend on what the network learned.
        model = train(dataset, replace(preset, train=replace(preset.train, steps=1)), 0).model
        return lambda pixels: model.read(model.extract(pixels))

    turns = {"teacher": nearest} | {name: ours(preset_named(name)) for name in ("standard", "fast")}
    times: dict[str, list[float]] = {name: [] for name in turns}
    for sample in (dataset.test[0], *dataset.test[:20]):
        pixels = read_image(sample.path)
        for name, turn in turns.items():
            started = time.perf_counter()
            turn(pixels)
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: round(statistics.median(values[1:]), 1) for name, values in times.items()}


def summary(rows: list[dict[str, Any]], column: str) -> dict[str, Any]:
    """Per configuration and `column`: of each set the mean and the deviation over seeds (None for one seed).

    The means over sets are of the sets there are.
    """
    table: dict[str, Any] = {}
    for key in dict.fromkeys((r["configuration"], r.get(column)) for r in rows):
        own = [r for r in rows if (r["configuration"], r.get(column)) == key]
        sets: dict[str, Any] = {}
        for name in sorted({r["set"] for r in own}):
            here = [r for r in own if r["set"] == name]
            sets[name] = {}
            for metric in ("image_auroc", "pixel_auroc", "pixel_aupro"):
                values = [r[metric] for r in here if r.get(metric) is not None]
                if values:
                    spread = round(statistics.stdev(values), 4) if len(values) > 1 else None
                    sets[name][metric] = [round(statistics.mean(values), 4), spread]
        entry: dict[str, Any] = {"sets": sets}
        for metric in ("image_auroc", "pixel_auroc", "pixel_aupro"):
            means = [s[metric][0] for s in sets.values() if metric in s]
            if means:
                entry[metric] = round(statistics.mean(means), 4)
        alarms = [r["false_alarms"] for r in own if "false_alarms" in r]
        for rate in ("5 %", "1 %") if alarms else ():
            entry[f"false alarms {rate}"] = {
                "rate": round(sum(a[rate]["count"] for a in alarms) / sum(a[rate]["of"] for a in alarms), 4),
                "within": f"{sum(a[rate]['within'] for a in alarms)} of {len(alarms)}",
            }
        table[", ".join(k for k in key if k)] = entry
    return table


def markdown(table: dict[str, Any]) -> str:
    """The summary as a table: mean image AUROC per set and over the sets, pixel means, false alarms.

    A row that lacks a set has no mean: it would be of easier or harder sets than the other rows.
    """
    sets = sorted({s for entry in table.values() for s in entry["sets"]})
    lines = [
        f"| | {' | '.join(sets)} | mean | pixel AUROC / AUPRO | false alarms at 5 % | at 1 % |",
        "|" + "---|" * (len(sets) + 5),
    ]
    for name, entry in table.items():
        cells = [_cell(entry["sets"].get(s)) for s in sets]
        mean = f"{entry['image_auroc']:.3f}" if len(entry["sets"]) == len(sets) else "-"
        pixel = f"{entry['pixel_auroc']:.3f} / {entry['pixel_aupro']:.3f}" if "pixel_auroc" in entry else "-"
        rates = [
            f"{entry[k]['rate']:.1%} ({entry[k]['within']})" if k in entry else "-"
            for k in ("false alarms 5 %", "false alarms 1 %")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {mean} | {pixel} | {' | '.join(rates)} |")
    return "\n".join(lines) + "\n"


def _cell(of_set: dict[str, Any] | None) -> str:
    if of_set is None:
        return "-"
    mean, spread = of_set["image_auroc"]
    return f"{mean:.3f}" if spread is None else f"{mean:.3f} ± {spread:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--baseline-seeds", default="", help="seeds to run the slow baselines with")
    parser.add_argument("--precision", help="of a network's training: fp32 or bf16")
    parser.add_argument("--cache", type=Path, help="folder that keeps the features of training images")
    parser.add_argument("--study", choices=STUDIES, default=STUDIES[0])
    parser.add_argument("--preset", choices=tuple(CONFIGURATIONS), default="standard")
    parser.add_argument("--teachers", type=Path, help="folder of teachers.py, see distill_invad_s.py")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.study == "teacher" and args.preset != "standard":
        parser.error("--study teacher measures its time beside `standard`")
    if (args.study == "teacher") != (args.teachers is not None):
        parser.error("--teachers goes with --study teacher, and the other way round")
    before = json.loads(args.output.read_text()) if args.output.exists() else {"rows": []}
    rows = before["rows"]
    if rows and before.get("preset", "standard") != args.preset:
        parser.error(f"{args.output} holds rows of another preset; give another --output")
    where = Run(cache=args.cache, execution=Execution(precision=args.precision))
    with_baselines = {int(s) for s in args.baseline_seeds.split(",") if s}
    for seed in (int(s) for s in args.seeds.split(",")):
        folders = [f for f in args.folders if f.is_dir()]
        for folder in folders:
            done = {r["configuration"] for r in rows if (r["set"], r["seed"]) == (folder.name, seed)}
            if done:
                continue
            started = time.perf_counter()
            if args.study == "accuracy":
                new = run(folder, seed, args.preset, seed in with_baselines, where)
            elif args.study == "unified":
                new = unified(folders, seed, args.preset)
            elif args.study == "teacher":
                new = teacher(folder, seed, args.teachers)
            else:
                new = {"robustness": robustness, "sizes": sizes}[args.study](folder, seed, args.preset)
            rows += new
            revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
            table = summary(rows, "variant")
            document = {
                "what": __doc__.strip().splitlines()[0],
                "machine": facts(),
                "revision": revision.stdout.strip(),
                "preset": args.preset,
                "settings": to_plain(preset_named(args.preset)),
                "precision": args.precision,
                "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "summary": table,
                "rows": rows,
            }
            args.output.write_text(json.dumps(document, indent=1) + "\n")
            args.output.with_suffix(".md").write_text(markdown(table))
            shown = {
                r["configuration"]: round(r["image_auroc"], 4) for r in new[:12] if r["set"] == folder.name
            }
            print(f"{folder.name} seed {seed}: {time.perf_counter() - started:.0f} s {shown}", flush=True)


if __name__ == "__main__":
    main()
