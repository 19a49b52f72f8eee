"""A region of interest as layers of a graph; it is constant in it, so another region means another export."""

import torch
from torch import Tensor, nn

from invad.model.inspected import Inspected


def layers(inspected: Inspected | None) -> tuple[nn.Module, nn.Module, nn.Module, nn.Module]:
    """What stands before the backbone, behind the reader, behind the judge and behind the enlarged map."""
    if inspected is None:
        return nn.Identity(), nn.Identity(), nn.Identity(), nn.Identity()
    return Neutral(inspected), Counted(inspected), OnGrid(inspected), Cut(inspected)


class Neutral(nn.Module):
    """What is ignored gives way to the mean normal picture, as `Inspected.neutral`."""

    def __init__(self, inspected: Inspected) -> None:
        super().__init__()
        self.register_buffer("keep", inspected.keep_HW)
        self.register_buffer("fill", inspected.fill_3HW)
        self.keep: Tensor
        self.fill: Tensor

    def forward(self, x_B3HW: Tensor) -> Tensor:
        return torch.where(self.keep, x_B3HW, self.fill)


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
