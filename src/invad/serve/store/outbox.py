"""What sinks have not taken yet. A row goes when the sink has, so each result is delivered at least once."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.sql.elements import ColumnElement

from invad.serve.records import Result
from invad.serve.store import results
from invad.serve.store.results import in_parts
from invad.serve.store.schema import outbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A result that a sink should be given now, for the `attempts` + 1st time."""

    result: Result
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """Of one sink: results that wait, and since when the oldest of them was due, in milliseconds."""

    count: int
    oldest: int | None

    def age_seconds(self, now: int) -> float:
        """Of the oldest, 0 where nothing waits."""
        return 0 if self.oldest is None else max(0, now - self.oldest) / 1000


NONE = Pending(count=0, oldest=None)


LONGEST_PAUSE = 3600
"""Seconds between two tries with a result that a sink does not want, at most."""


def _are_due(sink: str, now: int) -> ColumnElement[bool]:
    """A time that lies further off than any pause was written before the clock was set back."""
    further = now + 1000 * LONGEST_PAUSE
    return (outbox.c.sink == sink) & ((outbox.c.next_try <= now) | (outbox.c.next_try > further))


def due(connection: Connection, sink: str, now: int, limit: int) -> list[Due]:
    """Those whose next try has come, in the order of storing."""
    wanted = (
        select(outbox.c.result, outbox.c.attempts)
        .where(_are_due(sink, now))
        .order_by(outbox.c.result)
        .limit(limit)
    )
    rows = connection.execute(wanted).all()
    stored = {one.result.id: one.result for one in results.by_ids(connection, [row.result for row in rows])}
    return [Due(result=stored[row.result], attempts=row.attempts) for row in rows]


def count_due(connection: Connection, sink: str, now: int, most: int) -> int:
    """How many `due` would find."""
    rows = select(outbox.c.result).where(_are_due(sink, now)).limit(most)
    return connection.scalar(select(func.count()).select_from(rows.subquery())) or 0


def delivered(connection: Connection, sink: str, ids: Sequence[str]) -> None:
    """The sink has these."""
    for some in in_parts(ids):
        connection.execute(delete(outbox).where(outbox.c.sink == sink, outbox.c.result.in_(some)))


def failed(connection: Connection, sink: str, id: str, next_try: int) -> None:
    """The sink did not take it; try again at `next_try`, at most `LONGEST_PAUSE` from now."""
    row = outbox.update().where(outbox.c.sink == sink, outbox.c.result == id)
    connection.execute(row.values(attempts=outbox.c.attempts + 1, next_try=next_try))


def discard(connection: Connection, sink: str) -> int:
    """Let go of all that waits for a sink; returns how many there were."""
    return connection.execute(delete(outbox).where(outbox.c.sink == sink)).rowcount


def pending(connection: Connection) -> dict[str, Pending]:
    """By sink."""
    counted = select(outbox.c.sink, func.count(), func.min(outbox.c.result)).group_by(outbox.c.sink)
    found = {}
    for sink, count, first in connection.execute(counted):
        stored = results.by_id(connection, first)
        found[sink] = Pending(count=count, oldest=None if stored is None else stored.time_ms)
    return found
