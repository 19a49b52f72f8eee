"""Parts under three lights: fused scores and cells, three lights as one colour picture, and the best light.

    python benchmarks/lights.py --output benchmarks/results/lights.json

Drawn plates (`invad.data.synthetic.write_lights`): a scratch shows under the lights across it alone, a dent
under all, a stain a little under each. `scores` and `cells` are the two ways of `train --fusion`; `stack`
puts the three grey pictures into the channels of one and trains on that; `light1` to `light3` are the scores
of one light in the model of all three. Image AUROC over parts, of all defects and of each kind.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from draws import run_draws
from PIL import Image

from invad.data.synthetic import write_lights
from invad.data.synthetic.lights import DEFECTS, LIGHTS
from invad.detector.detector import Detector
from invad.detector.fusing import fit_parts
from invad.evaluation.evaluate import evaluate
from invad.evaluation.parts import scored_parts
from invad.metrics.exact import image_metrics
from invad.runtime.part_limits import PartPlan

TRAIN, TEST_GOOD, PER_DEFECT, SIZE = 40, 30, 12, 192
FUSED, STACK = ("scores", "cells"), "stack"


def stacked(root: Path, out: Path) -> Path:
    """The same plates with the lights as red, green and blue."""
    first = next(iter(LIGHTS))
    for path in sorted(root.rglob(f"*_{first}.png")):
        channels = [np.asarray(Image.open(path.with_name(path.name.replace(first, name)))) for name in LIGHTS]
        target = out / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.dstack(channels)).save(target, compress_level=1)
    return out


def auroc(scores: Mapping[str, list[float]]) -> dict[str, float | None]:
    """Of all defects and of each kind, from scores by kind."""
    good, found = scores["good"], {}
    for name, kinds in {"all": DEFECTS, **{kind: (kind,) for kind in DEFECTS}}.items():
        bad = [score for kind in kinds for score in scores[kind]]
        labels = np.array([False] * len(good) + [True] * len(bad))
        found[name] = image_metrics(np.array([*good, *bad]), labels)["image_auroc"]
    return found


def by_kind(rows: list[tuple[str, float]]) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for kind, score in rows:
        scores.setdefault(kind, []).append(score)
    return scores


def one_seed(seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"seed": seed}
    with tempfile.TemporaryDirectory() as scratch:
        root = write_lights(
            Path(scratch) / "plates",
            train=TRAIN,
            test_good=TEST_GOOD,
            per_defect=PER_DEFECT,
            size=SIZE,
            seed=seed,
        )
        fast: dict[str, Any] = {"preset": "fast", "seed": seed, "device": "cpu"}
        detector = Detector.fit(root, parts="names", **fast)
        tested, kept, fusion = evaluate(detector, root), detector.kept, detector.fusion
        assert kept is not None
        assert fusion is not None
        plan = PartPlan(fusion.rule, "cells", fusion.members, fusion.by_member)
        rule = detector.info.settings.score_rule
        cells = fit_parts(kept.maps_NLhw, kept, plan=plan, rule=rule, rates=detector.rates)
        for kind, parts in (("scores", tested.parts), ("cells", scored_parts(tested.scored, cells))):
            row[kind] = auroc(by_kind([(part.defect, part.score) for part in parts]))
        for light in LIGHTS:
            own = [(s.sample.defect, s.score) for s in tested.scored if s.sample.member == light]
            row[light] = auroc(by_kind(own))
        colour = stacked(root, Path(scratch) / "colour")
        alone = evaluate(Detector.fit(colour, **fast), colour)
        row[STACK] = auroc(by_kind([(s.sample.defect, s.score) for s in alone.scored]))
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean AUROC over the seeds, and the least and the most, by way and kind of defect."""
    table: dict[str, Any] = {}
    for way in (*FUSED, STACK, *LIGHTS):
        table[way] = {}
        for kind in ("all", *DEFECTS):
            values = [row[way][kind] for row in rows]
            table[way][kind] = {
                "mean": round(float(np.mean(values)), 4),
                "least": round(min(values), 4),
                "most": round(max(values), 4),
            }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    plates = {"train": TRAIN, "test good": TEST_GOOD, "each defect": PER_DEFECT, "pixels": SIZE}
    run_draws(__doc__, one_seed, range(args.seeds), summary, args.output, plates=plates)


if __name__ == "__main__":
    main()
