"""The part of a picture that counts: polygons to inspect and to ignore, in the frame of one picture size.

A file of one is JSON, or a mask picture, in which every pixel that is not black is inspected (of one with
smooth borders every pixel above half of white):

    {"frame": [640, 480], "include": [[[20, 20], [620, 20], [620, 460], [20, 460]]],
     "ignore": [[[400, 300], [520, 300], [520, 340], [400, 340]]], "min_cover": 0.5}

Points are [x, y] in pixels of the upright picture, from the outer corner of its first pixel; a pixel belongs
to a polygon that holds its centre. A polygon that crosses itself has holes by the even-odd rule. What counts
is the union of `include`, or the whole picture where that is empty, without the union of `ignore`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad.data.formats import IMAGE_SUFFIXES
from invad.data.images import pixel_limit
from invad.data.masks import FEW_LEVELS, mask_split, read_mask_levels
from invad.errors import ConfigError, DataError
from invad.records import Hw
from invad.system.arguments import path_of, require, require_fields
from invad.system.digests import plain_sha256
from invad.system.plain import from_plain, read_json, to_plain

Polygon: TypeAlias = tuple[tuple[float, float], ...]

MOST_POINTS = 200_000
"""Of all polygons of a region; a mask of more is of noise."""

REACHED = 1e-6
"""Share of an input pixel; less of an ignored pixel in it is rounding."""

BLACK, MOST_GREYS = 0.1, 0.05
"""Share of full scale that JPEG makes of black, and of the pixels of a mask that smooth borders make grey."""

ADVICE = "'invad roi draw IMAGE --to FILE.html' makes one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """The part of pictures of one size that counts.

    frame: width and height of the pictures. include, ignore: polygons, see the top of the file. min_cover:
    share of a cell of a model's grid, in (0, 1], that has to be inspected for the cell to count. Raises
    DataError for a region that leaves nothing to inspect or nothing out, and for points outside the frame.
    """

    frame: tuple[int, int]
    include: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    min_cover: float = 0.5

    def __post_init__(self) -> None:
        require_fields(self)
        width, height = self.frame
        if min(self.frame) < 1 or width * height > pixel_limit():
            raise DataError(f"frame = {[*self.frame]}: give width and height of the picture in pixels")
        if not 0 < self.min_cover <= 1:
            raise DataError(f"min_cover = {self.min_cover:g}: give a share above 0 and at most 1")
        points = 0
        for name in ("include", "ignore"):
            for number, polygon in enumerate(getattr(self, name)):
                points += len(polygon)
                _require_polygon(f"{name}[{number}]", polygon, self.frame)
        if points > MOST_POINTS:
            raise DataError(f"{points:,} points are too many for a region, give at most {MOST_POINTS:,}")
        inside = inside_of(self)
        if not inside.any():
            raise DataError("it leaves no pixel of the picture to inspect; make 'ignore' smaller")
        if inside.all():
            raise DataError("it ignores no pixel of the picture, so it changes nothing; leave it away")

    @property
    def size_hw(self) -> Hw:
        """Height and width of the pictures."""
        return self.frame[1], self.frame[0]


def read_region(path: str | Path) -> Region:
    """The region in a JSON file or a mask picture. Raises DataError of one line for what is none."""
    path = path_of(path, "region")
    try:
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return of_mask(_read_mask(path))
        plain = read_json(path, DataError, ADVICE)
        if "frame" not in plain:
            raise DataError(f"key 'frame' is missing, width and height of the pictures; {ADVICE}")
        return from_plain(Region, plain, "", DataError)
    except DataError as error:
        said = str(error).removeprefix(": ")
        raise DataError(said if str(path) in said else f"{path}: {said}") from None


def region_of(given: "Region | str | Path | None", name: str = "region") -> Region | Literal["none"] | None:
    """A region as people give it: itself, the path of its file, "none" for the whole picture, or None.

    Raises ConfigError for anything else, DataError as `read_region`.
    """
    if given is None or isinstance(given, Region):
        return given
    if given == "none":
        return "none"
    require(**{name: (given, Region | str | Path)})
    return read_region(given)


def whole_or(region: Region | Literal["none"] | None) -> Region | None:
    """None for "none", the whole picture."""
    return None if region == "none" else region


def regions_of(
    given: "Mapping[str, Region | str | Path] | None",
) -> dict[str, Region | Literal["none"]] | None:
    """The same of single categories, by their names."""
    require(regions=(given, Mapping | None))
    if given is None:
        return None
    read = {name: region_of(one, f"regions[{name}]") for name, one in given.items()}
    return {name: "none" if one is None else one for name, one in read.items()}


def _read_mask(path: Path) -> NDArray[np.bool_]:
    """True where a mask picture inspects. Raises DataError for one of many greys: that is a photograph."""
    levels = read_mask_levels(path)
    share = levels / (1 if levels.dtype.kind == "f" else 65535 if levels.max() > 255 else 255)
    greys = float(((share > BLACK) & (share < 1 - BLACK)).mean())
    if greys > MOST_GREYS and len(np.unique(levels)) > FEW_LEVELS:
        raise DataError(
            f"{greys:.0%} of its pixels are grey, as of a photograph; a mask is white where the picture is "
            "inspected, and black elsewhere"
        )
    return levels > mask_split(levels, path)


def digest_of(region: Region) -> str:
    """A name of what a region says, SHA-256, hexadecimal."""
    return plain_sha256(to_plain(region))


def of_mask(mask_HW: NDArray[np.bool_]) -> Region:
    """The region of a mask H x W, True where a picture is inspected: rectangles of rows that are alike."""
    height, width = mask_HW.shape
    changes = np.flatnonzero((mask_HW[1:] != mask_HW[:-1]).any(axis=1)) + 1
    bands = [0, *changes.tolist(), height]
    rectangles: list[Polygon] = []
    for top, bottom in pairwise(bands):
        edges = np.flatnonzero(np.diff(mask_HW[top], prepend=False, append=False)).tolist()
        rectangles += [
            ((left, top), (right, top), (right, bottom), (left, bottom))
            for left, right in zip(edges[::2], edges[1::2], strict=True)
        ]
        if 4 * len(rectangles) > MOST_POINTS:
            raise DataError("is too ragged for a region; draw it with smooth borders, as PNG")
    if not rectangles:
        raise DataError("is black everywhere, so no pixel would be inspected; paint white what counts")
    return Region(frame=(width, height), include=tuple(rectangles))


def inside_of(region: Region) -> NDArray[np.bool_]:
    """H x W bool in the region's frame: the pixels that count."""
    if region.include:
        inside = np.zeros(region.size_hw, dtype=bool)
        for polygon in region.include:
            _paint(inside, polygon, True)
    else:
        inside = np.ones(region.size_hw, dtype=bool)
    for polygon in region.ignore:
        _paint(inside, polygon, False)
    return inside


