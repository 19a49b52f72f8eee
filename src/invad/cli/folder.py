"""The output folder of a training: checked before the long work, cleaned when nothing came of it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from invad.errors import TrainingError

if TYPE_CHECKING:
    from invad.fit.distributed import Workers

UNFINISHED = ".training"
"""Where an unfinished training keeps its checkpoints, inside the output folder."""

FINISHED = "config.json"


METRICS = "training.jsonl"
"""The numbers of every step: inside UNFINISHED at first, in the end beside the model."""


def has_checkpoint(output: Path) -> bool:
    """Whether an unfinished training left something to continue with: checkpoints, or features on disk."""
    work = output / UNFINISHED
    return any(work.glob("*.safetensors")) or any(work.glob("features-*/block-*.json"))


@contextmanager
def training_folder(output: Path, resume: bool, workers: "Workers | None" = None) -> Iterator[Path]:
    """The folder for checkpoints while training into `output`, which is made and proved writable.

    It is removed in the end, or when the training fails before there is a checkpoint; folders that were
    made for it then go too. Of several workers all look and one acts. Raises TrainingError when `output` is
    in use or cannot be written.
    """
    _require_free(output, resume)
    if workers is not None:
        workers.wait()
        if workers.rank != 0:
            yield output / UNFINISHED
            workers.wait()
            return
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    work = output / UNFINISHED
    try:
        _prove_writable(output)
        yield work
    except BaseException:
        if not has_checkpoint(output):
            shutil.rmtree(work, ignore_errors=True)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
        raise
    if workers is not None:
        workers.wait()
    if (work / METRICS).exists():
        (work / METRICS).replace(output / METRICS)
    shutil.rmtree(work, ignore_errors=True)


def _require_free(output: Path, resume: bool) -> None:
    if output.exists() and not output.is_dir():
        raise TrainingError(f"{output}: is a file; give --output a new or empty folder")
    if not output.is_dir():
        return
    if (output / FINISHED).exists():
        raise TrainingError(f"{output}: holds a finished model; give --output another folder")
    if has_checkpoint(output) and not resume:
        raise TrainingError(
            f"{output}: holds an unfinished training; continue it with --resume or choose another --output"
        )
    own = (UNFINISHED, ".partial-")
    foreign = sorted(path.name for path in output.iterdir() if not path.name.startswith(own))
    if foreign:
        raise TrainingError(
            f"{output}: is not empty (it holds {foreign[0]}); give --output a new or empty folder"
        )


def _prove_writable(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise TrainingError(
            f"{output}: cannot be written ({error.strerror or error}); give --output another folder"
        ) from None
