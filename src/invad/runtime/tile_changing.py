"""Another region of interest for an exported bundle of tiles, as `changing` gives one of whole pictures.

What is ignored stays in sight of the network, so the graph is asked for its norm maps and needs nothing else;
what of them counts, statistics, scores and limits are of numpy.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from invad.data.region import Region
from invad.errors import ConfigError
from invad.runtime.detector import ExportedDetector
from invad.runtime.held import EXPORT_AGAIN, limits_file
from invad.runtime.held_tiles import read_held_tiles
from invad.runtime.kept_tiles import MOST_BYTES
from invad.runtime.limits import Regions, advised
from invad.runtime.loading import looking_at_tiles
from invad.runtime.tile_anew import of_kept, with_rates
from invad.runtime.tile_controls import require_controls
from invad.runtime.tiled import TiledPredictor, made_whole
from invad.scoring.rates import POOLED, Rates

MEND = f"give good images to the trained model, invad calibrate MODEL NORMALS, and {EXPORT_AGAIN}"


def calibrated(
    before: TiledPredictor,
    *,
    region: Region | Literal["none"] | None = None,
    regions: Regions | None = None,
    min_area: float | Literal["none"] | None = None,
    rates: Rates | None = None,
) -> TiledPredictor:
    """As `changing.calibrated`, what `TiledDetector.calibrate` without normals makes of a model.

    Raises ConfigError as `require_kept` and as `of_kept`, DataError as that, and where a control that was bad
    would not be any more.
    """
    inside, folder = require_kept(before)
    assert inside.source is not None
    info, held = inside.info, read_held_tiles(folder)
    rates = rates or before.calibrations[POOLED].rates
    stats = held.stats if inside.judging is None else inside.judging.stats
    after = info
    if (region, regions or None, min_area) == (None, None, None):
        tiled, fusion = with_rates(before.tiled, before.fusion, rates)
    else:
        anew = of_kept(
            before.tiled,
            before.fusion,
            held.kept,
            held.rule,
            rates,
            region=region,
            regions=regions,
            min_area=min_area,
            mend=MEND,
        )
        tiled, fusion, stats = anew.tiled, anew.fusion, anew.limits.stats
        after = replace(info, calibrations=dict(anew.limits.calibrations))
    after = replace(after, tiles=tiled, parts=fusion, exported=info.in_graph)
    after = replace(after, limits=limits_file(after, stats))
    made = made_whole(looking_at_tiles(inside.source, after, held.rule, stats))
    assert isinstance(made, TiledPredictor)
    advice = advised(next(iter((regions or {}).values()), region), min_area)
    require_controls(before, made, f"{advice}: {EXPORT_AGAIN}", "bundle")
    return made


def require_kept(detector: TiledPredictor) -> tuple[ExportedDetector, Path]:
    """The detector of tiles, and the file of maps that its bundle keeps. Raises ConfigError without one."""
    inside = detector.inside
    if not isinstance(inside, ExportedDetector) or inside.source is None or inside.info.held is None:
        raise ConfigError(
            "the bundle keeps no maps of held-out tiles, of which limits are made anew: an older invad "
            "exported it, or its model keeps none, as where they would take more than "
            f"{MOST_BYTES // 2**20} MB; {EXPORT_AGAIN}"
        )
    return inside, inside.source.folder / inside.info.held
