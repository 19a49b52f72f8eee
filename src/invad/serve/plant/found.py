"""The images of a folder as they are now, and how one is moved out of it."""

import fnmatch
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from invad.data.listing import is_image
from invad.serve.store import taken


@dataclass(frozen=True, slots=True)
class File:
    """key: its path below the folder, as text. mark: bytes and time in nanoseconds, when it was seen."""

    path: Path
    key: str
    mark: taken.Mark


def is_taken(path: Path, pattern: str) -> bool:
    """Whether a file of a watched folder is one of its images, by its name."""
    return fnmatch.fnmatchcase(path.name, pattern) and is_image(path)


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


def move(path: Path, target: Path, name: str) -> None:
    """Never over another file, from which `name` tells it then. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target = target.with_name(f"{target.stem}-{name}{target.suffix}")
    shutil.move(path, target)


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
