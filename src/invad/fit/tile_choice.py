"""Which tiles are chosen for pictures of a size, and by what settings tiles are read."""

import math
from dataclasses import replace

from invad.backbones.base import Backbone
from invad.backbones.beside import Each
from invad.data.region import Region
from invad.data.tiling import Cut, Tiling, tile_for
from invad.errors import ConfigError
from invad.fit.plan import input_and_grid
from invad.model.settings import Preset
from invad.records import Hw

TILE_CELLS, MOST_CELLS = 24, 48
"""Cells along a tile that has the pixels for them, and at most where tiles are chosen.

The more, the fewer lie beside its border and the less of a picture is seen twice; but what a run of the
network takes in memory grows with their square."""

SHARED_CELLS = 9
"""Cells that a tile of more than TILE_CELLS has in common with the next one: BORDER and the outermost of
both, which do not count, and one in the middle to which both contribute."""

BORDER = 3
"""Cells beside the outermost one of which the neighbour of a tile has the say: of those, two tiles differ by
more than a third of a cell's spread, since the network pads what it does not see."""

STRETCH, MOST_OFF = 1.08, 1 / 160
"""By how much cells may be larger than asked for, so that tiles of whole pixels lie less than this share of a
cell, a tenth of a pixel of the network, from their cells; noise of single pixels looks another elsewhere."""

OVERLAP_EACH = 0.25  # of tiles whose borders lie in the same place in every picture


def of_tiles(settings: Preset, backbone: Backbone) -> tuple[Preset, Backbone]:
    """The settings, and the backbone, that see tiles: of several with banks of their own the first."""
    if not isinstance(backbone, Each):
        return settings, backbone
    return settings.of_first_backbone, backbone.apart[0].backbone


def tile_settings(
    settings: Preset, backbone: Backbone, tile_px: int, positions: str, cells: int | None = None
) -> Preset:
    """The settings by which tiles of this side are read.

    settings: of whole pictures. cells: along that side, None for what follows.

    Where tiles share their statistics, what a cell shows must not depend on where a tile ends. So smaller
    scales are left away, in which every cell lies beside a border, and so is the floor, which one tile has
    and its neighbour has not; and a tile with the pixels for it has twice the cells of a whole picture along
    its side, up to TILE_CELLS, with a score of as many of them as before. Raises ConfigError for settings
    with moved copies.
    """
    if settings.moved:
        raise ConfigError(
            f"moved = {settings.moved:g}: copies are moved of whole pictures only; leave it away for tiles, "
            "which know what is normal anywhere, unless their positions are 'each'"
        )
    # A tile has a map, of which pictures are judged, and needs no score combined from several.
    settings = replace(settings, top_fractions=None, second_space=None)
    side = settings.area_side or backbone.info.side
    cell = settings.cell_px(backbone)
    wide = (cells or 0) * cell
    if cells is None and positions == "shared":
        wide = min(2 * side, TILE_CELLS * cell)
        wide = wide if side < wide <= tile_px else 0
    if wide:
        top = settings.top_fraction * (side / wide) ** 2
        settings = replace(settings, area_side=wide, top_fraction=top)
    return settings if positions == "each" else replace(settings, scales=(1.0,), floor=0.0)


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
        settings, backbone = of_tiles(settings, backbone)
        settings = tile_settings(settings, backbone, short, "each" if each else "shared")
        input_hw, grid_hw = input_and_grid([(short, short)], settings, backbone)
        tile = min(tile_for(smallest_defect, input_hw, grid_hw), short)
        if not each and (larger := _larger(size_hw, tile, max(grid_hw), settings, backbone)) is not None:
            return larger
    elif tile > short:
        raise ConfigError(f"tile = {tile}: larger than the picture of {width} x {height} pixels; give less")
    if each:
        return Tiling(tile_px=tile, overlap=OVERLAP_EACH, positions="each", picture_hw=size_hw)
    return Tiling(tile_px=tile, border=BORDER)


def _larger(size_hw: Hw, tile_px: int, cells: int, settings: Preset, backbone: Backbone) -> Tiling | None:
    """Tiles of more cells, no smaller ones, of which the network has fewer to see; None where there are none.

    At least two tiles, since one would be the whole picture, which is seen anyway.
    """
    usual = Tiling(tile_px=tile_px, border=BORDER).cut(size_hw, (cells, cells))
    least, off = _seen(usual), usual.off
    found: dict[tuple[bool, int], Tiling] = {}
    for more in range(cells, MOST_CELLS + 1) if cells >= TILE_CELLS else ():
        own = replace(settings, area_side=more * settings.cell_px(backbone))
        _, grid_hw = input_and_grid([(tile_px, tile_px)], own, backbone)
        if grid_hw != (more, more):
            continue
        smallest = more * tile_px / cells
        for side in range(round(smallest), min(round(smallest * STRETCH), *size_hw) + 1):
            tiling = Tiling(tile_px=side, overlap=SHARED_CELLS / more, border=BORDER, cells=more)
            cut = tiling.cut(size_hw, grid_hw)
            if _seen(cut) < least and cut.rows_columns != (1, 1) and cut.off <= max(MOST_OFF, off):
                found.setdefault((cut.off > MOST_OFF, _seen(cut)), tiling)
    return found[min(found)] if found else None


def _seen(cut: Cut) -> int:
    """Cells of all tiles of a picture and its overview together."""
    return (math.prod(cut.rows_columns) + 1) * math.prod(cut.grid_hw)
