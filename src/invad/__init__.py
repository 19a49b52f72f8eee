"""invad: anomaly detection by diffusion inversion (InvAD, arXiv 2504.05662).

from invad import Detector
detector = Detector.fit("folder/of/good/images")
print(detector.predict("part.png").decision)
"""

from typing import TYPE_CHECKING, Any

from invad._version import __version__
from invad.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    InvadError,
    NotCalibratedError,
    TrainingError,
    WeightsError,
)
from invad.records import Decision, Prediction, Sample

if TYPE_CHECKING:
    from invad.calibration import Rates
    from invad.data.check import check_dataset
    from invad.data.datasets import Dataset, load_dataset
    from invad.detector import Detector
    from invad.evaluation import evaluate
    from invad.presets import PRESETS, Preset

# Imported on first use: `import invad` must not wait for torch.
_LAZY = {
    "Dataset": "invad.data.datasets",
    "Detector": "invad.detector",
    "PRESETS": "invad.presets",
    "Preset": "invad.presets",
    "Rates": "invad.calibration",
    "check_dataset": "invad.data.check",
    "evaluate": "invad.evaluation",
    "load_dataset": "invad.data.datasets",
}

__all__ = [
    "PRESETS",
    "ArtifactError",
    "ConfigError",
    "DataError",
    "Dataset",
    "Decision",
    "Detector",
    "InvadError",
    "NotCalibratedError",
    "Prediction",
    "Preset",
    "Rates",
    "Sample",
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
