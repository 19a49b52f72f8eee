"""From the maps of tiles to the map and the score of the picture they were cut from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from invad.data.tiling import Blend, Cut, Tiling
from invad.records import Hw
from invad.runtime.smallest import counting, level_above
from invad.scoring.calibration import Calibration
from invad.scoring.spread import top_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """Median of the scores of normal tiles of one place, and their standard deviation about it."""

    median: float
    spread: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiled:
    """What is known of tiles, beside the model that sees them; plain data of `config.json`, `bundle.json`.

    grid_hw: cells of a tile. top_cells: as many cells as make the score of a tile make that of a picture.
    places: of tiles and the overview. calibrations: of pictures, by category, POOLED among them. min_area:
    pixels of a picture, below which a part of its map is no defect; None where any is one. of_category: the
    tilings of categories that have a region, and so places, of their own.
    """

    tiling: Tiling
    grid_hw: Hw
    top_cells: int
    places: dict[str, Usual]
    calibrations: dict[str, Calibration]
    min_area: float | None = None
    of_category: dict[str, Tiling] = field(default_factory=dict)

    def tiling_of(self, category: str) -> Tiling:
        """How pictures of a category are cut; POOLED, and any without a region of its own, as all."""
        return self.of_category.get(category, self.tiling)


def picture_score(
    cut: Cut,
    maps: Sequence[NDArray[np.float32]],
    places: Mapping[str, Usual],
    top_cells: int,
    min_area: float | None = None,
) -> tuple[float, NDArray[np.float32]]:
    """Score and map of a picture from the maps of its tiles and its overview.

    On both, zero is the usual score of a tile and one its spread, and the map is the larger of the two. The
    score is the mean of as many cells as make the score of one tile: a share of all cells would hide a small
    defect in a large picture. With a smallest area, in pixels, it is the highest level above which there is a
    part of at least that area.
    """

    def standardised(map_hw: NDArray[np.float32], place: str) -> NDArray[np.float32]:
        usual = places[place]
        return ((map_hw - np.float32(usual.median)) / np.float32(usual.spread)).astype(np.float32)

    blend = Blend(cut)
    for tile, map_hw in zip(cut.tiles(), maps, strict=False):
        blend.add(tile, standardised(map_hw, tile.place))
    whole = blend.map(standardised(maps[-1], cut.overview))
    if min_area is not None:
        (rows, columns), (height, width) = cut.cells_hw, cut.picture_hw
        return level_above(whole, min_area * rows * columns / (height * width)), whole
    return top_mean(whole if cut.counted is None else whole[cut.counted], top_cells), whole


def counting_in(tiled: Tiled) -> dict[str, str]:
    """What of the pictures counts, in words: nothing where all of it does."""
    own = {name: one.region for name, one in tiled.of_category.items() if one.region is not None}
    rows = counting(tiled.tiling.region, None, own)
    return rows if tiled.min_area is None else {**rows, "smallest defect": f"{tiled.min_area:g} pixels"}
