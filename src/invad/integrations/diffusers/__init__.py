"""diffusers: a pipeline becomes a detector, and the inversion a scheduler.

    from invad.integrations.diffusers import from_pipeline
    detector = from_pipeline(DDPMPipeline.from_pretrained("pipeline"), "folder/of/held-out/good/images")
    print(detector.predict("part.png").decision)

Order of imports: noise, scheduler, models, detector.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from invad.errors import ConfigError

if TYPE_CHECKING:
    from invad.integrations.diffusers.detector import PipelineDetector, from_pipeline, load
    from invad.integrations.diffusers.models import NoiseModel, noise_model
    from invad.integrations.diffusers.scheduler import InversionScheduler

OLDEST = (0, 30)
"""First two numbers of the oldest version that is read; the lower bound of the extra."""

_LAZY = {
    "InversionScheduler": "scheduler",
    "NoiseModel": "models",
    "PipelineDetector": "detector",
    "from_pipeline": "detector",
    "load": "detector",
    "noise_model": "models",
}

__all__ = ["InversionScheduler", "NoiseModel", "PipelineDetector", "from_pipeline", "load", "noise_model"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _require_diffusers()
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


def _require_diffusers() -> None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("diffusers")
    except PackageNotFoundError:
        raise ConfigError(
            "pipelines need diffusers, which is not installed; pip install 'invad[diffusers]'"
        ) from None
    if tuple(int(part) for part in found.split(".")[:2]) < OLDEST:
        raise ConfigError(
            f"diffusers {found} is too old, invad reads {OLDEST[0]}.{OLDEST[1]} and later; "
            "pip install --upgrade 'invad[diffusers]'"
        )
