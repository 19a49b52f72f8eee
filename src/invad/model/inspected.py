"""A region of interest as a model uses it: which pixels reach the backbone, which cells of the grid count.

What is ignored is replaced by the mean normal picture before the backbone, because the cells beside it see
it, too. Norm maps then hold the cells that count and no others, as one row of them, so that statistics, floor
and score of an image are made of these alone, by the same functions as without a region.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from invad.data.region import Region, cells_of, inside_of, untouched
from invad.errors import DataError
from invad.records import Hw


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a region makes of pictures of its frame.

    keep_HW: pixels of the input, bool, that the backbone sees. fill_3HW: what it sees in place of the others,
    in [0, 1]. cells_n: the cells that count, numbers in a grid of grid_hw row by row, int64. inside_HW: bool,
    the pixels that count, in the frame of the picture.
    """

    region: Region
    keep_HW: Tensor
    fill_3HW: Tensor
    cells_n: Tensor
    grid_hw: Hw
    inside_HW: Tensor

    def neutral(self, x_B3HW: Tensor) -> Tensor:
        """Preprocessed pictures without what is ignored."""
        keep, fill = self.keep_HW.to(x_B3HW.device), self.fill_3HW.to(x_B3HW.device)
        return torch.where(keep, x_B3HW, fill)

    def counted(self, maps_BLhw: Tensor) -> Tensor:
        """Maps of all cells to those of the n that count: B x L x 1 x n."""
        return maps_BLhw.flatten(2)[:, :, None, self.cells_n.to(maps_BLhw.device)]

    def on_grid(self, map_B1n: Tensor) -> Tensor:
        """A map of the cells that count to one of all cells, B x h x w, 0 in the others."""
        row_Bm = torch.cat([map_B1n[:, 0], torch.zeros_like(map_B1n[:, 0, :1])], dim=1)
        return row_Bm[:, self.places()].reshape(-1, *self.grid_hw)

    def places(self) -> Tensor:
        """For each cell of the grid its number among those that count, and n for the others: h w, int64."""
        n = len(self.cells_n)
        places = torch.full((self.grid_hw[0] * self.grid_hw[1],), n, dtype=torch.int64)
        places[self.cells_n] = torch.arange(n)
        return places.to(self.cells_n.device)

    def mark(self) -> str:
        """A name that changes with what the backbone sees."""
        digest = hashlib.sha256(self.keep_HW.numpy().tobytes())
        digest.update(self.fill_3HW.numpy().tobytes())
        digest.update(self.cells_n.numpy().tobytes())
        return digest.hexdigest()


def inspect(region: Region, means: Mapping[Hw, Tensor], grid_hw: Hw) -> Inspected:
    """A region for a model. means: see `mean_pictures`.

    Raises DataError when no cell of the grid counts, and without a mean picture of the region's frame.
    """
    if not means:
        raise DataError(
            "the model does not know what its good images look like, as older ones; give good images: "
            "invad calibrate MODEL NORMALS --roi FILE"
        )
    if region.size_hw not in means:
        sizes = " or ".join(f"{w} x {h}" for h, w in means)
        raise DataError(
            f"the region is drawn on pictures of {region.frame[0]} x {region.frame[1]} pixels, and the good "
            f"ones that are known have {sizes}; draw it on one of these"
        )
    mean_3HW = means[region.size_hw]
    cells = np.flatnonzero(cells_of(region, grid_hw))
    return Inspected(
        region,
        torch.from_numpy(untouched(region, (mean_3HW.shape[1], mean_3HW.shape[2]))),
        mean_3HW.float() / 255,
        torch.from_numpy(cells.astype(np.int64)),
        grid_hw,
        torch.from_numpy(inside_of(region)),
    )
