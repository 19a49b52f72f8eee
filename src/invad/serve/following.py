"""Once a second, what other services on the same database have changed: models, limits, drift.

Limits are followed by looking, not by being told: who was cut off for a while then needs no list of what it
has missed.
"""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError, InvadError, in_one_line
from invad.serve.store import stations
from invad.serve.store.database import Database, said
from invad.serve.watching import Watch

LOG = logging.getLogger("invad.serve")
LOOK_SECONDS = 1.0
LEASE = "drift"


class Following:
    """A thread beside a service. problem: why it does not decide as the others do, in words, or None."""

    def __init__(self, database: Database, watch: Watch, refresh: Callable[[], None]):
        """refresh: called where something else is in force than before."""
        self.database, self.watch, self.refresh = database, watch, refresh
        self.problem: str | None = None
        self._known: object = None
        self._cut_off = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="invad-follow", daemon=True)

    def start(self) -> None:
        """Begin, where there may be others."""
        if self.database.is_shared:
            self.database.leases.want(LEASE)
            self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(2)

    def look(self) -> None:
        """Follow what has changed. Raises SQLAlchemyError, DataError when the database does not answer."""
        with self.database.read() as connection:
            now = stations.whole(connection)
        if now != self._known or self.problem is not None:
            self._refresh()
            self._known = now
        self.watch.follow(self.database.leases.has(LEASE))

    def _refresh(self) -> None:
        try:
            self.refresh()
            self.problem = None
        except InvadError as error:
            problem = f"what other services have put in force cannot be used here: {in_one_line(error)}"
            if problem != self.problem:
                LOG.error("no parts are taken: %s", problem)
            self.problem = problem

    def _work(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            try:
                self.look()
                self._cut_off = False
            except (SQLAlchemyError, DataError) as error:
                if not self._cut_off:
                    LOG.error("other services are not followed: %s", said(error))
                self._cut_off = True
            except Exception:  # a fault of ours must not end it without a word
                LOG.exception("other services are not followed")
