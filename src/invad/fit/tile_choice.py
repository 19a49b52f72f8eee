"""Which tiles are chosen for pictures of a size, and by what settings tiles are read."""

import math
from dataclasses import replace

from invad.backbones.base import Backbone
from invad.data.region import Region
from invad.data.tiling import Tiling, tile_for
from invad.errors import ConfigError
from invad.fit.plan import input_and_grid
from invad.model.settings import Preset
from invad.records import Hw

TILE_CELLS = 24
"""Cells along a tile at most, where it has the pixels: the more, the fewer lie beside its border."""

BORDER = 3
"""Cells beside the outermost one of which the neighbour of a tile has the say: of those, two tiles differ by
more than a third of a cell's spread, since the network pads what it does not see."""

OVERLAP_EACH = 0.25  # of tiles whose borders lie in the same place in every picture


def tile_settings(settings: Preset, backbone: Backbone, tile_px: int, positions: str) -> Preset:
    """The settings by which tiles of this side are read. settings: of whole pictures.

    Where tiles share their statistics, what a cell shows must not depend on where a tile ends. So smaller
    scales are left away, in which every cell lies beside a border, and so is the floor, which one tile has
    and its neighbour has not; and a tile with the pixels for it has twice the cells of a whole picture along
    its side, up to TILE_CELLS, with a score of as many of them as before.
    """
    # A tile has a map, of which pictures are judged, and needs no score combined from several.
    settings = replace(settings, top_fractions=None)
    if positions == "each":
        return settings
    side = settings.area_side or backbone.info.side
    wide = min(2 * side, TILE_CELLS * settings.grid_stride)
    if side < wide <= tile_px:
        top = settings.top_fraction * (side / wide) ** 2
        settings = replace(settings, area_side=wide, top_fraction=top)
    return replace(settings, scales=(1.0,), floor=0.0)


def choose_tiling(
    size_hw: Hw,
    settings: Preset,
    backbone: Backbone,
    *,
    smallest_defect: float | None = None,
    tile: int | None = None,
    each: bool = False,
    region: Region | None = None,
) -> Tiling | None:
    """The tiles for pictures of this size; None where the whole picture shows such a defect as one cell.

    smallest_defect, tile: in pixels; the tile is chosen so that the defect is about one cell, but no smaller
    than the network's input and no larger than the picture. each: statistics for each place. region: the
    part that counts. Raises ConfigError unless one of the two is given and above 0, and for too large a tile.
    """
    if (smallest_defect is None) == (tile is None):
        raise ConfigError("give either the smallest defect or the side of a tile, in pixels")
    height, width = size_hw
    short = min(size_hw)
    if tile is None:
        assert smallest_defect is not None
        if not 0 < smallest_defect < math.inf:
            raise ConfigError(f"smallest defect = {smallest_defect:g} pixels: give a size above 0")
        (input_hw, grid_hw) = input_and_grid([(short, short)], settings, backbone)
        if max(size_hw) <= max(max(input_hw), smallest_defect * max(grid_hw)):
            return None
        settings = tile_settings(settings, backbone, short, "each" if each else "shared")
        input_hw, grid_hw = input_and_grid([(short, short)], settings, backbone)
        tile = min(tile_for(smallest_defect, input_hw, grid_hw), short)
    elif tile > short:
        raise ConfigError(f"tile = {tile}: larger than the picture of {width} x {height} pixels; give less")
    if each:
        return Tiling(tile_px=tile, overlap=OVERLAP_EACH, positions="each", picture_hw=size_hw)
    return Tiling(tile_px=tile, border=BORDER)
