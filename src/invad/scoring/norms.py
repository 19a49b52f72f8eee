"""From norm maps to anomaly map, score and limits in numpy: `typicality` and `crossfit` without PyTorch.

For bundles whose limits are made anew where no PyTorch is. What both say is the same up to rounding.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from invad.scoring.calibration import folds
from invad.scoring.spread import shrunk_variance

SHRINKAGE = 100
"""Images that the statistics over all cells count for against those of one cell."""

FLOOR_CELLS = 0.2
"""Share of the cells of an image, its most typical ones, whose mean is its floor."""

CROSS_FITS = 5

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRule:
    """How the norm maps of an image become its map and score: the fields of `typicality.ScoreRule`."""

    counts: tuple[int, ...]
    floor: float = 0.0
    top_fraction: float = 0.02
    top_fractions: tuple[float, ...] | None = None

    @property
    def weights(self) -> NDArray[np.float32]:
        """Of each norm map in the anomaly map; they sum to one."""
        shares = [1 / (len(self.counts) * count) for count in self.counts for _ in range(count)]
        return np.array(shares, np.float32)

    @property
    def parts(self) -> tuple[slice, ...]:
        """The norm maps of each predictor."""
        ends = np.cumsum(self.counts).tolist()
        return tuple(slice(end - count, end) for end, count in zip(ends, self.counts, strict=True))


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


def position_stats(
    maps_NLhw: NDArray[np.float64], edge: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median and robust scale; see `typicality.fit_position_stats`."""
    maps = maps_NLhw
    median = np.median(maps, axis=0)
    if len(maps) > 1:
        scale = 1.4826 * np.median(np.abs(maps - median), axis=0)
    else:
        middle = np.median(median, axis=(1, 2), keepdims=True)
        scale = np.broadcast_to(
            1.4826 * np.median(np.abs(median - middle), axis=(1, 2), keepdims=True), median.shape
        ).copy()
    if edge is not None:
        inner = np.s_[:, edge : maps.shape[2] - edge, edge : maps.shape[3] - edge]
        alike = maps[(slice(None), *inner)]
        common = np.median(alike, axis=(0, 2, 3))[:, None, None]
        median[inner] = common
        scale[inner] = 1.4826 * np.median(np.abs(alike - common), axis=(0, 2, 3))[:, None, None]
    own = len(maps) / (len(maps) + SHRINKAGE)
    middle = np.median(maps, axis=(0, 2, 3), keepdims=False)[:, None, None]
    typical = np.square(scale).mean(axis=(1, 2), keepdims=True)
    floor = 1e-6 * np.abs(median).mean() + 1e-12
    return (
        (own * median + (1 - own) * middle).astype(np.float32),
        (np.sqrt(own * np.square(scale) + (1 - own) * typical) + floor).astype(np.float32),
    )


def shared_stats(maps_NLhw: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median and robust scale over images and cells together; see `typicality.fit_shared_stats`."""
    maps = maps_NLhw
    outermost = np.ones(maps.shape[2:], bool)
    outermost[1:-1, 1:-1] = False
    median, scale = np.empty(maps.shape[1:]), np.empty(maps.shape[1:])
    for alike in (outermost, ~outermost):
        cells = maps[:, :, alike]  # N x L x cells
        if cells.size:
            middle = np.median(cells, axis=(0, 2))[:, None]
            median[:, alike] = middle
            scale[:, alike] = 1.4826 * np.median(np.abs(cells - middle), axis=(0, 2))[:, None]
    floor = 1e-6 * np.abs(median).mean() + 1e-12
    return median.astype(np.float32), (scale + floor).astype(np.float32)


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
    return _less_floor(np.einsum("blhw,l->bhw", z_BLhw, rule.weights), rule.floor)


def predictor_scores(maps_BLhw: NDArray[np.float32], stats: CellStats, rule: CellRule) -> NDArray[np.float64]:
    """The score of each predictor by itself: B x P."""
    z_BLhw = (maps_BLhw - stats.median_Lhw) / stats.scale_Lhw
    scores = [
        _highest(_less_floor(z_BLhw[:, own].mean(axis=1), rule.floor), share)
        for own, share in zip(rule.parts, rule.top_fractions or (), strict=True)
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
    by_predictor = np.empty((len(maps_NLhw), len(rule.counts)))
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
