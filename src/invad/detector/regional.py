"""A model that looks at another part of the pictures, as one of its stations may ask."""

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from invad.data.region import Region
from invad.detector.opening import AnyDetector
from invad.runtime.changing import calibrated
from invad.runtime.changing import doubts_of as doubts_of_bundle
from invad.runtime.changing import save as save_bundle
from invad.runtime.detector import ExportedDetector
from invad.runtime.kept_tiles import doubts_of as doubts_of_tiles
from invad.runtime.tiled import TiledPredictor

if TYPE_CHECKING:
    from invad.detector.detector import Detector
    from invad.detector.tiled import TiledDetector


Made: TypeAlias = Union["Detector", "TiledDetector", ExportedDetector, TiledPredictor]


def with_region(model: AnyDetector, region: Region) -> Made:
    """A detector of the same networks for which another part of the pictures counts, of all categories.

    Its limits are made anew of the held-out maps that the model or bundle keeps, and the model stays as it
    is. Raises ConfigError for a bundle that keeps none, DataError as `calibrate` does without normals.
    """
    if isinstance(model, ExportedDetector) or type(model) is TiledPredictor:
        return calibrated(model, region=region, regions=dict.fromkeys(model.regions, "none"))
    made: Detector | TiledDetector = copy(model)  # type: ignore[assignment]
    if made.regions:
        made.calibrate(region=region, regions=dict.fromkeys(made.regions, "none"))
    else:
        made.calibrate(region=region)
    return made


def looks_at(model: AnyDetector, region: Region) -> bool:
    """Whether this is what of the pictures counts already, of all categories."""
    return model.region == region and all(own == region for own in model.regions.values())


def save(made: Made, folder: Path) -> str:
    """Write what `with_region` has made to a new folder; returns its content hash. Raises ArtifactError."""
    if isinstance(made, ExportedDetector) or type(made) is TiledPredictor:
        return save_bundle(made, folder)
    return made.save(folder)  # type: ignore[union-attr]


def doubts_of(made: Made) -> tuple[str, ...]:
    """What the limits of a detector that `with_region` has made do not know, one line each."""
    if isinstance(made, ExportedDetector) or type(made) is TiledPredictor:
        return doubts_of_bundle(made)
    from invad.detector.kept import doubts_of as doubts_of_kept

    if isinstance(made, TiledPredictor):
        return doubts_of_tiles(made.tiled)
    return doubts_of_kept(made.kept, made.region)
