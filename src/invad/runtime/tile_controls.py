"""The controls of a model of tiles: pictures that are no good part anywhere, and which of them pass.

Their tiles would take most of the time of a calibration without pictures. As the map of a picture is nowhere
less than that of its overview, a control that the overview alone calls bad is bad, and no tile of it is read.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.tiling import Tiling, overview, place_of
from invad.errors import DataError
from invad.runtime.fusing import picture_score
from invad.runtime.limits import PLAIN
from invad.runtime.tiled import TiledPredictor
from invad.scoring.rates import POOLED

LOWEST = np.float32(-1e9)
"""In the map of a tile that was not read: less than any cell of one."""


def require_controls(
    before: TiledPredictor, after: TiledPredictor, advice: str, what: str = "model"
) -> tuple[str, ...]:
    """The controls that are not bad by new limits, in words.

    Raises DataError for one that was bad before. advice: what to do then, a sentence. what: has the limits.
    """
    passed = passing(after)
    were = passing(before) if passed else {}
    if new := [words for key, words in passed.items() if key not in were]:
        raise DataError(
            f"with these limits {new[0]}, which it was not so far; the {what} stays as it was. {advice}"
        )
    return tuple(passed.values())


def passing(detector: TiledPredictor) -> dict[str, str]:
    """The controls that are not bad, in words, by name, those of members of parts, and of
    categories with a region of their own, by that, too."""
    passed = {}
    alone = (POOLED, *detector.tiled.of_category)
    for member in alone if detector.fusion is None else detector.fusion.members:
        calibration = detector.calibrations[member]
        for name, pixels in controls(detector.tiled.tiling_of(member)):
            if calibration.decide(least_score(detector, pixels, member)) == "bad":
                continue
            score, _ = detector.reading(pixels, member or None)
            decision = calibration.decide(score)
            if decision != "bad":
                limit, of = calibration.score_limits()[1], member and f"{member}: "
                said = f"{of}{name} would be {decision} (score {score:.3g}, bad above {limit:.3g})"
                passed[place_of(member, name)] = said
    return passed


def least_score(detector: TiledPredictor, pixels: NDArray[Any], member: str = "") -> float:
    """What a picture scores at least, by its overview. member: of parts, or the category
    with a region of its own, that it is a picture of."""
    tiled = detector.tiled
    cut = detector.cut((pixels.shape[0], pixels.shape[1]), member)
    [whole] = detector.inside.cell_maps([overview(tiled.tiling_of(member).seen(pixels))], [cut.overview])
    unread = [np.full(cut.grid_hw, LOWEST, np.float32)] * len(cut)
    score, _ = picture_score(cut, [*unread, whole], tiled.places, tiled.top_cells, tiled.min_area)
    return score


def controls(tiling: Tiling) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Names and pictures: of one colour, and of noise."""
    framed = None if tiling.region is None else tiling.region.size_hw
    h, w = tiling.picture_hw or framed or (tiling.tile_px, tiling.tile_px)
    for name, level in PLAIN.items():
        yield name, np.full((h, w, 3), level, np.uint8)
    yield "a picture of noise", np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8)
