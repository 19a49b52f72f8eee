"""What was tested and how, in words, and parts in the place of their pictures, for a report."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from invad.detector.card import moved_rows, normals_in_words, promised
from invad.detector.opening import Trained
from invad.evaluation.evaluate import Evaluation
from invad.metrics.exact import PIXEL_METRICS
from invad.scoring.fusion import Fusion
from invad.scoring.rates import POOLED

PARTS = "parts"
"""Stands for a category where parts are counted like images."""


def with_parts_as_images(evaluation: Evaluation, fusion: Fusion) -> Evaluation:
    """The same with one image for each part, the picture that lies highest above its normals, for a report.

    Scores, decisions and metrics are those of the part; pixels of several pictures are no one measure.
    """
    place = {(one.sample.sample_id, one.sample.member): i for i, one in enumerate(evaluation.scored)}
    chosen = [place[part.part, part.seen_by] for part in evaluation.parts]
    scored = [
        replace(
            evaluation.scored[i],
            sample=replace(evaluation.scored[i].sample, category=PARTS, defect=part.defect),
            score=part.score,
            p_value=fusion.calibration.p_value(part.score),
            decision=part.decision,
            score_limits=fusion.calibration.score_limits(),
        )
        for i, part in zip(chosen, evaluation.parts, strict=True)
    ]
    told = evaluation.metrics["parts"]
    unknown = dict.fromkeys([*PIXEL_METRICS, "mad"])
    counts = {"n_normal": sum(not one.sample.is_anomalous for one in scored)}
    own = {**unknown, **told, **counts}
    return replace(
        evaluation,
        metrics={**evaluation.metrics, **own, "categories": {PARTS: own}},
        scored=tuple(scored),
        defects=tuple(evaluation.defects[i] for i in chosen),
        sizes_hw=tuple(evaluation.sizes_hw[i] for i in chosen),
    )


def describe(detector: Trained, evaluation: Evaluation) -> dict[str, str]:
    """What was tested and how, in words, for a report."""
    info, metrics = detector.info, evaluation.metrics
    pooled, fusion = detector.calibrations[POOLED], detector.fusion
    count = f"{pooled.n} {pooled.unit}" if fusion is None else f"{fusion.calibration.n} {fusion.unit}"
    return {
        "protocol": metrics["protocol"],
        "limits": _limits_in_words(metrics),
        "learned from": f"{sum(info.fit.normals.values())} good images ({normals_in_words(info.fit)})"
        if info.fit.normals
        else "images not recorded in the imported checkpoint",
        **moved_rows(info.settings.moved),
        "calibrated on": count,
        "what the limits keep": str(promised(info, detector.calibrations, fusion)),
        "preset": f"{info.preset}, seed {info.settings.train.seed}",
        "backbone": f"{info.settings.backbone} ({info.backbone_source}); {info.backbone_licence}",
        "input": f"{info.input_hw[0]} x {info.input_hw[1]} pixels (height x width)",
        "skipped as unreadable": ", ".join(metrics["skipped"]) or "none",
        "made": f"by invad {info.invad_version} on {info.created}, content hash {detector.content_hash}",
    }


def _limits_in_words(metrics: Mapping[str, Any]) -> str:
    if metrics["pooled_calibration"]:
        return "over all categories"
    lacking = ", ".join(metrics["without_own_limits"])
    return f"of each category; over all categories for {lacking}" if lacking else "of each category"
