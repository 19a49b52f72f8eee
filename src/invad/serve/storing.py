"""From a judged part to its stored result: map, row, one transaction for all that wait, answers."""

import logging
import math
import random
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
from invad.errors import DataError, InvadError
from invad.runtime.predictor import Pixels
from invad.scoring.regions import regions
from invad.serve.ids import Ids
from invad.serve.limits import InForce
from invad.serve.maps import LateMaps
from invad.serve.metrics import Metrics
from invad.serve.parts import Job, map_limits_of, members_of, other_image, since
from invad.serve.pictures import encode_map, statistics
from invad.serve.records import SCHEMA, Milliseconds, Picture, Refused, Result, utc
from invad.serve.store import results, retention
from invad.serve.store.database import Database, said
from invad.serve.store.files import Pictures

LOG = logging.getLogger("invad.serve")
MOST_REGIONS = 100
"""Of one part in the database; a map of noise has thousands."""

AT_MOST = 64
"""Parts of one transaction."""

KEEPERS = 4
"""Threads that encode and write files; they mostly wait for the disk."""

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
        self.ids = Ids()
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
        job.image = self._keepers.submit(self._look_at_image, job, pixels, has_room)

    def add(self, job: Job) -> None:
        """Store a judged part soon."""
        self._keepers.submit(self._prepare, job)

    def close(self) -> None:
        """Store what there is, and end."""
        self._keepers.shutdown()
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _prepare(self, job: Job) -> None:
        """Make the row of a part, whose files are then on the disk."""
        try:
            job.stored = self._row(job)
        except BaseException as error:
            self.metrics.errors.labels("row").inc()
            LOG.exception("a result could not be made")
            self.finish(job, error)
            return
        with self._changed:
            self._ready.append(job)
            self._changed.notify()

    def _work(self) -> None:
        while jobs := self._take():
            try:
                self._store(jobs)
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
        part, prediction = job.part, job.prediction
        assert prediction is not None
        assert job.pixels is not None
        limits = self.in_force.limits(part.station, job.key, job.model.hash)
        p_value, decision = limits.judge(prediction.score)
        if job.of_part is not None and job.of_part.reason and decision == "good":
            decision = "review"
        map_limits = map_limits_of(job) or limits.map
        peak = float(prediction.anomaly_map.max())
        if not math.isfinite(peak):
            raise InvadError(
                "the engine gave a map that is not of numbers; test the model with 'invad verify'"
            )
        # The image was handed to the same threads before, so it is written or being written.
        image_kept = job.image is not None and job.image.result()
        # Of whoever waits for a result over HTTP some ask for its map, and a controller never does.
        map_later = job.awaited is not None and part.source != "http" and image_kept
        job.map_later = prediction.anomaly_map if map_later else None
        map_now = image_kept and not map_later
        job.map_png = encode_map(prediction.anomaly_map) if map_now else b""
        map_sha256 = sha256(job.map_png).hexdigest() if map_now else ""
        map_kept = map_now and self._keep("map", job.map_png, map_sha256)
        detector, size_hw = job.model.detector, prediction.anomaly_map.shape[:2]
        found = (
            regions(
                prediction.anomaly_map,
                map_limits[0],
                detector.grid_for(size_hw),
                MOST_REGIONS,
                detector.least_pixels(size_hw),
            )
            if peak > map_limits[0]
            else ()
        )
        record = Result(
            schema=SCHEMA,
            id="",
            station=part.station,
            time=utc(job.came),
            part_id=part.part_id,
            lot=part.lot,
            category=job.key or None,
            source=part.source,
            request_id=part.request_id,
            image_sha256=job.digest,
            width=job.pixels.shape[1],
            height=job.pixels.shape[0],
            model=job.model.name,
            model_version=job.model.hash,
            calibration=limits.revision,
            score=prediction.score,
            peak=peak,
            p_value=p_value,
            decision=decision,
            review_limit=limits.score[0],
            bad_limit=limits.score[1],
            regions=found,
            image_kept=image_kept,
            map_kept=map_kept,
            audit=decision == "good" and random.random() < self.audit_share,
            late=False,
            verdict=None,
            picture=Picture(grey=job.picture[0], clipped=job.picture[1], sharpness=job.picture[2]),
            ms=Milliseconds(
                queue=round(job.queue_ms, 3),
                decode=round(job.decode_ms, 3),
                infer=round(job.infer_ms, 3),
                store=round(since(job.judged), 3),
            ),
            members=members_of(job),
            seen_by=None if job.of_part is None else job.of_part.seen_by,
            reason=None if job.of_part is None else job.of_part.reason or None,
        )
        return results.Stored(
            result=record, map_sha256=map_sha256 if map_kept else None, map_limits=map_limits
        )

    def _look_at_image(self, job: Job, pixels: Pixels, has_room: bool) -> bool:
        inside = job.model.detector.inside_HW
        is_framed = inside is not None and inside.shape == pixels.shape[:2]
        job.picture = statistics(pixels, inside if is_framed else None)
        body = job.part.body
        if isinstance(body, np.ndarray):
            started = time.monotonic()
            body = encode_png(body)
            job.digest = sha256(body).hexdigest()
            self.metrics.stage.labels("encode").observe(time.monotonic() - started)
        if not has_room:
            return False
        return self._keep("image", body, job.digest)

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
        stored = [job for job, answer in zip(jobs, answers, strict=True) if answer is None]
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
            map_later = job.map_later
            if map_later is not None:
                self.maps.expect(record.id)
            self.finish(job, record)
            if map_later is not None:  # after the answer, which a controller waits for
                self.maps.add(record.id, map_later)
        rows = [job.stored.result for job in stored if job.stored is not None]
        if told := {sink for record in rows for sink in self.sinks(record)}:
            self.woken(told)
        self.watched(stored)

    def _insert(self, connection: Connection, jobs: Sequence[Job]) -> list[Result | Refused | None]:
        """Store what is not there yet; of each part None, or what another process has made of its request."""
        rows = [job.stored for job in jobs if job.stored is not None]
        # What has an id was tried before: a commit whose end was not heard of may have been one.
        tried = [row.result.id for row in rows if row.result.id]
        there = results.known(connection, tried) if tried else set()
        answers = self._answered_elsewhere(connection, jobs, there)
        # Nobody else writes until the end of the transaction, so ids rise in the order of storing.
        self.ids.follow(results.newest_id(connection))
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
