"""The output folder of a training: checked before the long work, cleaned when nothing came of it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from invad.errors import InvadError, TrainingError
from invad.system.files import is_folder, is_there, make_folder, take_place
from invad.system.lock import LOCK, sole_writer

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
    """The folder for checkpoints while training into `output`, which is made, proved writable and held.

    It is removed in the end, or when the training fails before there is a checkpoint; folders that were
    made for it then go too. Of several workers one acts and all hear of it. Raises TrainingError when
    `output` is in use or cannot be written, DataError while another training writes there.
    """
    with ExitStack() as stack:
        _by_the_leader(lambda: stack.enter_context(_held(output, resume)), workers)
        yield output / UNFINISHED
        if workers is not None:
            workers.wait()


def _by_the_leader(act: Callable[[], None], workers: "Workers | None") -> None:
    """What fails there is raised in all processes, so that none waits for the others."""
    failure: dict[int, InvadError] = {}
    if workers is None or workers.rank == 0:
        try:
            act()
        except InvadError as error:
            failure[0] = error
    for met in (failure if workers is None else workers.gather(failure)).values():
        raise met


@contextmanager
def _held(output: Path, resume: bool) -> Iterator[None]:
    if not is_there(output / LOCK):
        # Before anything is written; with a lock there, who holds it matters more than what lies there.
        _require_free(output, resume)
    made = [folder for folder in (output, *output.parents) if not is_there(folder)]
    try:
        make_folder(output, TrainingError)
        with sole_writer(output, "training"):
            _require_free(output, resume)
            yield from _cleaned(output)
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _cleaned(output: Path) -> Iterator[None]:
    work = output / UNFINISHED
    try:
        yield
    except BaseException:
        if not has_checkpoint(output):
            shutil.rmtree(work, ignore_errors=True)
        raise
    if is_there(work / METRICS):
        take_place(work / METRICS, output / METRICS)
    shutil.rmtree(work, ignore_errors=True)


def _require_free(output: Path, resume: bool) -> None:
    if is_there(output) and not is_folder(output):
        raise TrainingError(f"{output}: is a file; give --output a new or empty folder")
    if not is_folder(output):
        return
    if is_there(output / FINISHED):
        raise TrainingError(f"{output}: holds a finished model; give --output another folder")
    if has_checkpoint(output) and not resume:
        raise TrainingError(
            f"{output}: holds an unfinished training; continue it with --resume or choose another --output"
        )
    own = (UNFINISHED, ".partial-", LOCK)
    foreign = sorted(path.name for path in output.iterdir() if not path.name.startswith(own))
    if foreign:
        raise TrainingError(
            f"{output}: is not empty (it holds {foreign[0]}); give --output a new or empty folder"
        )
