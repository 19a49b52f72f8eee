"""The score of a map when a defect has a smallest area, alike with and without PyTorch."""

import numpy as np
from numpy.typing import NDArray

from invad.data.preprocess import resize_map
from invad.scoring.sizes import Smallest, level_of

FINER = 4
"""Parts of the side of a cell in which areas are counted: the map between cells is interpolated."""


def sized_score(map_hw: NDArray[np.float32], smallest: Smallest) -> float:
    """Of a map h x w on the model's grid."""
    h, w = map_hw.shape
    return level_of(resize_map(map_hw, (FINER * h, FINER * w)), FINER**2 * smallest.cells((h, w)))
