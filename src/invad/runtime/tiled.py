"""A detector of tiles over a detector of pictures: large pictures, small defects, one decision for the whole.

Each tile, and the whole picture in one, gets a map from the model inside, which is compared with what tiles
of its place show when they are normal. The blended map has a score and a calibration of its own, from
held-out pictures: tiles of one picture are not independent, and the decision is about the picture.
"""

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from invad.data.images import ImageSource, pixel_limit, read_image
from invad.data.preprocess import resize_map
from invad.data.region import Region, inside_of
from invad.data.tiling import Cut, overview, tiles_at_once
from invad.errors import ConfigError, DataError
from invad.records import Hw, Prediction
from invad.runtime.detector import ExportedDetector
from invad.runtime.fusing import Tiled, picture_score
from invad.runtime.predictor import Pixels, Predictor
from invad.scoring.calibration import Calibration, for_category, known_category
from invad.scoring.fusion import Fusion
from invad.scoring.sizes import Smallest

BATCH, BATCH_CELLS = 8, 1152
"""Tiles of a run at most, and their cells, for memory, where the model inside takes any number; always the
same for a model, so that a score is, too."""

LARGEST = 100_000_000
"""Pixels of a picture that is cut, unless the environment says otherwise: its map takes 4 bytes each."""


class Reader(Protocol):
    """What a detector of tiles needs of the one inside."""

    def cell_maps(self, pixels: Sequence[Pixels], categories: Sequence[str]) -> list[NDArray[np.float32]]:
        """Anomaly maps h x w on the model's own grid; pixels: of one size and type, all in one run."""
        ...

    def group_size(self, batch: int) -> int: ...


