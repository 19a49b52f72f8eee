"""What is kept how long. A file goes only after the database has named it as expired."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, or_, select, true

from invad.errors import DataError
from invad.serve.options import DAY_MS, Retention
from invad.serve.store.database import Database, now_ms
from invad.serve.store.files import Pictures
from invad.serve.store.prepared import Prepared
from invad.serve.store.schema import expired_file, outbox, region, result

REMOVED_MS = 3_600_000
"""How long files that were deleted stay named; no part is under way for so long."""

AT_A_TIME = 500
"""Rows of one transaction: parts must not wait long for it."""

_LISTED = select(expired_file.c.kind, expired_file.c.sha256)
_OF_ONE = Prepared(_LISTED.where(expired_file.c.sha256 == bindparam("digest")))
_OF_SEVERAL = _LISTED.where(expired_file.c.sha256.in_(bindparam("digests", expanding=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one round took away."""

    images: int = 0
    rows: int = 0
    files: int = 0


def sweep(
    database: Database, files: Pictures, retention: Retention, now: int, stopping: Callable[[], bool]
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


def remove_expired(database: Database, files: Pictures, stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete the files that the database names as expired; returns how many.

    They stay named for an hour: who has written one of them anew meanwhile, and names it in a row only now,
    learns by that that it may be gone. See `want`. Raises SQLAlchemyError, DataError.
    """
    if (problem := files.problem()) is not None:  # nobody can write while a file is being deleted
        raise DataError(problem)
    now = now_ms()
    with database.write() as connection:
        connection.execute(delete(expired_file).where(expired_file.c.removed < now - REMOVED_MS))
    with database.read() as connection:
        waiting = select(expired_file.c.kind, expired_file.c.sha256).where(expired_file.c.removed.is_(None))
        named = connection.execute(waiting).all()
    removed = 0
    for kind, digest in named:
        if stopping():
            break
        of_file = (expired_file.c.kind == kind, expired_file.c.sha256 == digest)
        # A part with the same picture may have come since: its row is looked for while none can be added.
        with database.write() as connection:
            if _is_named(connection, kind, digest):
                connection.execute(delete(expired_file).where(*of_file))
            else:
                files.remove(kind, digest)
                connection.execute(expired_file.update().where(*of_file).values(removed=now))
                removed += 1
    return removed


def want(connection: Connection, names: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Files that a row is about to name do not expire; returns those that may be gone already, or never come,
    so that they are to be written anew before the transaction ends."""
    digests = list({digest for _, digest in names})
    if len(digests) == 1:
        listed = _OF_ONE.run(connection, [{"digest": digests[0]}])
    else:
        listed = list(connection.execute(_OF_SEVERAL, {"digests": digests}))
    found = {(kind, digest) for kind, digest in listed} & set(names)
    for kind, digest in found:
        of_file = (expired_file.c.kind == kind, expired_file.c.sha256 == digest)
        connection.execute(delete(expired_file).where(*of_file))
    return found


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
        if not _is_named(connection, kind, digest):
            of_file = (expired_file.c.kind == kind, expired_file.c.sha256 == digest)
            if not connection.execute(expired_file.update().where(*of_file).values(removed=None)).rowcount:
                connection.execute(expired_file.insert().values(kind=kind, sha256=digest))


def _is_named(connection: Connection, kind: str, digest: str) -> bool:
    """Whether a row keeps this file."""
    kept = result.c.image_kept if kind == "image" else result.c.map_kept
    named = result.c.image_sha256 if kind == "image" else result.c.map_sha256
    wanted = select(result.c.id).where(named == digest, kept == true()).limit(1)
    return connection.scalar(wanted) is not None
