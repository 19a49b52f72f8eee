"""Limits of tiles and of their pictures made anew, of a trained model and of a bundle alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from invad.data.region import Region
from invad.errors import ConfigError
from invad.runtime.fusing import Tiled
from invad.runtime.kept_tiles import HeldPicture, KeptTiles, held_of, seeing
from invad.runtime.limits import Regions
from invad.runtime.part_limits import PartPlan, fit_tiled_parts
from invad.runtime.smallest import require_room
from invad.runtime.tile_limits import TileLimits, fit_tile_limits, top_cells
from invad.runtime.tile_views import Read, kept_pictures, wanted_regions, with_categories
from invad.scoring.fusion import Fusion
from invad.scoring.norms import CellRule
from invad.scoring.rates import Rates
from invad.system.arguments import require


@dataclass(frozen=True, slots=True)
class Anew:
    """limits: of tiles. tiled, fusion: of their pictures, and of parts where several are one."""

    limits: TileLimits
    tiled: Tiled
    fusion: Fusion | None


def with_rates(tiled: Tiled, fusion: Fusion | None, rates: Rates) -> tuple[Tiled, Fusion | None]:
    """The same limits at other rates, which no map is needed for."""
    calibrations = {name: replace(one, rates=rates) for name, one in tiled.calibrations.items()}
    if fusion is not None:
        fusion = replace(fusion, calibration=replace(fusion.calibration, rates=rates))
    return replace(tiled, calibrations=calibrations), fusion


def of_kept(
    tiled: Tiled,
    fusion: Fusion | None,
    kept: KeptTiles | None,
    rule: CellRule,
    rates: Rates,
    *,
    region: Region | Literal["none"] | None,
    regions: Regions | None,
    min_area: float | Literal["none"] | None,
    mend: str,
) -> Anew:
    """From the maps that are kept of held-out pictures. region, regions, min_area: as before unless given.
    mend: what gives other ones, see `held_of`.

    Raises ConfigError for an area or a region that the model cannot take, DataError as `held_of`.
    """
    plan = None if fusion is None else PartPlan.of(fusion, region)
    wanted = wanted_regions(tiled, tiled.calibrations, regions, fusion)
    tiled = asked(tiled, fusion, kept, region, min_area)
    held = held_of(kept, tiled.tiling, tiled.grid_hw, mend)
    assert kept is not None
    read = kept_pictures(kept, tiled.grid_hw, mend)
    return fitted(held, kept.groups, tiled, plan, wanted, read, kept, rule, rates)


def asked(
    tiled: Tiled,
    fusion: Fusion | None,
    kept: KeptTiles | None,
    region: Region | Literal["none"] | None,
    min_area: float | Literal["none"] | None,
) -> Tiled:
    """What is known of tiles with what is asked for, its limits still those before. Raises ConfigError as
    `of_kept`."""
    if region is not None:
        tiling = replace(tiled.tiling, region=None if region == "none" else region)
        tiled = replace(tiled, tiling=seeing(tiling, kept))
    if min_area is not None:
        area = None if min_area == "none" else _known_area(min_area, tiled, fusion)
        tiled = replace(tiled, min_area=area)
    require_room(tiled.min_area, tiled.tiling.region)
    return tiled


def fitted(
    held: Sequence[HeldPicture],
    groups: Sequence[int],
    tiled: Tiled,
    plan: PartPlan | None,
    wanted: Mapping[str, Region],
    read: Read,
    source: KeptTiles | Literal["pictures"] | None,
    rule: CellRule,
    rates: Rates,
) -> Anew:
    """From held-out pictures. groups: of each of them. wanted, read, source: see `with_categories`."""
    limits = fit_tile_limits(held, groups, rule, rates, tiled.min_area)
    fusion = None if plan is None else fused(held, groups, limits, plan, rates, rule)
    limits, tiled = with_categories(limits, tiled, wanted, read, source, rule, rates)
    return Anew(limits, tiled, fusion)


def fused(
    held: Sequence[HeldPicture],
    groups: Sequence[int],
    limits: TileLimits,
    plan: PartPlan,
    rates: Rates,
    rule: CellRule,
) -> Fusion:
    """How the pictures of parts become one score, by the limits of each."""
    top = top_cells(rule, held[0].cut.grid_hw)
    return fit_tiled_parts(held, limits.scores, limits.maps, groups, plan=plan, rates=rates, top_cells=top)


def _known_area(area: float, tiled: Tiled, fusion: Fusion | None) -> float:
    """Raises ConfigError for an area below one cell, which the model cannot tell, for a tile's, and for parts
    whose cells are fused."""
    if fusion is not None and fusion.kind == "cells":
        raise ConfigError(
            "min_area goes with parts in tiles whose scores are fused, and this model fuses cells; train "
            "with --fusion scores"
        )
    require(min_area=(area, float))
    side, (rows, columns) = tiled.tiling.tile_px, tiled.grid_hw
    cell = side**2 / (rows * columns)
    if not cell <= area < side**2:
        raise ConfigError(
            f"min_area = {area:g} pixels: a cell of the model covers {cell:g} pixels, and less it cannot "
            f"tell; give from {cell:g} up to less than a tile, which has {side**2}"
        )
    return area
