"""Images and maps as files named by the SHA-256 of their content, each written once and whole."""

import os
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

from invad.errors import DataError, reason
from invad.system.files import make_folder, sync_folder, take_place, writing

KINDS = ("image", "map")
UNFINISHED = "unfinished"
"""Where files lie until they are whole; it is emptied when a service starts."""

IDENTITY = "identity"
"""A file whose content tells one place from all others, whatever it is called where."""

FORGOTTEN_SECONDS = 24 * 3600
"""Age of what another service may still be writing, at most."""


class Pictures(ABC):
    """Where images and maps are kept. May be used by several threads and, where it is shared, by several
    services. where: for people. shared: it is none of a service's own data folder."""

    where: str
    shared: bool

    @abstractmethod
    def put(self, kind: str, content: bytes, digest: str | None = None, *, anew: bool = False) -> str:
        """Its digest, when the content is kept for good. anew: also where there seems to be such a file.

        Raises DataError when it cannot be written.
        """

    @abstractmethod
    def get(self, kind: str, digest: str) -> bytes | None:
        """The content, None where there is no such file. Raises DataError when it cannot be read."""

    @abstractmethod
    def remove(self, kind: str, digest: str) -> None:
        """Delete a file that the database names as expired. Raises DataError."""

    @abstractmethod
    def names(self) -> Iterator[tuple[str, str]]:
        """(kind, digest) of all files. Raises DataError."""

    @abstractmethod
    def identity(self) -> str:
        """What tells this place from others, made at the first call. Raises DataError."""

    @abstractmethod
    def save(self, name: str, path: Path) -> None:
        """Keep a large file under a name, such as `model/HASH.zip`. Raises DataError."""

    @abstractmethod
    def fetch(self, name: str, path: Path) -> bool:
        """Copy what was saved to `path`; False where there is none. Raises DataError."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether something was saved under a name. Raises DataError."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Delete what was saved under a name, if anything. Raises DataError."""

    @abstractmethod
    def problem(self) -> str | None:
        """Why nothing can be kept or read now, in words; None when it can."""

    def free_bytes(self) -> int | None:
        """Of the disk; None where nobody knows."""
        return None

    def begin(self) -> None:
        """Forget what a service that was killed had begun to write."""
        return


class Files(Pictures):
    """A folder, by default `files` of a data folder."""

    def __init__(self, folder: Path, *, shared: bool = False):
        """Raises DataError when nothing can be written there."""
        self.folder, self.shared = folder, shared
        self.where = str(folder)
        self.unfinished = folder / UNFINISHED
        for name in (*KINDS, UNFINISHED):
            is_new = not (folder / name).exists()
            make_folder(folder / name)
            if is_new and name in KINDS:
                _make_places(folder / name)
        self._own, self._numbers = secrets.token_hex(4), count()

    def path(self, kind: str, digest: str) -> Path:
        return self.folder / kind / digest[:2] / digest

    def put(self, kind: str, content: bytes, digest: str | None = None, *, anew: bool = False) -> str:
        digest = digest or sha256(content).hexdigest()
        path = self.path(kind, digest)
        if not anew and path.exists():
            return digest
        partial = self._partial()
        with writing(path):
            try:
                with partial.open("wb", buffering=0) as file:
                    rest = memoryview(content)
                    while rest:
                        rest = rest[file.write(rest) or 0 :]
                    os.fsync(file.fileno())
                if not path.parent.exists():
                    path.parent.mkdir(exist_ok=True)
                    sync_folder(path.parent.parent)
                partial.replace(path)
            except BaseException:
                with suppress(OSError):
                    partial.unlink(missing_ok=True)
                raise
            sync_folder(path.parent)
        return digest

    def get(self, kind: str, digest: str) -> bytes | None:
        try:
            return self.path(kind, digest).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self.path(kind, digest)}: {error.strerror}") from None

    def remove(self, kind: str, digest: str) -> None:
        with writing(self.path(kind, digest)):
            self.path(kind, digest).unlink(missing_ok=True)

    def names(self) -> Iterator[tuple[str, str]]:
        for kind in KINDS:
            for path in sorted((self.folder / kind).glob("??/*")):
                yield kind, path.name

    def identity(self) -> str:
        path = self.folder / IDENTITY
        with writing(path):
            if not path.exists():
                partial = self._partial()
                partial.write_text(secrets.token_hex(16))
                partial.replace(path)
            return path.read_text()

    def save(self, name: str, path: Path) -> None:
        target, partial = self.folder / name, self._partial()
        with writing(target):
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, partial)
            take_place(partial, target)

    def fetch(self, name: str, path: Path) -> bool:
        try:
            shutil.copyfile(self.folder / name, path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DataError(f"{self.folder / name}: {reason(error)}") from None
        return True

    def has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def drop(self, name: str) -> None:
        with writing(self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def problem(self) -> str | None:
        if os.access(self.unfinished, os.W_OK):
            return None
        return f"{self.folder}: is gone, or nothing can be written there"

    def free_bytes(self) -> int | None:
        try:
            return shutil.disk_usage(self.folder).free
        except OSError:  # a share that is away
            return None

    def begin(self) -> None:
        old = time.time() - FORGOTTEN_SECONDS
        for path in self.unfinished.iterdir():
            with suppress(OSError):
                if not self.shared or path.stat().st_mtime < old:  # others may be writing there
                    path.unlink()

    def _partial(self) -> Path:
        """A name that nobody else uses, on whichever machine."""
        return self.unfinished / f"{self._own}-{next(self._numbers)}"


def _make_places(folder: Path) -> None:
    """All folders of a kind at once: to make one and have it outlive a power cut takes as long as a file, and
    nearly each of the first hundred parts would wait for it. Raises DataError."""
    with writing(folder):
        for number in range(256):
            (folder / f"{number:02x}").mkdir(exist_ok=True)
    sync_folder(folder)
