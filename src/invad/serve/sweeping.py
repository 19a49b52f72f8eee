"""What is older than it may be goes, now and then; of several services on one database one does it."""

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError
from invad.serve.metrics import Metrics
from invad.serve.options import Retention
from invad.serve.store import retention
from invad.serve.store.database import Database, now_ms, said
from invad.serve.store.files import Pictures

LOG = logging.getLogger("invad.serve")
SWEEP_SECONDS = 600.0
LEASE = "sweep"
LOOK_SECONDS = 5.0
"""Between two looks whether whoever swept is gone."""


class Sweeper:
    """A thread that sweeps at once and then every ten minutes."""

    def __init__(self, database: Database, files: Pictures, kept: Retention, metrics: Metrics):
        self.database, self.files, self.kept, self.metrics = database, files, kept, metrics
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="invad-sweep", daemon=True)

    def start(self) -> None:
        self.database.leases.want(LEASE)
        self._thread.start()

    def close(self) -> None:
        """Stop after the step that is under way."""
        self._closing.set()
        self._thread.join(1)

    def _work(self) -> None:
        while not self._closing.is_set():
            is_mine = self.database.leases.has(LEASE)
            if is_mine:
                self._sweep()
            self._closing.wait(SWEEP_SECONDS if is_mine else LOOK_SECONDS)

    def _sweep(self) -> None:
        try:
            swept = retention.sweep(self.database, self.files, self.kept, now_ms(), self._closing.is_set)
            if swept.files or swept.rows:
                LOG.info("swept: %d images, %d rows, %d files", swept.images, swept.rows, swept.files)
        except (SQLAlchemyError, DataError) as error:
            self.metrics.errors.labels("sweep").inc()
            LOG.error("nothing was swept: %s", said(error))
