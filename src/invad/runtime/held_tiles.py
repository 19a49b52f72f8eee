"""Norm maps of held-out good pictures in a bundle of tiles, as `held` has those of whole pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invad.data.region import Region
from invad.errors import ArtifactError
from invad.records import Hw
from invad.runtime.bundle import AGAIN
from invad.runtime.held import TOLD, arrays_in, of_stats, stats_in, unreadable
from invad.runtime.kept_tiles import KeptTiles
from invad.scoring.norms import CellRule, CellStats, as_written_now
from invad.system.plain import from_plain, to_plain

MIDDLES, OFFSETS = "middles", "offsets"


@dataclass(frozen=True, slots=True)
class HeldTiles:
    """stats: by place, by which the graph judges."""

    rule: CellRule
    kept: KeptTiles
    stats: Mapping[str, CellStats]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What is no array; see `KeptTiles`."""

    rule: CellRule
    sizes: tuple[Hw, ...]
    categories: tuple[str, ...]
    groups: tuple[int, ...]
    region: Region | None
    parts: tuple[int, ...]


def write_held_tiles(path: Path, held: HeldTiles) -> None:
    kept = held.kept
    told = _Told(
        rule=held.rule,
        sizes=kept.sizes,
        categories=kept.categories,
        groups=kept.groups,
        region=kept.region,
        parts=kept.parts,
    )
    plain = json.dumps(to_plain(told), allow_nan=False).encode()
    arrays = {MIDDLES: kept.middles_PLhw, OFFSETS: kept.offsets_TLhw, **of_stats(held.stats)}
    np.savez_compressed(path, **{TOLD: np.frombuffer(plain, np.uint8)}, **arrays)  # type: ignore[arg-type]


def read_held_tiles(path: Path) -> HeldTiles:
    """Raises ArtifactError when it cannot be read."""
    arrays = arrays_in(path)
    told = _told(path, arrays)
    try:
        middles_PLhw, offsets_TLhw = arrays[MIDDLES], arrays[OFFSETS]
    except KeyError as error:
        raise unreadable(path, error) from None
    sizes, groups = told.sizes, told.groups
    kept = KeptTiles(middles_PLhw, offsets_TLhw, sizes, told.categories, groups, told.region, told.parts)
    return HeldTiles(told.rule, kept, stats_in(path, arrays))


def read_rule(path: Path) -> CellRule:
    """How norm maps are judged, without a look at those that are kept. Raises ArtifactError as above."""
    return _told(path, arrays_in(path, (TOLD,))).rule


def _told(path: Path, arrays: Mapping[str, Any]) -> _Told:
    try:
        plain = json.loads(arrays[TOLD].tobytes())
        plain["rule"] = as_written_now(plain["rule"])
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(path, error) from None
    return from_plain(_Told, plain, str(path), ArtifactError, AGAIN)
