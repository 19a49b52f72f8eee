"""Images and maps in an object store, or wherever else fsspec writes."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from invad.errors import ConfigError, DataError, in_one_line
from invad.serve.store.files import IDENTITY, KINDS, Files, Pictures
from invad.system.packages import importing

CONNECT_SECONDS, READ_SECONDS = 3, 10
AWAY_SECONDS = 5.0
"""How long a store that did not answer is not asked again: parts must not wait for each of its time-outs."""

LOOKED_SECONDS = 5.0
"""How long an answer says that a store is there."""


def open_pictures(folder: Path, url: str | None = None) -> Pictures:
    """Where pictures are kept: in `folder`, or at an address. Raises ConfigError, DataError."""
    if url is None:
        return Files(folder)
    parts = urlsplit(url)
    if not parts.scheme or "@" in parts.netloc or parts.query:
        raise ConfigError(
            f"pictures {parts.scheme}://{parts.hostname or ''}...: give an address such as "
            "s3://BUCKET/PREFIX or file:///FOLDER, without a password"
        )
    if parts.scheme == "file":
        if parts.netloc or not parts.path:
            raise ConfigError(f"pictures {url}: give file:/// and the whole path of a folder")
        return Files(Path(unquote(parts.path)), shared=True)
    return Objects(url)


class Objects(Pictures):
    """Objects below an address. One appears whole or not at all: that is what such stores promise."""

    shared = True

    def __init__(self, url: str):
        """Raises ConfigError for an address that cannot be."""
        is_s3 = url.startswith("s3")
        needed = ("fsspec", "s3fs") if is_s3 else ("fsspec",)
        with importing(needed, "object-store", f"pictures {url}"):
            from fsspec.core import url_to_fs
        own: dict[str, Any] = {}
        if is_s3:
            times = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
            own = {"config_kwargs": {**times, "retries": {"max_attempts": 1}}}
        try:
            # What is listed now may be another's doing a moment later.
            self._fs, root = url_to_fs(url, use_listings_cache=False, skip_instance_cache=True, **own)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"pictures {url}: {in_one_line(error)}") from None
        self._fs.retries = 1  # of s3fs, above those of its own client
        self.where, self.root = url, PurePosixPath(root)
        self._problem: str | None = None
        self._away_until = self._answered = float("-inf")
        self._lock = threading.Lock()

    def path(self, kind: str, digest: str) -> str:
        return str(self.root / kind / digest[:2] / digest)

    def put(self, kind: str, content: bytes, digest: str | None = None, *, anew: bool = False) -> str:
        """One that is there is written again: to ask would cost as much."""
        digest = digest or sha256(content).hexdigest()
        with self._asked():
            self._fs.pipe_file(self.path(kind, digest), content)
        return digest

    def get(self, kind: str, digest: str) -> bytes | None:
        try:
            with self._asked():
                content: bytes = self._fs.cat_file(self.path(kind, digest))
                return content
        except FileNotFoundError:
            return None

    def remove(self, kind: str, digest: str) -> None:
        self.drop(f"{kind}/{digest[:2]}/{digest}")

    def names(self) -> Iterator[tuple[str, str]]:
        for kind in KINDS:
            with self._asked():
                found = self._fs.find(str(self.root / kind))
            for path in sorted(found):
                yield kind, PurePosixPath(path).name

    def identity(self) -> str:
        path = str(self.root / IDENTITY)
        with self._asked():
            try:
                return str(self._fs.cat_file(path).decode())
            except FileNotFoundError:
                made = secrets.token_hex(16)
                self._fs.pipe_file(path, made.encode())
                return made

    def save(self, name: str, path: Path) -> None:
        with self._asked():
            self._fs.put_file(str(path), str(self.root / name))

    def fetch(self, name: str, path: Path) -> bool:
        try:
            with self._asked():
                self._fs.get_file(str(self.root / name), str(path))
        except FileNotFoundError:
            return False
        return True

    def has(self, name: str) -> bool:
        with self._asked():
            return bool(self._fs.exists(str(self.root / name)))

    def drop(self, name: str) -> None:
        try:
            with self._asked():
                self._fs.rm_file(str(self.root / name))
        except FileNotFoundError:
            return

    def problem(self) -> str | None:
        if time.monotonic() - self._answered > LOOKED_SECONDS:
            try:
                with self._asked():
                    self._fs.info(str(self.root / IDENTITY))
            except (DataError, FileNotFoundError):
                pass
        return self._problem

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Whatever the store says of a failure, as DataError; then it is left alone for a while.

        FileNotFoundError is an answer and passes.
        """
        if time.monotonic() < self._away_until:
            raise DataError(f"{self._problem}")
        try:
            yield
        except FileNotFoundError:
            self._is_there()
            raise
        except Exception as error:  # each kind of store has exceptions of its own
            with self._lock:
                self._problem = f"{self.where}: {in_one_line(error)}"
                self._away_until = time.monotonic() + AWAY_SECONDS
                self._answered = float("-inf")
            raise DataError(self._problem) from None
        self._is_there()

    def _is_there(self) -> None:
        with self._lock:
            self._problem, self._answered = None, time.monotonic()
