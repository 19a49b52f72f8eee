"""False alarms on moved images, with borders that no camera saw and without, and trained with jitter.

    python benchmarks/moved.py DATA/* --output benchmarks/results/moved.json
    python benchmarks/moved.py DATA/* --preset standard --output benchmarks/results/moved_standard.json

Any folder in MVTec layout, a preset that trains no network, one seed. `padded`: whole images, moved as in
accuracy.py --study robustness (stripes are repeated or filled), and anywhere within 2 % (mirrored). `cut`: of
every image, of training and test, the outer 5 % of each side is left out, of moved ones after the moving, so
that all pixels were seen by the camera. `cut, jitter`: the same, trained on one more copy of each normal
image, moved as `invad train --moved 0.02` moves it before it is cut; a copy is of one group with its image.
`cut, filled copies`: trained with that option on what is left of an image: what comes in at a side is its
border, mirrored. "Anywhere" is as far as the copies, by other draws. Ways already in the output are kept.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import brief, read_maps
from perturbations import PERTURBATIONS, Pixels
from PIL import Image

from invad.backbones.registry import load_backbone
from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.layouts.base import Dataset
from invad.evaluation.machine import facts
from invad.fit.fit import fit
from invad.fit.moving import draw_moves, moved
from invad.fit.plan import plan
from invad.model.reading import FeatureExtractor
from invad.model.settings import preset_named
from invad.records import Sample
from invad.scoring.groups import likely_groups

MARGIN, SHARE, SEED = 0.05, 0.02, 0
ANYWHERE = "anywhere within 2 %"
MOVES = ("none", "shift 2 %", "rotation 2 degrees", ANYWHERE)
DRAWS = (1, 2, 3)
"""Seeds of the moves of test images anywhere."""
WAYS = ("padded", "cut", "cut, jitter", "cut, filled copies")


def cut(pixels: Pixels) -> Pixels:
    dy, dx = (round(MARGIN * side) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[dy : pixels.shape[0] - dy, dx : pixels.shape[1] - dx])


def training(dataset: Dataset, way: str, folder: Path, groups: list[str]) -> tuple[Sample, ...]:
    """The normal images as that way has them, written to `folder` where they were changed."""
    if way == "padded":
        return dataset.train
    made: list[Sample] = []

    def keep(sample: Sample, pixels: Pixels, name: str) -> None:
        Image.fromarray(pixels).save(folder / name, compress_level=1)
        made.append(replace(sample, path=folder / name))

    moves = draw_moves(dataset.train, SHARE, SEED)
    for number, (sample, move) in enumerate(zip(dataset.train, moves, strict=True)):
        pixels = read_image(sample.path)
        if "jitter" in way:
            together = replace(sample, group=groups[number])
            keep(together, cut(pixels), f"{number}.png")
            keep(together, cut(moved(pixels, move)), f"{number}-moved.png")
        else:
            keep(sample, cut(pixels), f"{number}.png")
    return tuple(made)


def groups_by_likeness(extract: FeatureExtractor, samples: tuple[Sample, ...]) -> list[str]:
    """Of the whole images, as a training finds them: copies must not join those that are not alike."""
    x_NK = np.stack([extract(read_image(s.path)).cpu().numpy().ravel()[::97] for s in samples])
    return [str(label) for label in likely_groups(x_NK)]


def changes(move: str, dataset: Dataset) -> list[Callable[[Pixels], Pixels]]:
    """What is done to the test images, one after the other, in each of the draws of that move."""
    if move != ANYWHERE:
        return [PERTURBATIONS[move] or (lambda pixels: pixels)]
    draws = [iter(draw_moves(dataset.test, SHARE, draw)) for draw in DRAWS]
    return [lambda pixels, own=own: moved(pixels, next(own)) for own in draws]


def rows_of(folder: Path, name: str, ways: list[str]) -> list[dict[str, Any]]:
    dataset, preset = load_dataset(folder), preset_named(name)
    settings = replace(preset, train=replace(preset.train, seed=SEED))
    backbone = load_backbone(settings.backbone, image_size=settings.area_side)
    labels = np.array([sample.is_anomalous for sample in dataset.test])
    rows: list[dict[str, Any]] = []
    groups: list[str] = []
    if "cut, jitter" in ways:
        groups = groups_by_likeness(plan(dataset.train, settings, backbone, strict=True), dataset.train)
    for way in ways:
        own = replace(settings, moved=SHARE if "filled" in way else 0.0)
        with tempfile.TemporaryDirectory() as scratch:
            fitted = fit(training(dataset, way, Path(scratch), groups), own, backbone)
        for move in MOVES:
            for change in changes(move, dataset):
                seen = change if way == "padded" else lambda pixels, own=change: cut(own(pixels))
                _, maps = read_maps(fitted.model, dataset.test, seen)
                rows.append(brief(fitted, maps, labels, name, set=folder.name, way=way, move=move))
                print(rows[-1], flush=True)
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By way and move: mean image AUROC over the sets, and rates over all their good images."""
    table: dict[str, Any] = {}
    for way in WAYS:
        for move in MOVES:
            own = [r for r in rows if (r["way"], r["move"]) == (way, move)]
            entry = {"image_auroc": round(float(np.mean([r["image_auroc"] for r in own])), 4)}
            for rate in ("5 %", "1 %"):
                told = [r["false_alarms"][rate] for r in own]
                share = sum(t["count"] for t in told) / sum(t["of"] for t in told)
                within = f"{sum(t['within'] for t in told)} of {len(told)}"
                entry |= {f"at {rate}": round(share, 4), f"within at {rate}": within}
            table[f"{way}: {move}"] = entry
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--preset", choices=["fast", "standard", "accurate"], default="fast")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = json.loads(options.output.read_text())["rows"] if options.output.exists() else []
    for folder in filter(Path.is_dir, options.data):
        known = {row["way"] for row in rows if row["set"] == folder.name}
        if not (missing := [way for way in WAYS if way not in known]):
            continue
        rows += rows_of(folder, options.preset, missing)
        told = {"what": __doc__.split("\n")[0], "machine": facts(), "summary": summary(rows), "rows": rows}
        options.output.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
