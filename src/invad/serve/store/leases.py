"""Which of several services on one database does what only one may do: a sink, a source, the watch for drift.

A service holds a name by an advisory lock of its own session with the server, which lets go of it at once
when the process is killed, and within some ten seconds when its machine is cut off. With a database in a file
there is one service, and it holds everything.
"""

import logging
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError, in_one_line

LOG = logging.getLogger("invad.serve")
PRESENCE = 0x696E766164
"""Of the advisory lock that every service holds, shared: "invad" in ASCII."""

NAMES = 0x696E7661
"""First number of the locks of names; the second is made of the name."""

JOIN_SECONDS, RETRY_SECONDS = 15.0, 0.1
"""How long a database is waited for that somebody has for himself, and between two looks."""

WORDS = NAMES + 1
"""The same of what all agree on."""

RENEWED_SECONDS = 0.5
LASTS_SECONDS = 8.0
"""A session that was not heard of for so long holds nothing: the server lets go after eleven (see
`database`)."""


class Leases:
    """What a service holds. May be used by several threads; `start` keeps it renewed."""

    def __init__(self, engine: Engine | None, name: str):
        """engine: of the server, None for a database that one service has for itself. name: for people.
        `problem` says why nothing can be held now, in words."""
        self.engine, self.name = engine, name
        self._session: Connection | None = None
        self._is_member = self._is_alone = False
        self._wanted: frozenset[str] = frozenset()
        self._held: frozenset[str] = frozenset()
        self._renewed = float("-inf")
        self._lock = threading.RLock()
        self._agreed: tuple[str, str] | None = None
        self.problem: str | None = None
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------ who is there

    def join(self, *, alone: bool = False) -> None:
        """Be one of the services of the database, or with `alone` the only one, until `close`.

        Raises DataError where another keeps that from being, or the server does not answer.
        """
        if self.engine is None:
            return
        until = time.monotonic() + (0 if alone else JOIN_SECONDS)
        while not (self.try_alone() if alone else self._ask("pg_try_advisory_lock_shared(:a)", a=PRESENCE)):
            if time.monotonic() >= until:
                self._end()
                raise DataError(
                    f"{self.name}: another service uses this database; stop it or give another database"
                )
            time.sleep(RETRY_SECONDS)  # somebody makes its tables, perhaps
        if not alone:
            self._is_member = True
            self.with_others()

    def try_alone(self) -> bool:
        """Whether no other service uses the database; none comes then until `with_others`, or `close`."""
        self._is_alone = self.engine is None or self._ask("pg_try_advisory_lock(:a)", a=PRESENCE)
        return self._is_alone

    def with_others(self) -> None:
        """Let other services come again."""
        if self.engine is not None and self._is_alone:
            self._ask("pg_advisory_unlock(:a)", a=PRESENCE)
        self._is_alone = False

    def agree(self, what: str, otherwise: str) -> None:
        """Be one of services that all agree to this word, until `close`. Raises DataError with `otherwise`
        where another service has agreed to another."""
        if self.engine is None:
            return
        with self._lock:
            self._agreed = (what, otherwise)
            self._ask("pg_try_advisory_lock_shared(:a, :b)", a=WORDS, b=_number(what))
            others = _number(what) & 0xFFFFFFFF  # as the server shows it
            if self._ask(
                "EXISTS (SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = database WHERE "
                "datname = current_database() AND locktype = 'advisory' AND objsubid = 2 "
                "AND CAST(classid AS bigint) = :a AND CAST(objid AS bigint) <> :b)",
                a=WORDS,
                b=others,
            ):
                self._end()
                raise DataError(f"{self.name}: {otherwise}")

    def start(self) -> None:
        """Renew from now on what is held."""
        if self.engine is not None and self._thread is None:
            self._thread = threading.Thread(target=self._work, name="invad-leases", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Let go of everything."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(2)
        with self._lock:
            self._end()

    # ------------------------------------------------------------------ who does what

    def want(self, name: str) -> None:
        """Hold this name from now on, or as soon as nobody else does."""
        with self._lock:
            self._wanted |= {name}
        with suppress(DataError):  # the thread tries again
            self.renew()

    def give_up(self, name: str) -> None:
        """Want it no more; another may have it at once."""
        with self._lock:
            self._wanted -= {name}
            if self.engine is not None and name in self._held:
                self._held -= {name}
                with suppress(DataError):  # a session that is gone holds nothing
                    self._ask("pg_advisory_unlock(:a, :b)", a=NAMES, b=_number(name))

    def has(self, name: str) -> bool:
        """Whether this service holds a name that it wants."""
        if self.engine is None:
            return True
        return name in self._held and time.monotonic() - self._renewed < LASTS_SECONDS

    def states(self) -> Mapping[str, bool]:
        """Of all names that are wanted, whether they are held."""
        return {name: self.has(name) for name in self._wanted}

    def renew(self) -> None:
        """Make sure of what is held, and try to get what is wanted. Raises DataError when the server does not
        answer, or when somebody wants the database for himself; then nothing is held."""
        if self.engine is None:
            return
        with self._lock:
            if self._is_member and self._session is None:
                self.join()
                if self._agreed is not None:
                    self.agree(*self._agreed)
            for name in sorted(self._wanted - self._held):
                if self._ask("pg_try_advisory_lock(:a, :b)", a=NAMES, b=_number(name)):
                    self._held |= {name}
                    LOG.info("this service does: %s", name)
            self._ask("true")
            self._renewed = time.monotonic()

    def _work(self) -> None:
        while not self._closing.wait(RENEWED_SECONDS):
            try:
                self.renew()
                self.problem = None
            except DataError as error:
                if self.problem is None:
                    LOG.error("what one service alone may do stands still: %s", error)
                self.problem = str(error)

    def _ask(self, what: str, **values: int) -> bool:
        """The answer of the server, in the session that holds the locks. Raises DataError."""
        assert self.engine is not None
        with self._lock:
            try:
                if self._session is None:
                    self._session = self.engine.connect()
                    self._session.detach()  # its end is the end of its locks
                answer = self._session.execute(text(f"SELECT {what}"), values).scalar()
                self._session.rollback()
                return bool(answer)
            except SQLAlchemyError as error:
                self._end()
                said = in_one_line(getattr(error, "orig", None) or error)
                raise DataError(f"{self.name}: does not answer ({said}); is the server running?") from None

    def _end(self) -> None:
        """End the session, and with it all that it held."""
        self._held, session, self._session = frozenset(), self._session, None
        if session is not None:
            with suppress(SQLAlchemyError):
                session.close()


def _number(name: str) -> int:
    """32 bits, as the server wants them. Two names that share a number share a holder, which does no harm."""
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big", signed=True)
