"""The options by which pictures are cut into tiles, and what it will cost, said before it is paid."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from invad.cli.options import one_of
from invad.errors import ConfigError

if TYPE_CHECKING:
    from invad.backbones.base import Backbone
    from invad.data.region import Region
    from invad.data.tiling import Tiling
    from invad.model.settings import Preset
    from invad.observer import Observer
    from invad.records import Sample

TILES = "Large pictures"
POSITIONS = ("shared", "each")

SmallestDefectOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        rich_help_panel=TILES,
        help="Cut pictures into tiles in which a defect of this size is about one cell: 12px, or 0.3mm with "
        "--scale.",
    ),
]
TileOption = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS", rich_help_panel=TILES, help="Cut pictures into tiles of this side instead."
    ),
]
PositionsOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel=TILES,
        autocompletion=one_of(*POSITIONS),
        help="shared: all tiles are judged alike. each: every place by its own, for parts that lie still.",
    ),
]
TileScaleOption = Annotated[
    str | None,
    typer.Option(
        "--scale",
        metavar="LENGTH",
        rich_help_panel=TILES,
        help="Length of a pixel on the part, such as 0.05mm, for --smallest-defect in mm.",
    ),
]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options ask for: the smallest defect or the side of a tile, in pixels, and positions."""

    smallest_defect: float | None
    tile: int | None
    positions: Literal["shared", "each"]


def asked(smallest_defect: str | None, tile: int | None, positions: str, scale: str | None) -> Asked | None:
    """None where pictures are to stay whole. Raises ConfigError for options that do not go together."""
    if positions not in POSITIONS:
        raise ConfigError(f"positions {positions!r} is unknown; choose shared or each")
    if smallest_defect is not None and tile is not None:
        raise ConfigError("--smallest-defect chooses the tile; leave --tile away")
    if scale is not None and (smallest_defect is None or not smallest_defect.strip().endswith("m")):
        raise ConfigError("--scale goes with a --smallest-defect in mm")
    if smallest_defect is None and tile is None:
        if positions != POSITIONS[0]:
            raise ConfigError("--positions each needs --smallest-defect or --tile")
        return None
    size = None if smallest_defect is None else _pixels(smallest_defect, scale)
    return Asked(size, tile, "each" if positions == "each" else "shared")


def _pixels(text: str, scale: str | None) -> float:
    """`12px`, or a length that `scale`, that of a pixel, brings to pixels."""
    if found := re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+) ?(?:px)?", text.strip()):
        if float(found[1]) <= 0:
            raise ConfigError(f"--smallest-defect {text}: give a size above 0, such as 12px")
        return float(found[1])
    if scale is None:
        raise ConfigError(f"--smallest-defect {text}: give pixels, such as 12px, or 0.3mm with --scale")
    from invad.scoring.scale import Scale

    def pixel_mm(length: str) -> float:
        (x, _, _), (_, y, _), _ = Scale.parse(length).matrix
        return max(x, y)

    return pixel_mm(text.strip()) / pixel_mm(scale)


def chosen(
    wanted: Asked,
    samples: "Sequence[Sample]",
    region: "Region | None",
    settings: "Preset",
    backbone: "Backbone",
    observer: "Observer",
) -> "Tiling | None":
    """The tiles that were asked for, with their cost said; None where the whole picture does."""
    from invad.data.samples import first_size
    from invad.fit.tile_choice import choose_tiling
    from invad.fit.tiles import cost

    height, width = size_hw = first_size(samples)
    tiling = choose_tiling(
        size_hw,
        settings,
        backbone,
        smallest_defect=wanted.smallest_defect,
        tile=wanted.tile,
        each=wanted.positions == "each",
        region=region,
    )
    if tiling is None:
        observer.note(
            f"{width} x {height} pixels in one have cells of {wanted.smallest_defect:g} pixels: no tiles"
        )
        return None
    found = cost(samples, tiling, settings, backbone)
    observer.note(
        f"{width} x {height} pixels: {found.tiles} tiles of {tiling.tile_px} pixels and the whole in one, "
        f"about {found.picture:.1f} s a picture and {_minutes(found.training)} to train here"
    )
    return tiling


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
