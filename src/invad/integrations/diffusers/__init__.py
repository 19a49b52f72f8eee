"""diffusers: a pipeline becomes a detector, and the inversion a scheduler.

    from invad.integrations.diffusers import from_pipeline
    detector = from_pipeline(DDPMPipeline.from_pretrained("pipeline"), "folder/of/held-out/good/images")
    print(detector.predict("part.png").decision)

Order of imports: noise, scheduler, models, detector.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from invad.system.packages import importing

if TYPE_CHECKING:
    from invad.integrations.diffusers.detector import PipelineDetector, from_pipeline, load
    from invad.integrations.diffusers.models import NoiseModel, noise_model
    from invad.integrations.diffusers.scheduler import InversionScheduler

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
    with importing(("diffusers",), "diffusers", __name__):
        import diffusers  # noqa: F401
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
