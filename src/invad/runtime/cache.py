"""Files that spare work when they are there, and decide nothing before they are checked."""

import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from invad.system.digests import plain_sha256

DIGEST = hashlib.sha256().digest_size


def cache_folder(name: str) -> Path | None:
    """The folder `name` among the user's caches, made if need be; None where none can be had.

    A user without an entry in the password file and without HOME has none (containers, services).
    """
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "invad" / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    return folder


@contextmanager
def some_home() -> Iterator[None]:
    """For libraries that ask for a home folder (OpenVINO's telemetry does), and fail where there is none."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"
        try:
            yield
        finally:
            del os.environ["HOME"]
    else:
        yield


def key_of(*parts: object) -> str:
    """A file's name for what it was made from: JSON values."""
    return plain_sha256(parts)[:40]


def kept(path: Path) -> bytes | None:
    """What `keep` wrote there, if every byte is as it was written; a damaged file is thrown away."""
    try:
        whole = memoryview(path.read_bytes())
    except OSError:
        return None
    digest, content = whole[:DIGEST], whole[DIGEST:]
    if len(digest) == DIGEST and hashlib.sha256(content).digest() == digest:
        return bytes(content)
    with suppress(OSError):
        path.unlink()
    return None


def keep(path: Path, content: bytes) -> None:
    """Write `content` behind its digest, whole or not at all; where nothing can be written, nothing is.

    Processes that write the same file at the same time do not meet: each writes its own and renames it.
    """
    partial = None
    try:
        number, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(number, "wb") as file:
            file.write(hashlib.sha256(content).digest())
            file.write(content)
        Path(partial).replace(path)
    except OSError:
        if partial is not None:
            with suppress(OSError):
                Path(partial).unlink()