class TiledPredictor(Predictor):
    """The same answers as any `Predictor`, of pictures that are cut into tiles."""

    def __init__(
        self,
        inside: Reader,
        tiled: Tiled,
        *,
        fusion: Fusion | None = None,
        content_hash: str | None = None,
        streams: int = 1,
    ) -> None:
        self.inside, self.tiled, self.fusion = inside, tiled, fusion
        self.calibrations: Mapping[str, Calibration] = tiled.calibrations
        self.sizes = getattr(self.info, "sizes", None)
        self.content_hash, self.streams = content_hash, streams

    @property
    def info(self) -> Any:
        """That of the detector inside."""
        return getattr(self.inside, "info", None)

    @property
    def engine(self) -> Any:
        """What runs the graph of an exported detector."""
        return getattr(self.inside, "engine", None)

    @property
    def region(self) -> Region | None:
        """The part of pictures that counts; None where all of it does."""
        return self.tiled.tiling.region

    @property
    def regions(self) -> Mapping[str, Region]:
        """Of categories that look at a part of the pictures of their own."""
        own = self.tiled.of_category.items()
        return {name: tiling.region for name, tiling in own if tiling.region is not None}

    @property
    def inside_HW(self) -> NDArray[np.bool_] | None:
        """The pixels that count, in the frame of the region; None where all do."""
        return None if self.region is None else inside_of(self.region)

    @property
    def smallest(self) -> Smallest | None:
        """The smallest area of a defect, the same in pictures of all sizes; its frame is a tile's."""
        tiling, area = self.tiled.tiling, self.tiled.min_area
        return None if area is None else Smallest(area=area, frame=(tiling.tile_px, tiling.tile_px))

    def least_pixels(self, size_hw: Hw) -> float:
        """The smallest area of a defect in pixels; 0 without one."""
        return self.tiled.min_area or 0.0

    @property
    def grid_hw(self) -> Hw:
        """Rows and columns of the cells of a tile; `grid_for` has those of a picture."""
        return self.tiled.grid_hw

    def grid_for(self, size_hw: Hw) -> Hw:
        """Rows and columns of the cells of a picture of this height and width."""
        return replace(self.tiled.tiling, region=None).cut(size_hw, self.grid_hw).cells_hw

    def cut(self, size_hw: Hw, member: str = "") -> Cut:
        """The tiles of a picture of this size. member: see `alone`. Raises DataError for one that this model
        cannot cut."""
        return self.tiled.tiling_of(member).cut(size_hw, self.tiled.grid_hw, member)

    def alone(self, category: str | None) -> str:
        """The member of parts, or the category with a region of its own, that has places of its own; empty
        for others."""
        members = () if self.fusion is None else self.fusion.members
        name = known_category(self.calibrations, category) if members or self.tiled.of_category else ""
        return name if name in members or name in self.tiled.of_category else ""

    def decode(self, image: ImageSource, category: str | None = None) -> Pixels:
        """Pixels of one picture. Raises DataError, also for one that is too large or too small to be cut."""
        limit = pixel_limit(LARGEST)
        pixels = read_image(image, max_pixels=limit)
        name = os.fspath(image) if isinstance(image, str | os.PathLike) else "<array>"
        height, width = pixels.shape[:2]
        if height * width > limit:  # of an array
            raise DataError(f"{name}: {width} x {height} pixels is over the limit of {limit}; cut it before")
        try:
            self.cut((height, width), self.alone(category))
        except DataError as error:
            raise DataError(str(error).replace("<array>", name, 1)) from None
        return pixels

    def kind(self, pixels: Pixels) -> Hashable:
        """Pictures are judged one by one, whatever they are; what shares a run are the tiles of each."""
        return None

    def group_size(self, batch: int) -> int:
        """One picture, of which many tiles share a run. Raises ConfigError where the bundle has another."""
        self.inside.group_size(batch)
        return 1

    def judge(self, pixels: Sequence[Pixels], category: str | None = None) -> list[Prediction]:
        """Predictions of decoded pictures, one after the other."""
        calibration = for_category(self.calibrations, category)
        predictions = []
        for one in self.levelled(pixels, category):
            score, map_hw = self.reading(one, category)
            map_HW = resize_map(map_hw, (one.shape[0], one.shape[1]))
            if (inside_HW := self.inside_for(category)) is not None:
                map_HW[~inside_HW] = map_hw.min()
            predictions.append(calibration.prediction(score, category, map_HW, map_hw))
        return predictions

    def reading(self, pixels: Pixels, category: str | None = None) -> tuple[float, NDArray[np.float32]]:
        """Score, and map on the cells of the whole picture. Pictures of all categories are read alike, but
        those of a member of parts, or of a category with a region of its own, by the places of that."""
        member = self.alone(category)
        cut = self.cut((pixels.shape[0], pixels.shape[1]), member)
        maps = cut_maps(self.inside, self.tiled.tiling_of(member).seen(pixels), cut)
        return picture_score(cut, maps, self.tiled.places, self.tiled.top_cells, self.tiled.min_area)


def cut_maps(inside: Reader, pixels: Pixels, cut: Cut) -> list[NDArray[np.float32]]:
    """Maps of all tiles of a picture in their order, then that of the overview."""
    size, maps, tiles = _batch(inside, cut.grid_hw), [], cut.tiles()
    while batch := list(islice(tiles, size)):
        maps += inside.cell_maps([tile.of(pixels) for tile in batch], [tile.place for tile in batch])
    return [*maps, *inside.cell_maps([overview(pixels)], [cut.overview])]


def _batch(inside: Reader, grid_hw: Hw) -> int:
    try:
        return inside.group_size(tiles_at_once(grid_hw, BATCH, BATCH_CELLS))
    except ConfigError:  # of a bundle that runs another number
        return inside.group_size(1)


def made_whole(detector: ExportedDetector) -> ExportedDetector | TiledPredictor:
    """What a bundle is: the detector of pictures around the one of tiles, where there are tiles."""
    if detector.info.tiles is None:
        return detector
    return TiledPredictor(
        detector,
        detector.info.tiles,
        fusion=detector.fusion,
        content_hash=detector.content_hash,
        streams=detector.streams,
    )
