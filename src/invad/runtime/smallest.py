"""What counts, alike with and without PyTorch: the score that goes with a smallest area, and words."""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from invad.data.preprocess import resize_map
from invad.data.region import Region, inside_of
from invad.errors import ConfigError, DataError
from invad.records import Hw
from invad.scoring.fusion import ScoreOf
from invad.scoring.sizes import Smallest, level_of
from invad.system.arguments import require

NO_REGIONS: Mapping[str, Region] = {}

FINER = 4
"""Parts of the side of a cell in which areas are counted: the map between cells is interpolated."""


def sized_score(map_hw: NDArray[np.float32], smallest: Smallest) -> float:
    """Of a map h x w on the model's grid."""
    h, w = map_hw.shape
    return level_above(map_hw, smallest.cells((h, w)))


def smallest_in(area: float | Literal["none"], sizes: Collection[Hw], grid_hw: Hw) -> Smallest | None:
    """The smallest area of a defect in pixels of pictures that all have one size; None for "none".

    Raises ConfigError for an area that a model of such a grid cannot tell, DataError for several sizes.
    """
    if area == "none":
        return None
    require(min_area=(area, float))
    if len(sizes) != 1:
        several = " or ".join(f"{w} x {h}" for h, w in sizes)
        raise DataError(
            f"min_area is in pixels of pictures of one size, and the good ones have {several}; set a region "
            "of interest first, which has one"
        )
    ((height, width),) = sizes
    found = Smallest(area=area, frame=(width, height))
    found.require_known(grid_hw)
    return found


def require_room(area: float | None, region: Region | None) -> None:
    """Raises ConfigError for a smallest area of a defect, in pixels, that is more than all that counts."""
    if area is None or region is None:
        return
    counted = int(inside_of(region).sum())
    if area > counted:
        raise ConfigError(
            f"min_area = {area:g} pixels: the region leaves {counted}, so no part of it could be that large; "
            "give a smaller area, or a larger region"
        )


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
