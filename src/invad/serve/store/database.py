"""The database: opened, recognised and brought up to date; a server's may be used by several services."""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.pool import QueuePool

from invad.errors import ArtifactError, ConfigError, DataError, in_one_line
from invad.serve.store.leases import PRESENCE, Leases
from invad.serve.store.schema import audit, result
from invad.system.packages import importing

FILE = "invad.db"
DRIVER = "psycopg"
"""Whose connections take what is set here."""

BUSY_MS = 5000
READERS = 8
PAGES_AT_A_TIME = 2000
LOG_PAGES = 4000
"""Of SQLite's log, from which on a transaction settles it by itself."""

WRITING = PRESENCE + 1
"""Of the advisory lock of a server that a transaction which writes holds."""

MIGRATE_SECONDS = 30.0
"""How long a database whose tables somebody else makes or updates is waited for."""

SERVER = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
"""Both ends find out within eleven seconds that the other one is cut off."""

LIMITS = {"lock_timeout": "10s", "idle_in_transaction_session_timeout": "60s"}
"""Of whoever writes: a process that stands still must not keep all others from writing for ever."""

RESTORE = "restore a backup with 'invad serve restore'"


class Database:
    """Rows. Reads may run side by side; writes go one after the other."""

    def __init__(self, folder: Path, url: str | None = None, *, beside: bool = False, alone: bool = False):
        """Open it, make or update its tables. folder: holds the SQLite file where there is no `url`. beside:
        for a moment, beside a service that may be running. alone: a server's database is for nobody else
        meanwhile; otherwise several services may have it. A file is kept from others by the lock of its
        folder.

        Raises ArtifactError for a database that is damaged, foreign or newer than this invad, DataError for
        a server that does not answer or that another service uses, ConfigError for an impossible address.
        """
        self.path = None if url else folder / FILE
        self.name = str(self.path) if self.path else _without_password(str(url))
        self.writer, self.reader = _engines(url or f"sqlite:///{self.path}")
        self.leases = Leases(None if self.path else self.reader, self.name)
        self._writing = threading.Lock()
        self._file: tuple[int, int] | None = None
        try:
            self.is_new = self._prepare()
            if beside:
                self.leases.with_others()
            else:
                self.leases.join(alone=alone)
            self._file = self._file_id()
        except BaseException:
            self.close()
            raise

    @property
    def is_shared(self) -> bool:
        """Whether other services may use it, too."""
        return self.path is None

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of the block is stored when it ends, or nothing. No other one writes
        meanwhile, in no process, and what earlier ones have written is seen.

        Raises SQLAlchemyError, DataError when the file is gone.
        """
        with self._writing:
            self._require_same_file()
            with self.writer.begin() as connection:
                if self.is_shared:  # SQLite has begun with a lock of its own
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITING})")
                yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One view of what is stored. Raises SQLAlchemyError."""
        with self.reader.connect() as connection:
            yield connection

    def shrink(self) -> None:
        """Give pages of a SQLite file that deleted rows have left back to the disk, some at a time.

        Raises DataError.
        """
        self._pragma(f"incremental_vacuum({PAGES_AT_A_TIME})")

    def settle(self) -> None:
        """Bring what the log of a SQLite file holds into the file. A transaction that comes upon a long log
        does so by itself, while somebody waits for what it stores. Raises DataError."""
        self._pragma("wal_checkpoint(PASSIVE)")

    def _pragma(self, words: str) -> None:
        if self.path is None:
            return
        with self._writing:
            self._require_same_file()
            pooled = self.writer.raw_connection()
            try:
                driver: Any = pooled.driver_connection
                # As a script: `execute` stops after the first page, because there are no columns.
                driver.executescript(f"PRAGMA {words}")
            except sqlite3.Error as error:
                raise DataError(f"{self.name}: {in_one_line(error)}") from None
            finally:
                pooled.close()

    def problem(self) -> str | None:
        """Why nothing can be written now; None when it can."""
        if not self._writing.acquire(timeout=1):
            return None  # somebody is writing, and will be told
        try:
            self._require_same_file()
            with self.writer.connect() as connection:  # which begins to write
                connection.execute(select(1))
                connection.rollback()
        except (SQLAlchemyError, DataError) as error:
            return said(error)
        finally:
            self._writing.release()
        return self.leases.problem

    def close(self) -> None:
        """Let go of it."""
        self.leases.close()
        self.reader.dispose()
        self.writer.dispose()

    def _file_id(self) -> tuple[int, int] | None:
        """Which file it is, by device and number."""
        try:
            found = self.path.stat() if self.path is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_dev, found.st_ino)

    def _require_same_file(self) -> None:
        """SQLite goes on writing to a file that was removed, where nobody finds it again."""
        if self._file is not None and self._file_id() != self._file:
            raise DataError(f"{self.path}: is gone or another file; bring it back, or stop and {RESTORE}")

    def _prepare(self) -> bool:
        """Make or update the tables; returns whether there were none."""
        if self.path is not None:
            with suppress(OSError):  # connecting says it better
                self.path.touch()
        try:
            with self.reader.connect() as connection:
                tables = inspect(connection).get_table_names()
                there = MigrationContext.configure(connection).get_current_revision()
                if there is not None:
                    connection.execute(select(result.c.id).limit(1))
        except DBAPIError as error:
            if self.path is None:
                raise DataError(
                    f"{self.name}: does not answer ({said(error)}); is the server running?"
                ) from None
            if isinstance(error, OperationalError):
                raise DataError(f"{self.name}: cannot be opened ({said(error)})") from None
            raise ArtifactError(f"{self.name}: damaged ({said(error)}); {RESTORE}") from None
        if there is None and tables:
            raise ArtifactError(
                f"{self.name}: holds tables of another program ({', '.join(sorted(tables)[:3])}); give "
                "another database"
            )
        configuration = migrations()
        script = ScriptDirectory.from_config(configuration)
        newest = script.get_current_head()
        if there == newest:
            return False
        try:
            script.get_revision(there or "base")
        except CommandError:
            raise ArtifactError(
                f"{self.name}: of a newer invad (step {there}, this one knows up to {newest}); use that invad"
            ) from None
        if there is not None and self.path is not None:
            copy_sqlite(self.path, self.path.with_name(f"{FILE}.before-{newest}"))
        until = time.monotonic() + MIGRATE_SECONDS
        while not self.leases.try_alone():  # two services that start at once both come here
            if self._revision() == newest:
                return False
            if time.monotonic() > until:
                raise DataError(
                    f"{self.name}: is of an older invad, and services use it; stop all of them first"
                )
            time.sleep(0.1)
        with self.write() as connection:
            there = MigrationContext.configure(connection).get_current_revision()
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
            if there not in (None, newest):
                note(connection, "invad", "migrate", {"from": there, "to": newest})
        return there is None

    def _revision(self) -> str | None:
        with self.reader.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()


