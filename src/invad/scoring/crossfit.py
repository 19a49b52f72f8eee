"""Scores of held-out normals that calibrate: each judged by statistics that it did not help to fit."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch

from invad.scoring.holding import folds
from invad.scoring.norms import CROSS_FITS as CROSS_FITS
from invad.scoring.typicality import (
    PositionStats,
    ScoreRule,
    combined_scores,
    fit_position_stats,
    fit_score_stats,
    image_scores,
    predictor_scores,
    typicality_map,
)


@dataclass(frozen=True, slots=True)
class CrossFitted:
    """Scores, map peaks and maps of held-out normals, in their order, and the statistics of all of them."""

    scores: tuple[float, ...]
    peaks: tuple[float, ...]
    stats: PositionStats
    maps_Nhw: torch.Tensor


def cross_fit(
    maps_NLhw: torch.Tensor,
    rule: ScoreRule,
    categories: Sequence[str],
    groups: Sequence[Hashable] | None = None,
) -> CrossFitted:
    """Judge each held-out normal by statistics that its group did not help to fit.

    categories, groups: of each image, see `folds`.
    """
    parts = list(folds(categories, CROSS_FITS, 0, groups))
    scores = torch.empty(len(maps_NLhw), dtype=torch.float64)
    peaks = torch.empty_like(scores)
    maps_Nhw = maps_NLhw.new_empty((len(maps_NLhw), *maps_NLhw.shape[2:]))
    by_predictor = torch.empty(len(maps_NLhw), len(rule.predictors), dtype=torch.float64)
    for rest, fold in parts:
        stats = fit_position_stats(maps_NLhw[rest])
        map_Bhw = typicality_map(maps_NLhw[fold], stats, rule.weights, rule.floor)
        maps_Nhw[fold] = map_Bhw
        highest = map_Bhw.flatten(1).amax(dim=1) if rule.of_map is None else rule.of_map(map_Bhw)
        peaks[fold] = highest.double()
        if rule.top_fractions is None:
            scores[fold] = image_scores(map_Bhw, rule.top_fraction).double()
        else:
            by_predictor[fold] = predictor_scores(maps_NLhw[fold], stats, rule).double()
    whole = fit_position_stats(maps_NLhw)
    if rule.top_fractions is not None:
        for rest, fold in parts:
            scores[fold] = combined_scores(by_predictor[fold], fit_score_stats(by_predictor[rest]))
        whole = replace(whole, scores=fit_score_stats(by_predictor))
    if rule.of_map is not None:
        scores = peaks
    return CrossFitted(tuple(scores.tolist()), tuple(peaks.tolist()), whole, maps_Nhw)
