"""Images and maps as files named by the SHA-256 of their content, each written once and whole."""

import os
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

from invad.errors import DataError
from invad.system.files import make_folder, sync_folder, writing

KINDS = ("image", "map")
UNFINISHED = "unfinished"
"""Where files lie until they are whole; it is emptied when a service starts."""


class Files:
    """The folder `files` of a data folder. May be used by several threads of one process."""

    def __init__(self, folder: Path):
        """Raises DataError when nothing can be written there."""
        self.folder = folder
        self.unfinished = folder / UNFINISHED
        for name in (*KINDS, UNFINISHED):
            make_folder(folder / name)
        self._numbers = count()
        self._in_use: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def path(self, kind: str, digest: str) -> Path:
        return self.folder / kind / digest[:2] / digest

    def put(self, kind: str, content: bytes, digest: str | None = None) -> str:
        """Its digest, when the content is on the disk. Raises DataError when it cannot be written."""
        digest = digest or sha256(content).hexdigest()
        path = self.path(kind, digest)
        if path.exists():
            return digest
        partial = self.unfinished / f"{os.getpid()}-{next(self._numbers)}"
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
        """The content, None where there is no such file. Raises DataError when it cannot be read."""
        try:
            return self.path(kind, digest).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DataError(f"{self.path(kind, digest)}: {error.strerror}") from None

    def hold(self, names: Sequence[tuple[str, str]]) -> None:
        """Until `release`, `remove` leaves these (kind, digest) alone: a row that names them is coming."""
        with self._lock:
            self._in_use.update(names)

    def release(self, names: Sequence[tuple[str, str]]) -> None:
        with self._lock:
            self._in_use.subtract(names)
            for name in names:
                if not self._in_use[name]:
                    del self._in_use[name]

    def remove(self, kind: str, digest: str) -> bool:
        """Delete a file that the database names as expired; returns False where it is in use again."""
        with self._lock:
            if self._in_use[kind, digest]:
                return False
            with writing(self.path(kind, digest)):
                self.path(kind, digest).unlink(missing_ok=True)
            return True

    def empty_unfinished(self) -> None:
        """Forget what a service that was killed had begun to write."""
        for path in self.unfinished.iterdir():
            with suppress(OSError):
                path.unlink()

    def names(self) -> Iterator[tuple[str, str]]:
        """(kind, digest) of all files."""
        for kind in KINDS:
            for path in sorted((self.folder / kind).glob("??/*")):
                yield kind, path.name

    def free_bytes(self) -> int:
        """Of the disk."""
        return shutil.disk_usage(self.folder).free
