"""Limits that are made of kept maps after a region of interest has changed: biased, or only noisy?

    python benchmarks/region_limits.py --output benchmarks/results/region_limits.json --draws 12

Good parts alone, those of `regions.py`. Each draw trains `fast` on 59 of them without a region, and counts
how many of 200 other good ones are flagged at 5 % asked. `none`: no region. `kept`: calibrate --roi without
pictures, from the norm maps that were read with the code in sight. `margin`: the same without the cells
beside what is ignored. `pictures`: calibrate --roi with 59 other good parts. `beside`: the mean of the map in
the cells beside what is ignored, less that in all farther ones, for new good parts.

If limits are only noisy, the flagged ones of a draw are beta-binomial (n of the limit, its rank, 200);
`p_low` and `p_high` are the chances that as few and as many are flagged over all draws.
"""

import argparse
import tempfile
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from draws import run_draws
from regions import NORMALS, RATE, REGION, SIDE, parts, written
from scipy.ndimage import distance_transform_cdt
from scipy.stats import betabinom

from invad.data.region import cells_of
from invad.detector import kept as keeping
from invad.detector.detector import Detector
from invad.model.inspected import Inspected
from invad.model.settings import preset_named
from invad.scoring.rates import POOLED, Rates

NEW = 200
RULES = ("none", "kept", "margin", "pictures")


def one_draw(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    settings = replace(preset_named("fast"), area_side=SIDE)
    rates = Rates(review=RATE, bad=0.02)
    with tempfile.TemporaryDirectory() as scratch:
        normals = written(Path(scratch) / "normals", parts(number, 0, NORMALS, rng, False))
        others = written(Path(scratch) / "others", parts(number, 1000, NORMALS, rng, False))
        whole = Detector.fit(normals, preset=settings, seed=number, rates=rates, device="cpu")
        by = {"none": whole, **{rule: copy(whole) for rule in RULES[1:]}}
        by["kept"].calibrate(region=REGION)
        by["pictures"].calibrate(others, region=REGION)
        with_margin(by["margin"])
    grid_hw = whole.grid_hw
    far = rings(grid_hw)
    counted = by["kept"].model.extract.inspected
    assert counted is not None
    inner = torch.from_numpy(np.flatnonzero(far.ravel()[counted.cells_n.numpy()] > 1))
    found: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
    for pixels in parts(number, 2000, NEW, rng, False):
        seen = by["kept"].model.read(by["kept"].model.extract(pixels))
        plain = whole.model.read(whole.model.extract(pixels))
        for rule, maps in zip(RULES, (plain, seen, seen[..., inner], seen), strict=True):
            score, map_hw = by[rule].score(maps, None)
            beside = float(map_hw[far == 1].mean() - map_hw[far > 1].mean()) if rule != "margin" else 0.0
            found[rule].append((score, beside))
    row: dict[str, Any] = {"draw": number}
    for rule, told in found.items():
        calibration = by[rule].calibrations[POOLED]
        review, _ = calibration.score_limits()
        row[rule] = {
            "flagged": sum(score > review for score, _ in told),
            "n": calibration.n,
            "mean_p": round(float(np.mean([calibration.p_value(score) for score, _ in told])), 4),
            "beside": round(float(np.mean([beside for _, beside in told])), 4),
        }
    return row


def rings(grid_hw: tuple[int, int]) -> np.ndarray:
    """For each cell how many cells it is away from what is ignored, 0 in it, h x w."""
    return np.asarray(distance_transform_cdt(cells_of(REGION, grid_hw), metric="chessboard"))


def with_margin(detector: Detector) -> None:
    """Calibrate it from its kept maps, without the cells beside what is ignored."""
    before = keeping.inspect

    def inspect(*given: Any) -> Inspected:
        found = before(*given)
        away = rings(found.grid_hw).ravel()[found.cells_n.numpy()]
        return replace(found, cells_n=found.cells_n[torch.from_numpy(away > 1)])

    keeping.inspect = inspect
    try:
        detector.calibrate(region=REGION)
    finally:
        keeping.inspect = before


def chances(rows: Sequence[dict[str, Any]], rule: str) -> tuple[float, float]:
    """That so few, and so many, are flagged over all draws, where limits are only noisy."""
    total = np.ones(1)
    for row in rows:
        n = row[rule]["n"]
        above = max(1, int(np.floor(RATE * (n + 1) + 1e-9)))
        total = np.convolve(total, betabinom.pmf(np.arange(NEW + 1), NEW, above, n + 1 - above))
    seen = sum(row[rule]["flagged"] for row in rows)
    return float(total[: seen + 1].sum()), float(total[seen:].sum())


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By rule: the share flagged over all draws and of each, and whether chance explains it."""
    table = {}
    for rule in RULES:
        shares = sorted(row[rule]["flagged"] / NEW for row in rows)
        low, high = chances(rows, rule)
        table[rule] = {
            "flagged": round(float(np.mean(shares)), 4),
            "of_draws": [round(share, 3) for share in shares],
            "p_low": round(low, 4),
            "p_high": round(high, 4),
            **{
                key: round(float(np.mean([row[rule][key] for row in rows])), 3)
                for key in ("mean_p", "beside")
            },
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    numbers = range(args.first, args.first + args.draws)
    run_draws(__doc__, one_draw, numbers, summary, args.output, normals=NORMALS, new=NEW, rate=RATE)


if __name__ == "__main__":
    main()
