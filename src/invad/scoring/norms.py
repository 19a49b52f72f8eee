"""From norm maps to anomaly map, score and limits in numpy: `typicality` and `crossfit` without PyTorch.

For bundles whose limits are made anew where no PyTorch is. What both say is the same up to rounding.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.scoring.holding import folds
from invad.scoring.spread import shrunk_variance, top_mean

SHRINKAGE = 200
"""Images that the statistics over all cells count for against those of one cell."""

FLOOR_CELLS = 0.2
"""Share of the cells of an image, its most typical ones, whose mean is its floor."""

CROSS_FITS = 5

TAIL = 0.01
"""Share of the cells of a kind, their highest, whose mean says how long their tail is."""

Floats = NDArray[np.floating]


def grouped(
    counts: Sequence[int], mapped: Sequence[int] | None = None
) -> tuple[tuple[tuple[int, ...], ...], tuple[float, ...]]:
    """The norm maps of each predictor, which has so many of them, and the weight of each in the anomaly map.

    All predictors weigh the same, of each its first `mapped` maps, None for all; the others make scores
    alone.
    """
    ends = np.cumsum(counts).tolist()
    predictors = tuple(tuple(range(end - count, end)) for end, count in zip(ends, counts, strict=True))
    weights = tuple(
        1 / (len(counts) * own) if i < own else 0.0
        for count, own in zip(counts, mapped or counts, strict=True)
        for i in range(count)
    )
    return predictors, weights


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRule:
    """How the norm maps of an image become its map and score: the fields of `typicality.ScoreRule`."""

    predictors: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    floor: float = 0.0
    top_fraction: float = 0.02
    top_fractions: tuple[float, ...] | None = None

    @classmethod
    def of(cls, counts: Sequence[int], mapped: Sequence[int] | None = None, **others: Any) -> "CellRule":
        """Of predictors that share no norm map; see `grouped`."""
        predictors, weights = grouped(counts, mapped)
        return cls(predictors=predictors, weights=weights, **others)


def as_written_now(rule: Mapping[str, Any]) -> dict[str, Any]:
    """A rule as plain data, which until 2026-12-01 had the counts of norm maps in place of their numbers."""
    others = dict(rule)
    if "counts" not in rule:
        return others
    predictors, weights = grouped(others.pop("counts"), others.pop("mapped", None))
    return {"predictors": predictors, "weights": weights, **others}


@dataclass(frozen=True, slots=True)
class CellStats:
    """What norms of good images are like, L x h x w each; mean_P, std_P: of the scores of the predictors, for
    a rule that combines them."""

    median_Lhw: NDArray[np.float32]
    scale_Lhw: NDArray[np.float32]
    mean_P: NDArray[np.float64] | None = None
    std_P: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class CellsFitted:
    """Scores, map peaks and maps N x h x w of held-out normals, in their order, and the statistics of all."""

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    stats: CellStats
    maps_Nhw: NDArray[np.float32]


ScoreOfMap = Callable[[NDArray[np.float32]], float]
"""Of an anomaly map h x w, in place of the rule's own score."""


