"""Categories of a model of tiles that look at a part of the pictures of their own.

Each has places of its own for its tiles and its overview, as members of parts have, so that the graph of a
bundle knows it by these names. Its limits are of its pictures alone, judged by what counts for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from invad.data.region import Region
from invad.data.tiling import Tiling
from invad.errors import ConfigError, DataError
from invad.records import Hw
from invad.runtime.fusing import Tiled
from invad.runtime.kept_tiles import HeldPicture, KeptTiles, held_of, seeing
from invad.runtime.limits import OF_PARTS, Regions
from invad.runtime.smallest import require_room
from invad.runtime.tile_limits import TileLimits, fit_tile_limits
from invad.scoring.calibration import Calibration, known_category
from invad.scoring.fusion import Fusion
from invad.scoring.norms import CellRule
from invad.scoring.rates import POOLED, Rates

Read: TypeAlias = Callable[[str, Tiling], tuple[Sequence[HeldPicture], Sequence[int]]]
"""The good pictures of a category as a tiling cuts them, and the groups of these."""


def wanted_regions(
    tiled: Tiled, known: Mapping[str, Calibration], asked: Regions | None, fusion: Fusion | None
) -> dict[str, Region]:
    """The regions of categories that are to be. Raises ConfigError for a category that is not known, and for
    a model of parts."""
    if asked and fusion is not None:
        raise ConfigError(OF_PARTS)
    regions = {name: one.region for name, one in tiled.of_category.items() if one.region is not None}
    for category, own in (asked or {}).items():
        name = known_category(known, category)
        regions.pop(name, None)
        if not isinstance(own, str):
            regions[name] = own
    return dict(sorted(regions.items()))


def kept_pictures(kept: KeptTiles, grid_hw: Hw, mend: str) -> Read:
    """Reads what a model keeps of its pictures, in sight of what was when they were read. mend: see
    `held_of`."""

    def read(name: str, tiling: Tiling) -> tuple[Sequence[HeldPicture], Sequence[int]]:
        held = held_of(kept, tiling, grid_hw, mend)
        own = [i for i, category in enumerate(kept.categories) if category == name]
        return [held[i] for i in own], [kept.groups[i] for i in own]

    return read


def with_categories(
    limits: TileLimits,
    tiled: Tiled,
    regions: Mapping[str, Region],
    read: Read,
    kept: KeptTiles | Literal["pictures"] | None,
    rule: CellRule,
    rates: Rates,
) -> tuple[TileLimits, Tiled]:
    """Limits with those of categories that have a region of their own, and what is then known of tiles.

    kept: what `read` reads, or "pictures" where it reads good pictures anew. Raises DataError as `read`, and
    for fewer than two independent pictures of a category.
    """
    of_category = {}
    for name, region in regions.items():
        require_room(tiled.min_area, region)
        tiling = replace(tiled.tiling, region=region, in_sight=False, hidden=None)
        tiling = tiling if kept == "pictures" else seeing(tiling, kept)
        try:
            held, groups = read(name, tiling)
            if len(set(groups)) < 2:
                raise DataError(
                    f"looks at a region of its own, and {len(set(groups))} independent good pictures of it "
                    f"are there; give at least 2, or take its region away: --roi {name}=none"
                )
        except DataError as error:
            raise DataError(f"category {name}: {error}") from None
        held = [replace(one, cut=replace(one.cut, member=name)) for one in held]
        own = fit_tile_limits(held, groups, rule, rates, tiled.min_area)
        limits = replace(
            limits,
            stats={**limits.stats, **{p: one for p, one in own.stats.items() if p != POOLED}},
            calibrations={
                **limits.calibrations,
                **{p: one for p, one in own.calibrations.items() if p != POOLED},
            },
            places={**limits.places, **own.places},
            pictures={**limits.pictures, name: own.pictures[POOLED]},
        )
        of_category[name] = tiling
    return limits, replace(tiled, places=limits.places, calibrations=limits.pictures, of_category=of_category)
