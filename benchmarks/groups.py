"""False alarms on new parts when each part was photographed several times: limits by groups and by images.

    python benchmarks/groups.py --output benchmarks/results/groups.json

Each draw makes 20 parts with 10 shots each (exposure, a shift of up to a pixel and noise differ), trains on
them under three rules, and counts what the 5 % limit calls of 2 shots each of 40 new parts. All three read
the same images: `likeness` finds the groups, `given` is told them (--group-by), `images` takes every image
as independent. A small `fast`: the rule is compared, not the detection.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from draws import run_draws
from numpy.typing import NDArray
from PIL import Image

from invad.data.groups import grouped
from invad.data.synthetic import draw
from invad.detector.detector import Detector
from invad.fit.run import Run
from invad.model.settings import preset_named
from invad.records import Sample
from invad.scoring.rates import POOLED, Rates

PARTS, SHOTS, SIDE = 20, 10, 128
NEW_PARTS, NEW_SHOTS = 40, 2
CATEGORY = "gasket"
RATE = 0.05
RULES = ("likeness", "given", "images")


def shots(part: int, count: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Pictures of one part: exposure within 15 %, a pixel to either side, noise of two grey levels."""
    picture = draw(CATEGORY, seed=part, size=SIDE)[0].astype(np.float64)
    taken = []
    for _ in range(count):
        moved = np.roll(picture, rng.integers(-1, 2, 2), axis=(0, 1)) * rng.uniform(0.85, 1.15)
        noisy = moved + rng.normal(0, 2, picture.shape)
        taken.append(noisy.clip(0, 255).round().astype(np.uint8))
    return taken


def ruled(samples: tuple[Sample, ...], rule: str, root: Path) -> tuple[Sample, ...]:
    if rule == "given":
        return grouped(samples, r"part-(\d+)", root)
    if rule == "images":
        return tuple(replace(sample, group=sample.path.name) for sample in samples)
    return samples


def one_draw(number: int, rules: Sequence[str]) -> dict[str, Any]:
    """Realised rate and number of independent groups under each of the rules."""
    rng = np.random.default_rng(number)
    first = (PARTS + NEW_PARTS) * number
    row: dict[str, Any] = {"draw": number}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        samples = []
        for part in range(first, first + PARTS):
            for shot, pixels in enumerate(shots(part, SHOTS, rng)):
                path = root / f"part-{part}-{shot}.png"
                Image.fromarray(pixels).save(path, compress_level=1)
                samples.append(Sample(path=path, category="part"))
        new = [
            pixels
            for part in range(first + PARTS, first + PARTS + NEW_PARTS)
            for pixels in shots(part, NEW_SHOTS, rng)
        ]
        settings = replace(preset_named("fast"), area_side=SIDE)
        for rule in rules:
            detector = Detector.fit(
                ruled(tuple(samples), rule, root),
                preset=settings,
                seed=number,
                rates=Rates(review=RATE, bad=0.01),
                device="cpu",
                run=Run(cache=root / "features"),
            )
            called = [detector.predict(pixels).decision != "good" for pixels in new]
            row[rule] = {
                "realised": round(float(np.mean(called)), 4),
                "groups": sum(detector.info.fit.groups.values()),
                "set the limit": detector.calibrations[POOLED].n,
            }
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean realised rate, its standard error over the draws, and the range, by rule."""
    table = {}
    for rule in (rule for rule in RULES if all(rule in row for row in rows)):
        rates = np.array([row[rule]["realised"] for row in rows])
        table[rule] = {
            "mean": round(float(rates.mean()), 4),
            "standard_error": round(float(rates.std(ddof=1) / len(rates) ** 0.5), 4)
            if len(rows) > 1
            else None,
            "least": float(rates.min()),
            "most": float(rates.max()),
            "groups": [min(r[rule]["groups"] for r in rows), max(r[rule]["groups"] for r in rows)],
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--rules", default=",".join(RULES), help="others keep the rows of the output")
    args = parser.parse_args()
    rules = args.rules.split(",")
    kept = json.loads(args.output.read_text())["rows"] if args.output.exists() else []

    def one(number: int) -> dict[str, Any]:
        before = next((row for row in kept if row["draw"] == number), {})
        return {**before, **one_draw(number, rules)}

    run_draws(
        __doc__,
        one,
        range(args.draws),
        summary,
        args.output,
        parts=PARTS,
        shots=SHOTS,
        new_parts=NEW_PARTS,
        shots_of_new_parts=NEW_SHOTS,
        rate=RATE,
    )


if __name__ == "__main__":
    main()
