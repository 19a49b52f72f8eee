"""One writer at a time in a folder that is written for long."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from invad.errors import DataError
from invad.system.files import writing

LOCK = ".lock"
"""The file that the writer of a folder holds; one that nobody holds means nothing."""


@contextmanager
def sole_writer(folder: Path, what: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold `folder`, which exists, until the end; who is killed lets go of it.

    what: is writing, in words. waiting: called once when another process holds it, whose end is then waited
    for; without it that is a DataError. File systems that know no locks stop nobody.
    """
    path = folder / LOCK
    file = _taken(path)
    if file is None and waiting is not None:
        waiting()
        file = _taken(path, wait=True)
    if file is None:
        raise DataError(
            f"{folder}: another {what} is writing here; wait until it has ended or choose another folder"
        )
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(file)


def _taken(path: Path, wait: bool = False) -> int | None:
    """The open and locked file; None where another process holds it."""
    import fcntl

    while True:
        with writing(path.parent):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(file)
            return None
        except OSError:  # no locks here
            return file
        except BaseException:
            os.close(file)
            raise
        if os.fstat(file).st_nlink:
            return file
        os.close(file)  # its holder has removed it meanwhile
