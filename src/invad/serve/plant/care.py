"""What is looked after beside a handshake: rows of late parts, and a controller that does not do its part."""

import logging
import time
from collections import deque

from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError
from invad.serve.plant import cycle as rules
from invad.serve.plant.cycle import Cycle, Terms
from invad.serve.service import Service
from invad.serve.store import results
from invad.serve.store.database import said

LOG = logging.getLogger("invad.serve")
PATIENCE = 5.0
"""Seconds after which a controller that does not do its part is named."""


class Care:
    """Of one station. What it does may wait; it is done from one thread.

    problem: what the controller does not do, in words. away: why it cannot be reached, in words, as whoever
    speaks with it says. unmarked: late results whose rows do not say so yet.
    """

    def __init__(self, service: Service, station: str, terms: Terms, patience: float):
        self.service, self.station, self.terms, self.patience = service, station, terms, patience
        self.problem: str | None = None
        self.away: str | None = None
        self.unmarked: deque[str] = deque()
        self._life = time.monotonic()

    def alive(self) -> None:
        """The controller gave a sign of life."""
        self._life = time.monotonic()

    def mark_late(self) -> None:
        """Rows that the database does not take now are tried again."""
        try:
            while self.unmarked:
                with self.service.database.write() as connection:
                    results.mark_late(connection, self.unmarked[0])
                self.unmarked.popleft()
        except (SQLAlchemyError, DataError) as error:
            LOG.error("a late result was not marked: %s", said(error))
            time.sleep(0.2)

    def look(self, cycle: Cycle) -> None:
        """Name what the controller does not do, and that it does it again."""
        problem = self._found_wrong(cycle)
        if (problem is None) != (self.problem is None):
            if problem is None:
                LOG.info("the controller of station %s does its part again", self.station)
            else:
                LOG.error("station %s: %s", self.station, problem)
        self.problem = problem
        self.service.metrics.controller_up.labels(self.station).set(problem is None)

    def _found_wrong(self, cycle: Cycle) -> str | None:
        now = time.monotonic()
        if self.away is not None:
            return self.away
        if self.terms.watchdog is not None and now - self._life > self.terms.watchdog:
            return f"the controller has given no sign of life for {now - self._life:.0f} s"
        return rules.overdue(cycle, self.terms, now, self.patience)
