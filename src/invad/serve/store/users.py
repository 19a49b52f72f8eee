"""People of the page: names with roles, and the sessions of those who are logged in."""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import Connection, delete, or_, select

from invad.errors import ConfigError
from invad.serve.store.database import now_ms
from invad.serve.store.schema import login_failure, page_session, page_user

ROLES = {
    "viewer": ("read",),
    "reviewer": ("read", "infer", "review"),
    "admin": ("read", "infer", "review", "admin"),
}
"""What each may do, in the scopes of keys."""

DAY_MS = 24 * 3600 * 1000
LASTS_MS, IDLE_MS = 7 * DAY_MS, DAY_MS
"""A session ends so long after it began, or after it was last used."""

USED_EVERY_MS = 60_000
FREE_TRIES = {"user": 5, "address": 20}
"""Wrong passwords that cost no waiting: of one name, and from one address."""

LONGEST_WAIT_MS = 15 * 60_000
FORGOTTEN_MS = DAY_MS
_NAME = re.compile(r"[^\W_][\w.@ -]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """role: viewer, reviewer or admin. Times are milliseconds since 1970."""

    name: str
    role: str
    created: int
    last_login: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Of a user, or of whoever logged in with a key. used: when it was noted last."""

    sha256: str
    user: User | None
    api_key: str | None
    used: int


def add(connection: Connection, name: str, password: str, role: str) -> None:
    """A new user. password: its digest, which takes too long to be made while others wait to write.

    Raises ConfigError for a name that is impossible or taken, and a role that is none.
    """
    require_new(connection, name, role)
    values = {"name": name, "password": password, "role": role, "created": now_ms()}
    connection.execute(page_user.insert().values(**values))


def require_new(connection: Connection, name: str, role: str) -> None:
    """Raises ConfigError, as `add` does, before somebody is asked for a password."""
    if not _NAME.fullmatch(name) or name != name.strip():
        raise ConfigError(f"user {name!r}: give up to 64 letters, digits, blanks and .@-_, a letter first")
    _require_role(role)
    if password_of(connection, name) is not None:
        raise ConfigError(f"user {name} is there already")


def require_known(connection: Connection, name: str) -> None:
    """Raises ConfigError where there is no such user."""
    if password_of(connection, name) is None:
        raise ConfigError(f"no user {name}")


def users(connection: Connection) -> list[User]:
    """All, by name."""
    rows = connection.execute(select(page_user).order_by(page_user.c.name))
    return [
        User(name=row.name, role=row.role, created=row.created, last_login=row.last_login) for row in rows
    ]


def change(
    connection: Connection, name: str, *, password: str | None = None, role: str | None = None
) -> None:
    """Give a user another password (its digest), which ends all of the user's sessions, or another role.

    Raises ConfigError for an unknown user, and a role that is none.
    """
    require_known(connection, name)
    values = {}
    if password is not None:
        values["password"] = password
        connection.execute(delete(page_session).where(page_session.c.user == name))
    if role is not None:
        _require_role(role)
        values["role"] = role
    connection.execute(page_user.update().where(page_user.c.name == name).values(**values))


def remove(connection: Connection, name: str) -> None:
    """Remove a user, whose sessions end; what the user did stays. Raises ConfigError for an unknown one."""
    require_known(connection, name)
    connection.execute(delete(page_user).where(page_user.c.name == name))


def password_of(connection: Connection, name: str) -> str | None:
    """The digest of a user's password."""
    kept: str | None = connection.scalar(select(page_user.c.password).where(page_user.c.name == name))
    return kept


def begin(connection: Connection, *, user: str | None = None, api_key: str | None = None) -> str:
    """A new session; returns what the cookie holds. Sessions that have expired go."""
    now, secret = now_ms(), secrets.token_urlsafe(32)
    old = or_(page_session.c.created < now - LASTS_MS, page_session.c.used < now - IDLE_MS)
    connection.execute(delete(page_session).where(old))
    values = {"sha256": digest(secret), "user": user, "api_key": api_key, "created": now, "used": now}
    connection.execute(page_session.insert().values(**values))
    if user is not None:
        connection.execute(page_user.update().where(page_user.c.name == user).values(last_login=now))
    return secret


def session(connection: Connection, secret: str) -> Session | None:
    """The session that a cookie names, unless it has expired."""
    now = now_ms()
    wanted = select(page_session, page_user).join(page_user, isouter=True)
    wanted = wanted.where(
        page_session.c.sha256 == digest(secret),
        page_session.c.created >= now - LASTS_MS,
        page_session.c.used >= now - IDLE_MS,
    ).with_only_columns(
        page_session.c.sha256,
        page_session.c.user,
        page_session.c.api_key,
        page_session.c.used,
        page_user.c.role,
        page_user.c.created,
        page_user.c.last_login,
    )
    row = connection.execute(wanted).first()
    if row is None:
        return None
    user = None
    if row.user is not None:
        user = User(name=row.user, role=row.role, created=row.created, last_login=row.last_login)
    return Session(sha256=row.sha256, user=user, api_key=row.api_key, used=row.used)


def is_stale(found: Session) -> bool:
    """Whether it should be noted that a session is used."""
    return now_ms() - found.used > USED_EVERY_MS


def touch(connection: Connection, found: Session) -> None:
    """Note that a session is used."""
    of_session = page_session.c.sha256 == found.sha256
    connection.execute(page_session.update().where(of_session).values(used=now_ms()))


def end(connection: Connection, secret: str) -> None:
    """End a session."""
    connection.execute(delete(page_session).where(page_session.c.sha256 == digest(secret)))


def digest(secret: str) -> str:
    """What is kept of a cookie."""
    return sha256(secret.encode("utf-8", "replace")).hexdigest()


def seconds_to_wait(connection: Connection, name: str, address: str) -> int:
    """Until somebody may try a password again; 0 is now."""
    rows = connection.execute(
        select(login_failure).where(login_failure.c.of.in_(list(_keys(name, address))))
    ).all()
    waits = [_wait(row.of.partition(" ")[0], row.failures, row.last) for row in rows]
    return -(-max(waits, default=0) // 1000)


def note_failure(connection: Connection, name: str, address: str) -> None:
    """A wrong password. The wait doubles with each, up to a quarter of an hour; a day forgets them."""
    now = now_ms()
    connection.execute(delete(login_failure).where(login_failure.c.last < now - FORGOTTEN_MS))
    for key in _keys(name, address):
        of_key = login_failure.update().where(login_failure.c.of == key)
        more = of_key.values(failures=login_failure.c.failures + 1, last=now)
        if not connection.execute(more).rowcount:
            connection.execute(login_failure.insert().values(of=key, failures=1, last=now))


def note_success(connection: Connection, name: str) -> None:
    """A right password forgets the wrong ones of the name, not those of the address."""
    connection.execute(delete(login_failure).where(login_failure.c.of == f"user {name[:64]}"))


def _keys(name: str, address: str) -> Sequence[str]:
    return [*([f"user {name[:64]}"] if name else []), f"address {address[:64]}"]


def _wait(kind: str, failures: int, last: int) -> int:
    over = failures - FREE_TRIES[kind]
    if over < 0:
        return 0
    wait = min(1000 << min(over, 20), LONGEST_WAIT_MS)
    # A clock that was set back must not keep anybody out for longer.
    return max(0, min(wait, last + wait - now_ms()))


def _require_role(role: str) -> None:
    if role not in ROLES:
        raise ConfigError(f"role {role!r}; give one of {', '.join(ROLES)}")
