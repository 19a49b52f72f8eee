"""How a large picture is cut into tiles, and how maps of tiles become one map of the picture.

All of it is counted in cells, those of the grid in which a model sees a tile: a picture is a whole number
of them, and so is a tile's place. Tiles are spread evenly between the borders, all of one size, and nothing
is padded: a border that is not there would be an anomaly. Where tiles overlap they are blended by raised
cosines, in which the outermost cells of a tile, that know their surroundings on one side alone, count
nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from invad.data.preprocess import resize_map
from invad.data.region import REACHED, Region, cells_of, cover, inside_of, require_frame
from invad.errors import ConfigError, DataError
from invad.records import Hw
from invad.system.arguments import require_fields

OVERVIEW, TILE = "overview", "tile"
"""Places of the whole picture in one, and of all tiles where they share their statistics."""

COLOUR_STEP = 4
"""Pixels, along both sides, from one to the next of which the mean colour is taken."""

LEAST_WEIGHT = 1e-6
"""Less than that of any cell that a tile covers."""

LEAST_OVERLAP = 2
"""Cells: with fewer the outermost cells of two neighbours would meet."""

SLACK = 0.25
"""Part of a pixel that a tile may be smaller than its cells."""

MARGIN = 1
"""Cells around what is ignored and yet in sight, which do not count: they see the most of it. Of the overview
as many of its own, larger ones."""

OVERVIEW_SIDE = 512
"""Pixels that the shorter side of a reduced picture has at least: twice what a model sees of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Into what tiles pictures are cut.

    tile_px: side of a tile in pixels of the picture; cells are fitted to the picture, so that it may be a
    little more or less. overlap: share of its side that a tile has in common with the next one, at least.
    border: cells along a tile's border that count nothing where another tile sees them from further within,
    beside the outermost one, which never does; fewer where the overlap is short. Models made before there was
    such a thing have 0. cells: along its side; None for as many as the settings have, up to 24 with shared
    positions.
    positions: `shared` judges all tiles by the same statistics, `each` every place by its own, for parts that
    lie still. picture_hw: the one size of pictures, with `each` alone. region: the part of pictures that
    counts, in the frame of all of them; None where all of it does. in_sight: whether the network sees what
    the region ignores, all but what `hidden` ignores, because limits are of good pictures that were read so;
    cells beside it do not count then. Raises ConfigError for values out of range.
    """

    tile_px: int
    overlap: float = 0.375
    border: int = 0
    positions: Literal["shared", "each"] = "shared"
    picture_hw: Hw | None = None
    region: Region | None = None
    in_sight: bool = False
    hidden: Region | None = None
    cells: int | None = None

    def __post_init__(self) -> None:
        require_fields(self)
        if self.cells is not None and self.cells < 1:
            raise ConfigError(f"cells = {self.cells}: give a number along the side of a tile, at least 1")
        if self.tile_px < 16:
            raise ConfigError(f"tile = {self.tile_px}: give a side in pixels, at least 16")
        if not 0 <= self.overlap <= 0.5:
            raise ConfigError(f"overlap = {self.overlap}: give a share from 0 to 0.5")
        if self.border < 0:
            raise ConfigError(f"border = {self.border}: give a number of cells, at least 0")
        if self.positions not in ("shared", "each"):
            raise ConfigError(f"positions = {self.positions}: give shared or each")
        if (self.positions == "each") != (self.picture_hw is not None):
            raise ConfigError("positions = each needs the one size of pictures, and shared takes any")

    def cut(self, picture_hw: Hw, grid_hw: Hw, member: str = "") -> "Cut":
        """The tiles of a picture. grid_hw: rows and columns of the cells of a tile. member: of a part, which
        the picture is, whose places are its own.

        Raises DataError for a picture smaller than a tile, and with positions of their own for one of another
        size.
        """
        return _kept_cut(self, picture_hw, grid_hw, member)

    def _cut(self, picture_hw: Hw, grid_hw: Hw, member: str) -> "Cut":
        height, width = picture_hw
        if self.picture_hw not in (None, picture_hw):
            own_h, own_w = self.picture_hw or picture_hw
            raise DataError(
                f"<array>: {width} x {height} pixels, and this model knows the places of pictures of "
                f"{own_w} x {own_h} alone; give such, or train with shared positions"
            )
        require_frame(self.region, picture_hw, "<array>")
        if min(picture_hw) < self.tile_px:
            raise DataError(
                f"<array>: {width} x {height} pixels, smaller than a tile of {self.tile_px}; give larger "
                "pictures, or train with smaller tiles or none"
            )
        down, along = (
            _Axis.of(length, self.tile_px, cells, self.overlap, self.border)
            for length, cells in zip(picture_hw, grid_hw, strict=True)
        )
        cells_hw = down.cells, along.cells
        counted, told = self._counted(cells_hw), self._told(cells_hw, grid_hw)
        return Cut(picture_hw, grid_hw, down, along, self.positions, counted, member, told)

    def _counted(self, cells_hw: Hw) -> NDArray[np.bool_] | None:
        if self.region is None:
            return None
        counted = cells_of(self.region, cells_hw)
        if not self.in_sight:
            return counted
        counted &= ~self._beside(self.region, cells_hw)
        if not counted.any():
            raise DataError(
                f"the region leaves none of the model's {cells_hw[0]} x {cells_hw[1]} cells, because those "
                "beside what it ignores do not count either; make it larger, or give good images, which are "
                "read without what it ignores: invad calibrate MODEL NORMALS"
            )
        return counted

    def _told(self, cells_hw: Hw, grid_hw: Hw) -> NDArray[np.bool_] | None:
        """Cells of the picture that the overview may speak for: its own are larger, and see further."""
        if self.region is None or not self.in_sight:
            return None
        told: NDArray[np.bool_] = (
            resize_map(self._beside(self.region, grid_hw).astype(np.float32), cells_hw) < REACHED
        )
        return told

    def _beside(self, region: Region, cells_hw: Hw) -> NDArray[np.bool_]:
        """Cells in or beside which something is ignored and in sight, on a grid over the picture."""
        hidden = np.ones(cells_hw) if self.hidden is None else cover(self.hidden, cells_hw)
        return _grown(cover(region, cells_hw) < hidden - REACHED)

    def seen(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """The picture as the model is to see it: what does not count has the mean colour of what does.

        So a date code that changes reaches no cell beside it either, unless it is `in_sight`.
        """
        region = self.hidden if self.in_sight else self.region
        if region is None:
            return pixels
        inside = inside_of(region)
        some = (
            np.s_[::COLOUR_STEP, ::COLOUR_STEP] if inside[::COLOUR_STEP, ::COLOUR_STEP].any() else np.s_[:, :]
        )
        filled = pixels.copy()
        filled[~inside] = pixels[some][inside[some]].mean(axis=0, dtype=np.float64).astype(pixels.dtype)
        return filled


@lru_cache(maxsize=16)
def _kept_cut(tiling: Tiling, picture_hw: Hw, grid_hw: Hw, member: str) -> "Cut":
    """Kept, because which cells a region leaves is worked out on all pixels of a picture."""
    return tiling._cut(picture_hw, grid_hw, member)


def _grown(cells_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With all that are at most MARGIN cells away, at corners, too."""
    h, w = cells_hw.shape
    padded = np.pad(cells_hw, MARGIN)
    steps = range(2 * MARGIN + 1)
    grown: NDArray[np.bool_] = np.any([padded[y : y + h, x : x + w] for y in steps for x in steps], axis=0)
    return grown


