"""False alarms by a date code that changes, with and without a region of interest that ignores it.

    python benchmarks/regions.py --output benchmarks/results/regions.json

Each draw makes 59 good parts with a lot number in their middle, trains `fast` on them, and judges 40 new good
parts with codes of another form and 20 defective ones that have the old form. `whole`: no region. `trained`:
train --roi. `kept`: calibrate --roi without pictures, from the norm maps that the model keeps. `pictures`:
calibrate --roi with 59 other good parts. `noise`: the largest change of a score when all that is ignored
becomes noise.
"""

import argparse
import tempfile
import time
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from draws import run_draws
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageDraw import Draw
from PIL.ImageFont import load_default

from invad.data.region import Region, inside_of
from invad.data.synthetic import draw
from invad.data.synthetic.categories import defects_of
from invad.detector.detector import Detector
from invad.metrics.exact import image_metrics
from invad.model.settings import preset_named
from invad.records import Sample
from invad.scoring.rates import POOLED, Rates

NORMALS, NEW, PER_DEFECT, SIDE = 59, 40, 4, 192
CATEGORY, RATE = "gasket", 0.05
RULES = ("whole", "trained", "kept", "pictures")
BOX = (60, 80, 132, 112)
"""Left, top, right, bottom of what is ignored; the code is printed four pixels further in."""

REGION = Region(
    frame=(SIDE, SIDE),
    ignore=(((BOX[0], BOX[1]), (BOX[2], BOX[1]), (BOX[2], BOX[3]), (BOX[0], BOX[3])),),
)


def stamped(picture: NDArray[np.uint8], rng: np.random.Generator, new: bool) -> NDArray[np.uint8]:
    """The picture with a code: two lines of digits, or three smaller ones in another ink."""
    image = Image.fromarray(picture)
    pen = Draw(image)
    at = (BOX[0] + 4, BOX[1] + 4)
    if new:
        text = f"EXP {rng.integers(10, 29)}.0{rng.integers(1, 10)}\nA{rng.integers(100, 999)} PL"
        font, ink = load_default(11), (120, 20, 20)
    else:
        text, font, ink = f"LOT {rng.integers(100, 120)}", load_default(15), (30, 30, 30)
    left, top, right, bottom = pen.multiline_textbbox(at, text, font=font)
    assert BOX[0] < left < right < BOX[2]
    assert BOX[1] < top < bottom < BOX[3]
    pen.multiline_text(at, text, fill=ink, font=font)
    return np.asarray(image)


def parts(
    number: int, first: int, count: int, rng: np.random.Generator, new: bool, defect: str = "good"
) -> list[NDArray[np.uint8]]:
    start = 10_000 * number + first
    return [
        stamped(draw(CATEGORY, defect, seed=i, size=SIDE)[0], rng, new) for i in range(start, start + count)
    ]


def written(folder: Path, pictures: list[NDArray[np.uint8]]) -> list[Sample]:
    folder.mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{i:03d}.png", compress_level=1)
    return [Sample(path=path, category="part") for path in sorted(folder.iterdir())]


def one_draw(number: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    settings = replace(preset_named("fast"), area_side=SIDE)
    rates = Rates(review=RATE, bad=0.02)
    with tempfile.TemporaryDirectory() as scratch:
        normals = written(Path(scratch) / "normals", parts(number, 0, NORMALS, rng, False))
        others = written(Path(scratch) / "others", parts(number, 1000, NORMALS, rng, False))
        whole = Detector.fit(normals, preset=settings, seed=number, rates=rates, device="cpu")
        trained = Detector.fit(
            normals, preset=settings, seed=number, rates=rates, device="cpu", region=REGION
        )
        kept, pictures = copy(whole), copy(whole)
        started, before = time.perf_counter(), time.process_time()
        kept.calibrate(region=REGION)
        seconds, busy = time.perf_counter() - started, time.process_time() - before
        pictures.calibrate(others, region=REGION)
    new = parts(number, 2000, NEW, rng, True)
    bad = [
        picture
        for k, defect in enumerate(defects_of(CATEGORY))
        for picture in parts(number, 3000 + 100 * k, PER_DEFECT, rng, False, defect)
    ]
    row: dict[str, Any] = {"draw": number, "recalibration_seconds": round(seconds, 2)}
    row["recalibration_cpu_seconds"] = round(busy, 2)
    for rule, detector in zip(RULES, (whole, trained, kept, pictures), strict=True):
        good = detector.predict(new)
        scores = [one.score for one in good]
        defective = [one.score for one in detector.predict(bad)]
        row[rule] = {
            "review_rate": round(float(np.mean([one.decision != "good" for one in good])), 4),
            "n": detector.calibrations[POOLED].n,
            "image_auroc": image_metrics([*scores, *defective], [0] * len(scores) + [1] * len(bad))[
                "image_auroc"
            ],
            "median_p": round(float(np.median([one.p_value for one in good])), 3),
        }
        if rule != "whole":
            row[rule]["noise"] = _noise(detector, new[:5])
    return row


def _noise(detector: Detector, pictures: list[NDArray[np.uint8]]) -> float:
    inside = inside_of(REGION)[..., None]
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    changes = [
        abs(detector.predict(p).score - detector.predict(np.where(inside, p, noise)).score) for p in pictures
    ]
    return float(max(changes))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the draws, and the slowest recalibration."""
    table: dict[str, Any] = {
        rule: {
            key: round(float(np.mean([row[rule][key] for row in rows])), 4)
            for key in ("review_rate", "image_auroc", "median_p")
        }
        for rule in RULES
    }
    table["noise_at_most"] = max(row[rule]["noise"] for row in rows for rule in RULES[1:])
    for key in ("recalibration_seconds", "recalibration_cpu_seconds"):
        table[f"{key}_at_most"] = max(row[key] for row in rows)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draws", type=int, default=2)
    args = parser.parse_args()
    run_draws(__doc__, one_draw, range(args.draws), summary, args.output, normals=NORMALS, new=NEW, rate=RATE)


if __name__ == "__main__":
    main()
