"""A copy of a data folder while its service runs, and back again."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from sqlite3 import DatabaseError, connect

from sqlalchemy import Connection, func, select, true

from invad.errors import ArtifactError, DataError
from invad.runtime.bundle import is_bundle, read_bundle
from invad.serve.store import keys, outbox, stations
from invad.serve.store.database import FILE, Database, copy_sqlite, note
from invad.serve.store.files import KINDS, Files, Pictures
from invad.serve.store.objects import open_pictures
from invad.serve.store.schema import result
from invad.serve.store.stations import Version
from invad.system.files import is_file, is_folder, is_there, make_folder, writing
from invad.system.lock import sole_writer

FILES = "files"
MODELS = "models"
UNFINISHED_MODEL = "unfinished-"
"""Begins the name of a folder of a version that is being filled; it is emptied when a service starts."""
COMMAND_LINE = "command line"
"""In the audit table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """results, files: in the copy. missing: files that rows name and that were not there."""

    results: int
    files: int
    missing: int


def backup(folder: Path, target: Path, pictures: str | None = None) -> Copied:
    """Copy database and files of the data folder to `target`; files that are there already are kept.
    pictures: where they are, if not in the folder; in the copy they are.

    The service may run: the rows are those of one moment, and files are never changed, only removed when they
    have expired. Raises DataError, ArtifactError.
    """
    require_database(folder)
    make_folder(target)
    target_database = target / FILE
    copy_sqlite(folder / FILE, target_database)
    _copy_models(folder, target)
    return _copy_files(open_pictures(folder / FILES, pictures), target, Files(target / FILES))


def restore(source: Path, folder: Path, pictures: str | None = None) -> Copied:
    """Make a data folder of a backup, with `pictures` there in place of the folder. Raises DataError when
    there is something in the folder already."""
    require_database(source)
    if is_there(folder) and (not is_folder(folder) or any(folder.iterdir())):
        raise DataError(f"{folder}: is not empty; restore into a new folder")
    for problem in problems(source):
        raise ArtifactError(f"{source}: {problem}; take another backup")
    make_folder(folder)
    copy_sqlite(source / FILE, folder / FILE)
    _copy_models(source, folder)
    return _copy_files(Files(source / FILES), folder, open_pictures(folder / FILES, pictures))


def problems(folder: Path) -> list[str]:
    """What is wrong with the database file of a data folder, in words; every page of it is read."""
    try:
        connection = connect(f"file:{folder / FILE}?mode=ro", uri=True)
        try:
            lines = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
            broken = [
                f"row of {row[0]} that leads nowhere"
                for row in connection.execute("PRAGMA foreign_key_check")
            ]
        finally:
            connection.close()
    except DatabaseError as error:
        return [f"{FILE} is damaged ({error})"]
    found = [line for line in lines if line != "ok"] + broken[:3]
    return [f"{FILE} is damaged ({line})" for line in found]


