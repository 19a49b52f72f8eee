"""The graph of a detector whose categories look at parts of the pictures of their own.

The number of the category chooses what of a picture is replaced before the networks, which are run once, and
whose cells and limits give the answer. All regions are of pictures of one size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invad.graph.graph import Graph, Judge, Said
from invad.graph.inspected import Counted, OnGrid
from invad.model.inspected import Inspected
from invad.model.reading import Model
from invad.scoring.calibration import Calibration
from invad.scoring.rates import POOLED
from invad.scoring.typicality import PositionStats


@dataclass(frozen=True, slots=True)
class View:
    """What a category counts, and its limits."""

    inspected: Inspected
    stats: PositionStats
    calibration: Calibration


class LookingGraph(Graph):
    """A graph with views; categories that have none are judged as by the graph alone."""

    def __init__(
        self, whole: Graph, model: Model, views: Mapping[str, View], categories: Sequence[str]
    ) -> None:
        """whole: of all categories and the same model, which sees of each what counts of it. categories: the
        names behind their numbers."""
        nn.Module.__init__(self)
        for name in ("resize", "neutral", "cells", "on_grid", "features", "reader", "judge", "enlarge"):
            self.add_module(name, getattr(whole, name))
        seen = [model.extract.inspected, *(view.inspected for view in views.values())]
        one = next(each for each in seen if each is not None)
        inside = [torch.ones_like(one.inside_HW) if each is None else each.inside_HW for each in seen]
        self.register_buffer("inside", torch.stack(inside))
        names = list(views)
        number = [names.index(name) + 1 if name in views else 0 for name in categories]
        self.register_buffer("view", torch.tensor(number))
        self.counted = nn.ModuleList(Counted(view.inspected) for view in views.values())
        self.placed = nn.ModuleList(OnGrid(view.inspected) for view in views.values())
        self.judges = nn.ModuleList(
            Judge(model, {POOLED: view.stats}, {POOLED: view.calibration}) for view in views.values()
        )
        self.inside: Tensor
        self.view: Tensor
        self.to(model.extract.device).eval().requires_grad_(False)

    def forward(self, image_BHW3: Tensor, range_2: Tensor, category_B: Tensor) -> Said:
        view_B = self.view[category_B]
        maps_BLhw = self.read(image_BHW3, range_2, category_B)
        score, p_value, decision, map_B1n = self.judge(self.cells(maps_BLhw), category_B)
        map_Bhw = self.on_grid(map_B1n)
        only_B = torch.zeros_like(category_B)
        for number, (counted, judge, placed) in enumerate(
            zip(self.counted, self.judges, self.placed, strict=True), start=1
        ):
            mine_B = view_B == number
            own = judge(counted(maps_BLhw), only_B)
            score = torch.where(mine_B, own[0], score)
            p_value = torch.where(mine_B, own[1], p_value)
            decision = torch.where(mine_B, own[2], decision)
            map_Bhw = torch.where(mine_B[:, None, None], placed(own[3]), map_Bhw)
        map_BHW = self.enlarge(map_Bhw, image_BHW3)
        map_BHW = torch.where(self.inside[view_B], map_BHW, torch.zeros_like(map_BHW))
        return score, p_value, decision, map_BHW, map_Bhw, maps_BLhw
