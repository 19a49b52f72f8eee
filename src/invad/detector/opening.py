"""A trained model or an exported bundle: whichever a folder holds."""

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from invad.errors import ConfigError

if TYPE_CHECKING:
    from invad.detector.detector import Detector
    from invad.detector.tiled import TiledDetector
    from invad.runtime import ExportedDetector
    from invad.runtime.tiled import TiledPredictor

Trained: TypeAlias = Union["Detector", "TiledDetector"]
AnyDetector: TypeAlias = Union["Detector", "ExportedDetector", "TiledPredictor"]

AUTO, PYTORCH = "auto", "torch"


def open_detector(folder: Path, engine: str, device: str | None, threads: int | None) -> AnyDetector:
    """What `predict` and `info` ask. A bundle is opened without PyTorch, unless that is its engine.

    Raises ArtifactError for a folder that is neither, ConfigError for an engine that cannot run it.
    """
    from invad.runtime.bundle import is_bundle

    if is_bundle(folder):
        from invad.runtime import load

        return load(folder, engine, device=device, threads=threads)
    if engine not in (AUTO, PYTORCH):
        raise ConfigError(
            f"engine {engine!r} runs exported bundles and {folder} is none; make one with "
            f"'invad export {folder} --output BUNDLE'"
        )
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return open_model(folder, device)


def open_model(folder: Path, device: str | None) -> Trained:
    """A trained model, of whole pictures or of tiles. Raises ArtifactError as `Detector.load`."""
    from invad.detector.detector import Detector
    from invad.detector.parts import load_parts
    from invad.detector.tiled import TiledDetector
    from invad.system.devices import choose_device

    parts, content_hash = load_parts(folder, choose_device(device))
    made: type[Trained] = Detector if parts.info.tiles is None else TiledDetector
    return made.of(parts, content_hash, folder)
