"""Metrics read at a fixed list of thresholds, as other evaluators read them.

They approximate those of `metrics`; they are here to compare with published figures. Nothing is sorted and
no map is kept: every map is looked at once for the range and once to be counted. A range of zero, where all
scores are equal, leaves no thresholds, and every metric is None but the F1-max of `official`, whose bins
stay.

Shapes: K thresholds, ascending. The rest as in `metrics`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from invad.metrics.exact import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    PRO_LIMIT,
    Bools,
    Floats,
    Metrics,
    area_to_limit,
    area_under,
    region_weights,
)

Doubles = NDArray[np.float64]
STRIPS, ADER_STEPS, ADER_F1_STEPS, OFFICIAL_BINS = 1000, 200, 20, 1000
EPS = 1e-8


@dataclass(frozen=True, slots=True)
class Sampled:
    """Counts at K thresholds: anomalous and normal elements called anomalous, mean share of a region."""

    tp_K: Doubles
    fp_K: Doubles
    pro_K: Doubles
    n_anomalous: int
    n_normal: int

    @property
    def recall_K(self) -> Doubles:
        return self.tp_K / self.n_anomalous

    @property
    def fpr_K(self) -> Doubles:
        return self.fp_K / self.n_normal

    @property
    def precision_K(self) -> Doubles:
        """1 where nothing is called anomalous."""
        called_K = self.tp_K + self.fp_K
        return np.divide(self.tp_K, called_K, out=np.ones_like(called_K), where=called_K > 0)

    @property
    def f1_max(self) -> float:
        return float(np.max(2 * self.tp_K / (self.tp_K + self.fp_K + self.n_anomalous)))


def extremes(maps: Iterable[Floats]) -> tuple[float, float]:
    """Least and largest score of all maps."""
    ends = [(float(map_HW.min()), float(map_HW.max())) for map_HW in maps]
    return min(low for low, _ in ends), max(high for _, high in ends)


def count_at(
    thresholds_K: NDArray[Any],
    maps: Sequence[Floats],
    masks: Sequence[Bools],
    *,
    above: bool = False,
    scale: Callable[[Floats], NDArray[Any]] | None = None,
    regions: bool = True,
) -> Sampled | None:
    """Count elements with `scale(score) >= threshold` (> with `above`); None without an anomalous one.

    A list of image scores counts as a map of one row, without regions: its `pro_K` is zero.
    """
    side: Literal["left", "right"] = "left" if above else "right"
    tp_K, fp_K, pro_K = np.zeros((3, thresholds_K.size))
    n_anomalous = n_normal = 0
    n_regions = 0.0
    for map_HW, mask_HW in zip(maps, masks, strict=True):
        values_HW = map_HW if scale is None else scale(map_HW)
        # Number of thresholds that the score reaches.
        reached_HW = np.searchsorted(thresholds_K, values_HW.ravel(), side=side).reshape(mask_HW.shape)
        if mask_HW.any():
            tp_K += _tail(reached_HW[mask_HW], thresholds_K.size)
            if regions:
                weights = region_weights(mask_HW)
                pro_K += _tail(reached_HW[mask_HW], thresholds_K.size, weights)
                n_regions += float(weights.sum())
        fp_K += _tail(reached_HW[~mask_HW], thresholds_K.size)
        n_anomalous += int(np.count_nonzero(mask_HW))
        n_normal += int(mask_HW.size - np.count_nonzero(mask_HW))
    if n_anomalous == 0:
        return None
    return Sampled(tp_K, fp_K, pro_K / (n_regions or 1.0), n_anomalous, n_normal)


def _tail(reached: NDArray[np.intp], size: int, weights: Doubles | None = None) -> Doubles:
    """For each threshold k, the number (or weight) of elements that reach more than k thresholds."""
    per = np.bincount(reached, weights, minlength=size + 1).astype(np.float64)
    tail: Doubles = np.cumsum(per[::-1])[::-1][1:]
    return tail


# ---------------------------------------------------------------- adeval


def adeval_thresholds(low: float, high: float) -> NDArray[np.float32]:
    """1001 equal steps in single precision, both ends included."""
    steps_K = np.linspace(0, 1, STRIPS + 1, dtype=np.float32)
    thresholds_K: NDArray[np.float32] = steps_K * (high - low) + low
    return thresholds_K


def adeval_metrics(keys: Sequence[str], maps: Sequence[Floats], masks: Sequence[Bools]) -> Metrics:
    """AUROC, AP, F1-max and, with a fourth key, AUPRO at 1001 thresholds; AP by the trapezoid rule.

    The curves are not continued beyond the first and the last threshold. The package has no F1-max: it is
    read at the same thresholds. Where the limit of AUPRO lies outside the curve, and the package fails,
    the curve is continued to (0, 0) or (1, 1).
    """
    none: Metrics = dict.fromkeys(keys)
    low, high = extremes(maps)
    if low == high:
        return none
    sampled = count_at(adeval_thresholds(low, high), maps, masks, regions=len(keys) > 3)
    if sampled is None or sampled.n_normal == 0:
        return none
    ap = area_under(sampled.recall_K[::-1], sampled.precision_K[::-1])
    auroc = area_under(sampled.fpr_K[::-1], sampled.recall_K[::-1])
    values = (auroc, ap, sampled.f1_max, _adeval_aupro(sampled))
    return dict(zip(keys, values, strict=False))


def _adeval_aupro(sampled: Sampled) -> float:
    fpr, pro = sampled.fpr_K[::-1].copy(), sampled.pro_K[::-1].copy()
    if fpr[0] > PRO_LIMIT:
        fpr, pro = np.append(0.0, fpr), np.append(0.0, pro)
    if fpr[-1] < PRO_LIMIT:
        fpr, pro = np.append(fpr, 1.0), np.append(pro, 1.0)
    return area_to_limit(fpr, pro, PRO_LIMIT)


def adeval_image(scores_N: Floats, labels_N: Bools) -> Metrics:
    """`adeval_metrics` of image scores, keys IMAGE_METRICS."""
    return adeval_metrics(IMAGE_METRICS, [scores_N[None]], [labels_N[None]])


def adeval_pixel(maps: Sequence[Floats], masks: Sequence[Bools]) -> Metrics:
    """`adeval_metrics` of maps, keys PIXEL_METRICS."""
    return adeval_metrics(PIXEL_METRICS, maps, masks)


# ---------------------------------------------------------------- ADer, official


def ader_f1_max(maps: Sequence[Floats], masks: Sequence[Bools]) -> float | None:
    """F1 at the 21 thresholds 0, 0.05, ..., 1 of the scores scaled to [0, 1] over the set, `score > t`."""
    low, high = extremes(maps)
    if low == high:
        return None
    steps_K = np.arange(ADER_F1_STEPS + 1) / ADER_F1_STEPS

    def scale(values: Floats) -> NDArray[Any]:
        scaled: NDArray[Any] = (values - low) / (high - low)
        return scaled

    sampled = count_at(steps_K, maps, masks, above=True, scale=scale, regions=False)
    if sampled is None or sampled.n_normal == 0:
        return None
    precision_K = sampled.tp_K / (sampled.tp_K + sampled.fp_K + EPS)
    recall_K = sampled.tp_K / (sampled.n_anomalous + EPS)
    return float(np.max(2 * precision_K * recall_K / (precision_K + recall_K + EPS)))


def ader_aupro(maps: Sequence[Floats], masks: Sequence[Bools]) -> float | None:
    """PRO at 200 equal steps of the score, those with a rate below 0.3, that rate scaled to its own range."""
    low, high = extremes(maps)
    if low == high:
        return None
    thresholds_K = low + np.arange(ADER_STEPS) * ((high - low) / ADER_STEPS)
    sampled = count_at(thresholds_K, maps, masks, above=True)
    if sampled is None or sampled.n_normal == 0:
        return None
    fpr, pro = sampled.fpr_K[::-1], sampled.pro_K[::-1]
    kept = fpr < PRO_LIMIT
    fpr, pro = fpr[kept], pro[kept]
    if fpr.size == 0 or fpr[-1] == fpr[0]:
        return None
    return area_under((fpr - fpr[0]) / (fpr[-1] - fpr[0]), pro)


def official_f1_max(maps: Sequence[Floats], masks: Sequence[Bools]) -> float | None:
    """F1 at the lower ends of 1000 equal bins of the scores scaled to [0, 1] over the set."""
    low, high = extremes(maps)

    def scale(values: Floats) -> NDArray[Any]:
        scaled: NDArray[Any] = np.clip((values - low) / (high - low + EPS), 0, 1 - EPS)
        bins: NDArray[Any] = np.floor(scaled * (OFFICIAL_BINS - 1))
        return bins

    sampled = count_at(np.arange(OFFICIAL_BINS), maps, masks, scale=scale, regions=False)
    return None if sampled is None or sampled.n_normal == 0 else sampled.f1_max
