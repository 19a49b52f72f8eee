"""Files of a watched folder that are done with but stay where they are, so that no start reads them again."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, delete, select

from invad.serve.store.schema import taken

Mark = tuple[int, int]
"""Bytes of a file, and its time in nanoseconds."""


def marks(connection: Connection, station: str) -> dict[str, Mark]:
    """Of every file that is remembered, by its path below the folder."""
    rows = connection.execute(select(taken).where(taken.c.station == station))
    return {row.path: (row.size, row.time_ns) for row in rows}


def remember(connection: Connection, station: str, files: Mapping[str, Mark]) -> None:
    """They are done with as they are now."""
    forget(connection, station, files)
    rows = [
        {"station": station, "path": path, "size": size, "time_ns": time_ns}
        for path, (size, time_ns) in files.items()
    ]
    if rows:
        connection.execute(taken.insert(), rows)


def forget(connection: Connection, station: str, paths: Iterable[str]) -> None:
    """They are gone, or something else now."""
    for path in paths:
        connection.execute(delete(taken).where(taken.c.station == station, taken.c.path == path))