def cover(region: Region, grid_hw: Hw) -> NDArray[np.float32]:
    """Share of the area of each cell that is inspected, h x w in [0, 1], on any grid over the frame."""
    return _resized(inside_of(region), grid_hw, Image.Resampling.BOX)


def cells_of(region: Region, grid_hw: Hw) -> NDArray[np.bool_]:
    """h x w bool: the cells that count, which are covered by `min_cover`. Raises DataError where none is."""
    cells: NDArray[np.bool_] = cover(region, grid_hw) >= region.min_cover - REACHED
    if not cells.any():
        raise DataError(
            f"the region covers none of the model's {grid_hw[0]} x {grid_hw[1]} cells by "
            f"{region.min_cover:.0%}; make it larger, or its min_cover smaller"
        )
    return cells


def untouched(region: Region, input_hw: Hw) -> NDArray[np.bool_]:
    """H' x W' bool: pixels of a resized picture of which no ignored pixel is part."""
    ignored = _resized(~inside_of(region), input_hw, Image.Resampling.BILINEAR)
    return ignored < REACHED


def cut(map_HW: NDArray[np.float32], inside_HW: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """A map with 0 where the picture does not count. inside_HW: see `inside_of`; None: all of it does."""
    if inside_HW is None:
        return map_HW
    zero = np.float32(0)
    return np.where(inside_HW, map_HW, zero)


def require_frame(region: Region | None, size_hw: Hw, name: object) -> None:
    """Raises DataError for a picture of another size than the region's."""
    if region is not None and size_hw != region.size_hw:
        raise DataError(
            f"{name}: {size_hw[1]} x {size_hw[0]} pixels, and the region of interest is drawn on pictures of "
            f"{region.frame[0]} x {region.frame[1]}; give pictures of that size, or another region"
        )


def framed(region: Region | None, size_hw: Hw | None) -> Hw | None:
    """The one size of pictures that a graph is for: that of the region, else the one asked, None for any.

    Raises ConfigError where another one is asked than that of the region.
    """
    if region is None or size_hw in (None, region.size_hw):
        return size_hw if region is None else region.size_hw
    raise ConfigError(
        f"the region of interest of the model is drawn on pictures of {region.frame[0]} x "
        f"{region.frame[1]} pixels, so it is exported for those alone; leave --size away"
    )


def _require_polygon(name: str, polygon: Polygon, frame: tuple[int, int]) -> None:
    if len(polygon) < 3:
        raise DataError(f"{name} has {len(polygon)} points; a polygon has at least 3")
    for x, y in polygon:
        if not (0 <= x <= frame[0] and 0 <= y <= frame[1]):
            raise DataError(
                f"{name} has the point [{x:g}, {y:g}], outside the picture of {frame[0]} x {frame[1]} pixels"
            )


def _paint(mask_HW: NDArray[np.bool_], polygon: Polygon, value: bool) -> None:
    """Set the pixels of a polygon in place: of each row those between the first and second crossing, ..."""
    corners = np.asarray(polygon, dtype=np.float64)
    left, top = np.floor(corners.min(axis=0)).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int)
    # One column more: a crossing behind the last pixel.
    crossed = np.zeros((max(bottom - top, 0), max(right - left, 0) + 1), dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        low, high = min(y0, y1), max(y0, y1)
        rows = np.arange(math.ceil(low - 0.5), math.ceil(high - 0.5))  # centres at or below low, above high
        if not len(rows):
            continue
        places = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.clip(np.ceil(places - 0.5).astype(int) - left, 0, crossed.shape[1] - 1)
        crossed[rows - top, columns] ^= True
    inside = np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
    mask_HW[top:bottom, left:right][inside] = value


def _resized(mask_HW: NDArray[np.bool_], size_hw: Hw, how: Any) -> NDArray[np.float32]:
    """Pillow's filters are those by which pictures are resized, on float as on 8 bits."""
    picture = Image.fromarray(mask_HW.astype(np.float32))
    return np.asarray(picture.resize((size_hw[1], size_hw[0]), how), dtype=np.float32)
