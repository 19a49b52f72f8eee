"""From an anomaly map to the places that stand out of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from invad.records import Hw
from invad.scoring.shapes import extents, parts_above


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A connected part of an image above a limit, in pixels: its bounding box and area, its largest value.

    mean: of its values. centroid_x, centroid_y: from the outer corner of the first pixel. length_px,
    width_px: largest and smallest Feret diameter, from pixel corner to pixel corner. cell_px: the longer side
    of a cell of the model's grid; a length is known up to half of it at either end. These are None in results
    from before they were measured. share_of_limit: peak over the limit, None where that is not above 0.
    """

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float
    mean: float | None = None
    centroid_x: float | None = None
    centroid_y: float | None = None
    length_px: float | None = None
    width_px: float | None = None
    cell_px: float | None = None
    share_of_limit: float | None = None


def regions(
    map_HW: NDArray[np.float32],
    limit: float,
    grid_hw: Hw | None = None,
    most: int | None = None,
    least: float = 0.0,
) -> tuple[Region, ...]:
    """The parts of a map H x W above `limit`, joined where pixels touch at a corner; highest peak first.

    grid_hw: rows and columns of the model's cells, where they are known. most: of the regions at most; the
    rest is left out. least: pixels; smaller ones are left out, too.
    """
    height, width = map_HW.shape
    cell = None if grid_hw is None else cell_px((height, width), grid_hw)
    found = []
    for part in parts_above(map_HW, limit, most, least):
        x, y = int(part.starts_R.min()), int(part.rows_R.min())
        centroid_x, centroid_y = part.centroid()
        length, narrowest = extents(part.hull())
        region = Region(
            x=x,
            y=y,
            width=int(part.ends_R.max()) - x,
            height=int(part.rows_R.max()) + 1 - y,
            area=part.area,
            peak=part.peak,
            mean=part.mean,
            centroid_x=centroid_x,
            centroid_y=centroid_y,
            length_px=length,
            width_px=narrowest,
            cell_px=cell,
            share_of_limit=share_of_limit(part.peak, limit),
        )
        found.append(region)
    return tuple(found)


def cell_px(size_hw: Hw, grid_hw: Hw) -> float:
    """The longer side of a cell of the model's grid, in pixels of an image of this size."""
    return max(size_hw[0] / grid_hw[0], size_hw[1] / grid_hw[1])


def share_of_limit(peak: float, limit: float) -> float | None:
    """How many times the limit a peak is; None where the limit is not above 0."""
    return peak / limit if limit > 0 else None
