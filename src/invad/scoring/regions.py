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

    labels, count = ndimage.label(map_HW > limit, structure=np.ones((3, 3), int))
    index = np.arange(1, count + 1)
    areas, peaks = ndimage.sum_labels(labels > 0, labels, index), ndimage.maximum(map_HW, labels, index)
    components = [
        Region(
            x=columns.start,
            y=rows.start,
            width=columns.stop - columns.start,
            height=rows.stop - rows.start,
            area=int(area),
            peak=float(peak),
        )
        for (rows, columns), area, peak in zip(ndimage.find_objects(labels), areas, peaks, strict=True)
    ]
    return tuple(sorted(components, key=lambda region: -region.peak))
