"""From the outbox to whoever is told of results: at least once, in the order of storing, for ever.

A sink that cannot be reached keeps all that comes after waiting, so the order holds. A single result that it
does not want is tried again by itself, later and later, and does not hold up the others.

Of several services on one database one delivers to a sink, what all of them have stored.
"""

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError, InvadError, in_one_line
from invad.records import Decision
from invad.serve.metrics import Metrics
from invad.serve.records import Result, SinkState
from invad.serve.store import outbox
from invad.serve.store.database import Database, now_ms, said

LOG = logging.getLogger("invad.serve")
AT_A_TIME = 32
LONGEST_WAIT = 30.0
"""Seconds between two tries to reach a sink, at most."""


class Unreachable(InvadError):
    """A sink takes nothing now; what waits is tried again in the same order. again: after so many seconds,
    or when there are new results; None for the more the longer it lasts."""

    def __init__(self, message: str, again: float | None = None):
        super().__init__(message)
        self.again = again


class Unwanted(InvadError):
    """A sink does not take this one result, though it takes others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Which results a sink is told of. name: in the outbox. station: None is all of them."""

    name: str
    station: str | None = None
    decisions: tuple[Decision, ...] = ("good", "review", "bad")

    def takes(self, result: Result) -> bool:
        return self.station in (None, result.station) and result.decision in self.decisions


class Sink(ABC):
    """Somebody who is told of results, from one thread. kind, place: what people call it, without secrets."""

    kind: str
    place: str
    at_a_time: int = AT_A_TIME
    """Results that it is handed at once, at most."""

    def takes_now(self, waiting: int) -> bool:
        """Whether to hand results over, or to let them gather; asked about once a second.

        waiting: how many there are, counted up to `at_a_time`.
        """
        return True

    @abstractmethod
    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        """Hand over results in their order, and give the id of each once it has been taken.

        What was given is never handed over again; what was not may be, so receivers tell results by their
        id. Raises Unreachable or Unwanted, of one line, for the first result that was not taken.
        """

    def problems(self) -> Iterator[str]:
        """Try to reach it, without handing over a result; what is wrong, a line each."""
        yield from ()

    def trouble(self) -> str | None:
        """What is wrong, in words, though nothing that was handed over was refused."""
        return None

    def idle(self) -> None:
        """Called about once a second while nothing is handed over; a connection may be kept alive here."""
        return

    def rest(self) -> None:
        """Another service delivers from now on, perhaps only for a while: let go of what one alone may have,
        such as a port. What is called next opens it again."""
        return

    def close(self) -> None:
        """Let go of what is open; called from the thread that delivers, or after it."""
        return


