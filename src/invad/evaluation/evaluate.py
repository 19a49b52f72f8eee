"""Scores of a labelled test set under a named protocol, and the seven metrics.

`calibrated`: the score that `Detector.predict` gives, which depends on no other image. `paper`: the published
evaluation, whose image score is scaled over the labelled test set of each category. It can be compared with
publications; p-values and decisions still come from the calibrated score.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.data.datasets import all_samples, load_dataset
from invad.data.images import read_image
from invad.data.labelled import Unreadable, judge_labelled
from invad.data.layouts.base import Dataset
from invad.data.preprocess import resize_map
from invad.data.region import cut, require_frame
from invad.detector.detector import Detector
from invad.detector.opening import Trained
from invad.detector.tiled import TiledDetector
from invad.diffusion.schedule import timesteps
from invad.errors import ConfigError, DataError
from invad.evaluation.false_alarms import false_alarms, realised_rate
from invad.evaluation.inspected import (
    counted,
    ignored_in_words,
    left_of,
    one_class_in_words,
    unmarked_in_words,
)
from invad.evaluation.parts import ScoredPart, members_of, part_metrics, scored_parts, split_of
from invad.metrics.exact import (
    PIXEL_METRICS,
    SEVEN_METRICS,
    image_metrics,
    mean_ad,
    mean_over_categories,
    pixel_metrics,
)
from invad.observer import Observer, Silent
from invad.records import Hw, Sample, ScoredSample
from invad.scoring.calibration import for_category, known_category, upper_limit
from invad.scoring.defects import Defect, defects
from invad.scoring.rates import POOLED
from invad.scoring.scale import Scale
from invad.scoring.typicality import paper_fusion, paper_terms
from invad.system.arguments import require

PAPER_STEPS = 3
NO_LIMITS = (math.inf, math.inf)
"""Of a score that decides nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a test gave.

    metrics: plain data with the keys of `invad evaluate --json`. scored: every readable image, in the order
    of the set. map_limits: (review, bad) limits of the maps, which are the colours of a report.
    defects: of each of them in turn, as `Detector.defects` finds them; empty under another protocol.
    sizes_hw: height and width of each image. parts: those of a model of parts, whose pictures are in scored.
    """

    metrics: dict[str, Any]
    scored: tuple[ScoredSample, ...]
    map_limits: tuple[float, float]
    defects: tuple[tuple[Defect, ...], ...] = ()
    sizes_hw: tuple[Hw, ...] = ()
    parts: tuple[ScoredPart, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reading:
    """One image under a protocol: map on the grid, the protocol's score, the score that decides."""

    map_hw: NDArray[np.float32]
    score: float
    deciding: float
    terms: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Tested:
    """One readable image. mask: defective pixels in the model's input frame, None where unknown."""

    sample: Sample
    reading: _Reading
    mask: NDArray[np.bool_] | None
    seconds: float
    size_hw: Hw