def position_stats(maps_NLhw: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median and robust scale; see `typicality.fit_position_stats`."""
    maps = maps_NLhw
    median = np.median(maps, axis=0)
    if len(maps) > 1:
        scale = 1.4826 * np.median(np.abs(maps - median), axis=0)
    else:
        middle = np.median(median, axis=(1, 2), keepdims=True)
        scale = np.broadcast_to(
            1.4826 * np.median(np.abs(median - middle), axis=(1, 2), keepdims=True), median.shape
        )
    own = len(maps) / (len(maps) + SHRINKAGE)
    middle = np.median(maps, axis=(0, 2, 3), keepdims=False)[:, None, None]
    typical = np.square(scale).mean(axis=(1, 2), keepdims=True)
    floor = 1e-6 * np.abs(median).mean() + 1e-12
    return (
        (own * median + (1 - own) * middle).astype(np.float32),
        (np.sqrt(own * np.square(scale) + (1 - own) * typical) + floor).astype(np.float32),
    )


def ring_stats(
    maps_NLhw: NDArray[np.float64], counted_Nhw: NDArray[np.bool_], rings: int, rule: CellRule
) -> CellStats:
    """Of pictures whose content moves, so that a cell's place says how near the border is and no more.

    Median and 1.4826 MAD, per level, over the images and the cells of a ring together. counted_Nhw: the cells
    that count. rings: how many of one cell there are along the border; all cells further within are one more.
    Near the border a cell knows its surroundings on one side alone, and the odd one lies further out than
    median and MAD say. So the scale of a ring is multiplied by

        max(1, t_ring / t_within)

    with t the mean of the highest TAIL of the cells of the map, before its floor.
    """
    h, w = counted_Nhw.shape[1:]
    ring_hw = np.minimum.outer(_from_border(h), _from_border(w)).clip(max=rings)
    median, scale = np.empty(maps_NLhw.shape[1:]), np.empty(maps_NLhw.shape[1:])
    floor, tails = 1e-6 * np.abs(maps_NLhw).mean() + 1e-12, []
    for ring in range(ring_hw.max() + 1):
        own_Nhw = np.broadcast_to(ring_hw == ring, counted_Nhw.shape)
        counted = counted_Nhw & own_Nhw
        cells_LK = maps_NLhw.swapaxes(0, 1)[:, counted if counted.any() else own_Nhw]
        middle = np.median(cells_LK, axis=1, keepdims=True)
        spread = 1.4826 * np.median(np.abs(cells_LK - middle), axis=1, keepdims=True) + floor
        map_K = np.array(rule.weights, np.float32) @ ((cells_LK - middle) / spread)
        tails.append(top_mean(map_K, max(1, round(TAIL * map_K.size))))
        median[:, ring_hw == ring], scale[:, ring_hw == ring] = middle, spread
    for ring, tail in enumerate(tails) if tails[-1] > 0 else ():
        scale[:, ring_hw == ring] *= max(1.0, tail / tails[-1])
    return CellStats(median.astype(np.float32), scale.astype(np.float32))


def _from_border(length: int) -> NDArray[np.intp]:
    """Cells between each one of a row and the nearer end of it."""
    places = np.arange(length)
    return np.minimum(places, places[::-1])


def cell_stats(maps_NLhw: Floats) -> CellStats:
    """Of the cells of N >= 1 images, without those of the predictors' scores."""
    return CellStats(*position_stats(np.asarray(maps_NLhw, np.float64)))


def judge(
    maps_BLhw: NDArray[np.float32], stats: CellStats, rule: CellRule, of_map: ScoreOfMap | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Image scores B and anomaly maps B x h x w from norm maps. of_map: makes the scores in its place.

    Raises ValueError for a rule that combines scores and statistics that know of none.
    """
    map_Bhw = typicality_map(maps_BLhw, stats, rule)
    if of_map is not None:
        return np.array([of_map(map_hw) for map_hw in map_Bhw], np.float64), map_Bhw
    if rule.top_fractions is None:
        return _highest(map_Bhw, rule.top_fraction), map_Bhw
    if stats.mean_P is None or stats.std_P is None:
        raise ValueError("the rule combines scores, and the statistics have none of them")
    return combined(predictor_scores(maps_BLhw, stats, rule), stats.mean_P, stats.std_P), map_Bhw


def typicality_map(maps_BLhw: NDArray[np.float32], stats: CellStats, rule: CellRule) -> NDArray[np.float32]:
    """Robust z-scores averaged over the maps: B x h x w."""
    z_BLhw = (maps_BLhw - stats.median_Lhw) / stats.scale_Lhw
    return _less_floor(np.einsum("blhw,l->bhw", z_BLhw, np.array(rule.weights, np.float32)), rule.floor)


def predictor_scores(maps_BLhw: NDArray[np.float32], stats: CellStats, rule: CellRule) -> NDArray[np.float64]:
    """The score of each predictor by itself: B x P."""
    z_BLhw = (maps_BLhw - stats.median_Lhw) / stats.scale_Lhw
    scores = [
        _highest(_less_floor(z_BLhw[:, list(own)].mean(axis=1), rule.floor), share)
        for own, share in zip(rule.predictors, rule.top_fractions or (), strict=True)
    ]
    return np.stack(scores, axis=1)


def combined(
    scores_BP: NDArray[np.float64], mean_P: NDArray[np.float64], std_P: NDArray[np.float64]
) -> NDArray[np.float64]:
    """One score from those of the predictors; see `typicality.combined_scores`."""
    rising = np.logaddexp(0, (scores_BP - mean_P) / std_P)
    length: NDArray[np.float64] = np.sqrt(np.square(rising).sum(axis=1))
    return length


def cross_fit(
    maps_NLhw: NDArray[np.float32],
    rule: CellRule,
    categories: Sequence[str],
    groups: Sequence[Hashable] | None = None,
    of_map: ScoreOfMap | None = None,
) -> CellsFitted:
    """Judge each held-out normal by statistics that its group did not help to fit; see
    `crossfit.cross_fit`."""
    parts = list(folds(categories, CROSS_FITS, 0, groups))
    scores, peaks = np.empty(len(maps_NLhw)), np.empty(len(maps_NLhw))
    by_predictor = np.empty((len(maps_NLhw), len(rule.predictors)))
    maps_Nhw = np.empty((len(maps_NLhw), *maps_NLhw.shape[2:]), np.float32)
    for rest, fold in parts:
        stats = cell_stats(maps_NLhw[rest])
        maps_Nhw[fold] = map_Bhw = typicality_map(maps_NLhw[fold], stats, rule)
        peaks[fold] = [map_hw.max() if of_map is None else of_map(map_hw) for map_hw in map_Bhw]
        if rule.top_fractions is None:
            scores[fold] = _highest(map_Bhw, rule.top_fraction)
        else:
            by_predictor[fold] = predictor_scores(maps_NLhw[fold], stats, rule)
    whole = cell_stats(maps_NLhw)
    if rule.top_fractions is not None:
        for rest, fold in parts:
            scores[fold] = combined(by_predictor[fold], *_centre_and_spread(by_predictor[rest]))
        mean_P, std_P = _centre_and_spread(by_predictor)
        whole = replace(whole, mean_P=mean_P, std_P=std_P)
    if of_map is not None:
        scores = peaks
    return CellsFitted(tuple(scores.tolist()), tuple(peaks.tolist()), whole, maps_Nhw)


def _centre_and_spread(scores_NP: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean_P = scores_NP.mean(axis=0)
    variance_P = shrunk_variance(scores_NP.var(axis=0), mean_P, len(scores_NP))
    return mean_P, np.maximum(np.sqrt(variance_P), 1e-6)


def _less_floor(map_Bhw: NDArray[np.float32], floor: float) -> NDArray[np.float32]:
    if not floor:
        return map_Bhw
    lowest_B = -_highest(-map_Bhw, FLOOR_CELLS)
    lifted: NDArray[np.float32] = (map_Bhw - floor * lowest_B[:, None, None]).astype(np.float32)
    return lifted


def _highest(map_Bhw: NDArray[np.float32], share: float) -> NDArray[np.float64]:
    """Mean of the largest `share` of the cells, at least one: B."""
    cells_BN = map_Bhw.reshape(len(map_Bhw), -1)
    count = max(1, round(share * cells_BN.shape[1]))
    most = np.partition(cells_BN, -count, axis=1)[:, -count:]
    mean: NDArray[np.float64] = np.sort(most, axis=1).mean(axis=1, dtype=np.float64)
    return mean
