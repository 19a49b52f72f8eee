"""Images that appear in a folder: found by looking again and again, read when they stay as they are.

What the system tells of new files only hastens the next look, because shares tell nothing. A file is a part
by its path and content: whatever is cut off, and whenever, a later look finds the file again, and the same
content under the same path gives the result that there is. Of a model of parts it is one or several files.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from invad.data.listing import stem
from invad.errors import DataError, InvadError, in_one_line, reason
from invad.serve.groups import packed
from invad.serve.plant.found import File, content_of, files_in, mark_of, move, part_id_of
from invad.serve.plant.gather import Before, Gathered, Gatherer, Seen, before, contents
from invad.serve.plant.lineup import Station
from invad.serve.plant.sources import FolderSource, Source
from invad.serve.records import Part, Refused, Result, SourceState
from invad.serve.service import Service
from invad.serve.store import results, taken
from invad.serve.store.database import said

LOG = logging.getLogger("invad.serve")
SOURCE = "folder"
DIGITS, NAMED = 40, 16
"""Of a request: hexadecimal digits in all, and of a part of several pictures those that its name gives, so
that what came of earlier parts of that name is found."""

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
        self._unread: dict[str, taken.Mark] = {}  # files that the disk or the share does not give
        self._named: set[str] = set()
        self._counts = {"taken": 0, "failed": 0}
        self._waiting = self._other = self._too_late = self._unmoved = 0
        self._problem: str | None = None
        self._note: str | None = None
        self._unread_note: str | None = None
        self._gatherer: Gatherer | None = None
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
            note="; ".join(note for note in (self._note, self._unread_note) if note) or None,
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
            is_soon = any(key not in self._unread for key in self._first)
            soon = min(self.source.settle, self.source.rescan) if is_soon else self.source.rescan
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
        now, new = time.monotonic(), []
        for one in found.values():
            if self._done.get(one.key) == one.mark:
                continue
            mark, since = self._first.get(one.key, (None, now))
            if mark != one.mark:
                since = now
                self._first[one.key] = (one.mark, now)
            new.append(Seen(one, since, now - since >= self.source.settle))
        self._count_waiting(len(new))
        self._hand_over(sorted(self._ready(new, now), key=lambda one: one.order))
        self._save()

    def _ready(self, new: Sequence[Seen], now: float) -> list[Gathered]:
        """What is to be judged now: files, or of a model of parts those of whole ones."""
        fusion = self.service.active(self.station.name).detector.fusion
        if fusion is None:
            return [Gathered(one.file.key, (one.file,)) for one in new if one.is_settled]
        if self._gatherer is None or self._gatherer.fusion is not fusion:
            self._gatherer = Gatherer(self.source, fusion)
        ready, misfits = self._gatherer.gather(new, now)
        for file, why in misfits:
            # A name stays what it is, and what is in a file may still be written.
            self._cannot(Gathered(file.key, (file,)), why, patience=self._gatherer.looks_inside)
        return ready

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
        for key in [key for key in self._unread if key not in found]:
            self._readable(key)
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

    def _hand_over(self, ready: Iterable[Gathered]) -> None:
        """Have as many under way as half of the line takes, and answer to each in turn."""
        under_way: deque[tuple[Gathered, Future[Result]]] = deque()
        most = max(1, self.service.options.queue // 2)
        for one in ready:
            if self._stop.is_set():
                break
            while len(under_way) >= most:
                self._finish(*under_way.popleft())
            future = self._submit(one)
            if future is not None:
                under_way.append((one, future))
        while under_way:
            self._finish(*under_way.popleft())

    def _submit(self, one: Gathered) -> "Future[Result] | None":
        """None for what is not to be judged now."""
        try:
            part = self._several(one) if one.pictures else self._single(one.files[0])
        except FileNotFoundError:
            return None
        except OSError as error:
            self._unreadable(one, reason(error, writing=False))
            return None
        except DataError as error:
            self._cannot(one, in_one_line(error))
            return None
        while part is not None and not self._stop.is_set():
            try:
                return self.service.submit(part)
            except Refused as error:
                if error.status != 503:
                    self._cannot(one, str(error), patience=error.status != 413)
                    return None
                self._stop.wait(min(error.retry_after or 1, LONGEST_WAIT))
        return None

    def _single(self, file: File) -> Part | None:
        """None while it changes. Raises OSError."""
        body = content_of(file)
        if body is None:
            return None
        return self._part(body, stem(file.path), sha256(f"{file.key}\0".encode() + body).hexdigest()[:DIGITS])

    def _several(self, one: Gathered) -> Part | None:
        """None while its files change, and where they were judged before. Raises OSError, DataError."""
        pictures = contents(one)
        if pictures is None:
            return None
        named = sha256(os.fsencode(one.name)).hexdigest()[:NAMED]
        digests = [(member, sha256(content).hexdigest()) for member, content in pictures]
        with self.service.database.read() as connection:
            earlier = results.of_part(connection, self.station.name, f"{SOURCE}-{named}", DIGITS - NAMED)
        members = self.service.active(self.station.name).members
        known = before(frozenset(digests), one.lacks, earlier, members)
        if known is not None:
            self._met_again(one, digests, known)
            return None
        body = packed(pictures)
        request = named + sha256(body).hexdigest()[: DIGITS - NAMED]
        return replace(self._part(body, one.name.rpartition("/")[2], request), several=True)

    def _part(self, body: bytes, name: str, request: str) -> Part:
        return Part(
            body=body,
            station=self.station.name,
            category=self.station.category,
            part_id=self._named_part(name),
            source=SOURCE,
            request_id=f"{SOURCE}-{request}",
        )

    def _named_part(self, name: str) -> str | None:
        known = part_id_of(name)
        if known != name:
            said = "has none" if known is None else f"is {known}"
            LOG.warning("station %s: %r is no part_id, so its part %s", self.station.name, name, said)
        return known

    def _met_again(self, one: Gathered, digests: Sequence[tuple[str, str]], known: Before) -> None:
        """Put away the files of a part that was judged before, and tell of those that came too late."""
        late = {picture.path for picture, own in zip(one.pictures, digests, strict=True) if own in known.late}
        for file in one.files:
            if file.path not in late:
                self._count("taken")
                self._put_away(file, self.source.done, known.result.id)
                continue
            self._count("failed")
            self._too_late += 1
            why = f"its part was decided before it came, result {known.result.id}"
            self._note = f"pictures that came too late: {self._too_late}, the last one {file.path.name}"
            LOG.error("station %s does not judge %s: %s", self.station.name, file.path, why)
            self._put_away(file, self.source.failed, str(file.mark[1]))

    def _finish(self, one: Gathered, future: "Future[Result]") -> None:
        """Put files away when the answer is there; what the line could not keep comes again."""
        try:
            result = future.result()
        except Refused as error:
            if error.status != 503:
                self._cannot(one, str(error))
            return
        except Exception as error:
            self._cannot(one, in_one_line(error))
            return
        if one.lacks:
            LOG.warning(
                "station %s judged part %s without %s, of which nothing came for %g s: %s, result %s",
                *(self.station.name, one.name, ", ".join(one.lacks), self.source.missing_after),
                *(result.decision, result.id),
            )
        for file in one.files:
            self._count("taken")
            self._put_away(file, self.source.done, result.id)

    def _is_young(self, one: Gathered) -> bool:
        since = max(self._first.get(file.key, (file.mark, 0.0))[1] for file in one.files)
        return time.monotonic() - since < PATIENCE + self.source.settle

    def _unreadable(self, one: Gathered, why: str) -> None:
        """What is in it nobody knows, but a share comes back, a right is given: it waits for the next try."""
        if self._is_young(one):
            return
        if any(self._unread.get(file.key) != file.mark for file in one.files):
            self.service.metrics.errors.labels("source").inc()
            LOG.error("station %s cannot read %s and tries it again: %s", self.station.name, one.shown, why)
        self._unread |= {file.key: file.mark for file in one.files}
        self._unread_note = (
            f"images that cannot be read and wait: {len(self._unread)}, the last: {one.shown}: {why}"
        )

    def _readable(self, key: str) -> None:
        """It was read, or is gone."""
        self._unread.pop(key, None)
        if not self._unread:
            self._unread_note = None

    def _cannot(self, one: Gathered, why: str, *, patience: bool = True) -> None:
        """What cannot be judged: later it may, if it is young; else it is named and put away."""
        if patience and self._is_young(one):
            return
        LOG.error("station %s cannot judge %s: %s", self.station.name, one.shown, why)
        for file in one.files:
            self._count("failed")
            self._put_away(file, self.source.failed, str(file.mark[1]))

    def _count(self, outcome: str) -> None:
        self._counts[outcome] += 1
        self._count_waiting(max(0, self._waiting - 1))
        self.service.metrics.source_files.labels(self.station.name, outcome).inc()

    def _put_away(self, one: File, folder: str | None, name: str) -> None:
        """Move it, or remember that it is done with as it is. name: tells it from another of its name."""
        self._first.pop(one.key, None)
        self._readable(one.key)
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
                self._unmoved += 1
                self._note = f"images that could not be moved and stay: {self._unmoved}, the last: {problem}"
        self._done[one.key] = self._unsaved[one.key] = one.mark
        if len(self._unsaved) >= REMEMBERED:
            self._save()
