"""A model that looks at another part of the pictures, as one of its stations may ask."""

from typing import TYPE_CHECKING

from invad.data.region import Region
from invad.detector.opening import AnyDetector
from invad.errors import ConfigError
from invad.runtime.detector import ExportedDetector
from invad.runtime.tiled import TiledPredictor

if TYPE_CHECKING:
    from invad.detector.detector import Detector


def with_region(model: AnyDetector, region: Region) -> "Detector":
    """A detector of the same networks for which another part of the pictures counts.

    Its limits are made anew of the held-out maps that the model keeps, and the model stays as it is. Raises
    ConfigError for a bundle and for a model of tiles, DataError as `Detector.calibrate` does without normals.
    """
    if isinstance(model, TiledPredictor):
        raise ConfigError(
            "a model of tiles learns another region from pictures alone: invad calibrate MODEL GOOD_IMAGES "
            "--roi FILE"
        )
    if isinstance(model, ExportedDetector):
        raise ConfigError(
            "the region of an exported bundle is in its graph; name the trained model here, or a bundle with "
            "this region: invad calibrate MODEL --roi FILE, then invad export MODEL --output BUNDLE"
        )
    from invad.detector.detector import Detector

    other = Detector(model.model, model.info, model.stats, model.calibrations, model.kept, model.means)
    other.fusion = model.fusion
    other.calibrate(region=region)
    return other


def doubts_of(made: "Detector") -> tuple[str, ...]:
    """What the limits of a detector that `with_region` has made do not know, one line each."""
    from invad.detector.kept import doubts_of as doubts_of_kept

    return doubts_of_kept(made.kept, made.region)
