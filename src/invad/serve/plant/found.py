"""The images of a folder as they are now, and how one is moved out of it."""

import errno
import fnmatch
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from invad.data.listing import is_image
from invad.serve.records import LONGEST_WORD
from invad.serve.store import taken


@dataclass(frozen=True, slots=True)
class File:
    """key: its path below the folder, as text. mark: bytes and time in nanoseconds, when it was seen."""

    path: Path
    key: str
    mark: taken.Mark


def is_taken(path: Path, pattern: str) -> bool:
    """Whether a file of a watched folder is one of its images, by its name."""
    return fnmatch.fnmatchcase(path.name.lower(), pattern.lower()) and is_image(path)


def files_in(folder: Path, pattern: str, *, recursive: bool) -> tuple[dict[str, File], list[str]]:
    """The images by key, and the keys of other files. pattern: of their names. Hidden files and folders are
    left out. Raises OSError when the folder cannot be read."""
    found: dict[str, File] = {}
    others: list[str] = []
    for path, key in _entries(folder, recursive):
        try:
            status = path.stat()
        except OSError:  # gone since, or a link that leads nowhere
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        if is_taken(path, pattern):
            found[key] = File(path, key, (status.st_size, status.st_mtime_ns))
        else:
            others.append(key)
    return found, others


def content_of(file: File) -> bytes | None:
    """What is in it; None where it is gone or is not as it was seen. Raises OSError."""
    try:
        with file.path.open("rb") as stream:
            body = stream.read()
            status = os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    is_same = (status.st_size, status.st_mtime_ns) == file.mark and len(body) == status.st_size
    return body if is_same else None


def mark_of(path: Path) -> taken.Mark:
    """As it is now. Raises OSError."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def part_id_of(stem: str) -> str | None:
    """The name of a file as a part_id, with what cannot be printed written out; None for one too long."""
    plain = os.fsencode(stem).decode("utf-8", "backslashreplace")
    word = "".join(one if one.isprintable() else repr(one)[1:-1] for one in plain)
    return word if 0 < len(word) <= LONGEST_WORD else None


def move(path: Path, target: Path, name: str) -> None:
    """Whole or not at all, and never over another file, from which `name` tells it then. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _rename(path, target)
    except FileExistsError:
        _rename(path, target.with_name(f"{target.stem}-{name}{target.suffix}"))


def _rename(path: Path, target: Path) -> None:
    """Raises FileExistsError where there is such a file, also one that came this moment, and OSError."""
    try:
        os.link(path, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # another file system, one without links, or a file of somebody else
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        try:
            path.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(path, target)
            path.unlink()
        return
    try:
        path.unlink()
    except OSError:
        target.unlink()
        raise


def _copy(path: Path, target: Path) -> None:
    """A file of that name appears when all of it is on the disk."""
    number, name = tempfile.mkstemp(prefix=".", dir=target.parent)
    partial = Path(name)
    try:
        shutil.copy2(path, partial)
        os.fsync(number)
        _rename(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(number)


def _entries(folder: Path, recursive: bool) -> Iterator[tuple[Path, str]]:
    def fail(error: OSError) -> None:
        raise error

    for at, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")] if recursive else []
        for name in names:
            if not name.startswith("."):
                path = Path(at, name)
                # A name that is no text must still be one in the database.
                plain = os.fsencode(path.relative_to(folder).as_posix())
                yield path, plain.decode("utf-8", "backslashreplace")
