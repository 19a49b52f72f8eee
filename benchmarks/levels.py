"""Ways to bring the maps of five models in turn to one level, on the same maps: draws of few normals.

    python benchmarks/levels.py DATA/* --normals 60 --draws 4 --output levels.json

Draws, new parts and defective images are those of turns.py, each normal held out by one of five models. A
map x that model k read becomes x + b (m_K - m_k): b = 0, `as it is`; 1, `all`; the `reliability` of the
differences, `share`. `wide` also stretches it about m_k by sqrt((1 + b / n_K) / (1 - b / n_k)), as an
interval of prediction.
"""

import argparse
import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from accuracy import false_alarms
from torch import Tensor
from turns import some_of

from invad.data.datasets import load_dataset
from invad.evaluation.machine import facts
from invad.fit.features import Features, extract_features, independent
from invad.fit.fit import RUN, Job
from invad.fit.plan import plan
from invad.metrics.exact import image_metrics
from invad.model.settings import preset_named
from invad.scoring.calibration import Calibration, numbered
from invad.scoring.crossfit import cross_fit
from invad.scoring.holding import Turns, folds, members_of
from invad.scoring.offsets import reliability
from invad.scoring.rates import Rates
from invad.scoring.typicality import judge

WAYS = {
    "as it is": None,
    "all": (False, False),
    "share": (True, False),
    "share, wide": (True, True),
    "all, wide": (False, True),
}


def levelled(
    maps_NLhw: Tensor, readers: list[int], groups: Any, share: bool, wide: bool
) -> tuple[Tensor, float]:
    """The maps of one category, and the mean of b over the levels."""
    made, reader_N = maps_NLhw.clone(), np.asarray(readers)
    parts = {}
    for k in np.unique(reader_N):
        index = np.flatnonzero(reader_N == k)
        members = members_of([groups[i] for i in index])
        parts[k] = index, torch.stack([maps_NLhw[index[own]].mean(dim=0) for own in members])
    b = reliability([part for _, part in parts.values()])
    b = b if share else torch.ones_like(b)
    last = parts[max(readers)][1]
    for index, part in parts.values():
        mean = part.mean(dim=0)
        factor = torch.sqrt((1 + b / len(last)) / (1 - b / len(part))) if wide else 1.0
        made[index] = (made[index] - mean) * factor + mean + b * (last.mean(dim=0) - mean)
    return made, float(b.mean())


def rows_of(folder: Path, normals: int, draws: int) -> list[dict[str, Any]]:
    """A row for each draw and way."""
    dataset, preset, rows = load_dataset(folder), preset_named("fast"), []
    category = dataset.train[0].category
    good = [*dataset.train, *(s for s in dataset.test if not s.is_anomalous)]
    samples = [replace(s, category=category) for s in (*good, *(s for s in dataset.test if s.is_anomalous))]
    extract = plan(dataset.train, preset, preset.load_backbone(), strict=True)
    with ExitStack() as stack:
        features = extract_features(samples, extract, strict=True, run=RUN, stack=stack)
        bad, fine = (
            np.array([i for i, s in enumerate(features.samples) if s.is_anomalous == kind])
            for kind in (True, False)
        )
        _, groups = independent(some_of(features, fine), RUN.observer)
        for number in range(draws):
            drawn = np.sort(np.random.default_rng(number).permutation(len(fine))[:normals])
            known = {groups[i] for i in drawn}
            new = fine[[i for i in range(len(fine)) if groups[i] not in known]]
            mine, own = independent(some_of(features, fine[drawn]), RUN.observer)
            settings = replace(preset, train=replace(preset.train, seed=number))
            told = judged(Job(extract, settings, mine, own, RUN), features, new, bad)
            rows += [{"set": folder.name, "draw": number, "groups": len(set(own)), **row} for row in told]
    return rows


def judged(job: Job, features: Features, new: Any, bad: Any) -> list[dict[str, Any]]:
    """By way: b, false alarms among new parts, defects called, AUROC."""
    given: list[Any] = []

    def as_they_are(*asked: Any) -> Any:
        given.extend(asked)
        return asked[0]

    with patch("invad.fit.fit.as_the_last_reads", as_they_are):
        model, maps, held, _ = job.in_turns(
            Turns(tuple(folds(job.categories, 5, job.settings.train.seed, job.groups)))
        )
    groups, kinds = tuple(job.groups[i] for i in held), [job.categories[i] for i in held]
    read = torch.stack(
        [model.read(torch.from_numpy(features.z_NChw[[features.rows[i]]])) for i in (*new, *bad)]
    )
    labels, rule = np.repeat([False, True], [len(new), len(bad)]), job.settings.score_rule
    rows = []
    for way, how in WAYS.items():
        own, b = (maps, 0.0) if how is None else levelled(given[0], given[1], given[3], *how)
        fitted = cross_fit(own, rule, kinds, groups)
        limits = Calibration(scores=fitted.scores, peaks=fitted.peaks, rates=Rates(), groups=numbered(groups))
        scores, _ = judge(read, fitted.stats, rule)
        called = [limits.decide(float(score)) for score in scores[labels]]
        rows.append(
            {
                "way": way,
                "b": b,
                "new": len(new),
                "false_alarms": false_alarms(scores, labels, limits),
                "defects_called": {
                    "5 %": float(np.mean([one != "good" for one in called])),
                    "1 %": float(np.mean([one == "bad" for one in called])),
                },
                "image_auroc": image_metrics(scores.double().numpy(), labels)["image_auroc"],
            }
        )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By way: means over sets and draws."""
    table = {}
    for way in WAYS:
        own = [row for row in rows if row["way"] == way]
        table[way] = {"b": np.mean([row["b"] for row in own]), "rows": len(own)}
        for rate in ("5 %", "1 %"):
            told = [row["false_alarms"][rate] for row in own]
            table[way][f"good called, {rate}"] = np.mean([t["count"] / t["of"] for t in told])
            table[way][f"defects called, {rate}"] = np.mean([row["defects_called"][rate] for row in own])
            table[way][f"within, {rate}"] = sum(t["within"] for t in told)
        table[way] = {name: round(float(value), 4) for name, value in table[way].items()}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--normals", type=int, default=60)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row
        for folder in filter(Path.is_dir, asked.data)
        for row in rows_of(folder, asked.normals, asked.draws)
    ]
    told = {
        "what": __doc__.split("\n")[0],
        "normals": asked.normals,
        "machine": facts(),
        "summary": summary(rows),
    }
    asked.output.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")
    print(json.dumps(told["summary"], indent=1))


if __name__ == "__main__":
    main()
