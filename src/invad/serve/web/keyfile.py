"""Keys in a file, for a runtime that keeps none: one a line, read again when the file changes."""

import hmac
import logging
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request

from invad.errors import ConfigError, reason
from invad.serve.web.auth import Caller, no_key, sent_key

LOG = logging.getLogger("invad.serve")
SHORTEST = 16
"""Characters of a key."""


class KeyFile:
    """Who sends one of the keys may infer and read. Several are good at a time: one can follow another.

    Empty lines, and those that begin with #, say nothing.
    """

    def __init__(self, path: Path):
        """Raises ConfigError for a file that cannot be read, or holds no key or one that is too short."""
        self.path = path
        self._seen = _state(path)
        self._digests = _read(path)

    async def caller(self, request: Request) -> Caller:
        """A dependency of FastAPI. Raises Refused (401)."""
        secret = sent_key(request)
        digest = _digest(secret)
        if not secret or not any(hmac.compare_digest(digest, known) for known in self._current()):
            raise no_key("this key is not known" if secret else "send a key")
        return Caller(name="key file", scopes=("infer", "read"))

    def _current(self) -> list[bytes]:
        state = _state(self.path)
        if state != self._seen:
            self._seen = state
            try:
                self._digests = _read(self.path)
                LOG.info("%s: read again, %d keys", self.path, len(self._digests))
            except ConfigError as error:  # a file that is being replaced must not lock everybody out
                LOG.error("the keys of before stay good: %s", error)
        return self._digests


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _read(path: Path) -> list[bytes]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = reason(error, writing=False) if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{path}: {why}; give --key-file a file with one key a line") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not (key := line.strip()) or key.startswith("#"):
            continue
        if len(key) < SHORTEST:
            raise ConfigError(f"{path}, line {number}: a key has at least {SHORTEST} characters")
        found.append(_digest(key))
    if not found:
        raise ConfigError(f"{path}: holds no key; write one a line")
    return found


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "replace")).digest()
