"""The connected parts of a mask as runs of pixels, their outlines and their extents. Needs numpy alone.

Coordinates are those of pixel corners: x to the right and y down from the outer corner of the first pixel, so
a pixel covers x to x + 1, and its centre lies half a pixel inside.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Pixels that touch, at corners too, as R runs along rows: in row `rows_R` from `starts_R` to `ends_R`,
    the latter excluded; from row to row, and in a row from left to right. peak, mean: of their values."""

    rows_R: NDArray[np.intp]
    starts_R: NDArray[np.intp]
    ends_R: NDArray[np.intp]
    peak: float
    mean: float

    @property
    def area(self) -> int:
        """Pixels."""
        return int((self.ends_R - self.starts_R).sum())

    def centroid(self) -> tuple[float, float]:
        """x and y of the mean of all its points."""
        lengths = self.ends_R - self.starts_R
        x = float((lengths * (self.starts_R + self.ends_R)).sum() / 2 / lengths.sum())
        return x, float((lengths * (self.rows_R + 0.5)).sum() / lengths.sum())

    def box(self) -> tuple[int, int, NDArray[np.bool_]]:
        """x and y of the first pixel of its bounding box, and which pixels h x w of the box are its own."""
        top, left = int(self.rows_R.min()), int(self.starts_R.min())
        height, width = int(self.rows_R.max()) + 1 - top, int(self.ends_R.max()) - left
        edges = np.zeros((height, width + 1), np.int8)
        np.add.at(edges, (self.rows_R - top, self.starts_R - left), 1)
        np.add.at(edges, (self.rows_R - top, self.ends_R - left), -1)
        return left, top, np.cumsum(edges, axis=1)[:, :-1] > 0

    def hull(self) -> Floats:
        """V x 2: the corners (x, y) of the convex hull of its pixels, in order around it."""
        changes = np.flatnonzero(self.rows_R[1:] != self.rows_R[:-1])
        left = [int(self.starts_R[0]), *self.starts_R[changes + 1].tolist()]
        right = [*self.ends_R[changes].tolist(), int(self.ends_R[-1])]
        # A corner belongs to the rows above and below it.
        left = [left[0], *map(min, left[1:], left[:-1]), left[-1]]
        right = [right[0], *map(max, right[1:], right[:-1]), right[-1]]
        top = int(self.rows_R[0])
        levels = range(top, top + len(left))
        down = _chain(list(zip(left, levels, strict=True)))
        up = _chain(list(zip(right, levels, strict=True))[::-1])
        return np.array(down + up, np.float64)


Point = TypeVar("Point", bound="tuple[float, float]")


def _chain(points: list[Point]) -> list[Point]:
    """Those of the points, which go along one side, that turn one way alone."""
    kept: list[Point] = []
    for point in points:
        x, y = point
        while len(kept) > 1:
            x0, y0 = kept[-2]
            x1, y1 = kept[-1]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) < 0:
                break
            kept.pop()
        kept.append(point)
    return kept


def hull_of(points_N2: Floats) -> Floats:
    """V x 2: the corners of the convex hull of points (x, y), in order around it."""
    rising = sorted({(float(x), float(y)) for x, y in points_N2}, key=lambda point: (point[1], point[0]))
    sides = _chain(rising) + _chain(rising[::-1])
    return np.array(list(dict.fromkeys(sides)), np.float64)


def extents(hull_V2: Floats) -> tuple[float, float]:
    """The largest and the smallest Feret diameter of a convex outline, in its own unit: the widest and the
    narrowest gap between two parallel lines that hold it."""
    differences_VV2 = hull_V2[:, None] - hull_V2
    largest = float(np.hypot(differences_VV2[..., 0], differences_VV2[..., 1]).max())
    edges_V2 = np.concatenate((hull_V2[1:], hull_V2[:1])) - hull_V2
    lengths_V = np.hypot(edges_V2[:, 0], edges_V2[:, 1])
    sides = lengths_V > 0
    # The narrowest gap lies along one of the sides.
    across_VV = np.abs(
        edges_V2[:, None, 0] * differences_VV2[..., 1].T - edges_V2[:, None, 1] * differences_VV2[..., 0].T
    )
    return largest, float((across_VV.max(axis=1)[sides] / lengths_V[sides]).min())


