"""The test images of one category under a detector, as a prediction file wants them."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.data.images import read_image, read_mask_codes
from invad.detector.detector import Detector
from invad.errors import DataError
from invad.evaluation.evaluate import judged_by, paper_reading
from invad.evaluation.machine import PeakMemory, facts, in_words
from invad.evaluation.predictions import PackedMask, Predictions
from invad.observer import Observer
from invad.records import Decision, Sample
from invad.scoring.calibration import for_category
from invad.scoring.typicality import paper_fusion


@dataclass(frozen=True, slots=True)
class _Scored:
    """One image under both protocols. seconds: of the calibrated one."""

    sample: Sample
    size_hw: tuple[int, int]
    score: float
    map_hw: NDArray[np.float32]
    p_value: float
    decision: Decision
    paper_map_hw: NDArray[np.float32]
    terms: tuple[float, float]
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
    """Score the test images of one category under both protocols.

    meta: what is known of the run; what is measured here is added. Time is that of reading, scoring and
    judging one image after the other under the calibrated protocol. Images and masks that cannot be read are
    left out and named. Raises DataError when no image can be read, or for the first that cannot if strict.
    """
    memory = PeakMemory(str(detector.model.extract.device))
    skip = _Skipped(root, strict, observer)
    scored: list[_Scored] = []
    observer.stage("test", len(samples))
    for sample in samples:
        try:
            scored.append(_score(detector, sample, skip))
        except DataError as error:
            skip(sample.path, error)
        observer.advance()
    if not scored:
        raise DataError(f"{samples[0].path.parent}: none of {len(samples)} test images could be read")
    measured = {
        "images_per_second": round(len(scored) / sum(s.seconds for s in scored), 3),
        "peak_memory_mb": memory.megabytes(),
        "measured_on": in_words(facts()),
        "train_seconds": detector.info.fit.seconds,
        "calibration_n": for_category(detector.calibrations, judged_by(detector, samples[0])).n,
        "rates": asdict(detector.rates),
        "input_hw": list(detector.info.input_hw),
        "skipped": skip.names,
    }
    return _collected(scored, root, {**meta, **measured})


class _Skipped:
    """Notes what could not be read, or raises if strict."""

    def __init__(self, root: Path, strict: bool, observer: Observer):
        self.root, self.strict, self.observer = root, strict, observer
        self.names: list[str] = []

    def __call__(self, path: Path, error: DataError) -> None:
        if self.strict:
            raise error
        self.names.append(below(self.root, path))
        self.observer.note(f"skipped: {error}")


def _score(detector: Detector, sample: Sample, skip: _Skipped) -> _Scored:
    started = time.perf_counter()
    pixels = read_image(sample.path)
    features = detector.model.extract(pixels)
    category = judged_by(detector, sample)
    score, map_hw = detector.score(detector.model.read(features), category)
    calibration = for_category(detector.calibrations, category)
    p_value, decision = calibration.p_value(score), calibration.decide(score)
    seconds = time.perf_counter() - started
    paper_map_hw, terms = paper_reading(detector, features)
    size_hw = (pixels.shape[0], pixels.shape[1])
    mask = _mask(sample, size_hw, skip)
    return _Scored(sample, size_hw, score, map_hw, p_value, decision, paper_map_hw, terms, mask, seconds)


def _mask(sample: Sample, size_hw: tuple[int, int], skip: _Skipped) -> PackedMask | None:
    if sample.mask_path is None or not sample.is_anomalous:
        return None
    try:
        return PackedMask.pack(*read_mask_codes(sample.mask_path, size_hw=size_hw, above=sample.mask_above))
    except DataError as error:
        skip(sample.mask_path, error)
        return None


def _collected(scored: Sequence[_Scored], root: Path, meta: dict[str, Any]) -> Predictions:
    terms = torch.tensor([s.terms for s in scored], dtype=torch.float64)
    return Predictions(
        meta=meta,
        paths=tuple(below(root, s.sample.path) for s in scored),
        defects=tuple(s.sample.defect for s in scored),
        samples=tuple(sample_of(s.sample) for s in scored),
        sizes_N2=np.array([s.size_hw for s in scored], np.int32),
        p_values=np.array([s.p_value for s in scored]),
        decisions=tuple(s.decision for s in scored),
        scores={
            "calibrated": np.array([s.score for s in scored]),
            "paper": paper_fusion(terms[:, 0], terms[:, 1]).numpy(),
        },
        maps={
            "calibrated": np.stack([s.map_hw for s in scored]),
            "paper": np.stack([s.paper_map_hw for s in scored]),
        },
        masks=tuple(s.mask for s in scored),
    )


def sample_of(sample: Sample) -> str:
    """The object that an image is a view of, "" for an image by itself."""
    return sample.sample_id or ""


def below(root: Path, path: Path) -> str:
    """The path below the root, with forward slashes, where it lies there."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
