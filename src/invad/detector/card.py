"""The README.md that is saved with a model: what it was made from and what it promises."""

from collections.abc import Mapping, Sequence

from invad.detector.parts import DetectorInfo
from invad.fit.fit import FitRecord
from invad.fit.moving import largest_turn
from invad.records import Hw
from invad.runtime.fusing import counting_in
from invad.runtime.promise import Promise, made_once, promise
from invad.runtime.smallest import counting
from invad.scoring.calibration import Calibration
from invad.scoring.fusion import Fusion
from invad.scoring.rates import POOLED

HEAD = """\
---
library_name: invad
tags: [anomaly-detection, diffusion, ddim-inversion]
---
# Anomaly detector (invad)

Learned from normal images only, by diffusion inversion (arXiv 2504.05662).
"""

FOOT = """\
The rates hold for images like those it was calibrated on. New light, focus, parts or suppliers need
`invad calibrate` on fresh normal images. Licence of the training images: whatever their owner set.
"""

USE = """
```python
from invad import Detector
print(Detector.load("this-folder").predict("part.png"))
```
"""

USE_OF_PARTS = """
```python
from invad import Detector
for part in Detector.load("this-folder").predict_parts("folder/of/pictures"):
    print(part)
```
"""


def model_card(
    info: DetectorInfo,
    calibrations: Mapping[str, Calibration],
    warnings: Sequence[str] = (),
    fusion: Fusion | None = None,
) -> str:
    """The card as Markdown. warnings: what the calibration cannot promise, one line each."""
    rows = {**_training_rows(info), **_calibration_rows(info, calibrations, fusion)}
    made = (
        f"Made by invad {info.invad_version} on {info.created}, preset `{info.preset}`, "
        f"seed {info.settings.train.seed}.\n"
    )
    table = "\n".join(["", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items()), "", ""])
    listed = "".join(f"- {line}\n" for line in warnings)
    use = USE if info.tiles is None else USE.replace("Detector", "TiledDetector")
    use = use if fusion is None else USE_OF_PARTS
    return HEAD + made + table + FOOT + (f"\n{listed}" if listed else "") + use


def _training_rows(info: DetectorInfo) -> dict[str, str]:
    fit, settings = info.fit, info.settings
    where = f"{fit.seconds} s on {fit.device}, {fit.threads} threads"
    if fit.final_loss is not None:
        trained = f"{where}, last loss {fit.final_loss}"
    else:
        trained = f"no network; fitted in {where}" if fit.normals else "none here"
    return {
        "normal images": normals_in_words(fit) or "unknown, the denoiser was imported",
        **moved_rows(settings.moved),
        "skipped as unreadable": str(len(fit.skipped)),
        "copies, counted once": str(len(fit.copies)),
        "input": f"{_size(info.input_hw)} pixels (height x width), grid {_size(info.grid_hw)}",
        **_tile_rows(info),
        **counting(info.region, info.smallest, info.regions),
        "16-bit window": f"{info.window[0]:.4f} to {info.window[1]:.4f} of full scale",
        "training": trained,
        "backbone": f"{settings.backbone} ({info.backbone_source}), licence: {info.backbone_licence}",
    }


def moved_rows(share: float) -> dict[str, str]:
    """What is said of moved copies; nothing where there are none."""
    if not share:
        return {}
    far = f"{share:.1%} of its sides and {largest_turn(share):.1f} degrees"
    return {"moved copies": f"one of each image, by up to {far}"}


def _tile_rows(info: DetectorInfo) -> dict[str, str]:
    if info.tiles is None:
        return {}
    tiling = info.tiles.tiling
    return {
        "tiles": f"{tiling.tile_px} pixels, overlapping by {tiling.overlap:.0%}, positions "
        f"{tiling.positions}",
        **counting_in(info.tiles),
    }


def _calibration_rows(
    info: DetectorInfo, calibrations: Mapping[str, Calibration], fusion: Fusion | None
) -> dict[str, str]:
    of_parts = {}
    if fusion is not None:
        calibrations = {POOLED: fusion.calibration}
        of_parts = {
            "pictures of a part": f"{', '.join(fusion.members)}, found by `{fusion.rule}`",
            "fused by": "the largest score" if fusion.kind == "scores" else "the largest value of each cell",
        }
    pooled = calibrations[POOLED]
    counts = {name: c.n for name, c in calibrations.items() if name != POOLED}
    if info.recalibrated is not None:
        how = f"not trained on, on {info.recalibrated}"
    elif info.fit.folds > 1:
        how = f"the training images, each held out once in {info.fit.folds} folds"
    else:
        how = "held out from training"
    review, bad = pooled.score_limits()
    unit = f" {pooled.unit}" if pooled.groups else ""
    if fusion is not None:
        unit = f" {fusion.unit}"
    return {
        **of_parts,
        "calibrated on": f"{_counts(counts) or pooled.n}{unit} ({how})",
        "what the limits keep": str(promised(info, calibrations, fusion)),
        "review above": f"score {review:.4f}, false-alarm rate asked {pooled.rates.review:.2%}",
        "bad above": f"score {bad:.4f}, false-alarm rate asked {pooled.rates.bad:.2%}",
    }


def promised(info: DetectorInfo, calibrations: Mapping[str, Calibration], fusion: Fusion | None) -> Promise:
    """What the limits of a model keep."""
    return promise(calibrations, fusion, once=made_once(info))


def _counts(by_category: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in by_category.items())


def _size(hw: Hw) -> str:
    return f"{hw[0]} x {hw[1]}"


def normals_in_words(fit: FitRecord) -> str:
    """`part 200 in 20 independent groups, other 60`; empty where nothing is known of a training."""
    return ", ".join(
        f"{name} {count}"
        + (f" in {fit.groups[name]} independent groups" if fit.groups.get(name, count) != count else "")
        for name, count in fit.normals.items()
    )
