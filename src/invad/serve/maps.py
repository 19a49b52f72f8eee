"""Maps of parts whose answer did not wait for them, because a controller does."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from invad.serve.pictures import encode_map
from invad.serve.store import results, retention

LOG = logging.getLogger("invad.serve")
GATHERED_SECONDS = 0.3
"""How long maps wait for a transaction with results before they get one of their own."""

WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Kept:
    id: str
    digest: str
    png: bytes


class LateMaps:
    """Writes maps beside everything else, and names them in rows that are there already."""

    def __init__(
        self, executor: Executor, keep: Callable[[str, bytes, str, bool], bool], written: Callable[[], None]
    ):
        """keep: writes a file of a kind, anew if asked, and says whether it is there. written: called when
        there is one more to name."""
        self.executor, self.keep, self.written = executor, keep, written
        self._open: set[str] = set()
        self._kept: list[_Kept] = []
        self._since = 0.0
        self._changed = threading.Condition()

    def expect(self, id: str) -> None:
        """The map of a result that is stored will be added: whoever asks for it waits."""
        with self._changed:
            self._open.add(id)

    def add(self, id: str, map_HW: NDArray[np.float32]) -> None:
        """The map that was expected."""
        try:
            self.executor.submit(self._write, id, map_HW)
        except RuntimeError:  # the service ends without waiting
            self._drop(id)

    def wait(self, id: str) -> None:
        """Until the row of a result says whether it has a map, for a few seconds at most."""
        with self._changed:
            self._changed.wait_for(lambda: id not in self._open, WAIT_SECONDS)

    @property
    def due(self) -> float | None:
        """Seconds until those that were written should be named; None where there are none."""
        kept = self._kept
        return max(0.0, self._since + GATHERED_SECONDS - time.monotonic()) if kept else None

    def name(self, connection: Connection) -> "Sequence[_Kept]":
        """Name in their rows what was written; those that it returns are `named` when that is committed."""
        with self._changed:
            kept = list(self._kept)
        files = {("map", one.digest): one for one in kept}
        lost = {
            digest
            for kind, digest in sorted(retention.want(connection, set(files)) if files else ())
            if not self.keep(kind, files[kind, digest].png, digest, True)
        }
        results.name_maps(connection, {one.id: one.digest for one in kept if one.digest not in lost})
        return kept

    def named(self, kept: "Sequence[_Kept]") -> None:
        """The transaction has ended well."""
        if kept:
            with self._changed:
                self._kept = [one for one in self._kept if one not in kept]
                self._open -= {one.id for one in kept}
                self._changed.notify_all()

    def later(self) -> None:
        """They could not be named now."""
        self._since = time.monotonic()

    def _drop(self, id: str) -> None:
        with self._changed:
            self._open.discard(id)
            self._changed.notify_all()

    def _write(self, id: str, map_HW: NDArray[np.float32]) -> None:
        try:
            png = encode_map(map_HW)
            digest = sha256(png).hexdigest()
            there = self.keep("map", png, digest, False)
        except Exception:  # it costs the map, not the result
            LOG.exception("a map was not kept")
            there = False
        if not there:
            self._drop(id)
            return
        with self._changed:
            self._since = self._since if self._kept else time.monotonic()
            self._kept.append(_Kept(id, digest, png))
        self.written()
