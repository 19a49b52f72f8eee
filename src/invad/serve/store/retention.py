"""What is kept how long. A file goes only after the database has named it as expired."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select, true

from invad.serve.options import DAY_MS, Retention
from invad.serve.store.database import Database
from invad.serve.store.files import Files
from invad.serve.store.schema import expired_file, outbox, region, result

AT_A_TIME = 500
"""Rows of one transaction: parts must not wait long for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one round took away."""

    images: int = 0
    rows: int = 0
    files: int = 0


def sweep(
    database: Database, files: Files, retention: Retention, now: int, stopping: Callable[[], bool]
) -> Swept:
    """Take away what is older than `retention` allows. now: milliseconds. stopping: asked between steps.

    Rows whose results a sink has not taken stay. Raises SQLAlchemyError, DataError.
    """
    images = rows = 0
    while not stopping() and (done := _expire_images(database, retention, now)):
        images += done
    while not stopping() and (done := _expire_rows(database, now - round(retention.rows * DAY_MS))):
        rows += done
        database.shrink()
    return Swept(images=images, rows=rows, files=remove_expired(database, files, stopping))


def remove_expired(database: Database, files: Files, stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete the files that the database names as expired; returns how many."""
    with database.read() as connection:
        named = connection.execute(select(expired_file.c.kind, expired_file.c.sha256)).all()
    removed = 0
    for kind, digest in named:
        if stopping():
            break
        # A part with the same picture may have come since: its row is looked for while none can be added.
        with database.write() as connection:
            if not _is_named(connection, kind, digest):
                if not files.remove(kind, digest):
                    continue
                removed += 1
            connection.execute(
                delete(expired_file).where(expired_file.c.kind == kind, expired_file.c.sha256 == digest)
            )
    return removed


def _expire_images(database: Database, retention: Retention, now: int) -> int:
    old = [
        and_(
            result.c.decision == decision, result.c.time < now - round(getattr(retention, decision) * DAY_MS)
        )
        for decision in ("good", "review", "bad")
    ]
    with database.write() as connection:
        return _expire(connection, and_(result.c.image_kept == true(), or_(*old)))


def _expire(connection: Connection, where: ColumnElement[bool]) -> int:
    columns = (result.c.id, result.c.image_sha256, result.c.map_sha256)
    found = connection.execute(select(*columns).where(where).limit(AT_A_TIME)).all()
    if found:
        ids = [row.id for row in found]
        gone = result.update().where(result.c.id.in_(ids)).values(image_kept=False, map_kept=False)
        connection.execute(gone)
        names = {("image", row.image_sha256) for row in found}
        _name_expired(connection, names | {("map", row.map_sha256) for row in found if row.map_sha256})
    return len(found)


def _expire_rows(database: Database, before: int) -> int:
    waiting = select(outbox.c.result).where(outbox.c.result == result.c.id).exists()
    with database.write() as connection:
        wanted = select(result.c.id).where(result.c.time < before, ~waiting).limit(AT_A_TIME)
        ids = connection.scalars(wanted).all()
        if ids:
            connection.execute(delete(region).where(region.c.result.in_(ids)))
            connection.execute(delete(result).where(result.c.id.in_(ids)))
        return len(ids)


def _name_expired(connection: Connection, names: set[tuple[str, str]]) -> None:
    """Those of the files that no row keeps any more."""
    for kind, digest in sorted(names):
        there = select(expired_file.c.kind).where(
            expired_file.c.kind == kind, expired_file.c.sha256 == digest
        )
        if not _is_named(connection, kind, digest) and connection.scalar(there) is None:
            connection.execute(expired_file.insert().values(kind=kind, sha256=digest))


def _is_named(connection: Connection, kind: str, digest: str) -> bool:
    """Whether a row keeps this file."""
    kept = result.c.image_kept if kind == "image" else result.c.map_kept
    named = result.c.image_sha256 if kind == "image" else result.c.map_sha256
    wanted = select(result.c.id).where(named == digest, kept == true()).limit(1)
    return connection.scalar(wanted) is not None
