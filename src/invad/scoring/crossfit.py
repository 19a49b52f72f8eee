"""Scores of held-out normals that calibrate: each judged by statistics that it did not help to fit."""

from collections.abc import Sequence

import torch

from invad.scoring.calibration import folds
from invad.scoring.typicality import fit_position_stats, image_scores, typicality_map

CROSS_FITS = 5


def cross_fit(
    maps_NLhw: torch.Tensor,
    top_fraction: float,
    groups: Sequence[str],
    weights: Sequence[float] | None = None,
    floor: float = 0.0,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Sorted scores and map peaks of held-out normals, each judged by statistics it did not help to fit.

    groups: the category of each image. weights, floor: see `typicality_map`.
    """
    scores = torch.empty(len(maps_NLhw), dtype=torch.float64)
    peaks = torch.empty_like(scores)
    for rest, fold in folds(groups, CROSS_FITS, seed=0):
        stats = fit_position_stats(maps_NLhw[rest])
        map_Bhw = typicality_map(maps_NLhw[fold], stats, weights, floor)
        scores[fold] = image_scores(map_Bhw, top_fraction).double()
        peaks[fold] = map_Bhw.flatten(1).amax(dim=1).double()
    return tuple(sorted(scores.tolist())), tuple(sorted(peaks.tolist()))
