"""Detection and localisation metrics: exact, deterministic, numpy and scipy only.

Conventions. Larger scores are more anomalous; a threshold t flags every score >= t. TP, FP and FN count
anomalous and normal elements (images or pixels). Equal scores are never split: a curve has points at
distinct scores only, so every value here depends on the order of the scores alone and not on their scale,
their position in the array or a number of bins. A metric that a set cannot define is None, never 0 or NaN.

Shapes: N images (or scores), H W pixels, T distinct scores of anomalous elements, highest first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label as label_components

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
SEVEN_METRICS = IMAGE_METRICS + PIXEL_METRICS

PRO_LIMIT = 0.3
"""False-positive rate up to which the PRO curve is integrated by convention."""

PART = 1 << 26
"""Normal pixels that are sorted at a time, so that a large set needs no more memory than this."""

Floats: TypeAlias = NDArray[np.floating[Any]]
Bools: TypeAlias = NDArray[np.bool_]
Counts: TypeAlias = NDArray[np.int64]
Metrics: TypeAlias = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class F1Max:
    """Best F1 over all thresholds, in (0, 1], and the score at which `score >= threshold` reaches it.

    The threshold was chosen with the test labels: it describes a set and must not be used to operate.
    """

    value: float
    threshold: float


@dataclass(frozen=True, slots=True)
class RocCurve:
    """Points of the ROC curve from (0, 0) to (1, 1), one per distinct score, highest score first.

    fpr, tpr: float64 in [0, 1], non-decreasing; thresholds: strictly falling scores, the first is +inf.
    """

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    thresholds: Floats


@dataclass(frozen=True, slots=True)
class _Curve:
    """All that the metrics need to know of a set, at the distinct scores of its anomalous elements.

    Scores held by normal elements alone need no point: between two anomalous scores the recall stays put,
    so AP gains nothing, F1 only falls and the ROC and PRO curves run level.

    tp_T: anomalous >= score; fp_T: normal >= score; fp_above_T: normal > score; pro_T: share of `weights`
    held by the anomalous >= score, its last value exactly 1.
    """

    thresholds_T: Floats
    tp_T: Counts
    fp_T: Counts
    fp_above_T: Counts
    pro_T: NDArray[np.float64]
    n_anomalous: int
    n_normal: int


def _curve(
    anomalous: Floats, normal_parts: Iterable[Floats], weights: NDArray[np.float64] | None = None
) -> _Curve:
    """Count both classes at the distinct values of `anomalous` (at least one); each part ascends."""
    order = np.argsort(anomalous, kind="stable")[::-1]
    ranked = anomalous[order]
    last_of_ties = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
    thresholds_T = ranked[last_of_ties]
    tp_T = last_of_ties.astype(np.int64) + 1
    mass_T = tp_T.astype(np.float64) if weights is None else np.cumsum(weights[order])[last_of_ties]
    fp_T, fp_above_T, n_normal = np.zeros_like(tp_T), np.zeros_like(tp_T), 0
    for part in normal_parts:
        fp_T += part.size - np.searchsorted(part, thresholds_T, side="left")
        fp_above_T += part.size - np.searchsorted(part, thresholds_T, side="right")
        n_normal += part.size
    return _Curve(
        thresholds_T=thresholds_T,
        tp_T=tp_T,
        fp_T=fp_T,
        fp_above_T=fp_above_T,
        pro_T=mass_T / mass_T[-1],
        n_anomalous=anomalous.size,
        n_normal=n_normal,
    )


def _auroc(curve: _Curve | None) -> float | None:
    if curve is None or curve.n_normal == 0:
        return None
    # In half pairs, so that the sum stays an exact integer; a tie between classes counts one half.
    lost = int(np.sum(np.diff(curve.tp_T, prepend=0) * (curve.fp_T + curve.fp_above_T)))
    pairs = 2 * curve.n_anomalous * curve.n_normal
    return (pairs - lost) / pairs


def _average_precision(curve: _Curve | None) -> float | None:
    if curve is None or curve.n_normal == 0:
        return None
    recall_steps = np.diff(curve.tp_T, prepend=0) / curve.n_anomalous
    return min(1.0, float(np.sum(recall_steps * (curve.tp_T / (curve.tp_T + curve.fp_T)))))


def _f1_max(curve: _Curve | None) -> F1Max | None:
    if curve is None or curve.n_normal == 0:
        return None
    f1_T = 2 * curve.tp_T / (curve.tp_T + curve.fp_T + curve.n_anomalous)  # TP + FN is the anomalous count
    best = int(np.argmax(f1_T))
    return F1Max(value=float(f1_T[best]), threshold=float(curve.thresholds_T[best]))


def _f1_value(curve: _Curve | None) -> float | None:
    best = _f1_max(curve)
    return None if best is None else best.value


def _aupro(curve: _Curve | None, limit: float) -> float | None:
    if curve is None or curve.n_normal == 0:
        return None
    # Two points per anomalous score: level run up to it, then the step (slanted where normal pixels tie).
    fpr = np.empty(2 * curve.tp_T.size + 2)
    fpr[0], fpr[1:-1:2], fpr[2:-1:2], fpr[-1] = 0, curve.fp_above_T, curve.fp_T, curve.n_normal
    fpr /= curve.n_normal
    pro = np.concatenate(([0.0, 0.0], np.repeat(curve.pro_T, 2)))
    return area_to_limit(fpr, pro, limit)


def area_to_limit(fpr: NDArray[np.float64], pro: NDArray[np.float64], limit: float) -> float:
    """(1 / limit) * area under the points joined by straight lines, from the first `fpr` to `limit`.

    fpr ascends and starts at or below the limit; both arrays are used up.
    """
    inside = int(np.searchsorted(fpr, limit, side="right"))
    if inside < fpr.size:
        share = (limit - fpr[inside - 1]) / (fpr[inside] - fpr[inside - 1])
        pro[inside] = pro[inside - 1] + share * (pro[inside] - pro[inside - 1])
        fpr[inside] = limit
    return min(1.0, area_under(fpr[: inside + 1], pro[: inside + 1]) / limit)


def area_under(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Area below the points joined by straight lines."""
    return 0.5 * float(np.dot(np.diff(x), y[1:] + y[:-1]))


