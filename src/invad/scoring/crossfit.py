"""Scores of held-out normals that calibrate: each judged by statistics that it did not help to fit."""

from collections.abc import Hashable, Sequence

import torch

from invad.scoring.calibration import folds
from invad.scoring.typicality import fit_position_stats, image_scores, typicality_map

CROSS_FITS = 5


def cross_fit(
    maps_NLhw: torch.Tensor,
    top_fraction: float,
    categories: Sequence[str],
    weights: Sequence[float] | None = None,
    floor: float = 0.0,
    groups: Sequence[Hashable] | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scores and map peaks of held-out normals, each judged by statistics that its group did not help to fit.

    categories, groups: of each image, see `folds`. weights, floor: see `typicality_map`.
    """
    scores = torch.empty(len(maps_NLhw), dtype=torch.float64)
    peaks = torch.empty_like(scores)
    for rest, fold in folds(categories, CROSS_FITS, 0, groups):
        stats = fit_position_stats(maps_NLhw[rest])
        map_Bhw = typicality_map(maps_NLhw[fold], stats, weights, floor)
        scores[fold] = image_scores(map_Bhw, top_fraction).double()
        peaks[fold] = map_Bhw.flatten(1).amax(dim=1).double()
    return tuple(scores.tolist()), tuple(peaks.tolist())
