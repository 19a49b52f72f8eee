"""The smallest area of a defect, and the score that follows from it.

A defect is then a connected part of the map of at least that area, and the score of an image the highest
level above which there is one (the largest value of the map after an opening by area). So an image is called
exactly where such a part stands above the limit, and the limits are those of the same score of held-out
normals.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError
from invad.records import Hw
from invad.scoring.shapes import largest_part


@dataclass(frozen=True, slots=True, kw_only=True)
class Smallest:
    """area: in pixels of pictures of `frame`, width and height; below it a part of a map is no defect.

    Pictures of other sizes are held against the same share of them.
    """

    area: float
    frame: tuple[int, int]

    def cells(self, grid_hw: Hw) -> float:
        """The area in cells of a model's grid."""
        width, height = self.frame
        return self.area * grid_hw[0] * grid_hw[1] / (width * height)

    def pixels(self, size_hw: Hw) -> float:
        """The area in pixels of a picture of this height and width."""
        return self.area * size_hw[0] * size_hw[1] / (self.frame[0] * self.frame[1])

    def require_known(self, grid_hw: Hw) -> None:
        """Raises ConfigError for an area below one cell, which the model cannot tell, and one of all."""
        width, height = self.frame
        cell = width * height / (grid_hw[0] * grid_hw[1])
        if not cell <= self.area < width * height:
            raise ConfigError(
                f"min_area = {self.area:g} pixels: a cell of the model covers {cell:g} of the {width} x "
                f"{height} pixels, and less it cannot tell; give from {cell:g} up to less than the picture"
            )


def level_of(map_HW: NDArray[np.float32], area: float) -> float:
    """The highest value of the map that a connected part of at least `area` pixels reaches throughout.

    Pixels touch at corners, too. The least value of the map where the area is larger than the map, NaN where
    a value is not finite.
    """
    if not np.isfinite(map_HW).all():
        return math.nan
    values = np.unique(map_HW)[::-1]
    first, last = 0, len(values) - 1
    while first < last:
        middle = (first + last) // 2
        if largest_part(map_HW >= values[middle]) >= area:
            last = middle
        else:
            first = middle + 1
    return float(values[first])
