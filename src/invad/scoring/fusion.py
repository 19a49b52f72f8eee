"""One score of a part from several pictures of it: lights, views, pages, frames.

The pictures of a part are dependent, so no limit of a picture says how often a part would be called. The
fused score of a part is one number, and it is compared with the fused scores of held-out normal parts. Each
member is first brought to one scale, in spreads above the mean of its own held-out normals:

    scores   z = (score - centre) / spread of each member; the part's score is the largest z
    cells    the same of the member's map, cell by cell the largest; the part's score is the mean of its top
             cells. For pictures of one frame: each light may show a defect at the same place.

With a smallest area of defects the score of a picture is the highest level above which there is such a part
of its map, and that of a part fused by cells the same of the fused map.

numpy alone, so that a bundle fuses as the model does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError, NotCalibratedError
from invad.records import Decision
from invad.scoring.calibration import Calibration, numbered
from invad.scoring.holding import folds
from invad.scoring.rates import Rates
from invad.scoring.spread import shrunk_variance, top_mean

ScoreOf: TypeAlias = Callable[[NDArray[Any]], float]
Kind = Literal["scores", "cells"]
KINDS: tuple[Kind, ...] = ("scores", "cells")

TOP_FRACTION = 0.02
"""Share of the cells of a fused map whose mean is the score of the part."""

CROSS_FITS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How the pictures of a part become one decision. It is kept with the model.

    rule: how files become pictures of parts, as `--parts` says it. kind: see the top of the file. members:
    names of the pictures. windows: of 16-bit grey levels for each, see `Preprocess`. centres, spreads: mean
    and standard deviation of each member over held-out normals. calibration: fused scores of held-out parts,
    and the peaks of their fused maps (of `scores`, which has no map, the scores again). top_cells: that make
    the score of a fused map, None for a share of all: as many of a large picture as of a small one.
    """

    rule: str
    kind: Kind
    members: tuple[str, ...]
    windows: tuple[tuple[float, float], ...]
    centres: tuple[float, ...]
    spreads: tuple[float, ...]
    calibration: Calibration
    top_cells: int | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.members), len(self.windows), len(self.centres), len(self.spreads)}
        if len(lengths) != 1 or not self.members:
            raise NotCalibratedError("parts: members, windows, centres and spreads are of different lengths")
        if not np.isfinite([*self.centres, *self.spreads]).all() or min(self.spreads) <= 0:
            raise NotCalibratedError("parts: a spread is not above 0; train again")

    def window(self, member: str) -> tuple[float, float]:
        """The 16-bit window of a member."""
        return self.windows[self.members.index(member)]

    @property
    def unit(self) -> str:
        """What the limits count, in words."""
        return "independent groups of good parts" if self.calibration.groups else "good parts"

    @property
    def summary(self) -> dict[str, Any]:
        """What is told of it beside its limits."""
        return {"rule": self.rule, "fusion": self.kind, "members": list(self.members)}

    @property
    def by_member(self) -> dict[str, tuple[float, float]]:
        """The 16-bit window of each member."""
        return dict(zip(self.members, self.windows, strict=True))

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """(centre, spread) by member."""
        return dict(zip(self.members, zip(self.centres, self.spreads, strict=True), strict=True))


@dataclass(frozen=True, slots=True)
class Fused:
    """score: of the part. above: z of each member. map_hw: fused cells, None without."""

    score: float
    above: dict[str, float]
    map_hw: NDArray[np.float64] | None


