"""The saved model: one folder with `model.safetensors`, `config.json`, `calibration.json` and `README.md`.

No pickle. `config.json` names the format and holds a SHA-256 of the other two data files and of its own
content; it is written last, so a folder that has it is complete. The README is for people and may be edited.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from invad.data.formats import IMAGE_SUFFIXES
from invad.errors import ArtifactError, in_one_line, reason
from invad.runtime.bundle import content_hash, is_bundle, sha256
from invad.system.files import is_file, is_folder, is_there, staged, take_place
from invad.system.plain import read_json
from invad.system.tensors import save_tensors

FORMAT, OLDEST = 6, 5
AGAIN = "copy the model again"
TENSORS, CONFIG, CALIBRATION, CARD = "model.safetensors", "config.json", "calibration.json", "README.md"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A saved model as plain data. content_hash: hexadecimal SHA-256 over config, calibration, tensors."""

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    calibration: dict[str, Any]
    content_hash: str


def write_bundle(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    calibration: Mapping[str, Any],
    card: str,
) -> str:
    """Write a model; returns its content hash. An older model there is replaced only when all is written.

    Raises ArtifactError when the folder cannot be written (rights, disk full); nothing half-written stays.
    """
    require_place(folder)
    with staged(folder, ArtifactError) as staging:
        (staging / CALIBRATION).write_text(_dump(calibration), encoding="utf-8")
        (staging / CARD).write_text(card, encoding="utf-8")
        save_tensors(staging / TENSORS, tensors)
        files = {name: sha256(staging / name) for name in (TENSORS, CALIBRATION)}
        content = content_hash(config, files)
        whole = {"format": FORMAT, **config, "files": files, "content_hash": content}
        (staging / CONFIG).write_text(_dump(whole), encoding="utf-8")
        (folder / CONFIG).unlink(missing_ok=True)
        for name in (TENSORS, CALIBRATION, CARD, CONFIG):
            take_place(staging / name, folder / name)
    return content


def require_place(folder: Path) -> None:
    """Raises ArtifactError for a folder whose README.md is of something else, and would be replaced."""
    if is_file(folder / CARD) and not any(is_there(folder / name) for name in (CONFIG, TENSORS, CALIBRATION)):
        raise ArtifactError(
            f"{folder}: holds a {CARD} and no model, and that of a model would take its place; give another "
            "folder"
        )


def read_bundle(folder: Path) -> Bundle:
    """Read and verify a model. Raises ArtifactError naming the file that is missing, altered or too new."""
    if not is_folder(folder):
        if is_there(folder):
            raise ArtifactError(f"{folder}: is a file; give the folder of a model")
        raise ArtifactError(f"{folder}: no such model folder; 'invad train DATA --output {folder}' makes one")
    for name in (CONFIG, TENSORS, CALIBRATION):
        if not is_file(folder / name):
            raise ArtifactError(f"{folder}: {_instead(folder) or _incomplete(name)}")
    config = read_json(folder / CONFIG, ArtifactError, AGAIN)
    version = config.pop("format", None)
    if not isinstance(version, int) or version < 1:
        raise ArtifactError(f"{folder / CONFIG}: no model format number; this is not an invad model")
    if version < OLDEST:
        raise ArtifactError(
            f"{folder}: model format {version} is older than this invad reads ({OLDEST} to {FORMAT}); "
            "train the model again"
        )
    if version > FORMAT:
        raise ArtifactError(
            f"{folder}: model format {version} is newer than this invad reads ({OLDEST} to {FORMAT}); "
            "update invad"
        )
    files, content = config.pop("files", None), config.pop("content_hash", None)
    if not isinstance(files, dict) or not isinstance(content, str):
        raise ArtifactError(f"{folder / CONFIG}: altered since it was saved; {AGAIN}")
    for name in (TENSORS, CALIBRATION):
        if sha256(folder / name) != files.get(name):
            raise ArtifactError(f"{folder / name}: altered or truncated since it was saved; {AGAIN}")
    if content_hash(config, files) != content:
        raise ArtifactError(f"{folder / CONFIG}: altered since it was saved; {AGAIN}")
    try:
        tensors = load_file(folder / TENSORS)
    except OSError as error:
        raise ArtifactError(f"{folder / TENSORS}: {reason(error, writing=False)}") from None
    except SafetensorError as error:
        raise ArtifactError(f"{folder / TENSORS}: unreadable ({in_one_line(error)}); {AGAIN}") from None
    return Bundle(tensors, config, read_json(folder / CALIBRATION, ArtifactError, AGAIN), content)


def _incomplete(name: str) -> str:
    return f"{name} is missing, this is not a complete model; copy or train it again"


def _instead(folder: Path) -> str | None:
    """What a folder is that holds no model, and what to do about it."""
    if is_bundle(folder):
        return (
            "is an exported bundle, and this needs the model it was made from; "
            "calibrate or evaluate the model and export again"
        )
    if is_folder(folder / "model") and is_file(folder / "model" / CONFIG):
        return f"is no model but holds one; give {folder / 'model'}"
    if is_folder(folder / ".training"):
        return "holds an unfinished training; repeat 'invad train' with --resume"
    if is_file(folder / "denoiser.json"):
        return "is an imported network without limits; repeat 'invad paper import' with --normals"
    if any((folder / name).suffix.lower() in IMAGE_SUFFIXES for name in os.listdir(folder)):  # noqa: PTH208
        return "is a folder of images, no model; the model comes first"
    return None


def _dump(plain: Mapping[str, Any]) -> str:
    return json.dumps(plain, indent=1, sort_keys=True, allow_nan=False) + "\n"
