"""People of the page: how they log in, and who a session belongs to."""

from dataclasses import dataclass
from typing import NoReturn

from invad.serve.records import Refused
from invad.serve.store import keys, passwords, users
from invad.serve.store.database import Database, note

WRONG = "the name or the password is wrong"
WRONG_KEY = "this key is not known, was revoked or has expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whoever a session belongs to. name: for the audit table. user: None where it is a key. stations: None
    is everywhere."""

    name: str
    user: str | None
    scopes: tuple[str, ...]
    stations: tuple[str, ...] | None
    api_key: str | None


class Accounts:
    """Users and sessions of a service."""

    def __init__(self, database: Database, keyring: keys.Keyring):
        self.database, self.keyring = database, keyring

    def log_in(self, name: str, password: str, address: str) -> str:
        """What the cookie of the new session holds. address: of whoever asks.

        Raises Refused: 401 for a wrong name or password, 429 after too many of them.
        """
        known = name if 0 < len(name) <= 64 and name.isprintable() else ""
        self._require_patience(known, address)
        with self.database.read() as connection:
            kept = users.password_of(connection, known)
        if kept is None:
            passwords.waste_time(password)
        if kept is None or not passwords.is_right(password, kept):
            self._failed(known, address, WRONG)
        with self.database.write() as connection:
            users.note_success(connection, known)
            secret = users.begin(connection, user=known)
            note(connection, _user(known), "log in", {"address": address})
        return secret

    def log_in_with_key(self, key: str, address: str) -> str:
        """The same with an API key in place of a name. Raises Refused (401, 429)."""
        self._require_patience("", address)
        owner = self.keyring.owner(key)
        if owner is None:
            self._failed("", address, WRONG_KEY)
        with self.database.write() as connection:
            secret = users.begin(connection, api_key=owner.id)
            note(connection, _key(owner), "log in", {"address": address})
        return secret

    def log_out(self, secret: str) -> None:
        """End a session; one that is not there is no mistake."""
        account = self.account(secret)
        with self.database.write() as connection:
            users.end(connection, secret)
            if account is not None:
                note(connection, account.name, "log out", {})

    def account(self, secret: str) -> Account | None:
        """Whose session a cookie names; None where it has ended."""
        with self.database.read() as connection:
            found = users.session(connection, secret)
        if found is None:
            return None
        if users.is_stale(found):
            with self.database.write() as connection:
                users.touch(connection, found)
        if found.user is not None:
            scopes = users.ROLES[found.user.role]
            return Account(
                name=_user(found.user.name),
                user=found.user.name,
                scopes=scopes,
                stations=None,
                api_key=None,
            )
        key = self.keyring.working(found.api_key or "")
        if key is None:
            return None
        return Account(name=_key(key), user=None, scopes=key.scopes, stations=key.stations, api_key=key.id)

    def change_password(self, name: str, current: str, new: str, address: str) -> None:
        """A user's own, which ends the user's sessions. Raises Refused (400 for a wrong one, 429),
        ConfigError for one that is too short."""
        self._require_patience(name, address)
        with self.database.read() as connection:
            kept = users.password_of(connection, name)
        if kept is None or not passwords.is_right(current, kept):
            self._failed(name, address, "the password that is now is another", 400)
        digest = passwords.digest(new)
        with self.database.write() as connection:
            users.change(connection, name, password=digest)
            note(connection, _user(name), "change password", {"user": name})

    def _require_patience(self, name: str, address: str) -> None:
        with self.database.read() as connection:
            seconds = users.seconds_to_wait(connection, name, address)
        if seconds:
            text = f"too many wrong passwords; try again in {seconds} s"
            raise Refused(text, 429, seconds)

    def _failed(self, name: str, address: str, text: str, status: int = 401) -> NoReturn:
        with self.database.write() as connection:
            users.note_failure(connection, name, address)
            note(connection, _user(name) if name else "somebody", "log in failed", {"address": address})
        raise Refused(text, status)


def _user(name: str) -> str:
    return f"user {name}"


def _key(key: keys.Key) -> str:
    return f"key {key.id} ({key.name})"