class Delivery:
    """A thread that empties one sink's part of the outbox. name: of the sink there."""

    def __init__(self, name: str, sink: Sink, database: Database, metrics: Metrics):
        self.name, self.sink, self.database, self.metrics = name, sink, database, metrics
        self._lease, self._is_mine = f"sink {name}", False
        self._delivered = self._failures = 0
        self._problem: str | None = None
        self._again: float | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"invad-sink-{name}", daemon=True)

    def start(self) -> None:
        self.database.leases.want(self._lease)
        self._thread.start()

    def wake(self) -> None:
        """There are new results."""
        self._wake.set()

    def close(self) -> None:
        """Stop after the delivery that is under way; what waits is delivered after the next start."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(1)  # a delivery that is cut is repeated

    def state(self, waiting: outbox.Pending) -> SinkState:
        """waiting: what the outbox holds for it."""
        return SinkState(
            kind=self.sink.kind,
            place=self.sink.place,
            problem=self._problem or self.sink.trouble(),
            waiting=waiting.count,
            oldest_seconds=waiting.age_seconds(now_ms()),
            delivered=self._delivered,
            elsewhere=not self.database.leases.has(self._lease),
        )

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            try:
                if not self._take_turn():
                    self._wake.wait(0.5)
                    continue
                busy = self._deliver_some()
            except (SQLAlchemyError, DataError) as error:
                LOG.error("the outbox cannot be read: %s", said(error))
                busy = False
            except Exception as error:  # a fault of ours must not end the deliveries without a word
                LOG.exception("the sink %s failed", self.name)
                self._trouble(in_one_line(error))
                busy = False
            if self._failures and self._again is not None:
                self._wake.wait(self._again)
            elif self._failures:
                self._closing.wait(min(LONGEST_WAIT, 2.0 ** (self._failures - 1)))
            elif not busy:
                self._wake.wait(1)
        self.sink.close()
        self.database.leases.give_up(self._lease)

    def _take_turn(self) -> bool:
        """Whether this service delivers to the sink."""
        is_mine = self.database.leases.has(self._lease)
        if self._is_mine and not is_mine:
            LOG.warning("another service delivers to %s", self.name)
            self._problem, self._failures = None, 0
            self.sink.rest()
        self._is_mine = is_mine
        return is_mine

    def _deliver_some(self) -> bool:
        """Whether something was taken, so that there may be more."""
        most, found = self.sink.at_a_time, []
        with self.database.read() as connection:
            waiting = outbox.count_due(connection, self.name, now_ms(), most)
            if waiting and self.sink.takes_now(waiting):
                found = outbox.due(connection, self.name, now_ms(), most)
        taken: list[str] = []
        unwanted = problem = None
        try:
            if not found:
                self.sink.idle()
            for id in self.sink.deliver([one.result for one in found]) if found else ():
                taken.append(id)
                if self._closing.is_set() or not self.database.leases.has(self._lease):
                    break
        except Unreachable as error:
            problem, self._again = str(error), error.again
        except Unwanted as error:
            unwanted = str(error)
        finally:
            self._delivered += len(taken)
            if taken:
                with self.database.write() as connection:
                    outbox.delivered(connection, self.name, taken)
        if unwanted is not None:
            self._put_back(next(one for one in found if one.result.id not in set(taken)), unwanted)
        self._trouble(problem)
        return bool(taken) or unwanted is not None

    def _put_back(self, one: outbox.Due, why: str) -> None:
        with self.database.write() as connection:
            outbox.failed(connection, self.name, one.result.id, now_ms() + 1000 * pause(one.attempts))
        self.metrics.errors.labels("sink").inc()
        LOG.warning("%s did not take result %s: %s", self.name, one.result.id, why)

    def _trouble(self, problem: str | None) -> None:
        self._failures = 0 if problem is None else self._failures + 1
        if problem != self._problem:
            if problem is None:
                LOG.info("%s takes results again", self.name)
            else:
                LOG.error("%s takes no results: %s", self.name, problem)
        if problem is not None:
            self.metrics.errors.labels("sink").inc()
        self._problem = problem
        self.metrics.sink_up.labels(self.name).set(problem is None)


class Deliveries:
    """All sinks of a service, each with a delivery of its own; they may come and go while it runs."""

    def __init__(self, database: Database, metrics: Metrics):
        self.database, self.metrics = database, metrics
        self._routes: dict[str, Route] = {}
        self._running: dict[str, Delivery] = {}

    def add(self, route: Route, sink: Sink) -> None:
        """Tell it of all results from now on, and of those that its name still has to be given."""
        delivery = Delivery(route.name, sink, self.database, self.metrics)
        self._running = {**self._running, route.name: delivery}
        self._routes = {**self._routes, route.name: route}
        delivery.start()

    def keep(self, route: Route) -> None:
        """Let results wait for a sink that another service has."""
        self._routes = {**self._routes, route.name: route}

    def forget(self, name: str) -> None:
        """Let none wait any more, where no sink was added meanwhile."""
        if name not in self._running:
            self._routes = {key: route for key, route in self._routes.items() if key != name}

    def remove(self, name: str) -> None:
        """Tell it of no more results; what waits for the name is kept."""
        self._routes = {key: route for key, route in self._routes.items() if key != name}
        self.rest(name)

    def rest(self, name: str) -> None:
        """Tell it of nothing until it is added again; what it is to be told meanwhile waits for it."""
        self._running[name].close()
        self._running = {key: one for key, one in self._running.items() if key != name}

    def names(self, result: Result) -> list[str]:
        """Of the sinks that a result goes to."""
        return [name for name, route in self._routes.items() if route.takes(result)]

    def wake(self, names: Iterable[str]) -> None:
        """These have new results."""
        for name in names:
            if (delivery := self._running.get(name)) is not None:
                delivery.wake()

    def states(self, station: str | None = None) -> dict[str, SinkState]:
        """By name: of the sinks that have results of that station alone, or with None of all stations."""
        routes = {name: route for name, route in self._routes.items() if route.station == station}
        return self._states(routes) if routes else {}

    def refresh_metrics(self) -> None:
        """What waits, also for names that no sink has any more."""
        with self.database.read() as connection:
            pending = outbox.pending(connection)
        for name in {*pending, *self._routes}:
            waiting = pending.get(name, outbox.NONE)
            self.metrics.pending.labels(name).set(waiting.count)
            self.metrics.oldest.labels(name).set(waiting.age_seconds(now_ms()))

    def close(self) -> None:
        for delivery in self._running.values():
            delivery.close()

    def _states(self, names: Iterable[str]) -> dict[str, SinkState]:
        with self.database.read() as connection:
            pending = outbox.pending(connection)
        running = self._running
        return {
            name: running[name].state(pending.get(name, outbox.NONE)) for name in names if name in running
        }


def pause(attempts: int) -> int:
    """Seconds until a result that was not wanted is tried again, after so many tries."""
    return int(min(outbox.LONGEST_PAUSE, 2 ** min(attempts, 12)))