def fuse(
    kind: Kind,
    scales: Mapping[str, tuple[float, float]],
    scores: Mapping[str, float],
    cells: Mapping[str, NDArray[Any]],
    top_cells: int | None = None,
    score_of: ScoreOf | None = None,
) -> Fused:
    """The score of a part from the scores and the maps h x w of its pictures, by member; one at least.

    scales: (centre, spread) by member. top_cells: see Fusion. score_of: of a map h x w, in place of the mean
    of these. Raises DataError for cells of different shapes.
    """
    score_of = score_of or partial(map_score, top_cells=top_cells)
    if kind == "scores":
        above = {m: (scores[m] - scales[m][0]) / scales[m][1] for m in scores}
        return Fused(max(above.values()), above, None)
    if len({cells[m].shape for m in cells}) > 1:
        raise DataError("the pictures of the part have different shapes, so their cells cannot be compared")
    z = {m: (np.asarray(cells[m], np.float64) - scales[m][0]) / scales[m][1] for m in cells}
    map_hw = np.max(list(z.values()), axis=0)
    return Fused(score_of(map_hw), {m: score_of(own) for m, own in z.items()}, map_hw)


def map_score(map_hw: NDArray[Any], top_cells: int | None = None) -> float:
    """Mean of so many of the largest cells, or of TOP_FRACTION of all, at least one, float64."""
    return top_mean(map_hw, top_cells or max(1, round(TOP_FRACTION * np.size(map_hw))))


def decide(fusion: Fusion, score: float | None, reason: str) -> tuple[float | None, Decision]:
    """p-value and decision; with a reason against it no part is good."""
    if score is None:
        return None, "review"
    decision = fusion.calibration.decide(score)
    return fusion.calibration.p_value(score), "review" if reason and decision == "good" else decision


def fit_fusion(
    scores_NM: NDArray[Any],
    cells_NMhw: Sequence[Sequence[NDArray[Any]]] | NDArray[Any],
    groups: Sequence[int],
    *,
    rule: str,
    kind: Kind,
    members: Sequence[str],
    windows: Sequence[tuple[float, float]],
    rates: Rates,
    top_cells: int | None = None,
    score_of: ScoreOf | None = None,
) -> Fusion:
    """Scales and limits from N >= 2 held-out normal parts of which each has every one of M members.

    scores_NM, cells_NMhw: of their pictures, each judged by statistics that the part did not help to fit.
    groups: of each part the number of its group, such as a lot; parts of one are held out together here, too.
    top_cells, score_of: see `fuse`.
    """
    score_of = score_of or partial(map_score, top_cells=top_cells)
    base_NM = np.asarray(scores_NM, np.float64)
    if kind == "cells":
        base_NM = np.array([[score_of(cells_hw) for cells_hw in part] for part in cells_NMhw])
    fused: dict[int, Fused] = {}
    for rest, fold in folds(["part"] * len(base_NM), CROSS_FITS, 0, groups):
        scales = dict(zip(members, _scales(base_NM[rest]), strict=True))
        for n in fold:
            own = dict(zip(members, base_NM[n].tolist(), strict=True))
            cells = dict(zip(members, cells_NMhw[n], strict=True))
            fused[int(n)] = fuse(kind, scales, own, cells, top_cells, score_of)
    order = sorted(fused, key=lambda n: fused[n].score)
    whole = _scales(base_NM)
    maps = [fused[n].map_hw for n in order]
    numbers = numbered(groups)
    return Fusion(
        rule=rule,
        kind=kind,
        members=tuple(members),
        windows=tuple(windows),
        centres=tuple(centre for centre, _ in whole),
        spreads=tuple(spread for _, spread in whole),
        top_cells=top_cells,
        calibration=Calibration(
            scores=tuple(fused[n].score for n in order),
            peaks=tuple(
                fused[n].score if map_hw is None else float(map_hw.max())
                for n, map_hw in zip(order, maps, strict=True)
            ),
            rates=rates,
            groups=tuple(numbers[n] for n in order) if len(set(numbers)) < len(numbers) else (),
        ),
    )


def _scales(base_NM: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Mean and spread of each member; of few parts, which show little of it, drawn to the usual spread."""
    n, mean_M = len(base_NM), base_NM.mean(axis=0)
    spread_M = np.sqrt(shrunk_variance(base_NM.var(axis=0), mean_M, n))
    return list(zip(mean_M.tolist(), np.maximum(spread_M, 1e-6).tolist(), strict=True))
