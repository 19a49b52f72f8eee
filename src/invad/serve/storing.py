"""From a judged part to its stored result: map, row, one transaction for all that wait, answers."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import numpy as np
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from invad.data.png import encode_png
from invad.errors import DataError
from invad.runtime.predictor import Pixels
from invad.serve.ids import Ids
from invad.serve.limits import InForce
from invad.serve.maps import LateMaps
from invad.serve.metrics import Metrics
from invad.serve.parts import Job, digests_of, other_image
from invad.serve.pictures import encode_map, statistics
from invad.serve.records import Refused, Result
from invad.serve.rows import peak_of, row_of
from invad.serve.store import results, retention
from invad.serve.store.database import Database, said
from invad.serve.store.files import Pictures

LOG = logging.getLogger("invad.serve")
AT_MOST = 64
"""Parts of one transaction."""

KEEPERS = 4
"""Threads that encode and write files; they mostly wait for the disk."""

HEAD_START = 0.006
"""Seconds after an answer to a controller that whoever tells it has the processor for itself: the bit waited
1 to 5 ms for what only follows from the answer."""

SETTLED_PARTS = 32
"""Parts of controllers after which the log of the database is settled: else one in 70 settled it before its
answer, and waited 11 ms longer."""

STAGES = ("queue", "decode", "infer", "store")


class Committer:
    """A thread that stores what `add` is given, and answers when it is on the disk."""

    def __init__(
        self,
        database: Database,
        files: Pictures,
        in_force: InForce,
        metrics: Metrics,
        finish: Callable[[Job, Result | BaseException], None],
        *,
        wait_seconds: float,
        audit_share: float,
        sinks: Callable[[Result], Sequence[str]] = lambda result: (),
        woken: Callable[[Set[str]], None] = lambda sinks: None,
        watched: Callable[[Sequence[Job]], None] = lambda jobs: None,
    ):
        """finish: told the outcome of each part. wait_seconds: how long a
        database that takes nothing is waited for. audit_share: of good parts that people look
        at. sinks, woken, watched: see `Line`."""
        self.database, self.files, self.in_force = database, files, in_force
        self.metrics, self.finish, self.wait_seconds = metrics, finish, wait_seconds
        self.audit_share, self.sinks, self.woken = audit_share, sinks, woken
        self.watched = watched
        self.ids, self._follows, self._unsettled = Ids(), False, 0
        self._keepers = ThreadPoolExecutor(KEEPERS, thread_name_prefix="invad-keep")
        self._ready: deque[Job] = deque()
        self._changed = threading.Condition()
        self.maps = LateMaps(self._keepers, self._keep, self._wake)
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="invad-commit", daemon=True)
        self._thread.start()

    def look_at_image(self, job: Job, pixels: Pixels, *, has_room: bool) -> None:
        """Begin to say how the image of a part looks, and to write it, where the disk has room; pixels are
        encoded in any case, because the row names the digest of their file."""
        self._keepers.submit(self._look, job, pixels, has_room)

    def add(self, job: Job) -> None:
        """Store a judged part soon after its image was looked at, which may be yet to begin."""
        self._step_done(job)

    def close(self) -> None:
        """Store what there is, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _look(self, job: Job, pixels: Pixels, has_room: bool) -> None:
        try:
            job.image_kept = self._look_at_image(job, pixels, has_room)
        except BaseException as error:
            job.fault = error
        self._step_done(job)

    def _step_done(self, job: Job) -> None:
        """Go on with a part that is judged and whose image was looked at. Where no map is waited for, its row
        is made by the thread that stores it: each thread between costs a controller time."""
        with self._changed:
            job.steps_left -= 1
            if job.steps_left:
                return
        if _map_now(job):
            self._keepers.submit(self._prepare, job)
        else:
            self._make_ready(job)

    def _prepare(self, job: Job) -> None:
        if self._has_row(job):
            self._make_ready(job)

    def _has_row(self, job: Job) -> bool:
        """Make the row of a part, whose files are then on the disk; False when it was answered that there
        is none."""
        try:
            job.stored = job.stored or self._row(job)
        except BaseException as error:
            self.metrics.errors.labels("row").inc()
            LOG.exception("a result could not be made")
            self.finish(job, error)
        return job.stored is not None

    def _make_ready(self, job: Job) -> None:
        with self._changed:
            self._ready.append(job)
            self._changed.notify()

    def _work(self) -> None:
        while jobs := self._take():
            try:
                if with_rows := [job for job in jobs if self._has_row(job)]:
                    self._store(with_rows)
                if not self._ready and self.maps.due is not None:
                    self._name_maps()
            except Exception as error:  # a fault of ours must not end the thread that answers
                self.metrics.errors.labels("commit").inc()
                LOG.exception("results could not be stored")
                for job in jobs:
                    if not job.answer.done():
                        self.finish(job, error)

    def _take(self) -> list[Job]:
        """Parts to store; [] at the end. Maps that no part comes for in time are named meanwhile."""
        while not self._comes():
            self._name_maps()
        if self._closed and not self._ready:
            self._keepers.shutdown()  # by whom maps of the last parts were added
            self._name_maps()
        with self._changed:
            return [self._ready.popleft() for _ in range(min(AT_MOST, len(self._ready)))]

    def _comes(self) -> bool:
        """Wait for a part or the end; False when maps have waited for long enough."""
        with self._changed:
            while not (self._ready or self._closed):
                if (due := self.maps.due) == 0:
                    return False
                self._changed.wait(due)
            return True

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _name_maps(self) -> None:
        """In a transaction of their own; a database that takes nothing now is tried again."""
        try:
            with self.database.write() as connection:
                named = self.maps.name(connection)
            self.maps.named(named)
        except (SQLAlchemyError, DataError) as error:
            self.metrics.errors.labels("database").inc()
            LOG.error("maps were not named: %s", said(error))
            self.maps.later()

    def _row(self, job: Job) -> results.Stored:
        """The result without its id, with its map kept."""
        if job.fault is not None:
            raise job.fault
        assert job.prediction is not None
        map_HW, map_sha256 = job.prediction.anomaly_map, None
        limits = self.in_force.limits(job.part.station, job.key, job.model.hash)
        peak = peak_of(map_HW)
        if _map_now(job):
            job.map_png = encode_map(map_HW)
            digest = sha256(job.map_png).hexdigest()
            map_sha256 = digest if self._keep("map", job.map_png, digest) else None
        elif job.image_kept:
            job.map_later = map_HW
        return row_of(job, limits, peak, map_sha256, self.audit_share)

    def _look_at_image(self, job: Job, pixels: Pixels, has_room: bool) -> bool:
        inside = job.model.detector.inside_for(job.key or None)
        is_framed = inside is not None and inside.shape == pixels.shape[:2]
        job.picture = statistics(pixels, inside if is_framed else None)
        body = job.part.body
        if isinstance(body, np.ndarray):
            started = time.monotonic()
            body = encode_png(body)
            self.metrics.stage.labels("encode").observe(time.monotonic() - started)
        job.digest = sha256(body).hexdigest()
        if job.part.several and body is job.part.body:
            job.digests = digests_of(body)
        return has_room and self._keep("image", body, job.digest)

    def _keep(self, kind: str, content: bytes, digest: str, anew: bool = False) -> bool:
        """Write a file; a disk that does not take it costs the file, not the result."""
        try:
            self.files.put(kind, content, digest, anew=anew)
        except DataError as error:
            self.metrics.errors.labels("file").inc()
            LOG.error("a file was not kept: %s", error)
            return False
        return True

    def _store(self, jobs: Sequence[Job]) -> None:
        """One transaction for all, tried until the time of waiting is over; then the answers."""
        started = time.monotonic()
        until = started + self.wait_seconds
        while True:
            try:
                with self.database.write() as connection:
                    # A part by itself does not wait for maps of others, unless these have waited.
                    named = self.maps.name(connection) if len(jobs) > 1 or self.maps.due == 0 else ()
                    answers = self._insert(connection, jobs)
                self.maps.named(named)
                break
            except (SQLAlchemyError, DataError) as error:
                self.metrics.errors.labels("database").inc()
                LOG.error("results were not stored: %s", said(error))
                if not _may_pass(error) and len(jobs) > 1:
                    for job in jobs:  # the one at fault does not take the others with it
                        self._store([job])
                    return
                if time.monotonic() > until or not _may_pass(error):
                    self._give_up(jobs, error)
                    return
                time.sleep(0.2)
        self.metrics.stage.labels("commit").observe(time.monotonic() - started)
        stored, maps_later = [job for job, answer in zip(jobs, answers, strict=True) if answer is None], []
        for job, answer in zip(jobs, answers, strict=True):
            assert job.stored is not None
            if answer is not None:
                self.finish(job, answer)
                continue
            record = job.stored.result
            for stage in STAGES:
                self.metrics.stage.labels(stage).observe(getattr(record.ms, stage) / 1000)
            version = record.model_version
            self.metrics.parts.labels(record.station, record.decision, record.source, version).inc()
            self.metrics.p_value.labels(record.station).observe(record.p_value)
            if record.late and job.awaited is None:
                self.metrics.late.labels(record.station).inc()
            if job.map_later is not None:
                self.maps.expect(record.id)
                maps_later.append((record.id, job.map_later))
            self.finish(job, record)
        if any(job.awaited is not None for job in jobs):
            self._rest_unless_busy()
            self._settle(len(stored))
        for id, map_HW in maps_later:
            self.maps.add(id, map_HW)
        rows = [job.stored.result for job in stored if job.stored is not None]
        if told := {sink for record in rows for sink in self.sinks(record)}:
            self.woken(told)
        self.watched(stored)

    def _settle(self, parts: int) -> None:
        """After so many more parts, before anybody reads them, who would keep the log from its end."""
        self._unsettled += parts
        if self._unsettled < SETTLED_PARTS:
            return
        self._unsettled = 0
        try:
            self.database.settle()
        except (SQLAlchemyError, DataError) as error:  # what is stored is stored
            self.metrics.errors.labels("database").inc()
            LOG.error("the log of the database was not settled: %s", said(error))

    def _rest_unless_busy(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._closed, HEAD_START)

    def _insert(self, connection: Connection, jobs: Sequence[Job]) -> list[Result | Refused | None]:
        """Store what is not there yet; of each part None, or what another process has made of its request."""
        rows = [job.stored for job in jobs if job.stored is not None]
        # What has an id was tried before: a commit whose end was not heard of may have been one.
        tried = [row.result.id for row in rows if row.result.id]
        there = results.known(connection, tried) if tried else set()
        answers = self._answered_elsewhere(connection, jobs, there)
        # Nobody else writes until the end of the transaction, so ids rise in the order of storing.
        if self.database.is_shared or not self._follows:
            self.ids.follow(results.newest_id(connection))
            self._follows = True
        new = [
            job
            for job, row, answer in zip(jobs, rows, answers, strict=True)
            if answer is None and row.result.id not in there
        ]
        self._keep_expired(connection, new)
        missing = []
        for job in new:
            assert job.stored is not None
            stamped = replace(job.stored.result, id=self.ids.new(), late=_is_late(job))
            job.stored = replace(job.stored, result=stamped)
            missing.append(job.stored)
        if missing:
            results.insert(connection, missing, self.sinks)
        return answers

    def _keep_expired(self, connection: Connection, jobs: Sequence[Job]) -> None:
        """Write files again that may have been deleted since they were seen: an older part with the same
        picture has expired."""
        names = {name for job in jobs for name in _files(job)}
        for kind, digest in sorted(retention.want(connection, names)) if names else ():
            job = next(one for one in jobs if (kind, digest) in _files(one))
            body = job.part.body
            image = encode_png(body) if isinstance(body, np.ndarray) else body
            if self._keep(kind, image if kind == "image" else job.map_png, digest, anew=True):
                continue
            for one in jobs:
                if one.stored is not None and (kind, digest) in _files(one):
                    gone = replace(one.stored.result, image_kept=False, map_kept=False)
                    one.stored = replace(one.stored, result=gone, map_sha256=None)

    def _answered_elsewhere(
        self, connection: Connection, jobs: Sequence[Job], own: Set[str]
    ) -> list[Result | Refused | None]:
        """What another process has made of the same request meanwhile. own: ids that this one has stored."""
        if not self.database.is_shared:
            return [None] * len(jobs)
        names = [(job.part.station, job.part.request_id) for job in jobs if job.part.request_id is not None]
        found = results.of_requests(connection, names)
        answers: list[Result | Refused | None] = []
        for job in jobs:
            other = found.get((job.part.station, job.part.request_id or ""))
            if other is None or other.result.id in own:
                answers.append(None)
            else:
                is_same = other.result.image_sha256 == job.digest
                answers.append(other.result if is_same else other_image(job.part))
        return answers

    def _give_up(self, jobs: Sequence[Job], error: Exception) -> None:
        for job in jobs:
            self.metrics.rejected.labels("database").inc()
            why = f"not stored, send it again: {said(error)}"
            self.finish(job, Refused(why, 503, 5, code="database"))


def _map_now(job: Job) -> bool:
    """Whether a part whose image was looked at is answered only when its map is on the disk: of whoever waits
    for a result over HTTP some ask for its map, and a controller never does."""
    return job.image_kept and (job.awaited is None or job.part.source == "http")


def _is_late(job: Job) -> bool:
    return job.due is not None and time.monotonic() >= job.due


def _files(job: Job) -> list[tuple[str, str]]:
    """(kind, digest) of those that its row names."""
    assert job.stored is not None
    record = job.stored.result
    image = [("image", record.image_sha256)] if record.image_kept else []
    return image + ([("map", job.stored.map_sha256)] if job.stored.map_sha256 else [])


def _may_pass(error: Exception) -> bool:
    """Whether a database that says this may take the same rows later: locked, full, gone."""
    if isinstance(error, DBAPIError):
        return isinstance(error, OperationalError) or error.connection_invalidated
    return True