def evaluate(
    detector: Trained,
    data: str | Path | Dataset | Sequence[Sample],
    *,
    protocol: str = "calibrated",
    categories: Sequence[str] | None = None,
    pooled: bool = False,
    strict: bool = False,
    observer: Observer | None = None,
    scale: Scale | str | Path | None = None,
) -> Evaluation:
    """Score the test images of a folder, a data set or samples, and compute the metrics.

    Pixel metrics are computed at the model's input size, over the categories that have masks. With several
    categories each metric is the mean over them.

    data: a folder or list as for `load_dataset`, its result, or samples. protocol: a key of PROTOCOLS.
    categories: test only these of a folder or a data set. pooled: judge every image by the limits over all
    categories, as `Detector.predict` does without a category. strict: fail on an unreadable image or mask,
    which otherwise is named in the metrics and passed over. scale: as for `Detector.defects`. With
    a region of interest only pixels in it count; defective images all of whose defects it ignores are left
    out and named.

    Raises DataError without a readable test image or when something is wrong with the test part of the set,
    ConfigError for an unknown protocol, and for categories beside samples.
    """
    require(protocol=(protocol, str), detector=(detector, Detector | TiledDetector))
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}")
    observer, lengths = observer or Silent(), Scale.of(scale)
    if isinstance(data, str | Path):
        data = load_dataset(data, categories=categories)
    elif categories is not None:
        if not isinstance(data, Dataset):
            raise ConfigError(
                "categories choose from a folder or a data set; give the samples of these alone"
            )
        data = data.only(categories)
    if detector.fusion is not None and isinstance(data, Dataset):
        data = split_of(data, detector.fusion)
    samples = data.sound_test() if isinstance(data, Dataset) else tuple(all_samples(data))
    if not samples:
        where = data.root if isinstance(data, Dataset) else "the samples"
        raise DataError(f"{where}: no test images; give a folder with test/good and test/<defect>")
    if detector.fusion is not None:
        samples = members_of(samples, detector.fusion)
    unreadable, read = Unreadable(), PROTOCOLS[protocol]

    def judge(sample: Sample, pixels: NDArray[Any]) -> _Reading:
        category = judged_by(detector, sample, pooled)
        require_frame(detector.region_for(category), (pixels.shape[0], pixels.shape[1]), sample.path)
        return read(detector, pixels, category)

    judged = judge_labelled(
        samples,
        judge,
        unreadable,
        stage="evaluation",
        observer=observer,
        strict=strict,
        decode=read_image if detector.regions else detector.decode,
    )
    ignored, without, vanished = 0, [], []
    tested = []
    for one in judged:
        inside_HW = detector.inside_for(judged_by(detector, one.sample, pooled))
        left = left_of(one, inside_HW, detector.frame_for(one.size_hw))
        ignored += left.ignored
        if left.vanished:
            vanished.append(one.sample.path)
        if left.counts:
            tested.append(_Tested(one.sample, one.answer, left.mask, one.seconds, one.size_hw))
        else:
            without.append(one.sample.path)
    if not tested:
        raise DataError(f"{samples[0].path.parent}: the region of interest ignores all defects of all images")
    readings = [t.reading for t in tested]
    if protocol == "paper":
        readings = _fuse([t.sample for t in tested], readings)
    scored = [
        _scored(detector, t, reading, judged_by(detector, t.sample, pooled), protocol)
        for t, reading in zip(tested, readings, strict=True)
    ]
    normals = [s for s in scored if not s.sample.is_anomalous]
    of_normals = [s.decision for s in normals]
    judges = Counter(judged_by(detector, s.sample, pooled) for s in normals)
    counted = [(m, for_category(detector.calibrations, judge).n) for judge, m in judges.items()]
    summary = _summary(scored, [t.mask for t in tested], detector, pooled)
    metrics = {
        **summary,
        "false_alarm_rate": realised_rate(of_normals),
        "false_alarms": false_alarms(of_normals, asdict(detector.rates), counted),
        "calibration_n": detector.calibrations[POOLED].n,
        "protocol": protocol,
        "pooled_calibration": pooled,
        "without_own_limits": [] if pooled else without_own_limits(detector, [t.sample for t in tested]),
        "images_per_second": round(len(tested) / sum(t.seconds for t in tested), 3),
        "skipped": [str(path) for path in unreadable.images],
        "masks_skipped": [str(path) for path in unreadable.masks],
        "warnings": [
            *detector.warnings(),
            *unreadable.doubts(),
            *one_class_in_words(summary["categories"]),
            *unmarked_in_words(summary["categories"].items(), vanished),
        ],
    }
    if detector.region is not None or detector.regions:
        metrics |= {"defects_ignored": ignored, "images_ignored": [str(path) for path in without]}
        metrics["warnings"] += filter(None, [ignored_in_words(ignored, without)])
    parts: tuple[ScoredPart, ...] = ()
    if detector.fusion is not None and protocol == "calibrated" and not pooled:
        parts = scored_parts(scored, detector.fusion, detector.smallest)
        metrics["parts"] = part_metrics(parts, detector.fusion)
    found = [_defects(detector, t, pooled, lengths) for t in tested] if protocol == "calibrated" else []
    return Evaluation(
        metrics=metrics,
        scored=tuple(scored),
        map_limits=_map_limits(protocol, detector, scored),
        defects=tuple(found),
        sizes_hw=tuple(t.size_hw for t in tested),
        parts=parts,
    )


def _defects(detector: Trained, tested: _Tested, pooled: bool, scale: Scale | None) -> tuple[Defect, ...]:
    category = judged_by(detector, tested.sample, pooled)
    review, _ = for_category(detector.calibrations, category).map_limits()
    map_hw = tested.reading.map_hw
    if map_hw.max() <= review:
        return ()  # a map that is made larger has no larger values
    map_HW = cut(resize_map(map_hw, tested.size_hw), detector.inside_for(category))
    least = detector.least_pixels(tested.size_hw)
    return defects(
        map_HW, review, detector.grid_for(tested.size_hw), scale, least=least, sizes=detector.sizes
    )


def _map_limits(protocol: str, detector: Trained, scored: Sequence[ScoredSample]) -> tuple[float, float]:
    """(review, bad) limits of the maps, for their colours."""
    if protocol == "calibrated":
        return for_category(detector.calibrations, None).map_limits()
    # Maps of a protocol that only measures have no calibration: the normal images tested must do.
    normal = [s for s in scored if not s.sample.is_anomalous] or scored
    peaks = np.array([s.anomaly_map.max() for s in normal])
    return upper_limit(peaks, detector.rates.review), upper_limit(peaks, detector.rates.bad)


def judged_by(detector: Trained, sample: Sample, pooled: bool = False) -> str | None:
    """The category whose calibration judges a sample: its own where there is one, else None, the pooled."""
    try:
        return None if pooled else known_category(detector.calibrations, sample.category) or None
    except ConfigError:
        return None


