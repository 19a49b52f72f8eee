"""Folders of models as one file, and back again without trusting who made it: zip, tar, or tar in gzip."""

import gzip
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from invad.errors import DataError, InvadError, in_one_line
from invad.runtime.bundle import named_files
from invad.system.files import is_folder, writing

MOST_FILES = 200
MOST_DEPTH = 4
LONGEST_NAME = 200
CHUNK = 1 << 20
MOST_AT_ONCE = 4 << 20
"""Bytes that a reader of archives asks for at a time: a header that claims more is no honest one."""


class NoArchive(InvadError):
    """What was sent cannot be taken; one line says why."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file in an archive. What its header says of its size is not believed."""

    name: str
    stream: IO[bytes]


def pack(folder: Path, target: IO[bytes]) -> None:
    """Write a model's folder as zip, not compressed: weights hardly shrink.

    Raises DataError, ArtifactError.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder; give a bundle or a trained model")
    try:
        with zipfile.ZipFile(target, "w") as archive:
            for name in named_files(folder):
                archive.write(folder / name, name)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}") from None


def unpack(archive: Path, folder: Path, most_bytes: int) -> None:
    """Write the files of an archive into a new folder; a single folder around all of them is left out.

    Names that lead outside, links, devices, more than `most_bytes` in all, names that are there twice: each
    raises NoArchive. Raises DataError when nothing can be written.
    """
    written = 0
    seen: set[str] = set()
    folder.mkdir()
    with archive.open("rb") as file, _reading():
        for entry in _entries(cast(IO[bytes], _Bounded(file, 2 * most_bytes + CHUNK)), most_bytes):
            path = _inside(entry.name)
            if str(path).casefold() in seen or len(seen) >= MOST_FILES:
                raise NoArchive(
                    f"{_shown(entry.name)}: is there twice, or there are more than {MOST_FILES} files"
                )
            seen.add(str(path).casefold())
            written = _write(entry, folder / path, written, most_bytes)
    if not seen:
        raise NoArchive("the archive is empty")
    _strip(folder)


def _entries(file: IO[bytes], most_bytes: int) -> Iterator[_Entry]:
    start = file.read(4)
    file.seek(0)
    if start[:2] == b"PK":
        yield from _of_zip(file)
    elif start[:2] == b"\x1f\x8b":
        with gzip.open(file) as plain:
            yield from _of_tar(cast(IO[bytes], _Bounded(plain, 2 * most_bytes + CHUNK)))
    else:
        yield from _of_tar(file)


@contextmanager
def _reading() -> Iterator[None]:
    """What readers of archives say, as one line."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile) as error:
        raise NoArchive(f"is no .zip, .tar or .tar.gz file that can be read ({in_one_line(error)})") from None
    except (EOFError, zlib.error) as error:
        raise NoArchive(f"is damaged or ends too early ({in_one_line(error)})") from None
    except (
        RuntimeError,
        ValueError,
        OverflowError,
    ) as error:  # encrypted, unknown methods, impossible numbers
        raise NoArchive(f"cannot be unpacked ({in_one_line(error)})") from None


def _of_zip(file: IO[bytes]) -> Iterator[_Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = info.external_attr >> 28  # of Unix modes: 8 is a regular file, 4 a folder, 0 says nothing
            if info.is_dir():
                continue
            if kind not in (0, 8):
                raise NoArchive(f"{_shown(info.filename)}: is a link or device")
            with archive.open(info) as stream:
                yield _Entry(info.orig_filename, stream)


def _of_tar(file: IO[bytes]) -> Iterator[_Entry]:
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in archive:
            if member.isdir():
                continue
            stream = archive.extractfile(member) if member.isreg() and not member.issparse() else None
            if stream is None:
                raise NoArchive(f"{_shown(member.name)}: is a link or device")
            yield _Entry(member.name, stream)


def _inside(name: str) -> PurePosixPath:
    """The path of an entry. Raises NoArchive for one that leads outside, or that some system reads so."""
    path = PurePosixPath(name)
    is_odd = any(ord(letter) < 32 or letter in '\\:*?"<>|' for letter in name)
    if path.is_absolute() or ".." in path.parts or is_odd or not path.parts or len(name) > LONGEST_NAME:
        raise NoArchive(f"{_shown(name)}: leads outside the archive, or is no name for a file")
    if len(path.parts) > MOST_DEPTH:
        raise NoArchive(f"{_shown(name)}: lies too deep")
    return path


def _write(entry: _Entry, path: Path, written: int, most_bytes: int) -> int:
    """The bytes written so far and these; counted as they come, for a header may lie."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    with file:
        for piece in _pieces(entry):
            written += len(piece)
            if written > most_bytes:
                raise NoArchive(f"unpacked it has more than the {most_bytes} bytes that are allowed")
            with writing(path):
                file.write(piece)
        with writing(path):
            file.flush()
            os.fsync(file.fileno())
    with writing(path):
        path.chmod(0o444)
    return written


def _pieces(entry: _Entry) -> Iterator[bytes]:
    while piece := entry.stream.read(CHUNK):
        yield piece


def _strip(folder: Path) -> None:
    """Bring the content of a single folder up."""
    inner = list(folder.iterdir())
    if len(inner) != 1 or not inner[0].is_dir():
        return
    with writing(folder):
        aside = folder.with_name(f"{folder.name}-inner")
        inner[0].rename(aside)
        folder.rmdir()
        aside.rename(folder)


def _shown(name: str) -> str:
    return repr(name[:80])


class _Bounded:
    """A file of which no reader takes much at a time, or more than `most` in all."""

    def __init__(self, file: Any, most: int):
        self._file, self._left = file, most

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(min(size, MOST_AT_ONCE) if size >= 0 else MOST_AT_ONCE)
        if size > MOST_AT_ONCE or (size < 0 and len(content) == MOST_AT_ONCE):
            raise NoArchive("a header in the archive is too large")
        self._left -= len(content)
        if self._left < 0:
            raise NoArchive("the archive is larger than it says")
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Whoever opened the file closes it."""


@contextmanager
def packed(folder: Path) -> Iterator[IO[bytes]]:
    """A temporary file with the folder as zip, at its beginning."""
    with tempfile.TemporaryFile() as file:
        pack(folder, file)
        file.seek(0)
        yield file
