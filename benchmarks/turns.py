"""Limits from a fifth that is held out for good, and from all normals in turn: draws of few normals.

    python benchmarks/turns.py DATA/* --normals 100 --draws 8 --output benchmarks/results/turns.json

Any folder in MVTec layout. Of its good images, those of the test part among them, a draw takes so many to
learn from; those of the others that are independent of them are new parts. The models are those of a preset
without a network; `fifth` is `apart`, `in turn` the five folds of `turns`, of which the last is kept. AUROC
is not that of accuracy.py, whose good test images are among the normals here.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import false_alarms

from invad.data.datasets import load_dataset
from invad.evaluation.machine import facts
from invad.fit.features import Features, extract_features, independent
from invad.fit.fit import RUN, Job
from invad.fit.plan import plan
from invad.metrics.exact import image_metrics
from invad.model.settings import Preset, preset_named
from invad.scoring.calibration import Calibration, numbered
from invad.scoring.crossfit import cross_fit
from invad.scoring.holding import Turns, apart, folds
from invad.scoring.rates import Rates
from invad.scoring.typicality import judge

WAYS = ("fifth", "in turn")


def rows_of(folder: Path, preset: Preset, normals: int, draws: range) -> Iterator[dict[str, Any]]:
    """A row for each draw and way."""
    dataset = load_dataset(folder)
    category = dataset.train[0].category
    good = [*dataset.train, *(s for s in dataset.test if not s.is_anomalous)]
    defective = [s for s in dataset.test if s.is_anomalous]
    extract = plan(dataset.train, preset, preset.load_backbone(), strict=True)
    with ExitStack() as stack:
        every = [replace(s, category=category) for s in (*good, *defective)]
        features = extract_features(every, extract, strict=True, run=RUN, stack=stack)
        bad = np.array([i for i, s in enumerate(features.samples) if s.is_anomalous])
        fine = np.array([i for i, s in enumerate(features.samples) if not s.is_anomalous])
        _, groups = independent(some_of(features, fine), RUN.observer)
        for number in draws:
            drawn = np.sort(np.random.default_rng(number).permutation(len(fine))[:normals])
            known = {groups[i] for i in drawn}
            new = fine[[i for i in range(len(fine)) if groups[i] not in known]]
            mine, own = independent(some_of(features, fine[drawn]), RUN.observer)
            settings = replace(preset, train=replace(preset.train, seed=number))
            job = Job(extract, settings, mine, own, RUN)
            for way in WAYS:
                parts = apart(job.categories, own, number), *folds(job.categories, 5, number, own)
                how = Turns(parts[:1] if way == "fifth" else parts[1:])
                common = {"set": folder.name, "draw": number, "way": way, "groups": len(set(own))}
                yield {**common, **judged(job, how, features, new, bad)}


def some_of(features: Features, index: Any) -> Features:
    """Those of the images `index`."""
    return replace(
        features,
        samples=tuple(features.samples[i] for i in index),
        rows=features.rows[index],
        pixels=tuple(features.pixels[i] for i in index),
    )


def judged(job: Job, how: Turns, features: Features, new: Any, bad: Any) -> dict[str, Any]:
    """False alarms among new parts, defects called, AUROC, and seconds to fit and calibrate."""
    started = time.perf_counter()
    rule = job.settings.score_rule
    model, maps, held, _ = job.in_turns(how)
    groups = tuple(job.groups[i] for i in held)
    own = cross_fit(maps, rule, [job.categories[i] for i in held], groups)
    calibration = Calibration(scores=own.scores, peaks=own.peaks, rates=Rates(), groups=numbered(groups))
    seconds = time.perf_counter() - started
    index = np.concatenate([new, bad])
    read = [model.read(torch.from_numpy(features.z_NChw[[features.rows[i]]])) for i in index]
    scores, _ = judge(torch.stack(read), own.stats, rule)
    labels = np.repeat([False, True], [len(new), len(bad)])
    called = [calibration.decide(float(score)) for score in scores[labels]]
    return {
        "calibration_n": calibration.n,
        "new": len(new),
        "false_alarms": false_alarms(scores, labels, calibration),
        "defects_called": {
            "5 %": round(float(np.mean([one != "good" for one in called])), 4),
            "1 %": round(float(np.mean([one == "bad" for one in called])), 4),
        },
        "image_auroc": round(image_metrics(scores.double().numpy(), labels)["image_auroc"], 4),
        "seconds": round(seconds, 1),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By set and way: mean, standard deviation, least and most of the draws; how many lie within, above and
    below the interval that independent normals of this number would give."""
    table: dict[str, Any] = {}
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        for rate in ("5 %", "1 %"):
            told = [row["false_alarms"][rate] for row in own]
            above = sum(t["count"] > t["expected"][1] for t in told)
            below = sum(t["count"] < t["expected"][0] for t in told)
            table.setdefault("intervals", {}).setdefault(way, {})[rate] = {
                "within": len(told) - above - below,
                "above": above,
                "below": below,
            }
        for name in dict.fromkeys(row["set"] for row in own):
            of_set = [row for row in own if row["set"] == name]
            shares = {
                rate: [row["false_alarms"][rate]["count"] / row["new"] for row in of_set]
                for rate in ("5 %", "1 %")
            }
            table.setdefault(name, {})[way] = {
                "calibration_n": spread([row["calibration_n"] for row in of_set]),
                **{f"false alarms, {rate}": spread(values) for rate, values in shares.items()},
                **{
                    f"defects called, {rate}": spread([row["defects_called"][rate] for row in of_set])
                    for rate in ("5 %", "1 %")
                },
                "image_auroc": spread([row["image_auroc"] for row in of_set]),
                "seconds": spread([row["seconds"] for row in of_set]),
            }
    return table


def spread(values: list[float]) -> dict[str, float]:
    made = np.array(values, dtype=float)
    told = {"mean": made.mean(), "sd": made.std(ddof=1), "least": made.min(), "most": made.max()}
    return {name: round(float(value), 4) for name, value in told.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--preset", choices=("standard", "fast"), default="fast")
    parser.add_argument("--normals", type=int, default=100)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for folder in filter(Path.is_dir, options.data):
        for row in rows_of(folder, preset_named(options.preset), options.normals, range(options.draws)):
            rows.append(row)
            print(json.dumps(row), flush=True)
    told = {
        "what": __doc__.split("\n")[0],
        "preset": options.preset,
        "normals": options.normals,
        "draws": options.draws,
        "machine": facts(),
        "summary": summary(rows),
        "rows": rows,
    }
    options.output.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told["summary"], indent=1))


if __name__ == "__main__":
    main()
