"""Images that appear in a folder: found by looking again and again, read when they stay as they are.

What the system tells of new files only hastens the next look, because shares tell nothing. A file is a part
by its path and content: whatever is cut off, and whenever, a later look finds the file again, and the same
content under the same path gives the result that there is.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from invad.data.listing import stem
from invad.errors import DataError, InvadError, in_one_line, reason
from invad.serve.plant.found import File, files_in, mark_of, move
from invad.serve.plant.lineup import Station
from invad.serve.plant.sources import FolderSource, Source
from invad.serve.records import LONGEST_WORD, Part, Refused, Result, SourceState
from invad.serve.service import Service
from invad.serve.store import taken
from invad.serve.store.database import said

LOG = logging.getLogger("invad.serve")
SOURCE = "folder"
PATIENCE = 10.0
"""Seconds that a file which cannot be read is taken for one that is still being written."""

REMEMBERED = 64
"""Files that are done with, at most, before they are remembered in the database."""

LONGEST_WAIT = 5.0
"""Seconds between two tries to hand a part to a line that is full."""


class FolderWatch(Source):
    """Hands the images of a folder to a service, in the order of their times, from a thread of its own."""

    def __init__(self, service: Service, station: Station, source: FolderSource):
        self.service, self.station, self.source = service, station, source
        self.folder = Path(source.path)
        self._done: dict[str, taken.Mark] = {}  # files that are done with and stay
        self._unsaved: dict[str, taken.Mark] = {}
        self._first: dict[str, tuple[taken.Mark, float]] = {}  # since when a file is as it is
        self._named: set[str] = set()
        self._counts = {"taken": 0, "failed": 0}
        self._waiting = self._other = 0
        self._problem: str | None = None
        self._known = False
        self._stop, self._wake = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"invad-folder-{station.name}", daemon=True),
            threading.Thread(target=self._listen, name=f"invad-events-{station.name}", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more files, and wait for the answers of those under way."""
        self._stop.set()
        self._wake.set()
        self._threads[0].join()

    def state(self) -> SourceState:
        return SourceState(
            kind=self.source.kind,
            place=self.source.path,
            problem=self._problem,
            waiting=self._waiting,
            taken=self._counts["taken"],
            failed=self._counts["failed"],
            other=self._other,
        )

    # ------------------------------------------------------------------ the thread

    def _work(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._recall()
                self._look()
                self._trouble(None)
            except OSError as error:
                self._trouble(f"{self.folder}: {reason(error, writing=False)}")
            except SQLAlchemyError as error:
                self._trouble(f"the database does not answer ({said(error)})")
            except InvadError as error:
                self._trouble(in_one_line(error))
            except Exception as error:  # a fault of ours must not end the station without a word
                LOG.exception("the source of station %s failed", self.station.name)
                self._trouble(in_one_line(error))
            # What is not settled yet should not wait for a whole rescan.
            soon = min(self.source.settle, self.source.rescan) if self._first else self.source.rescan
            self._wake.wait(max(soon, 0.02))
        with suppress(SQLAlchemyError, DataError):
            self._save()

    def _listen(self) -> None:
        """Look at once when the system tells of a change."""
        if find_spec("watchfiles") is None:
            return
        import watchfiles

        while not self._stop.is_set():
            with suppress(Exception):  # the next look says what is wrong with the folder
                for _ in watchfiles.watch(
                    self.folder,
                    watch_filter=None,
                    debounce=100,
                    step=20,
                    stop_event=self._stop,
                    recursive=self.source.recursive,
                ):
                    self._wake.set()
            self._stop.wait(self.source.rescan)

    def _trouble(self, problem: str | None) -> None:
        if problem != self._problem:
            if problem is None:
                LOG.info("the source of station %s is back", self.station.name)
            else:
                self.service.metrics.errors.labels("source").inc()
                LOG.error("station %s takes no images: %s", self.station.name, problem)
        self._problem = problem
        self.service.metrics.source_up.labels(self.station.name).set(problem is None)

    def _recall(self) -> None:
        """What earlier starts were done with."""
        if not self._known:
            with self.service.database.read() as connection:
                self._done = taken.marks(connection, self.station.name)
            self._known = True

    def _save(self) -> None:
        if self._unsaved:
            with self.service.database.write() as connection:
                taken.remember(connection, self.station.name, self._unsaved)
            self._unsaved = {}

    # ------------------------------------------------------------------ one look

    def _look(self) -> None:
        """Find what is there, and hand over what stayed as it is for long enough."""
        found, others = files_in(self.folder, self.source.pattern, recursive=self.source.recursive)
        self._other = len(others)
        for name in others:
            self._name_other(name)
        self._forget_gone(found)
        now, ready = time.monotonic(), []
        new = [one for one in found.values() if self._done.get(one.key) != one.mark]
        for one in new:
            mark, since = self._first.get(one.key, (None, now))
            if mark != one.mark:
                since = now
                self._first[one.key] = (one.mark, now)
            if now - since >= self.source.settle:
                ready.append(one)
        self._count_waiting(len(new))
        self._hand_over(sorted(ready, key=lambda one: (one.mark[1], one.key)))
        self._save()

    def _name_other(self, name: str) -> None:
        if name not in self._named and len(self._named) < 1000:
            self._named.add(name)
            LOG.info(
                "station %s leaves %s alone: no image of %s", self.station.name, name, self.source.pattern
            )

    def _forget_gone(self, found: dict[str, File]) -> None:
        """Not of a folder without any image, which may be a share that is not mounted."""
        for key in [key for key in self._first if key not in found]:
            del self._first[key]
        gone = [key for key in self._done if key not in found]
        if gone and found:
            with self.service.database.write() as connection:
                taken.forget(connection, self.station.name, gone)
            for key in gone:
                del self._done[key]

    def _count_waiting(self, count: int) -> None:
        self._waiting = count
        self.service.metrics.source_waiting.labels(self.station.name).set(count)

    # ------------------------------------------------------------------ handing over

    def _hand_over(self, files: Iterable[File]) -> None:
        """Have as many under way as half of the line takes, and answer to each in turn."""
        under_way: deque[tuple[File, Future[Result]]] = deque()
        most = max(1, self.service.options.queue // 2)
        for one in files:
            if self._stop.is_set():
                break
            while len(under_way) >= most:
                self._finish(*under_way.popleft())
            future = self._submit(one)
            if future is not None:
                under_way.append((one, future))
        while under_way:
            self._finish(*under_way.popleft())

    def _submit(self, one: File) -> "Future[Result] | None":
        """None for a file that is not to be judged now."""
        try:
            with one.path.open("rb") as file:
                body = file.read()
                status = os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._cannot(one, reason(error, writing=False))
            return None
        if (status.st_size, status.st_mtime_ns) != one.mark or len(body) != status.st_size:
            return None  # it changes
        word = f"{one.key}\0".encode() + body
        part = Part(
            body=body,
            station=self.station.name,
            category=self.station.category,
            part_id=_word(stem(one.path)),
            source=SOURCE,
            request_id=f"{SOURCE}-{sha256(word).hexdigest()[:40]}",
        )
        while not self._stop.is_set():
            try:
                return self.service.submit(part)
            except Refused as error:
                if error.status != 503:
                    self._cannot(one, str(error), patience=error.status != 413)
                    return None
                self._stop.wait(min(error.retry_after or 1, LONGEST_WAIT))
        return None

    def _finish(self, one: File, future: "Future[Result]") -> None:
        """Put a file away when its answer is there; one that the line could not keep comes again."""
        try:
            result = future.result()
        except Refused as error:
            if error.status != 503:
                self._cannot(one, str(error))
            return
        except Exception as error:
            self._cannot(one, in_one_line(error))
            return
        self._count("taken")
        self._put_away(one, self.source.done, result.id)

    def _cannot(self, one: File, why: str, *, patience: bool = True) -> None:
        """A file that cannot be judged: later it may, if it is young; else it is named and put away."""
        _, since = self._first.get(one.key, (one.mark, 0.0))
        if patience and time.monotonic() - since < PATIENCE + self.source.settle:
            return
        self._count("failed")
        LOG.error("station %s cannot judge %s: %s", self.station.name, one.path, why)
        self._put_away(one, self.source.failed, str(one.mark[1]))

    def _count(self, outcome: str) -> None:
        self._counts[outcome] += 1
        self._count_waiting(max(0, self._waiting - 1))
        self.service.metrics.source_files.labels(self.station.name, outcome).inc()

    def _put_away(self, one: File, folder: str | None, name: str) -> None:
        """Move it, or remember that it is done with as it is. name: tells it from another of its name."""
        self._first.pop(one.key, None)
        if folder is not None:
            try:
                if mark_of(one.path) == one.mark:  # else it is another image by now
                    move(one.path, Path(folder) / one.path.relative_to(self.folder), name)
                return
            except OSError as error:
                if not one.path.exists():
                    return
                problem = f"{one.path} was not moved to {folder}: {reason(error, writing=True)}"
                self.service.metrics.errors.labels("source").inc()
                LOG.error("station %s: %s; it stays and is not judged again", self.station.name, problem)
        self._done[one.key] = self._unsaved[one.key] = one.mark
        if len(self._unsaved) >= REMEMBERED:
            self._save()


def _word(stem: str) -> str | None:
    """The name of a file as a part_id, if it can be one."""
    return stem if 0 < len(stem) <= LONGEST_WORD and stem.isprintable() else None
