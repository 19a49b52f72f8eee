"""The test images of one category under a detector, as a prediction file wants them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.data.labelled import Labelled, Unreadable, judge_labelled
from invad.detector.detector import Detector
from invad.evaluation.evaluate import judged_by, paper_reading
from invad.evaluation.machine import PeakMemory, facts, in_words
from invad.evaluation.predictions import PackedMask, Predictions
from invad.observer import Observer
from invad.records import Decision, Hw, Sample
from invad.scoring.calibration import for_category
from invad.scoring.typicality import paper_fusion


@dataclass(frozen=True, slots=True)
class _Judged:
    """One image under the calibrated protocol, and its features."""

    features_1Chw: torch.Tensor
    score: float
    map_hw: NDArray[np.float32]
    p_value: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class _Scored:
    """One image under each protocol. seconds: of the calibrated one. paper: its map h x w and terms (NLL,
    Diff), None of a model without a network.
    """

    sample: Sample
    size_hw: Hw
    score: float
    map_hw: NDArray[np.float32]
    p_value: float
    decision: Decision
    paper: tuple[NDArray[np.float32], tuple[float, float]] | None
    mask: PackedMask | None
    seconds: float


def predict_category(
    detector: Detector,
    samples: Sequence[Sample],
    root: Path,
    meta: dict[str, Any],
    *,
    strict: bool,
    observer: Observer,
) -> Predictions:
    """Score the test images of one category under both protocols; a model without a network has one.

    meta: what is known of the run; what is measured here is added. Time is that of reading, scoring and
    judging one image after the other under the calibrated protocol. Images and masks that cannot be read are
    left out and named. Raises DataError when no image can be read, or for the first that cannot if strict.
    """
    memory = PeakMemory(str(detector.model.extract.device))
    unreadable = Unreadable()
    judged = judge_labelled(
        samples,
        lambda sample, pixels: _judge(detector, sample, pixels),
        unreadable,
        stage="test",
        observer=observer,
        strict=strict,
    )
    scored = [_under_each(detector, one) for one in judged]
    for line in unreadable.doubts():
        observer.note(f"warning: {line}")
    measured = {
        "images_per_second": round(len(scored) / sum(s.seconds for s in scored), 3),
        "peak_memory_mb": memory.megabytes(),
        "measured_on": in_words(facts()),
        "train_seconds": detector.info.fit.seconds,
        "calibration_n": for_category(detector.calibrations, judged_by(detector, samples[0])).n,
        "pooled_limits": judged_by(detector, samples[0]) is None,
        "rates": asdict(detector.rates),
        "input_hw": list(detector.info.input_hw),
        "skipped": [below(root, path) for path in (*unreadable.images, *unreadable.masks)],
    }
    return _collected(scored, root, {**meta, **measured})


def _judge(detector: Detector, sample: Sample, pixels: NDArray[Any]) -> _Judged:
    features = detector.model.extract(pixels)
    category = judged_by(detector, sample)
    score, map_hw = detector.score(detector.model.read(features), category)
    calibration = for_category(detector.calibrations, category)
    return _Judged(features, score, map_hw, calibration.p_value(score), calibration.decide(score))


def _under_each(detector: Detector, one: Labelled[_Judged]) -> _Scored:
    # Here and not while judging: the time measured is that of the calibrated protocol.
    walked = detector.model.denoiser is not None
    paper = paper_reading(detector, one.answer.features_1Chw) if walked else None
    mask = None if one.mask_codes is None else PackedMask.pack(*one.mask_codes)
    return _Scored(
        sample=one.sample,
        size_hw=one.size_hw,
        score=one.answer.score,
        map_hw=one.answer.map_hw,
        p_value=one.answer.p_value,
        decision=one.answer.decision,
        paper=paper,
        mask=mask,
        seconds=one.seconds,
    )


def _collected(scored: Sequence[_Scored], root: Path, meta: dict[str, Any]) -> Predictions:
    scores = {"calibrated": np.array([s.score for s in scored])}
    maps = {"calibrated": np.stack([s.map_hw for s in scored])}
    if papers := [s.paper for s in scored if s.paper is not None]:
        terms = torch.tensor([terms for _, terms in papers], dtype=torch.float64)
        scores["paper"] = paper_fusion(terms[:, 0], terms[:, 1]).numpy()
        maps["paper"] = np.stack([map_hw for map_hw, _ in papers])
    return Predictions(
        meta=meta,
        paths=tuple(below(root, s.sample.path) for s in scored),
        defects=tuple(s.sample.defect for s in scored),
        samples=tuple(sample_of(s.sample) for s in scored),
        sizes_N2=np.array([s.size_hw for s in scored], np.int32),
        p_values=np.array([s.p_value for s in scored]),
        decisions=tuple(s.decision for s in scored),
        scores=scores,
        maps=maps,
        masks=tuple(s.mask for s in scored),
    )


def sample_of(sample: Sample) -> str:
    """The object that an image is a view of, "" for an image by itself."""
    return sample.sample_id or ""


def below(root: Path, path: Path) -> str:
    """The path below the root, with forward slashes, where it lies there."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