def strays(database: Database, files: Pictures) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Files that rows name and that are missing, and files that no row names."""
    named: set[tuple[str, str]] = set()
    with database.read() as connection:
        for column, kept, kind in (
            (result.c.image_sha256, result.c.image_kept, "image"),
            (result.c.map_sha256, result.c.map_kept, "map"),
        ):
            named |= {(kind, digest) for digest in connection.scalars(select(column).where(kept == true()))}
    there = set(files.names())
    return sorted(named - there), sorted(there - named)


def altered(files: Pictures) -> list[tuple[str, str]]:
    """Files whose content is not what their name says; all are read."""
    return [
        (kind, digest)
        for kind, digest in files.names()
        if (content := files.get(kind, digest)) is not None and sha256(content).hexdigest() != digest
    ]


def altered_models(folder: Path, versions: Sequence[Version]) -> list[str]:
    """What is wrong with the folders of versions, one line each; those of bundles are read whole."""
    lines = []
    for one in versions:
        there = folder / one.hash
        if not is_folder(there):
            # One that a program gave as an object has none; one that was uploaded has.
            if "proved" in one.content:
                lines.append(f"version {one.hash[:12]} of model {one.model} is gone")
        elif is_bundle(there):
            try:
                read_bundle(there)
            except ArtifactError as error:
                lines.append(f"version {one.hash[:12]} of model {one.model}: {error}")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """damaged, lost: what rows or files miss, one line each. unnamed: files that no row names. waiting: how
    many results each output has to be told, by its name."""

    results: int
    files: int
    damaged: tuple[str, ...]
    lost: tuple[str, ...]
    unnamed: tuple[str, ...]
    waiting: Mapping[str, int]


def check(folder: Path, url: str | None = None, pictures: str | None = None) -> Checked:
    """Read all rows and files of a data folder, and change none. pictures: where they are, if not there.

    Raises DataError when a service uses it or there is no database, ArtifactError for an unreadable one.
    """
    if url is None:
        require_database(folder)
    with sole_writer(folder, "service"):
        damaged = problems(folder) if url is None else []
        if damaged:
            return Checked(results=0, files=0, damaged=tuple(damaged), lost=(), unnamed=(), waiting={})
        files = open_pictures(folder / FILES, pictures)
        database = Database(folder, url, alone=True)
        try:
            lost, unnamed = strays(database, files)
            with database.read() as connection:
                count = connection.scalar(select(func.count()).select_from(result)) or 0
                kept = [one for one in stations.versions(connection) if one.retired is None]
                waiting = {name: one.count for name, one in outbox.pending(connection).items()}
        finally:
            database.close()
        damaged = [f"{kind} {digest} is altered" for kind, digest in altered(files)]
        damaged += altered_models(folder / MODELS, kept)
        return Checked(
            results=count,
            files=len(list(files.names())),
            damaged=tuple(damaged),
            lost=tuple(f"{kind} {digest} is lost" for kind, digest in lost),
            unnamed=tuple(f"{kind} {digest} is named by no result" for kind, digest in unnamed),
            waiting=waiting,
        )


def make_key(
    folder: Path, url: str | None, name: str, scopes: Sequence[str], stations: Sequence[str] | None
) -> str:
    """The secret of a new key; the service may be running. Raises DataError where there is no database."""
    with beside(folder, url) as connection:
        secret, key = keys.make(connection, name, scopes, stations)
        note(connection, COMMAND_LINE, "make key", {"key": key.id, "scopes": list(scopes)})
    return secret


@contextmanager
def beside(folder: Path, url: str | None) -> Iterator[Connection]:
    """One transaction in a database whose service may be running. Raises DataError where there is none."""
    if url is None:
        require_database(folder)
    database = Database(folder, url, beside=True)
    try:
        with database.write() as connection:
            yield connection
    finally:
        database.close()


def require_database(folder: Path) -> None:
    """Raises DataError where there is no database file."""
    if not is_file(folder / FILE):
        raise DataError(
            f"{folder}: holds no {FILE}; give the data folder of a service. A PostgreSQL database is copied "
            "by pg_dump, and its files by any copy of the folder"
        )


def _copy_models(source: Path, target: Path) -> None:
    """Folders of versions that are in use, each whole or not at all."""
    database = Database(target)
    try:
        with database.read() as connection:
            hashes = [one.hash for one in stations.versions(connection) if one.retired is None]
    finally:
        database.close()
    source, target = source / MODELS, target / MODELS
    make_folder(target)
    for hash in hashes:
        if is_folder(target / hash) or not is_folder(source / hash):
            continue
        partial = target / f"{UNFINISHED_MODEL}{hash[:16]}"
        with writing(partial):
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(source / hash, partial)
            partial.replace(target / hash)


def _copy_files(source: Pictures, target: Path, copy: Pictures) -> Copied:
    database = Database(target)
    try:
        lost, _ = strays(database, source)
        with database.read() as connection:
            count = connection.scalar(select(func.count()).select_from(result)) or 0
            columns = select(result.c.image_sha256, result.c.map_sha256)
            rows = connection.execute(columns.where(result.c.image_kept == true())).all()
        names = {(kind, digest) for row in rows for kind, digest in zip(KINDS, row, strict=True) if digest}
        copied, missing = 0, 0
        for kind, digest in sorted(names - set(lost)):
            content = source.get(kind, digest)
            if content is None:
                missing += 1
                continue
            copy.put(kind, content, digest)
            copied += 1
        return Copied(results=count, files=copied, missing=missing + len(lost))
    finally:
        database.close()