def without_own_limits(detector: Trained, samples: Iterable[Sample]) -> list[str]:
    """Categories that the limits over all categories judge, because the model has none of their own."""
    return sorted({s.category for s in samples if judged_by(detector, s) is None})


def _calibrated(detector: Trained, pixels: NDArray[Any], category: str | None) -> _Reading:
    score, map_hw = detector.reading(pixels, category)
    return _Reading(map_hw, score, score)


def _paper(detector: Trained, pixels: NDArray[Any], category: str | None) -> _Reading:
    if not isinstance(detector, Detector):
        raise ConfigError("the paper's protocol knows no tiles; use the protocol calibrated")
    detector = detector.looking_at(category)
    features = detector.model.extract(pixels)
    deciding, _ = detector.score(detector.model.read(features), category)
    map_hw, terms = paper_reading(detector, features)
    return _Reading(map_hw, 0.0, deciding, terms)


def paper_reading(
    detector: Detector, features_1Chw: torch.Tensor
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Norm map h x w of the inverted latent and its terms (NLL, Diff), which `paper_fusion` makes a score."""
    with torch.inference_mode():
        trajectory = detector.model.invert(features_1Chw, timesteps("reference", PAPER_STEPS))
        map_Bhw, nll_B, diff_B = paper_terms(trajectory.latent.float().cpu())
    return map_Bhw[0].numpy(), (float(nll_B), float(diff_B))


def _fuse(samples: Sequence[Sample], readings: Sequence[_Reading]) -> list[_Reading]:
    fused = list(readings)
    for category in {s.category for s in samples}:
        index = [i for i, s in enumerate(samples) if s.category == category]
        terms = torch.tensor([readings[i].terms for i in index], dtype=torch.float64)
        for i, score in zip(index, paper_fusion(terms[:, 0], terms[:, 1]).tolist(), strict=True):
            fused[i] = replace(readings[i], score=score)
    return fused


def _scored(
    detector: Trained, tested: _Tested, reading: _Reading, category: str | None, protocol: str
) -> ScoredSample:
    calibration = for_category(detector.calibrations, category)
    frame_hw = detector.frame_for(tested.size_hw)
    return ScoredSample(
        sample=tested.sample,
        score=reading.score,
        p_value=calibration.p_value(reading.deciding),
        decision=calibration.decide(reading.deciding),
        anomaly_map=cut(resize_map(reading.map_hw, frame_hw), counted(detector, category)),
        score_limits=calibration.score_limits() if protocol == "calibrated" else NO_LIMITS,
        cells=None if detector.fusion is None else reading.map_hw,
    )


def _summary(
    scored: Sequence[ScoredSample],
    masks: Sequence[NDArray[np.bool_] | None],
    detector: Trained,
    pooled: bool,
) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    for category in sorted({s.sample.category for s in scored}):
        own = [(s, m) for s, m in zip(scored, masks, strict=True) if s.sample.category == category]
        inside_HW = counted(detector, judged_by(detector, own[0][0].sample, pooled))
        rows[category] = _category_row([s for s, _ in own], [m for _, m in own], inside_HW)
    mean = mean_over_categories([{k: row[k] for k in SEVEN_METRICS} for row in rows.values()])
    counts = {key: sum(row[key] for row in rows.values()) for key in ("n_normal", "n_anomalous", "n_masked")}
    return {**_renamed(mean), **counts, "categories": rows}


def _category_row(
    scored: Sequence[ScoredSample],
    masks: Sequence[NDArray[np.bool_] | None],
    inside_HW: NDArray[np.bool_] | None,
) -> dict[str, Any]:
    labels = np.array([s.sample.is_anomalous for s in scored])
    image = image_metrics(np.array([s.score for s in scored]), labels)
    # Pixels are known of normal images, and of defects with a mask.
    known = [(s.anomaly_map, m) for s, m in zip(scored, masks, strict=True) if m is not None]
    pixel: dict[str, float | None] = dict.fromkeys(PIXEL_METRICS)
    if any(m.any() for _, m in known):
        pixel = pixel_metrics([a for a, _ in known], [m for _, m in known], inside_HW)
    seven = {**image, **pixel}
    normal = [s.decision for s in scored if not s.sample.is_anomalous]
    return {
        **seven,
        "mad": mean_ad(seven),
        "false_alarm_rate": realised_rate(normal),
        "n_normal": len(normal),
        "n_anomalous": len(scored) - len(normal),
        "n_masked": sum(s.sample.is_anomalous and m is not None for s, m in zip(scored, masks, strict=True)),
    }


def _renamed(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {("mad" if k == "mean_ad" else k): v for k, v in metrics.items()}


Read = Callable[[Trained, NDArray[Any], str | None], _Reading]

PROTOCOLS: dict[str, Read] = {"calibrated": _calibrated, "paper": _paper}
