"""What counts, alike with and without PyTorch: the score that goes with a smallest area, and words."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from invad.data.preprocess import resize_map
from invad.data.region import Region, inside_of
from invad.scoring.fusion import ScoreOf
from invad.scoring.sizes import Smallest, level_of

NO_REGIONS: Mapping[str, Region] = {}

FINER = 4
"""Parts of the side of a cell in which areas are counted: the map between cells is interpolated."""


def sized_score(map_hw: NDArray[np.float32], smallest: Smallest) -> float:
    """Of a map h x w on the model's grid."""
    h, w = map_hw.shape
    return level_above(map_hw, smallest.cells((h, w)))


def map_score_of(smallest: Smallest | None) -> ScoreOf | None:
    """How a map that fuses the pictures of a part is scored; None where there is no smallest area."""
    if smallest is None:
        return None
    return lambda map_hw: sized_score(np.asarray(map_hw, np.float32), smallest)


def level_above(map_hw: NDArray[np.float32], cells: float) -> float:
    """The highest level above which there is a part of at least so many cells of a map h x w."""
    h, w = map_hw.shape
    return level_of(resize_map(map_hw, (FINER * h, FINER * w)), FINER**2 * cells)


def counting(
    region: Region | None, smallest: Smallest | None, regions: Mapping[str, Region] = NO_REGIONS
) -> dict[str, str]:
    """What of the pictures counts, in words: nothing where all of it does. regions: of single categories."""
    rows = {}
    if region is not None:
        rows["region of interest"] = _share(region)
    for name, one in ((name, one) for name, one in regions.items() if one != region):
        rows[f"region of {name}"] = _share(one)
    if smallest is not None:
        width, height = smallest.frame
        rows["smallest defect"] = f"{smallest.area:g} pixels of pictures of {width} x {height}"
    return rows


def _share(region: Region) -> str:
    return (
        f"{float(inside_of(region).mean()):.0%} of pictures of {region.frame[0]} x {region.frame[1]} pixels"
    )
