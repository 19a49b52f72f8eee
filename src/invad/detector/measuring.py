"""What a model makes of defects of known size, drawn on good pictures."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.datasets import all_samples, normal_images
from invad.data.drawn import LARGEST, Drawing, draw_size, drawn_on, reduced
from invad.data.preprocess import grey_range
from invad.detector.detector import Detector
from invad.errors import DataError
from invad.observer import Observer, Silent
from invad.records import Sample
from invad.runtime.predictor import Pixels, Predictor
from invad.runtime.tiled import Reader, TiledPredictor
from invad.scoring.calibration import for_category
from invad.scoring.lengths import Extent, Place, SizeModel, fit_sizes, half_peak
from invad.scoring.regions import cell_px
from invad.scoring.shapes import parts_above

DRAWINGS = 80
"""Defects to be found, one on a picture. Faint ones are not, and teach nothing."""

MOST_PICTURES = 24
"""Good pictures that are drawn on, one after the other."""

LARGEST_IN_TILES = 16.0
"""Cells: of a picture in tiles, which has many, a defect may cover more than of a whole one."""

MOST_PIXELS = 100_000_000
"""Of them together, which are held at once: large ones are not made smaller for a model of tiles."""


class _Remembering:
    """A reader of tiles that reads the same pixels once: a drawing changes a few tiles of its picture."""

    def __init__(self, inside: Reader) -> None:
        self.inside = inside
        self.known: dict[tuple[bytes, str], NDArray[np.float32]] = {}

    def cell_maps(self, pixels: Sequence[Pixels], categories: Sequence[str]) -> list[NDArray[np.float32]]:
        keys = [(_digest(one), category) for one, category in zip(pixels, categories, strict=True)]
        new = [i for i, key in enumerate(keys) if key not in self.known]
        if new:
            made = self.inside.cell_maps([pixels[i] for i in new], [categories[i] for i in new])
            self.known |= {keys[i]: map_hw for i, map_hw in zip(new, made, strict=True)}
        return [self.known[key] for key in keys]

    def group_size(self, batch: int) -> int:
        return self.inside.group_size(batch)


def learn_sizes(
    detector: Detector | TiledPredictor,
    normals: str | Path | Sequence[Sample],
    *,
    drawings: int | None = None,
    seed: int = 0,
    observer: Observer | None = None,
) -> SizeModel:
    """Draw defects of known size on good images, and teach a detector how large it sees them.

    Its `defects` then tell the size of a defect and not that of its place, with the bound that 95 % of the
    drawings kept. detector: of whole pictures, or a `TiledDetector`, which reads the tiles that a drawing
    changes. normals: a folder or samples, of which 24 are drawn on; those that were trained on will do.
    drawings: defects to be found, 80 unless given; twice as many are drawn at most. What was learned is kept
    in the model folder and in exports. Raises DataError when no image can be read or fewer than 40 of the
    drawings are found.
    """
    samples = normal_images(normals) if isinstance(normals, str | Path) else all_samples(normals)
    drawings = DRAWINGS if drawings is None else drawings
    observer, rng = observer or Silent(), np.random.default_rng(seed)
    holder: Any = detector.inside if isinstance(detector, TiledPredictor) else detector
    reader: Predictor = detector
    largest = LARGEST_IN_TILES if isinstance(detector, TiledPredictor) else LARGEST
    if isinstance(detector, TiledPredictor):
        reader = TiledPredictor(_Remembering(detector.inside), detector.tiled)
    grounds = _grounds(detector, samples, rng)
    observer.stage("sizes", drawings)
    places: list[Place] = []
    truths: list[Extent] = []
    for number in range(2 * drawings):
        if len(places) == drawings:
            break
        ground = grounds[number % len(grounds)]
        size_hw = ground.shape[0], ground.shape[1]
        cell = cell_px(size_hw, detector.grid_for(size_hw))
        one = draw_size(rng, size_hw, cell, largest)
        levels = grey_range(ground.dtype, holder.info.window)
        place = place_of(reader, drawn_on(ground, one, levels), one, cell)
        if place is not None:
            places.append(place)
            truths.append(
                Extent(length=one.feret[0] / cell, width=one.feret[1] / cell, root=one.area**0.5 / cell)
            )
            observer.advance()
    sizes = fit_sizes(places, truths)
    detector.sizes, holder.info = sizes, replace(holder.info, sizes=sizes)
    detector.content_hash = None
    return sizes


def _digest(pixels: Pixels) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()


def place_of(predictor: Predictor, pixels: Pixels, one: Drawing, cell: float) -> Place | None:
    """The place of a drawn defect above half of its peak, in cells; None where it is not found."""
    map_HW = predictor.predict(pixels).anomaly_map
    limit, _ = for_category(predictor.calibrations, None).map_limits()
    for part in parts_above(map_HW, limit):
        x, y, own = part.box()
        if x <= one.x < x + own.shape[1] and y <= one.y < y + own.shape[0]:
            return half_peak(map_HW, part, limit, cell)
    return None


def _grounds(detector: Predictor, samples: Sequence[Sample], rng: np.random.Generator) -> list[Pixels]:
    """Some of the good pictures, drawn by lot; smaller ones will do unless a region or tiles ask for their
    size."""
    whole = detector.region is not None or isinstance(detector, TiledPredictor)
    found: list[Pixels] = []
    for i in rng.permutation(len(samples)):
        if len(found) == MOST_PICTURES or sum(one.size // 3 for one in found) > MOST_PIXELS:
            break
        with suppress(DataError):
            pixels = detector.decode(samples[i].path)
            found.append(pixels if whole else reduced(pixels))
    if not found:
        raise DataError("no good picture can be read to draw defects of known size on")
    return found