@dataclass(frozen=True, slots=True)
class _Axis:
    """One side of a picture: cells across, pixels of a tile, cells that tiles begin at and share. border: of
    the shared ones, those at either end that count nothing."""

    cells: int
    tile_px: int
    origins: tuple[int, ...]
    overlap: int
    border: int

    @classmethod
    def of(cls, length: int, tile_px: int, tile: int, share: float, border: int) -> "_Axis":
        cells = max(tile, round(length * tile / tile_px))
        overlap = min(max(LEAST_OVERLAP, round(share * tile)), tile // 2)
        border = max(0, min(border, (overlap - LEAST_OVERLAP) // 2))
        pixels = math.ceil(length * tile / cells - SLACK)
        return cls(cells, pixels, origins(cells, tile, tile - overlap), overlap, border)

    def place(self, origin: int, length: int) -> int:
        """The pixel that a tile begins at."""
        return min(round(origin * length / self.cells), length - self.tile_px)

    def weights(self, number: int, tile: int) -> NDArray[np.float32]:
        """What the cells of the tile of this number count: all the same at a border of the picture."""
        weights = np.ones(tile, np.float32)
        if self.overlap < LEAST_OVERLAP:
            return weights
        rise = _rise(self.overlap, self.border)
        if number > 0:
            weights[: self.overlap] *= rise
        if number < len(self.origins) - 1:
            weights[tile - self.overlap :] *= rise[::-1]
        return weights


@cache
def _rise(overlap: int, border: int) -> NDArray[np.float64]:
    """What the cells that two tiles share count, from the border of a tile on."""
    shared = overlap - 2 * border
    rise = np.sin(np.pi / 2 * np.arange(shared) / (shared - 1)) ** 2
    return np.concatenate([np.zeros(border), rise, np.ones(border)])


def origins(length: int, tile: int, stride: int) -> tuple[int, ...]:
    """Where tiles begin that cover a length: spread evenly, no further apart than `stride`."""
    if length <= tile:
        return (0,)
    last = math.ceil((length - tile) / stride)
    return tuple(round(i * (length - tile) / last) for i in range(last + 1))


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its row and column among the tiles, and its box in pixels."""

    row: int
    column: int
    top: int
    left: int
    height: int
    width: int
    place: str

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """Its pixels, a view of the picture's."""
        return pixels[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True, slots=True)
class Cut:
    """The tiles of a picture of one size. grid_hw: cells of a tile. counted: cells of the picture that count;
    None where all do. member: see `Tiling.cut`. told: cells for which the overview speaks, too; None for all.
    """

    picture_hw: Hw
    grid_hw: Hw
    down: _Axis
    along: _Axis
    positions: str
    counted: NDArray[np.bool_] | None = None
    member: str = ""
    told: NDArray[np.bool_] | None = None

    @property
    def overview(self) -> str:
        """The place of the whole picture in one."""
        return place_of(self.member, OVERVIEW)

    @property
    def cells_hw(self) -> Hw:
        """Rows and columns of the cells of the whole picture."""
        return self.down.cells, self.along.cells

    @property
    def edge(self) -> int:
        """Cells along a tile's border that count less than half of a map, but where it is the picture's."""
        return min(self.down.overlap, self.along.overlap, *(side - 1 for side in self.grid_hw)) // 2

    @property
    def off(self) -> float:
        """How far, in cells, tiles of whole pixels lie from their cells at most."""
        off = [0.0]
        for length, tile, axis in zip(self.picture_hw, self.grid_hw, (self.down, self.along), strict=True):
            cell = length / axis.cells
            off.append(abs(axis.tile_px / cell - tile))
            off += [abs(axis.place(origin, length) / cell - origin) for origin in axis.origins]
        return max(off)

    @property
    def rows_columns(self) -> tuple[int, int]:
        """Of tiles."""
        return len(self.down.origins), len(self.along.origins)

    def __len__(self) -> int:
        return sum(1 for _ in self.tiles())

    def tiles(self) -> Iterator[Tile]:
        """All tiles in which something counts, row by row."""
        (height, width), (h, w) = self.picture_hw, self.grid_hw
        for row, top in enumerate(self.down.origins):
            for column, left in enumerate(self.along.origins):
                if self.counted is not None and not self.counted[top : top + h, left : left + w].any():
                    continue
                yield Tile(
                    row,
                    column,
                    self.down.place(top, height),
                    self.along.place(left, width),
                    self.down.tile_px,
                    self.along.tile_px,
                    place_of(self.member, f"r{row:02d}c{column:02d}" if self.positions == "each" else TILE),
                )

    def places(self) -> tuple[str, ...]:
        """Of all tiles in their order, then that of the overview."""
        return (*(tile.place for tile in self.tiles()), self.overview)


def place_of(member: str, place: str) -> str:
    """The name of a place of pictures that are a member of parts, or of any."""
    return f"{member} {place}" if member else place


class Blend:
    """The map of a whole picture from those of its tiles, which come in any order; holds cells, no pixels."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut
        self._sum = np.zeros(cut.cells_hw, np.float64)
        self._weight = np.zeros(cut.cells_hw, np.float64)

    def add(self, tile: Tile, map_hw: NDArray[np.float32]) -> None:
        """map_hw: of the cells of the tile."""
        (h, w), cut = self.cut.grid_hw, self.cut
        top, left = cut.down.origins[tile.row], cut.along.origins[tile.column]
        weights = np.outer(cut.down.weights(tile.row, h), cut.along.weights(tile.column, w))
        self._sum[top : top + h, left : left + w] += weights * map_hw
        self._weight[top : top + h, left : left + w] += weights

    def map(self, overview_hw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cells of the whole picture: what the tiles say, or the overview where that is more.

        Cells that do not count have the smallest value of those that do.
        """
        tiles = (self._sum / np.maximum(self._weight, LEAST_WEIGHT)).astype(np.float32)
        whole = np.maximum(tiles, resize_map(overview_hw, self.cut.cells_hw))
        counted, told = self.cut.counted, self.cut.told
        whole = whole if told is None else np.where(told, whole, tiles)
        return whole if counted is None else np.where(counted, whole, whole[counted].min())


def overview(pixels: NDArray[Any]) -> NDArray[Any]:
    """The whole picture, H x W x 3, made smaller by a whole number where it is large; same type.

    A pixel is the mean of a square of them. Else the whole picture would have to be held as floats.
    """
    height, width = pixels.shape[:2]
    factor = min(height, width) // OVERVIEW_SIDE
    if factor < 2:
        return pixels
    tops, lefts = np.arange(0, height, factor), np.arange(0, width, factor)
    counts = np.diff(np.append(lefts, width))[:, None]
    total = np.float64 if pixels.dtype.kind == "f" else np.uint32
    made = np.empty((len(tops), len(lefts), pixels.shape[2]), pixels.dtype)
    for row, top in enumerate(tops):
        strip = pixels[top : top + factor]
        mean = np.add.reduceat(strip.sum(axis=0, dtype=total), lefts, axis=0) / (len(strip) * counts)
        made[row] = mean if pixels.dtype.kind == "f" else np.rint(mean)
    return made


def tiles_at_once(grid_hw: Hw, tiles: int, cells: int) -> int:
    """How many tiles pass a network together: so many, of so many cells in all, at most; one at least."""
    return max(1, min(tiles, cells // math.prod(grid_hw)))


def tile_for(defect_px: float, input_hw: Hw, grid_hw: Hw) -> int:
    """Side of the tile in which the smallest defect, of this many pixels, is about one cell of the grid.

    No smaller than the input of the network: a picture shows nothing between its pixels.
    """
    side, cells = max(input_hw), max(grid_hw)
    return max(side, round(defect_px * cells))