def migrations() -> Config:
    """How Alembic finds the steps."""
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    configuration.set_main_option("path_separator", "os")
    return configuration


def note(connection: Connection, who: str, action: str, content: dict[str, Any]) -> None:
    """A row of the audit table: who changed what."""
    connection.execute(
        audit.insert().values(time=now_ms(), who=who, action=action, content=json.dumps(content))
    )


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def said(error: Exception) -> str:
    """What the database itself said, in one line, without the statement and its values."""
    return in_one_line(error.orig or error) if isinstance(error, DBAPIError) else in_one_line(error)


def copy_sqlite(source: Path, target: Path) -> None:
    """A whole copy of a database that may be in use, complete or not at all. Raises ArtifactError."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        read, written = sqlite3.connect(source), sqlite3.connect(partial)
        try:
            read.backup(written)
        finally:
            written.close()
            read.close()
        partial.replace(target)
    except sqlite3.Error as error:
        partial.unlink(missing_ok=True)
        raise ArtifactError(f"{source}: cannot be copied to {target} ({in_one_line(error)})") from None


def _engines(url: str) -> tuple[Engine, Engine]:
    """(writer, reader)."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            if parsed.get_driver_name() != DRIVER:
                raise NoSuchModuleError
            with importing((DRIVER,), "postgres", "PostgreSQL"):
                import psycopg  # noqa: F401
            ends = {"connect_timeout": 5, "tcp_user_timeout": 10_000, **SERVER}
            shared: dict[str, Any] = {"pool_pre_ping": True, "connect_args": ends}
            writer = create_engine(parsed, pool_size=1, max_overflow=0, **shared)
            reader = create_engine(parsed, pool_size=READERS, **shared)
            _speak_postgres(writer, LIMITS)
            _speak_postgres(reader, {})
            return writer, reader
        if parsed.get_backend_name() != "sqlite":
            raise ConfigError(f"database {_without_password(url)}: give postgresql+psycopg://USER@HOST/NAME")
        writer = create_engine(parsed, poolclass=QueuePool, pool_size=1, max_overflow=0)
        reader = create_engine(
            parsed, poolclass=QueuePool, pool_size=READERS, creator=partial(_existing, str(parsed.database))
        )
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            f"database {_without_password(url)}: is no address; give postgresql+psycopg://USER@HOST/NAME"
        ) from None
    _speak_sqlite(writer, "BEGIN IMMEDIATE")
    _speak_sqlite(reader, "BEGIN")
    return writer, reader


def _speak_postgres(engine: Engine, limits: Mapping[str, str]) -> None:
    """Set what the server does; a program between us may know no settings of the connection itself."""
    wanted = {**{f"tcp_{name}": str(value) for name, value in SERVER.items()}, **limits}

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        connection.execute("; ".join(f"SET {name} = '{value}'" for name, value in wanted.items()))
        connection.autocommit = False


def _existing(path: str) -> sqlite3.Connection:
    """Where the file is away for a moment, a reader must not make an empty one in its place."""
    return sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, check_same_thread=False)


def _speak_sqlite(engine: Engine, begin: str) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transactions of its own
        for line in (
            "auto_vacuum = INCREMENTAL",  # which only a database without tables takes
            f"busy_timeout = {BUSY_MS}",
            "journal_mode = WAL",
            f"wal_autocheckpoint = {LOG_PAGES}",
            "synchronous = FULL",
            "foreign_keys = ON",
        ):
            connection.execute(f"PRAGMA {line}")

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)


def _without_password(url: str) -> str:
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url
