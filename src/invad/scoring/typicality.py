"""From norm maps to an anomaly map and an image score. Pure functions, image by image.

A raw norm depends on the noise level and on the place (edges of a part are harder than its middle), therefore
it is compared, cell by cell, with its distribution over normal images that were held out from training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from invad.scoring.norms import FLOOR_CELLS, CellRule, CellStats, grouped, position_stats
from invad.scoring.spread import shrunk_variance


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRule:
    """How the norm maps of an image become its anomaly map and its score.

    predictors: numbers of the norm maps of each; a map may be of several. weights: of each norm map in the
    anomaly map; they sum to one. floor: see `less_floor`. top_fraction: share of the most atypical cells of
    the map whose mean is the image score. top_fractions: that share for each predictor, where the score is
    combined from scores of the predictors (see `combined_scores`); None where it is that of the map. of_map:
    makes the scores B of the anomaly maps B x h x w, in place of all that; None where nothing does.
    """

    predictors: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]
    floor: float = 0.0
    top_fraction: float = 0.02
    top_fractions: tuple[float, ...] | None = None
    of_map: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of(cls, counts: Sequence[int], mapped: Sequence[int] | None = None, **others: Any) -> "ScoreRule":
        """Of predictors that share no norm map; see `grouped`."""
        predictors, weights = grouped(counts, mapped)
        return cls(predictors=predictors, weights=weights, **others)

    @property
    def of_cells(self) -> CellRule:
        """The same without PyTorch, but for `of_map`."""
        return CellRule(
            predictors=self.predictors,
            weights=self.weights,
            floor=self.floor,
            top_fraction=self.top_fraction,
            top_fractions=self.top_fractions,
        )


@dataclass(frozen=True, slots=True)
class ScoreStats:
    """Mean and standard deviation of the score of each predictor over held-out normals: P each, float64."""

    mean_P: Tensor
    std_P: Tensor


@dataclass(frozen=True, slots=True)
class PositionStats:
    """Median and robust scale of each norm, per level and cell, over held-out normals: L x h x w each.

    scores: those of the predictors' scores, for a rule that combines them.
    """

    median_Lhw: Tensor
    scale_Lhw: Tensor
    scores: ScoreStats | None = None

    @classmethod
    def of(cls, stats: CellStats) -> "PositionStats":
        """Of a rule that combines no scores."""
        return cls(torch.from_numpy(stats.median_Lhw), torch.from_numpy(stats.scale_Lhw))

    @property
    def of_cells(self) -> CellStats:
        """The same without PyTorch."""
        scores = (None, None) if self.scores is None else (self.scores.mean_P, self.scores.std_P)
        mean_P, std_P = (None if one is None else one.numpy() for one in scores)
        return CellStats(self.median_Lhw.numpy(), self.scale_Lhw.numpy(), mean_P, std_P)


def fit_position_stats(maps_NLhw: Tensor) -> PositionStats:
    """Median and 1.4826 MAD over the images, per level and cell; N >= 1.

    With few images a cell's own statistics are noisy, so both are drawn towards those of their level's
    cells together, with the weight of SHRINKAGE images (of squares, for the scale): a cell has to earn its
    own norm. One image shows no spread at all; that of its cells stands in.
    """
    # numpy: torch refuses quantiles of more than 2^24 numbers.
    median, scale = position_stats(maps_NLhw.double().numpy())
    return PositionStats(torch.from_numpy(median), torch.from_numpy(scale))


def typicality_map(
    maps_BLhw: Tensor, stats: PositionStats, weights: Sequence[float] | None = None, floor: float = 0.0
) -> Tensor:
    """Robust z-scores averaged over the maps: B x h x w, about zero on normals, larger is less typical.

    weights: one per map, summing to one; None for equal ones. floor: see `less_floor`.
    """
    z_BLhw = (maps_BLhw - stats.median_Lhw) / stats.scale_Lhw
    if weights is None:
        map_Bhw = z_BLhw.mean(dim=1)
    else:
        map_Bhw = torch.einsum("blhw,l->bhw", z_BLhw, torch.tensor(weights, dtype=z_BLhw.dtype))
    return less_floor(map_Bhw, floor)


def judge(maps_BLhw: Tensor, stats: PositionStats, rule: ScoreRule) -> tuple[Tensor, Tensor]:
    """Image scores B and anomaly maps B x h x w from norm maps.

    Raises ValueError for a rule that combines scores and statistics that know of none.
    """
    map_Bhw = typicality_map(maps_BLhw, stats, rule.weights, rule.floor)
    if rule.of_map is not None:
        return rule.of_map(map_Bhw), map_Bhw
    if rule.top_fractions is None:
        return image_scores(map_Bhw, rule.top_fraction), map_Bhw
    if stats.scores is None:
        raise ValueError("the rule combines scores, and the statistics have none of them")
    return combined_scores(predictor_scores(maps_BLhw, stats, rule), stats.scores), map_Bhw


def predictor_scores(maps_BLhw: Tensor, stats: PositionStats, rule: ScoreRule) -> Tensor:
    """The score of each predictor by itself, from its own anomaly map and its own share of cells: B x P."""
    z_BLhw = (maps_BLhw - stats.median_Lhw) / stats.scale_Lhw
    scores = [
        image_scores(less_floor(z_BLhw[:, list(own)].mean(dim=1), rule.floor), share)
        for own, share in zip(rule.predictors, rule.top_fractions or (), strict=True)
    ]
    return torch.stack(scores, dim=1)


def fit_score_stats(scores_NP: Tensor) -> ScoreStats:
    """Mean and standard deviation over N >= 1 images, per predictor; of few images see `shrunk_variance`."""
    scores = scores_NP.double()
    mean_P = scores.mean(dim=0)
    variance_P = shrunk_variance(scores.var(dim=0, correction=0), mean_P, len(scores))
    return ScoreStats(mean_P, variance_P.sqrt().clamp_min(1e-6))


def combined_scores(scores_BP: Tensor, stats: ScoreStats) -> Tensor:
    """One score from those of the predictors: B.

        score = sqrt(sum over p of log(1 + exp(z_p))^2),    z_p = (s_p - mean_p) / std_p

    Far above the normals it is the length of z, so that one predictor is enough; among them it still rises
    with each.
    """
    z_BP = (scores_BP - stats.mean_P) / stats.std_P
    length_B: Tensor = torch.linalg.vector_norm(F.softplus(z_BP), dim=1)
    return length_B


def less_floor(map_Bhw: Tensor, floor: float) -> Tensor:
    """A map with the share `floor` of the image's own floor, the mean of its most typical cells, taken away.

    What lifts every cell alike is more often light, focus or the sensor than a defect; with less than the
    whole of it taken away, an image that is untypical throughout still shows.
    """
    if not floor:
        return map_Bhw
    return map_Bhw - floor * _extreme_mean(map_Bhw, FLOOR_CELLS, largest=False)[:, None, None]


def image_scores(map_Bhw: Tensor, top_fraction: float) -> Tensor:
    """Mean of the largest `top_fraction` of the cells (at least one): B."""
    return _extreme_mean(map_Bhw, top_fraction, largest=True)


def _extreme_mean(map_Bhw: Tensor, share: float, largest: bool) -> Tensor:
    cells_BN = map_Bhw.flatten(1)
    count = max(1, round(share * cells_BN.shape[1]))
    return cells_BN.topk(count, dim=1, largest=largest).values.mean(dim=1)


def paper_terms(latent_BChw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The paper's readings of the terminal latent: norm map B x h x w (Eq. 8), NLL B, Diff B.

    NLL = sum of 0.5 (z^2 + log 2 pi), Diff = max - min of the norm map.
    """
    # Double: next to the constant the squares of a small latent would be lost.
    z_BN = latent_BChw.flatten(1).double()
    nll_B = 0.5 * (z_BN.square() + math.log(2 * math.pi)).sum(dim=1)
    lengths_Bhw = torch.linalg.vector_norm(latent_BChw.double(), dim=1)
    cells_BN = lengths_Bhw.flatten(1)
    return lengths_Bhw.to(latent_BChw.dtype), nll_B, cells_BN.amax(dim=1) - cells_BN.amin(dim=1)


def paper_fusion(nll_N: Tensor, diff_N: Tensor) -> Tensor:
    """NLL and Diff, each scaled to [0, 1] over *all images given*, added.

    The published evaluation scales over the labelled test set, so an image alone has no such score and no
    decision may rest on it; it serves only the evaluation protocol named `paper`.
    """

    def scaled(x: Tensor) -> Tensor:
        return (x - x.min()) / (x.max() - x.min()).clamp_min(1e-12)

    return scaled(nll_N.double()) + scaled(diff_N.double())