def around(outline_V2: Floats) -> float:
    """The length of a closed outline, in its own unit."""
    edges_V2 = np.concatenate((outline_V2[1:], outline_V2[:1])) - outline_V2
    return float(np.hypot(edges_V2[:, 0], edges_V2[:, 1]).sum())


def parts_above(
    map_HW: NDArray[np.float32], limit: float, most: int | None = None, least: float = 0.0
) -> tuple[Part, ...]:
    """The connected parts of a map H x W with values above `limit`, highest peak first, at most `most`.

    least: pixels; smaller parts are left out.
    """
    above = map_HW > limit
    rows, columns = np.flatnonzero(above.any(axis=1)), np.flatnonzero(above.any(axis=0))
    if not len(rows):
        return ()
    # Most of a map is below: what is above lies in a small box.
    top, left = int(rows[0]), int(columns[0])
    box = np.s_[top : rows[-1] + 1, left : columns[-1] + 1]
    rows_R, starts_R, ends_R, stride = _runs(above[box])
    numbers_R = _connected(rows_R, starts_R, ends_R, stride)
    lengths_R = ends_R - starts_R
    values = map_HW[box][above[box]]
    begins_R = np.cumsum(lengths_R) - lengths_R
    count = int(numbers_R.max()) + 1
    peaks = np.full(count, -np.inf)
    np.maximum.at(peaks, numbers_R, np.maximum.reduceat(values, begins_R))
    sums = np.bincount(numbers_R, np.add.reduceat(values.astype(np.float64), begins_R), count)
    areas = np.bincount(numbers_R, lengths_R, count)
    means = sums / areas
    by_part = np.argsort(numbers_R, kind="stable")
    begin_of = np.searchsorted(numbers_R[by_part], np.arange(count + 1))
    found = []
    falling = np.argsort(-peaks, kind="stable")
    for number in falling[areas[falling] >= least][:most]:
        own = by_part[begin_of[number] : begin_of[number + 1]]
        part = Part(
            rows_R[own] + top,
            starts_R[own] + left,
            ends_R[own] + left,
            float(peaks[number]),
            float(means[number]),
        )
        found.append(part)
    return tuple(found)


def largest_part(mask_HW: NDArray[np.bool_]) -> int:
    """Pixels of the largest connected part of a mask H x W; 0 of none."""
    rows_R, starts_R, ends_R, stride = _runs(mask_HW)
    if not len(rows_R):
        return 0
    numbers_R = _connected(rows_R, starts_R, ends_R, stride)
    return int(np.bincount(numbers_R, ends_R - starts_R).max())


def _runs(mask_HW: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], int]:
    """Row, start and end of all runs in the order of rows; and the length of a row with one pixel more."""
    stride = mask_HW.shape[1] + 1
    flat = np.zeros(mask_HW.shape[0] * stride + 1, np.bool_)
    flat[1:].reshape(-1, stride)[:, :-1] = mask_HW
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    rows_R, starts_R = np.divmod(changes[0::2], stride)
    return rows_R, starts_R, changes[1::2] - rows_R * stride, stride


def _connected(
    rows_R: NDArray[np.intp], starts_R: NDArray[np.intp], ends_R: NDArray[np.intp], stride: int
) -> NDArray[np.intp]:
    """Of each run the number of its part, from 0 in the order of their first runs."""
    below = (rows_R + 1) * stride
    first = np.searchsorted(rows_R * stride + ends_R, below + starts_R, "left")
    last = np.searchsorted(rows_R * stride + starts_R, below + ends_R, "right")
    touching = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(rows_R)), touching)
    begins = np.cumsum(touching) - touching
    other = np.arange(len(one)) + np.repeat(first - begins, touching)
    # Every run takes the smallest number that it meets; numbers lead to smaller ones until all agree.
    number = np.arange(len(rows_R))
    while True:
        smaller = np.minimum(number[one], number[other])
        met = number.copy()
        np.minimum.at(met, number[one], smaller)
        np.minimum.at(met, number[other], smaller)
        while not np.array_equal(met, met[met]):
            met = met[met]
        if np.array_equal(met, number):
            return np.unique(number, return_inverse=True)[1].ravel()
        number = met
