"""The defects of an image as a table: where, how large, how clear, and how well a length is known."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError
from invad.records import Hw
from invad.scoring.lengths import Place, SizeModel, half_peak
from invad.scoring.regions import share_of_limit
from invad.scoring.scale import Scale
from invad.scoring.shapes import Part, around, extents, parts_above


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """A connected part of an anomaly map above its review limit.

    defect: its number in the image, from 1, highest peak first. x, y, width, height: its box in pixels.
    centroid_x, centroid_y: its middle, in pixels from the outer corner of the first pixel. peak, mean: of the
    map. share_of_limit: peak over the review limit; None where that is not above 0. cell_px: the longer side
    of a cell of the model's grid, in pixels.

    length_px, width_px: largest and smallest Feret diameter; area_px: pixels. size_of says of what. "defect":
    of the defect itself, as drawings taught (see `SizeModel`), and the uncertainties are what 95 % of the
    drawings kept. "place": of the part of the map, pixel corner to pixel corner, which is larger than the
    defect in it; the uncertainties are then of the grid alone, half a cell at either end or all around. The
    rest is the same on the part, in millimetres and square millimetres, and None without a scale.
    """

    defect: int
    x: int
    y: int
    width: int
    height: int
    area_px: float
    area_uncertainty_px: float
    centroid_x: float
    centroid_y: float
    length_px: float
    width_px: float
    length_uncertainty_px: float
    width_uncertainty_px: float
    peak: float
    mean: float
    share_of_limit: float | None
    cell_px: float
    size_of: Literal["defect", "place"] = "place"
    area_mm2: float | None = None
    area_uncertainty_mm2: float | None = None
    length_mm: float | None = None
    width_mm: float | None = None
    length_uncertainty_mm: float | None = None
    width_uncertainty_mm: float | None = None
    centroid_x_mm: float | None = None
    centroid_y_mm: float | None = None
    cell_mm: float | None = None


IN_PIXELS = tuple(field.name for field in fields(Defect) if "_mm" not in field.name)
IN_MM = tuple(field.name for field in fields(Defect) if "_mm" in field.name)
"""Names of the columns of a table, without a scale and what comes with one."""


def defects(
    map_HW: NDArray[np.float32],
    limit: float,
    grid_hw: Hw,
    scale: Scale | None = None,
    most: int | None = None,
    least: float = 0.0,
    sizes: SizeModel | None = None,
) -> tuple[Defect, ...]:
    """The parts of an anomaly map H x W above `limit`, highest peak first; `most` of them at most.

    The map is in the frame of the image. grid_hw: rows and columns of the model's cells, whose size says how
    well a length is known. scale: for millimetres. least: pixels; smaller parts are none. sizes: what
    drawings taught of the model, None where nothing did. Raises DataError for a map that is none, and for an
    image that reaches the horizon of the scale.
    """
    require_map(map_HW)
    height, width = map_HW.shape
    if scale is not None:
        scale.require_before((height, width))
    cell_wh = (width / grid_hw[1], height / grid_hw[0])
    found = parts_above(map_HW, limit, most, least)
    measured = (_defect(number, part, limit, cell_wh, scale) for number, part in enumerate(found, 1))
    if sizes is None:
        return tuple(measured)
    return tuple(
        _sized(one, half_peak(map_HW, part, limit, one.cell_px), sizes)
        for one, part in zip(measured, found, strict=True)
    )


def _sized(one: Defect, place: Place | None, sizes: SizeModel) -> Defect:
    """With the size of the defect in place of that of its place, where that can be told."""
    if place is None:
        return one
    cell, found = one.cell_px, sizes.of(place)
    length_bound, width_bound, bound = (
        fitted.bound(place) for fitted in (sizes.length, sizes.width, sizes.root)
    )
    length, width, root = found.length * cell, found.width * cell, found.root * cell
    # What the bound of the side of a square adds to its area.
    area_bound = 2 * root * bound * cell + (bound * cell) ** 2
    sized = replace(
        one,
        size_of="defect",
        length_px=length,
        width_px=width,
        area_px=root**2,
        length_uncertainty_px=length_bound * cell,
        width_uncertainty_px=width_bound * cell,
        area_uncertainty_px=area_bound,
    )
    if one.area_mm2 is None or one.length_mm is None or one.width_mm is None:
        return sized
    # As the place lies on the part: so many millimetres for a pixel along its length, its width, of its area.
    along, across = one.length_mm / one.length_px, one.width_mm / one.width_px
    square = one.area_mm2 / one.area_px
    return replace(
        sized,
        length_mm=length * along,
        width_mm=width * across,
        area_mm2=root**2 * square,
        length_uncertainty_mm=length_bound * cell * along,
        width_uncertainty_mm=width_bound * cell * across,
        area_uncertainty_mm2=area_bound * square,
    )


def require_map(map_HW: NDArray[np.float32]) -> None:
    """Raises DataError for an array that is no anomaly map."""
    shape = np.shape(map_HW)
    if len(shape) != 2 or 0 in shape:
        raise DataError(f"no anomaly map to measure in, the shape is {shape}; predict the image again")
    if not np.isfinite([map_HW.min(), map_HW.max()]).all():
        raise DataError("the anomaly map is not of finite numbers; test the model with 'invad verify'")


def _defect(
    number: int, part: Part, limit: float, cell_wh: tuple[float, float], scale: Scale | None
) -> Defect:
    hull_V2 = part.hull()
    x, y = int(part.starts_R.min()), int(part.rows_R.min())
    centroid = part.centroid()
    length, width = extents(hull_V2)
    cell = max(cell_wh)
    return Defect(
        defect=number,
        x=x,
        y=y,
        width=int(part.ends_R.max()) - x,
        height=int(part.rows_R.max()) + 1 - y,
        area_px=part.area,
        area_uncertainty_px=_margin(around(hull_V2), cell),
        centroid_x=centroid[0],
        centroid_y=centroid[1],
        length_px=length,
        width_px=width,
        length_uncertainty_px=cell,
        width_uncertainty_px=cell,
        peak=part.peak,
        mean=part.mean,
        share_of_limit=share_of_limit(part.peak, limit),
        cell_px=cell,
        **({} if scale is None else _in_mm(part, hull_V2, centroid, cell_wh, scale)),
    )


def _margin(outline: float, cell: float) -> float:
    """What half a cell more all around adds to an area that a convex outline holds."""
    return outline * cell / 2 + np.pi * cell**2 / 4


def _in_mm(
    part: Part,
    hull_V2: NDArray[np.float64],
    centroid: tuple[float, float],
    cell_wh: tuple[float, float],
    scale: Scale,
) -> dict[str, Any]:
    """The columns `IN_MM`. Lines stay straight, so the hull and the edges of runs keep their corners."""
    outline_V2 = scale(hull_V2)
    length, width = extents(outline_V2)
    area, x, y = _moments(part, scale)
    middle = np.array(centroid)
    half = np.diag(cell_wh) / 2
    sides = scale(middle + half) - scale(middle - half)
    cell = float(np.hypot(sides[:, 0], sides[:, 1]).max())
    return {
        "area_mm2": area,
        "area_uncertainty_mm2": _margin(around(outline_V2), cell),
        "length_mm": length,
        "width_mm": width,
        "length_uncertainty_mm": cell,
        "width_uncertainty_mm": cell,
        "centroid_x_mm": x,
        "centroid_y_mm": y,
        "cell_mm": cell,
    }


def _moments(part: Part, scale: Scale) -> tuple[float, float, float]:
    """Area and centroid (x, y) on the part: of the quadrangles that the runs become."""
    corners_R42 = scale(
        np.stack(
            [
                np.stack([part.starts_R, part.rows_R], -1),
                np.stack([part.ends_R, part.rows_R], -1),
                np.stack([part.ends_R, part.rows_R + 1], -1),
                np.stack([part.starts_R, part.rows_R + 1], -1),
            ],
            axis=1,
        ).astype(np.float64)
    )
    origin = corners_R42.mean(axis=(0, 1))  # far from zero the cross products would lose their digits
    here = corners_R42 - origin
    after = np.roll(here, -1, axis=1)
    twice_R4 = here[..., 0] * after[..., 1] - after[..., 0] * here[..., 1]
    area = float(twice_R4.sum()) / 2
    x, y = ((here + after) * twice_R4[..., None]).sum(axis=(0, 1)) / (6 * area) + origin
    return abs(area), float(x), float(y)