def checked_scores(scores_N: ArrayLike, labels_N: ArrayLike) -> tuple[Floats, Bools]:
    scores, labels = np.asarray(scores_N), np.asarray(labels_N)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            f"scores and labels must be 1-d and of equal length, got shapes {scores.shape} and {labels.shape}"
        )
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        where = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise ValueError(f"score {where} is {scores[where]}; every score must be finite")
    if labels.dtype != np.bool_:
        if not np.isin(labels, (0, 1)).all():
            raise ValueError("labels must be boolean, or 0 for normal and 1 for anomalous")
        labels = labels.astype(np.bool_)
    return scores, labels


def _label_curve(scores_N: ArrayLike, labels_N: ArrayLike) -> _Curve | None:
    """Curve of a labelled list, None without an anomalous element."""
    scores, labels = checked_scores(scores_N, labels_N)
    return _curve(scores[labels], [np.sort(scores[~labels])]) if labels.any() else None


def auroc(scores_N: ArrayLike, labels_N: ArrayLike) -> float | None:
    """Area under the ROC curve, in [0, 1].

    Definition: the share of (anomalous, normal) pairs ranked in the right order, a tie counting one half:
    the Mann-Whitney U over the number of pairs, equal to U from mid-ranks (Hanley and McNeil 1982,
    doi:10.1148/radiology.143.1.7063747). Computed in whole numbers, one rounding at the end.

    scores_N: N finite numbers; labels_N: N booleans or 0/1, true = anomalous. None when a class is absent.
    Raises ValueError for a length mismatch, a score that is not finite, or a label other than 0 and 1.
    """
    return _auroc(_label_curve(scores_N, labels_N))


def average_precision(scores_N: ArrayLike, labels_N: ArrayLike) -> float | None:
    """Step-wise average precision, in (0, 1].

    Definition: AP = sum_n (R_n - R_{n-1}) P_n over the distinct thresholds, highest first, with P_n and R_n
    precision and recall at threshold n; no interpolation, no trapezoid. Source: the definition behind
    `sklearn.metrics.average_precision_score`, which it equals.

    Arguments and errors as in `auroc`. None when a class is absent: without normal elements it would be 1
    whatever the scores are.
    """
    return _average_precision(_label_curve(scores_N, labels_N))


