"""invad: anomaly detection by diffusion inversion (InvAD, arXiv 2504.05662).

from invad import Detector
detector = Detector.fit("folder/of/good/images")
print(detector.predict("part.png").decision)
"""

from typing import TYPE_CHECKING, Any

from invad.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    InvadError,
    NotCalibratedError,
    TrainingError,
    WeightsError,
)
from invad.records import Decision, PartPrediction, Prediction, Sample
from invad.system.version import __version__

if TYPE_CHECKING:
    from invad.data.check import check_dataset
    from invad.data.datasets import load_dataset
    from invad.data.layouts.base import Dataset
    from invad.data.tiling import Tiling
    from invad.detector.detector import Detector
    from invad.detector.tiled import TiledDetector
    from invad.evaluation.evaluate import evaluate
    from invad.model.settings import PRESETS, Preset
    from invad.scoring.defects import Defect
    from invad.scoring.rates import Rates
    from invad.scoring.scale import Scale

# Imported on first use: `import invad` must not wait for torch.
_LAZY = {
    "Dataset": "invad.data.layouts.base",
    "Defect": "invad.scoring.defects",
    "Detector": "invad.detector.detector",
    "PRESETS": "invad.model.settings",
    "Preset": "invad.model.settings",
    "Rates": "invad.scoring.rates",
    "Scale": "invad.scoring.scale",
    "TiledDetector": "invad.detector.tiled",
    "Tiling": "invad.data.tiling",
    "check_dataset": "invad.data.check",
    "evaluate": "invad.evaluation.evaluate",
    "load_dataset": "invad.data.datasets",
}

__all__ = [
    "PRESETS",
    "ArtifactError",
    "ConfigError",
    "DataError",
    "Dataset",
    "Decision",
    "Defect",
    "Detector",
    "InvadError",
    "NotCalibratedError",
    "PartPrediction",
    "Prediction",
    "Preset",
    "Rates",
    "Sample",
    "Scale",
    "TiledDetector",
    "Tiling",
    "TrainingError",
    "WeightsError",
    "__version__",
    "check_dataset",
    "evaluate",
    "load_dataset",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'invad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
