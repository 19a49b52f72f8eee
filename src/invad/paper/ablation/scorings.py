"""Every way to turn latents (or residuals) into a score per image, side by side."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invad.model.settings import Preset
from invad.scoring.typicality import fit_position_stats, image_scores, paper_fusion, typicality_map

PAPER, CALIBRATED = "NLL + Diff, test-set scaled", "calibrated map"
"""The published score, and the one of this package: z-scores per cell against held-out normals."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of N images: norm maps N x h x w, NLL N, Diff N (see `scoring.paper_terms`)."""

    map_Nhw: Tensor
    nll_N: Tensor
    diff_N: Tensor


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of the test images under one scoring, N float64; the map they go with, N x h x w."""

    name: str
    scores_N: NDArray[np.float64]
    map_Nhw: Tensor


def score(test: Terms, held: Terms, settings: Preset) -> list[Scored]:
    """Test images under every scoring; only the one that says so looks at other test images."""
    z_nll, z_diff = _robust_z(test.nll_N, held.nll_N), _robust_z(test.diff_N, held.diff_N)
    stats = fit_position_stats(held.map_Nhw[:, None])
    typical = typicality_map(test.map_Nhw[:, None], stats, floor=settings.floor)
    rows = {
        "NLL": test.nll_N,
        "Diff": test.diff_N,
        PAPER: paper_fusion(test.nll_N, test.diff_N),
        "NLL + Diff, calibrated": z_nll + z_diff,
        "NLL, two-sided": z_nll.abs(),
        CALIBRATED: image_scores(typical, settings.top_fraction),
    }
    return [
        Scored(name, scores.double().numpy(), typical if name == CALIBRATED else test.map_Nhw)
        for name, scores in rows.items()
    ]


def _robust_z(values_N: Tensor, held_M: Tensor) -> Tensor:
    median = held_M.median()
    spread = 1.4826 * (held_M - median).abs().median()
    return (values_N - median) / torch.clamp(spread, min=1e-9)
