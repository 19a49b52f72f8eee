"""A region of interest as layers of a graph.

It is constant in the graph. Engines put other constants in place of those of `Neutral` when they read it, and
what counts of the norm maps is chosen behind it then (`runtime/judging.py`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from invad.model.inspected import Inspected
from invad.records import Hw


def layers(inspected: Inspected | None) -> tuple[nn.Module, nn.Module, nn.Module]:
    """What stands behind the reader, behind the judge and behind the enlarged map."""
    if inspected is None:
        return nn.Identity(), nn.Identity(), nn.Identity()
    return Counted(inspected), OnGrid(inspected), Cut(inspected)


class Neutral(nn.Module):
    """What is ignored gives way to the mean normal picture, as `Inspected.neutral`.

    keep V x 1 x H' x W', fill V x 3 x H' x W': alike for all pictures, or for each category by its number.
    """

    def __init__(self, seen: Sequence[Inspected | None], input_hw: Hw) -> None:
        super().__init__()
        whole, nothing = torch.ones(input_hw, dtype=torch.bool), torch.zeros(3, *input_hw)
        keep = [whole if one is None else one.keep_HW.cpu() for one in seen]
        fill = [nothing if one is None else one.fill_3HW.cpu() for one in seen]
        self.register_buffer("keep", torch.stack(keep).unsqueeze(1))
        self.register_buffer("fill", torch.stack(fill))
        self.keep: Tensor
        self.fill: Tensor

    def forward(self, x_B3HW: Tensor, category_B: Tensor) -> Tensor:
        # Of all categories the only one where there is one: a constant choice of nothing would be taken away.
        # Indexing by brackets would have exporters turn the constants round, and give them other names.
        number_B = category_B.clamp(max=len(self.keep) - 1)
        keep, fill = (torch.index_select(one, 0, number_B) for one in (self.keep, self.fill))
        return torch.where(keep, x_B3HW, fill)


class Counted(nn.Module):
    """Maps of all cells to those of the cells that count, as `Inspected.counted`."""

    def __init__(self, inspected: Inspected) -> None:
        super().__init__()
        self.register_buffer("cells", inspected.cells_n)
        self.cells: Tensor

    def forward(self, maps_BLhw: Tensor) -> Tensor:
        return maps_BLhw.flatten(2)[:, :, self.cells].unsqueeze(2)


class OnGrid(nn.Module):
    """A map of the cells that count to one of all cells, as `Inspected.on_grid`."""

    def __init__(self, inspected: Inspected) -> None:
        super().__init__()
        self.grid_hw = inspected.grid_hw
        self.register_buffer("places", inspected.places())
        self.places: Tensor

    def forward(self, map_B1n: Tensor) -> Tensor:
        row_Bn = map_B1n.squeeze(1)
        row_Bm = torch.cat([row_Bn, torch.zeros_like(row_Bn[:, :1])], dim=1)
        return row_Bm[:, self.places].reshape(-1, *self.grid_hw)


class Cut(nn.Module):
    """A map B x H x W with 0 where the picture does not count."""

    def __init__(self, inspected: Inspected) -> None:
        super().__init__()
        self.register_buffer("inside", inspected.inside_HW)
        self.inside: Tensor

    def forward(self, map_BHW: Tensor) -> Tensor:
        return torch.where(self.inside, map_BHW, torch.zeros_like(map_BHW))
