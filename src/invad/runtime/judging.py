"""What an exported detector says of norm maps by limits that are not those in its graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from invad.data.preprocess import resize_map
from invad.data.region import cut
from invad.records import Decision, Hw
from invad.runtime.engines import Array, Outputs
from invad.runtime.held import Held, Look
from invad.runtime.smallest import map_score_of
from invad.scoring.calibration import Calibration
from invad.scoring.norms import CellRule, CellStats, ScoreOfMap, judge
from invad.scoring.sizes import Smallest

DECISIONS: tuple[Decision, ...] = ("good", "review", "bad")
"""By their numbers in a graph."""

KEEP, FILL = "neutral.keep", "neutral.fill"
"""Constants of a graph: see `graph.inspected.Neutral`."""


@dataclass(frozen=True, slots=True)
class Judging:
    """Statistics and limits by category, POOLED among them, or by place of tiles; looks: what counts for
    each, None for all of a picture, and nothing of tiles."""

    rule: CellRule
    stats: Mapping[str, CellStats]
    calibrations: Mapping[str, Calibration]
    looks: Mapping[str, Look | None]
    smallest: Smallest | None = None

    def outputs(self, maps_BLhw: NDArray[np.float32], categories: Sequence[str], size_hw: Hw) -> Outputs:
        """As a graph says it of images of a size."""
        scores, cells, maps = [], [], []
        for maps_Lhw, category in zip(maps_BLhw, categories, strict=True):
            score, map_hw = self.reading(maps_Lhw, category)
            scores.append(score)
            cells.append(map_hw)
            seen = self.looks.get(category)
            maps.append(cut(resize_map(map_hw, size_hw), None if seen is None else seen.inside_HW))
        limits = [self.calibrations[name] for name in categories]
        return Outputs(
            score=np.array(scores),
            p_value=np.array([own.p_value(s) for own, s in zip(limits, scores, strict=True)], np.float32),
            decision=np.array(
                [DECISIONS.index(own.decide(s)) for own, s in zip(limits, scores, strict=True)]
            ),
            anomaly_map=np.stack(maps),
            grid_map=np.stack(cells),
        )

    def reading(self, maps_Lhw: NDArray[np.float32], category: str) -> tuple[float, NDArray[np.float32]]:
        """Score, and map on the grid, of the norm maps of all cells of an image."""
        seen, maps_BLhw = self.looks.get(category), maps_Lhw[None]
        if seen is not None:
            maps_BLhw = seen.counted(maps_BLhw)
        of_map = score_of(self.smallest, seen)
        score_B, map_Bhw = judge(maps_BLhw, self.stats[category], self.rule, of_map)
        return float(score_B[0]), map_Bhw[0] if seen is None else seen.on_grid(map_Bhw[0])


def score_of(smallest: Smallest | None, seen: Look | None) -> ScoreOfMap | None:
    """How the map of the cells that count is scored where a defect has a smallest area."""
    of_map = map_score_of(smallest)
    if of_map is None or seen is None:
        return of_map
    return lambda map_1n: of_map(seen.on_grid(map_1n))


def constants_of(
    held: Held, looks: Mapping[str, Look | None], names: Sequence[str], input_hw: Hw
) -> dict[str, Array]:
    """What is put into the graph. names: the categories in the order of their numbers."""
    seen = [looks[name] for name in (names if held.told.by_category else names[:1])]
    whole, nothing = np.ones(input_hw, bool), np.zeros((3, *input_hw), np.float32)
    return {
        KEEP: np.stack([whole if one is None else one.keep_HW for one in seen])[:, None],
        FILL: np.stack([nothing if one is None else one.fill_3HW for one in seen]),
    }