def f1_max(scores_N: ArrayLike, labels_N: ArrayLike) -> F1Max | None:
    """Best F1 over all distinct thresholds and the score achieving it; of equal maxima the highest score.

    Definition: max over t of 2 TP / (2 TP + FP + FN) with `score >= t` called anomalous (van Rijsbergen 1979,
    Information Retrieval, chapter 7).

    Arguments and errors as in `auroc`. None when a class is absent, as for `average_precision`.
    """
    return _f1_max(_label_curve(scores_N, labels_N))


def roc_curve(scores_N: ArrayLike, labels_N: ArrayLike) -> RocCurve | None:
    """True-positive rate TP / (TP + FN) against false-positive rate FP / (FP + TN) at every distinct score.

    Definition: Fawcett 2006, doi:10.1016/j.patrec.2005.10.010; straight lines join the points.
    Arguments and errors as in `auroc`. None when a class is absent.
    """
    scores, labels = checked_scores(scores_N, labels_N)
    if not labels.any() or labels.all():
        return None
    thresholds = np.append(np.unique(scores), np.inf)[::-1]
    rates = []
    for members in (np.sort(scores[~labels]), np.sort(scores[labels])):
        rates.append(1 - np.searchsorted(members, thresholds, side="left") / members.size)
    return RocCurve(fpr=rates[0], tpr=rates[1], thresholds=thresholds)


def _checked_maps(maps: Sequence[Floats], masks: Sequence[Bools]) -> np.dtype[Any]:
    """Check every pair and return the smallest float type, float32 at least, that holds all maps."""
    if len(maps) != len(masks):
        raise ValueError(f"{len(maps)} maps but {len(masks)} masks; give one mask per map")
    for n, (map_HW, mask_HW) in enumerate(zip(maps, masks, strict=True)):
        if map_HW.ndim != 2 or map_HW.shape != mask_HW.shape:
            raise ValueError(
                f"map {n} has shape {map_HW.shape}, its mask {mask_HW.shape}; both must be H x W"
            )
        if mask_HW.dtype != np.bool_:
            raise ValueError(f"mask {n} is {mask_HW.dtype}; make it boolean (true = anomalous) first")
        if not np.isfinite(map_HW).all():
            raise ValueError(f"map {n} holds NaN or infinite scores; every score must be finite")
    return np.result_type(np.float32, *{map_HW.dtype for map_HW in maps})


def region_weights(mask_HW: Bools) -> NDArray[np.float64]:
    """For each anomalous pixel in row order, 1 / area of its 8-connected region: regions then sum to 1."""
    regions_HW, _ = label_components(mask_HW, structure=np.ones((3, 3), dtype=np.int8))
    region_of_pixel = regions_HW[mask_HW]
    weights: NDArray[np.float64] = 1.0 / np.bincount(region_of_pixel)[1:][region_of_pixel - 1]
    return weights


def _pixel_curve(
    maps: Sequence[Floats], masks: Sequence[Bools], inside_HW: Bools | None = None
) -> _Curve | None:
    """Curve of all pixels of all images, None without an anomalous pixel; see `pixel_metrics`.

    Each map is looked at more than once, so a sequence that makes its maps on demand keeps memory small.
    """
    dtype = _checked_maps(maps, masks)
    n_anomalous = sum(int(np.count_nonzero(mask)) for mask in masks)
    if n_anomalous == 0:
        return None
    anomalous = np.empty(n_anomalous, dtype)
    weights = np.empty(n_anomalous, np.float64)
    a = 0
    for map_HW, mask_HW in zip(maps, masks, strict=True):
        if count := int(np.count_nonzero(mask_HW)):
            anomalous[a : a + count] = map_HW[mask_HW]
            weights[a : a + count] = region_weights(mask_HW)
            a += count
    if inside_HW is None:
        n_normal = sum(mask.size for mask in masks) - n_anomalous
    else:
        n_normal = sum(int(np.count_nonzero(inside_HW & ~mask)) for mask in masks)
    part = np.empty(min(n_normal, PART), dtype)
    return _curve(anomalous, _sorted_normals(maps, masks, part, inside_HW), weights)


