"""From an anomaly map to the places that stand out of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A connected part of an image above a limit: its bounding box and area in pixels, its largest value."""

    x: int
    y: int
    width: int
    height: int
    area: int
    peak: float


def regions(map_HW: NDArray[np.float32], limit: float) -> tuple[Region, ...]:
    """The parts of a map H x W above `limit`, joined where pixels touch at a corner; highest peak first."""
    from scipy import ndimage

    above = map_HW > limit
    rows_of, columns_of = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    if not len(rows_of):
        return ()
    # Most of a map is below: what is above lies in a small box, and scipy's own sums would sort all pixels.
    top, left = int(rows_of[0]), int(columns_of[0])
    box = np.s_[top : rows_of[-1] + 1, left : columns_of[-1] + 1]
    labels, count = ndimage.label(above[box], structure=np.ones((3, 3), int))
    inside = np.flatnonzero(labels)
    numbers = labels.ravel()[inside] - 1
    areas = np.bincount(numbers, minlength=count)
    peaks = np.full(count, -np.inf, map_HW.dtype)
    np.maximum.at(peaks, numbers, map_HW[box].ravel()[inside])
    components = [
        Region(
            x=left + columns.start,
            y=top + rows.start,
            width=columns.stop - columns.start,
            height=rows.stop - rows.start,
            area=int(area),
            peak=float(peak),
        )
        for (rows, columns), area, peak in zip(ndimage.find_objects(labels), areas, peaks, strict=True)
    ]
    return tuple(sorted(components, key=lambda region: -region.peak))
