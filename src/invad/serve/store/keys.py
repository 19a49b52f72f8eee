"""Keys of the interface: random, so their SHA-256 is all that is kept of them."""

import base64
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from invad.errors import ConfigError, DataError
from invad.serve.store.database import Database, now_ms
from invad.serve.store.schema import api_key

SCOPES = ("infer", "read", "review", "admin")
PREFIX = "inv"
REMEMBERED_SECONDS = 2.0
"""How long a key that was looked up is not looked up again: a revoked one may work so long."""

UNKNOWN_SECONDS = 0.05
"""The same for keys that were not there: who guesses must not keep the database busy."""

USED_EVERY_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """stations: where it is good; None is everywhere. Times are milliseconds since 1970."""

    id: str
    name: str
    scopes: tuple[str, ...]
    stations: tuple[str, ...] | None
    created: int
    expires: int | None = None
    last_used: int | None = None
    revoked: int | None = None
    sha256: str = field(default="", repr=False)

    def may(self, scope: str) -> bool:
        """Whether it has a scope; admin has all."""
        return scope in self.scopes or "admin" in self.scopes


def make(
    connection: Connection,
    name: str,
    scopes: Sequence[str],
    stations: Sequence[str] | None = None,
    expires: int | None = None,
) -> tuple[str, Key]:
    """A new key: the secret, which is never shown again, and what is kept. Raises ConfigError."""
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise ConfigError(f"scopes {' '.join(unknown) or 'are missing'}; give some of {', '.join(SCOPES)}")
    id = secrets.token_hex(4)
    secret = base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
    whole = f"{PREFIX}_{id}_{secret}"
    key = Key(
        id=id,
        name=name,
        scopes=tuple(scopes),
        stations=None if stations is None else tuple(stations),
        created=now_ms(),
        expires=expires,
        sha256=sha256(whole.encode()).hexdigest(),
    )
    connection.execute(
        api_key.insert().values(
            id=id,
            sha256=key.sha256,
            name=name,
            scopes=" ".join(key.scopes),
            stations=None if key.stations is None else " ".join(key.stations),
            created=key.created,
            expires=expires,
        )
    )
    return whole, key


def keys(connection: Connection) -> list[Key]:
    """All, oldest first."""
    return [
        Key(
            id=row.id,
            name=row.name,
            scopes=tuple(row.scopes.split()),
            stations=None if row.stations is None else tuple(row.stations.split()),
            created=row.created,
            expires=row.expires,
            last_used=row.last_used,
            revoked=row.revoked,
            sha256=row.sha256,
        )
        for row in connection.execute(select(api_key).order_by(api_key.c.created, api_key.c.id))
    ]


def revoke(connection: Connection, id: str) -> bool:
    """Make a key useless; returns whether there was one that worked."""
    wanted = api_key.update().where(api_key.c.id == id, api_key.c.revoked.is_(None))
    return bool(connection.execute(wanted.values(revoked=now_ms())).rowcount)


class Keyring:
    """Tells who sent a key, from what was read of the table a moment ago."""

    def __init__(self, database: Database):
        self.database = database
        self._keys: dict[str, Key] = {}
        self._read_at = float("-inf")
        self._lock = threading.Lock()

    def owner(self, secret: str) -> Key | None:
        """The key that this is the secret of, if it may be used now."""
        parts = secret.split("_")
        key = self._key(parts[1]) if len(parts) == 3 and parts[0] == PREFIX else None
        digest = sha256(secret.encode("utf-8", "replace")).hexdigest()
        same = hmac.compare_digest(digest, key.sha256 if key else "")
        now = now_ms()
        if key is None or not same or not _works(key):
            return None
        if now - (key.last_used or 0) > USED_EVERY_MS:
            # Nobody is kept out because that cannot be noted.
            with suppress(SQLAlchemyError, DataError), self.database.write() as connection:
                connection.execute(api_key.update().where(api_key.c.id == key.id).values(last_used=now))
            self.forget()
        return key

    def working(self, id: str) -> Key | None:
        """The key of this id, if it may be used now."""
        key = self._key(id)
        return key if key is not None and _works(key) else None

    def forget(self) -> None:
        """Read the table again at the next call."""
        self._read_at = float("-inf")

    def _key(self, id: str) -> Key | None:
        """One that is not known may have been made by another process a moment ago."""
        return self._known(REMEMBERED_SECONDS).get(id) or self._known(UNKNOWN_SECONDS).get(id)

    def _known(self, seconds: float) -> dict[str, Key]:
        """The table, read anew if that was done longer ago."""
        with self._lock:
            if time.monotonic() - self._read_at > seconds:
                with self.database.read() as connection:
                    self._keys = {key.id: key for key in keys(connection)}
                self._read_at = time.monotonic()
            return self._keys


def _works(key: Key) -> bool:
    return not key.revoked and (key.expires is None or key.expires > now_ms())
