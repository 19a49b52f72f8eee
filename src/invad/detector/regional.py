"""A model that looks at another part of the pictures, as one of its stations may ask."""

from copy import copy

from invad.data.region import Region
from invad.detector.opening import AnyDetector, Trained
from invad.errors import ConfigError
from invad.runtime.detector import ExportedDetector
from invad.runtime.tiled import TiledPredictor


def with_region(model: AnyDetector, region: Region) -> Trained:
    """A detector of the same networks for which another part of the pictures counts, of all categories.

    Its limits are made anew of the held-out maps that the model keeps, and the model stays as it is. Raises
    ConfigError for a bundle, DataError as `calibrate` does without normals.
    """
    if isinstance(model, ExportedDetector) or type(model) is TiledPredictor:
        raise ConfigError(
            "the region of an exported bundle is in its graph; name the trained model here, or a bundle with "
            "this region: invad calibrate MODEL --roi FILE, then invad export MODEL --output BUNDLE"
        )
    made: Trained = copy(model)  # type: ignore[assignment]
    if made.regions:
        made.calibrate(region=region, regions=dict.fromkeys(made.regions, "none"))
    else:
        made.calibrate(region=region)
    return made


def looks_at(model: AnyDetector, region: Region) -> bool:
    """Whether this is what of the pictures counts already, of all categories."""
    return model.region == region and all(own == region for own in model.regions.values())


def doubts_of(made: Trained) -> tuple[str, ...]:
    """What the limits of a detector that `with_region` has made do not know, one line each."""
    from invad.detector.kept import doubts_of as doubts_of_kept
    from invad.detector.kept_tiles import IN_SIGHT

    if isinstance(made, TiledPredictor):
        return (IN_SIGHT,) if made.tiled.tiling.in_sight else ()
    return doubts_of_kept(made.kept, made.region)
