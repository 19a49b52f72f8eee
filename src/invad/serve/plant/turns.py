"""A source that one of several services runs: another begins it when the one that had it is gone."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from invad.serve.plant.sources import Source
from invad.serve.records import Refused, Result, SourceState
from invad.serve.store.leases import Leases

LOG = logging.getLogger("invad.serve")
LOOK_SECONDS = 0.5


class InTurn(Source):
    """Runs a source while this service is the one to do so."""

    def __init__(self, station: str, lease: str, leases: Leases, made: Callable[[], Source]):
        """lease: what the service holds that runs it. made: gives a new source that was not started, each
        time."""
        self.station, self.leases, self.made, self._lease = station, leases, made, lease
        self._source, self._runs = made(), False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"invad-turn-{station}", daemon=True)

    def start(self) -> None:
        self.leases.want(self._lease)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self.leases.give_up(self._lease)

    def state(self) -> SourceState:
        return replace(self._source.state(), elsewhere=not self._runs)

    def take(self, part_id: str | None, lot: str | None, request_id: str) -> "Future[Result]":
        if not self._runs:
            raise Refused("another service has the source of this station", 503, 1, "source")
        return self._source.take(part_id, lot, request_id)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                self._look()
            except Exception:  # a fault of ours must not end the station without a word
                LOG.exception("the source of station %s failed", self.station)
            self._closing.wait(LOOK_SECONDS)
        if self._runs:
            self._source.close()

    def _look(self) -> None:
        is_mine = self.leases.has(self._lease)
        if is_mine and not self._runs:
            self._source.start()
            self._runs = True
        elif self._runs and not is_mine:
            LOG.warning("another service takes the parts of station %s", self.station)
            self._source.close()
            self._source, self._runs = self.made(), False
