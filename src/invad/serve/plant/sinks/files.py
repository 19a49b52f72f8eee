"""What sinks that write files share: names that no client can misuse, files that are whole or not there."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path

from invad.errors import DataError, reason
from invad.serve.delivery import Unreachable
from invad.serve.records import Result
from invad.system.files import is_folder, sync_folder

LONGEST_WORD = 80
PARTIAL = ".partial"


def days(results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    """Neighbours that came on one day, with its date, UTC."""
    for day, some in groupby(results, lambda one: one.time[:10]):
        yield day, list(some)


def word(text: str | None) -> str:
    """A name of a client's as a part of a file name: no separators, no dots that lead elsewhere."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text or "")[:LONGEST_WORD]


def begin(folder: Path) -> None:
    """Make a folder of an output at its start, if the one that it lies in is there.

    Never later: where a share is gone, its place on the local disk must not fill in its stead.
    """
    with suppress(OSError):  # the first delivery says it
        folder.mkdir(exist_ok=True)


def problem(folder: Path) -> str | None:
    """Why nothing could be written there; None when it can."""
    nearest = folder if folder.exists() else folder.parent
    try:
        if not is_folder(nearest):
            return f"{nearest}: is no folder; make it, or check the path"
    except DataError as error:
        return str(error)
    if not os.access(nearest, os.W_OK):
        return f"{nearest}: nothing can be written there; let this user write"
    return None


@contextmanager
def reaching(path: Path) -> Iterator[None]:
    """What the system says of writing there, as one line of Unreachable."""
    try:
        yield
    except OSError as error:
        raise Unreachable(f"{path}: {reason(error, writing=True)}") from None


def require(folder: Path) -> None:
    """Raises Unreachable where a folder is not there, also while nothing is written."""
    with reaching(folder), os.scandir(folder):
        pass


def put(path: Path, content: bytes) -> None:
    """The file is whole and on the disk when this returns. Raises OSError."""
    partial = path.with_name(f".{path.name[:200]}{PARTIAL}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
