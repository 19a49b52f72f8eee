"""Norm maps of the tiles of held-out good pictures, kept with a model of tiles as `kept` has those of images.

So another region, another smallest area of defects or both are calibrated without pictures. The maps were
read with what a new region ignores in sight. So pictures are read like that from then on, and the cells
beside it do not count: limits are those of pictures that are judged alike. Painting it over, as for a model
that reads pictures anew, would put an edge into each that none of the held-out ones had.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from invad.data.region import Region, inside_of
from invad.data.tiling import Cut, Tiling
from invad.errors import DataError
from invad.observer import Observer
from invad.records import Hw
from invad.runtime.fusing import Tiled
from invad.runtime.held import LARGEST
from invad.runtime.limits import GIVE_PICTURES
from invad.scoring.calibration import numbered

MOST_BYTES = 64 * 2**20
"""Of the maps that a model keeps: those of some hundred pictures of a hundred tiles."""

VALUE_BYTES = 2
"""Of a float16."""

IN_SIGHT = (
    "the good images that set the limits were read with what the region ignores in sight, so cells beside it "
    "do not count, and what changes there may still raise a score a little; 'invad calibrate MODEL NORMALS' "
    "mends it"
)
"""What limits from kept tiles do not know of a region, in one line."""


@dataclass(frozen=True, slots=True)
class HeldPicture:
    """A held-out picture: its tiles, and the norm maps T x L x h x w of all of them and of the overview,
    which comes last. part: that it is a picture of; None where it stands for itself."""

    category: str
    cut: Cut
    maps_TLhw: NDArray[np.float32]
    part: str | None = None


@dataclass(frozen=True, slots=True)
class KeptTiles:
    """Norm maps of all tiles of some pictures, and what they are of.

    middles_PLhw, offsets_TLhw: the median of each place in the order of their names, float32, and what each
    map differs from that of its place, float16, picture by picture, the overview last. sizes, categories,
    groups: of each picture its height and width, its category and the number of its group. parts: the number
    of the part that it is a picture of; empty where pictures stand for themselves. region: the one that they
    were read with, whose tiles alone are there; None for all tiles.
    """

    middles_PLhw: NDArray[np.float32]
    offsets_TLhw: NDArray[np.float16]
    sizes: tuple[Hw, ...]
    categories: tuple[str, ...]
    groups: tuple[int, ...]
    region: Region | None = None
    parts: tuple[int, ...] = ()


def keep_tiles(
    held: Sequence[HeldPicture], groups: Sequence[int], region: Region | None, observer: Observer
) -> KeptTiles | None:
    """What a model keeps of held-out pictures; None where that would be over MOST_BYTES, which is said."""
    places = [place for one in held for place in one.cut.places()]
    if VALUE_BYTES * len(places) * held[0].maps_TLhw[0].size > MOST_BYTES:
        observer.note(
            f"the maps of the {len(held)} pictures that set the limits would take more than "
            f"{MOST_BYTES // 2**20} MB and are not kept: another region or smallest area takes pictures"
        )
        return None
    maps_TLhw = np.concatenate([one.maps_TLhw for one in held])
    names, of_T = np.unique(places, return_inverse=True)
    middles_PLhw = np.stack([np.median(maps_TLhw[of_T == p], axis=0) for p in range(len(names))])
    return KeptTiles(
        middles_PLhw,
        (maps_TLhw - middles_PLhw[of_T]).clip(-LARGEST, LARGEST).astype(np.float16),
        tuple(one.cut.picture_hw for one in held),
        tuple(one.category for one in held),
        numbered(groups),
        region,
        numbered(one.part for one in held) if any(one.part for one in held) else (),
    )


def seeing(tiling: Tiling, kept: KeptTiles | None) -> Tiling:
    """The tiling by whose region kept pictures can be judged: with in sight what was when they were read."""
    if kept is None or tiling.region == kept.region:
        return replace(tiling, in_sight=False, hidden=None)
    return replace(tiling, in_sight=True, hidden=kept.region)


def held_of(
    kept: KeptTiles | None, tiling: Tiling, grid_hw: Hw, mend: str = GIVE_PICTURES
) -> tuple[HeldPicture, ...]:
    """The kept pictures as this tiling cuts them: the tiles in which something counts, and the overview.

    tiling: as the maps were read, but for its region, as `seeing` has it. mend: what gives maps that are not
    there. Raises DataError without kept maps, for a region in another frame, and when tiles or pixels were
    ignored before that would count now.
    """
    if kept is None:
        raise DataError(
            "the model keeps no maps of held-out tiles: it is an older one, or they would have taken more "
            f"than {MOST_BYTES // 2**20} MB; {mend}"
        )
    before = replace(tiling, region=kept.region, in_sight=False, hidden=None)
    if _counts_more(tiling.region, kept.region):
        raise _unread(mend)
    members = kept.categories if kept.parts else [""] * len(kept.sizes)
    frames = [*zip(kept.sizes, members, strict=True)]
    # Once for each size: where cells of a region lie is worked out on all pixels.
    cut_of = {frame: before.cut(frame[0], grid_hw, frame[1]) for frame in dict.fromkeys(frames)}
    again = {frame: _cut_again(cut, tiling, mend) for frame, cut in cut_of.items()}
    cuts = [cut_of[frame] for frame in frames]
    names, of_T = np.unique([place for cut in cuts for place in cut.places()], return_inverse=True)
    if len(names) != len(kept.middles_PLhw) or len(of_T) != len(kept.offsets_TLhw):
        raise DataError(f"the kept maps of held-out tiles are of other tiles than this model's; {mend}")
    maps = iter(kept.middles_PLhw[of_T] + kept.offsets_TLhw.astype(np.float32))
    read = (np.stack(list(islice(maps, len(cut) + 1))) for cut in cuts)
    parts = [str(part) for part in kept.parts] if kept.parts else [None] * len(cuts)
    return tuple(
        HeldPicture(category, again[frame][0], maps_TLhw[again[frame][1]], part)
        for frame, category, maps_TLhw, part in zip(frames, kept.categories, read, parts, strict=True)
    )


def _cut_again(had: Cut, tiling: Tiling, mend: str) -> tuple[Cut, list[int]]:
    """As this tiling cuts such a picture, and the numbers of those tiles, and of the overview, among those
    that it had."""
    try:
        cut = tiling.cut(had.picture_hw, had.grid_hw, had.member)
    except DataError as error:
        raise DataError(str(error).replace("<array>", "a held-out picture", 1)) from None
    number = {(tile.row, tile.column): n for n, tile in enumerate(had.tiles())}
    wanted = [number.get((tile.row, tile.column)) for tile in cut.tiles()]
    found = [n for n in wanted if n is not None]
    if len(found) < len(wanted):
        raise _unread(mend)
    return cut, [*found, len(number)]


def _counts_more(region: Region | None, before: Region | None) -> bool:
    """Whether pixels count that did not count before."""
    if before is None:
        return False
    if region is None or region.frame != before.frame:
        return True
    return bool((inside_of(region) & ~inside_of(before)).any())


def _unread(mend: str) -> DataError:
    return DataError(
        "the new region counts what was ignored when the model's good images were read; "
        f"{mend}, or train a new model"
    )


def doubts_of(tiled: Tiled) -> tuple[str, ...]:
    """What the limits do not know of the regions, one line each."""
    if tiled.tiling.in_sight:
        return (IN_SIGHT,)
    own = tiled.of_category.items()
    return tuple(f"category {name}: {IN_SIGHT}" for name, tiling in own if tiling.in_sight)