def _sorted_normals(
    maps: Sequence[Floats], masks: Sequence[Bools], part: Floats, inside_HW: Bools | None = None
) -> Iterator[Floats]:
    """The normal pixels in parts, each sorted in place in the buffer `part`."""
    filled = 0
    for map_HW, mask_HW in zip(maps, masks, strict=True):
        if inside_HW is not None:
            values = map_HW[inside_HW & ~mask_HW]
        else:
            values = map_HW[~mask_HW] if mask_HW.any() else map_HW.ravel()
        while values.size:
            taken, values = np.split(values, [part.size - filled])
            part[filled : filled + taken.size] = taken
            filled += taken.size
            if filled == part.size:
                part.sort()
                yield part
                filled = 0
    if filled:
        part[:filled].sort()
        yield part[:filled]


def aupro(maps: Sequence[Floats], masks: Sequence[Bools], limit: float = PRO_LIMIT) -> float | None:
    """Normalised area under the per-region-overlap curve up to a false-positive rate, in [0, 1].

    Definition: (1 / limit) * integral over FPR from 0 to limit of PRO, where PRO(t) is the mean, over all
    8-connected ground-truth regions of the whole set, of the share of the region with score >= t, and FPR(t)
    the share of normal pixels of all images with score >= t. Points at every distinct score, straight lines
    between them, linear interpolation at FPR = limit, no rescaling of the rates. Source: Bergmann et al.
    2021, doi:10.1007/s11263-020-01400-4, whose limit is 0.3. Evaluators that sample thresholds approximate
    this value.

    maps: N float arrays H x W, finite; masks: N boolean arrays, same shapes, true = anomalous; sizes may
    differ between images. limit: in (0, 1]. None without an anomalous or without a normal pixel.
    Raises ValueError for mismatched lengths or shapes, a mask that is not boolean, a score that is not
    finite, or a limit out of range.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; it must lie in (0, 1]")
    return _aupro(_pixel_curve(maps, masks), limit)


def image_metrics(scores_N: ArrayLike, labels_N: ArrayLike) -> Metrics:
    """`auroc`, `average_precision` and `f1_max` of image scores, keys IMAGE_METRICS; None where undefined.

    Arguments, definitions, sources and errors as in those functions.
    """
    curve = _label_curve(scores_N, labels_N)
    return dict(zip(IMAGE_METRICS, (_auroc(curve), _average_precision(curve), _f1_value(curve)), strict=True))


def pixel_metrics(maps: Sequence[Floats], masks: Sequence[Bools], inside_HW: Bools | None = None) -> Metrics:
    """The same three over all pixels of all images and `aupro` at 0.3, keys PIXEL_METRICS, from one sort.

    All four are None without an anomalous or without a normal pixel.
    Definitions and sources as in `auroc`, `average_precision`, `f1_max`; arguments and errors as in `aupro`.
    inside_HW: the normal pixels that count, of images of one size; None for all.
    """
    curve = _pixel_curve(maps, masks, inside_HW)
    values = (_auroc(curve), _average_precision(curve), _f1_value(curve), _aupro(curve, PRO_LIMIT))
    return dict(zip(PIXEL_METRICS, values, strict=True))


def mean_ad(metrics: Mapping[str, float | None]) -> float | None:
    """mAD: mean of the seven metrics SEVEN_METRICS; None when any is None.

    Source: the average reported with the ADer benchmark, arXiv 2406.03262. Other keys are ignored.
    Raises KeyError when one of the seven keys is missing.
    """
    values = [value for name in SEVEN_METRICS if (value := metrics[name]) is not None]
    return float(np.mean(values)) if len(values) == len(SEVEN_METRICS) else None


def mean_over_categories(rows: Sequence[Mapping[str, float | None]]) -> Metrics:
    """Class average of each of the seven, then mAD: keys SEVEN_METRICS and "mean_ad".

    Definition: every key is the unweighted mean over the categories that define it, None if none does; mAD is
    taken from the averaged seven (arXiv 2406.03262), which differs from the mean of the categories' mAD as
    soon as one category lacks a metric. Raises KeyError when a row misses one of the seven keys.
    """
    means: Metrics = {}
    for name in SEVEN_METRICS:
        values = [value for row in rows if (value := row[name]) is not None]
        means[name] = float(np.mean(values)) if values else None
    means["mean_ad"] = mean_ad(means)
    return means
