"""The path of a part: admission, decoding, queue, run, decision, transaction, answer.

A part that is admitted is answered: with its result, once that is on the disk, or with what went wrong. What
is not admitted is refused at once and may be sent again. Nothing is dropped silently.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from invad.data.png import encode_png
from invad.errors import DataError, InvadError
from invad.records import Prediction
from invad.runtime.predictor import Pixels
from invad.serve.limits import InForce
from invad.serve.metrics import Metrics
from invad.serve.models import Models, require_pictures
from invad.serve.options import Options
from invad.serve.parts import (
    Budget,
    Job,
    Queue,
    decoded,
    decoded_members,
    judged,
    judged_part,
    other_image,
    shown_of,
    since,
)
from invad.serve.records import Awaited, Part, Refused, Result
from invad.serve.store import results
from invad.serve.store.database import Database, now_ms, said
from invad.serve.store.files import Pictures
from invad.serve.storing import Committer

LOG = logging.getLogger("invad.serve")
SEVERAL = "several pictures"
"""The kind of a run of parts of several pictures, which go one by one."""


class Line:
    """Takes parts and answers them. `close` before the database is closed."""

    def __init__(
        self,
        models: Models,
        database: Database,
        files: Pictures,
        in_force: InForce,
        options: Options,
        metrics: Metrics,
        sinks: Callable[[Result], Sequence[str]] = lambda result: (),
        woken: Callable[[Set[str]], None] = lambda sinks: None,
        watched: Callable[[Sequence[Job]], None] = lambda jobs: None,
    ):
        """models: say what judges at each station. sinks: names those that a result goes to, each of
        which gets a row of the outbox; `woken` is told which got new ones. watched: told what was stored
        and answered."""
        self.models, self.in_force = models, in_force
        self.database, self.files, self.options, self.metrics = database, files, options, metrics
        self.committer = Committer(
            database,
            files,
            in_force,
            metrics,
            self._finish,
            wait_seconds=options.wait_seconds,
            audit_share=options.audit_share,
            sinks=sinks,
            woken=woken,
            watched=watched,
        )
        self.queue: Queue[Job] = Queue()
        self.pixels = Budget(options.memory)
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self.deadlines: Mapping[str, float] = {}  # seconds, by station
        self.expecting: Mapping[str, Callable[[Part], Awaited | None]] = {}  # controllers, by station
        self._under_way = self._bytes = 0
        self._by_request: dict[tuple[str, str], Job] = {}
        self._closing = False
        self._answered: deque[float] = deque(maxlen=50)
        self._decoders = ThreadPoolExecutor(options.decoders, thread_name_prefix="invad-decode")
        self._runs = [
            threading.Thread(target=self._run, name=f"invad-run-{i}", daemon=True)
            for i in range(options.streams)
        ]
        for thread in self._runs:
            thread.start()

    # ------------------------------------------------------------------ coming in and going out

    def submit(self, part: Part) -> "Future[Result]":
        """Admit a part; the future has its result when that is stored. May be called from any thread.

        A `request_id` that the station has seen gives the result that there is. Raises Refused when the line
        is full or ends, and when the `request_id` came with another image. The future may raise DataError
        for an image that cannot be read, ConfigError for an unknown category, Refused when it could not be
        stored, and whatever the engine raises.
        """
        expects = self.expecting.get(part.station)
        awaited = None if expects is None else expects(part)
        if awaited is not None:
            return awaited.submitted(self._submit)
        seconds = self.deadlines.get(part.station)
        return self._submit(part, None if seconds is None else time.monotonic() + seconds)

    def _submit(self, part: Part, due: float | None, awaited: Awaited | None = None) -> "Future[Result]":
        """due: when it is late, on the clock that only rises. awaited: whoever waits counts it then."""
        with self._lock:
            name = (part.station, part.request_id) if part.request_id is not None else None
            if name is not None and (other := self._by_request.get(name)) is not None:
                if not _are_same(part.body, other.part.body):
                    raise other_image(part)
                return other.answer
            if self._closing:
                self._refuse("stopping", "the service is stopping; send it again", retry_after=5)
            if self._under_way >= self.options.queue or (
                self._under_way and self._bytes + part.size > self.options.memory
            ):
                self._refuse("full", f"{self._under_way} parts wait already; send it again", self._soon())
            model = self.models.active(part.station)
            job = Job(part=part, came=now_ms(), model=model, bytes_held=part.size)
            job.due, job.awaited = due, awaited
            job.answer.set_running_or_notify_cancel()  # who stops waiting does not stop the part
            self._under_way += 1
            self._bytes += job.bytes_held
            self.metrics.queue.set(self._under_way)
            if name is not None:
                self._by_request[name] = job
        self._decoders.submit(self._prepare, job)
        return job.answer

    @property
    def under_way(self) -> int:
        """Parts that were admitted and are not answered yet."""
        return self._under_way

    @property
    def closing(self) -> bool:
        """Whether no more parts are taken."""
        return self._closing

    def wait_idle(self, seconds: float) -> bool:
        """Whether, within so many seconds, there is a moment without parts under way."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._under_way, seconds)

    def close(self, seconds: float) -> bool:
        """Take no more parts, and wait until all are answered; returns whether they were in time."""
        with self._idle:
            self._closing = True
            done = self._idle.wait_for(lambda: not self._under_way, seconds)
        self.queue.close()
        self._decoders.shutdown(wait=done, cancel_futures=True)
        if done:
            for thread in self._runs:
                thread.join()
            self.committer.close()
        return done

    def _refuse(self, reason: str, message: str, retry_after: int) -> None:
        self.metrics.rejected.labels(reason).inc()
        raise Refused(message, 503, retry_after, code=reason)

    def _soon(self) -> int:
        """Seconds after which there may be room, by the pace of the last parts."""
        if len(self._answered) < 2:
            return 1
        pace = (self._answered[-1] - self._answered[0]) / (len(self._answered) - 1)
        return min(60, max(1, math.ceil(pace * self._under_way / 2)))

    def _finish(self, job: Job, outcome: Result | BaseException) -> None:
        """Answer a part, which then is under way no more."""
        if job.pixels is not None:
            self.pixels.give(job.pixel_bytes)
            job.pixels = job.prediction = job.members = job.of_part = None
        job.map_png, job.map_later = b"", None
        with self._idle:
            self._under_way -= 1
            self._bytes -= job.bytes_held
            self.metrics.queue.set(self._under_way)
            self._answered.append(time.monotonic())
            if job.part.request_id is not None:
                self._by_request.pop((job.part.station, job.part.request_id), None)
            self._idle.notify_all()
        if isinstance(outcome, BaseException):
            job.answer.set_exception(outcome)
        else:
            job.answer.set_result(outcome)

    # ------------------------------------------------------------------ decoding

    def _prepare(self, job: Job) -> None:
        """Decode the image, keep its file, and put it in the queue."""
        part = job.part
        try:
            may_be_known = part.request_id is not None and not (job.awaited and job.awaited.is_new)
            if may_be_known and (known := self._stored(part)) is not None:
                self._finish(job, known)
                return
            detector = job.model.detector
            job.key = self.in_force.key(part.station, part.category, job.model.hash)
            started = time.monotonic()
            pixels = self._decoded(job)
            job.decode_ms = since(started)
            has_room = self._has_room()
            # The map, float32, will be held as long as they are. Pixels that came as they are judged are held
            # as the body already.
            held = [pixels] if job.members is None else _there(job.members)
            job.pixel_bytes = sum(4 * one.shape[0] * one.shape[1] for one in held)
            if not (isinstance(part.body, np.ndarray) and np.may_share_memory(pixels, part.body)):
                job.pixel_bytes += sum(one.nbytes for one in held)
            self.pixels.take(job.pixel_bytes)
            job.pixels, job.queued = pixels, time.monotonic()
            kind = SEVERAL if part.several else detector.kind(pixels)
            self.queue.put((job.model.hash, kind, job.key), job)
            # Beside the run, which does not even wait for the thread of this one to begin.
            self.committer.look_at_image(job, pixels, has_room=has_room)
        except BaseException as error:
            if not isinstance(error, InvadError):
                self.metrics.errors.labels("decode").inc()
                LOG.exception("a part could not be prepared")
            self._finish(job, error)

    def _decoded(self, job: Job) -> Pixels:
        """The pixels of a part; of several pictures those of the first that can be judged, beside
        `job.members`. Raises Refused (400)."""
        detector, body = job.model.detector, job.part.body
        require_pictures(job.model, several=job.part.several)
        if not job.part.several or detector.fusion is None or isinstance(body, np.ndarray):
            return decoded(detector, body, self.metrics, job.key or None)
        job.members = decoded_members(detector, body)
        known = {name: one for name, one in job.members.items() if name in detector.fusion.members}
        if pixels := _there(known):
            return pixels[0]
        wrong = judged_part(detector, job.members, self.metrics)
        raise wrong if isinstance(wrong, Exception) else AssertionError("nothing was there to be judged")

    def _stored(self, part: Part) -> Result | None:
        """What came of the request before. Raises Refused (409) where that was of another image."""
        try:
            with self.database.read() as connection:
                found = results.by_request(connection, part.station, str(part.request_id))
        except SQLAlchemyError as error:
            why = f"the database does not answer ({said(error)}); send it again"
            raise Refused(why, 503, 5, code="database") from None
        if found is None:
            return None
        content = encode_png(part.body) if isinstance(part.body, np.ndarray) else part.body
        if found.result.image_sha256 != sha256(content).hexdigest():
            raise other_image(part)
        return found.result

    def _has_room(self) -> bool:
        """Whether the disk takes pictures. Raises Refused when it does not even take rows."""
        free = self.files.free_bytes()
        if free is None:
            return True
        if free < self.options.reserve / 4 and not self.files.shared:
            self.metrics.rejected.labels("disk").inc()
            raise Refused("the disk is full; free space and send it again", 503, 60, code="disk")
        return free >= self.options.reserve

    # ------------------------------------------------------------------ judging

    def _run(self) -> None:
        while jobs := self.queue.take(_most, self.options.delay_ms / 1000):
            started = time.monotonic()
            for job in jobs:
                job.queue_ms = (started - job.queued) * 1000
            self.metrics.batch.observe(len(jobs))
            for job, outcome in zip(jobs, self._judged(jobs), strict=True):
                job.infer_ms = since(started)
                job.judged = time.monotonic()
                if isinstance(outcome, BaseException):
                    self._finish(job, outcome)
                    continue
                job.prediction = outcome
                self.committer.add(job)

    def _judged(self, jobs: Sequence[Job]) -> Iterable[Prediction | Exception]:
        """Of parts of one kind."""
        detector = jobs[0].model.detector
        if not jobs[0].part.several:
            pixels = [job.pixels for job in jobs if job.pixels is not None]
            return judged(detector, pixels, jobs[0].key or None, self.metrics)
        return map(self._judged_part, jobs)

    def _judged_part(self, job: Job) -> Prediction | Exception:
        assert job.members is not None
        found = judged_part(job.model.detector, job.members, self.metrics)
        if isinstance(found, Exception):
            return found
        job.of_part, shown = found, job.members[str(found.seen_by)]
        assert isinstance(shown, np.ndarray)
        job.pixels = shown
        return shown_of(found)


def _there(members: Mapping[str, Pixels | DataError]) -> list[Pixels]:
    """The pictures that could be read, in the order of the members."""
    return [one for _, one in sorted(members.items()) if isinstance(one, np.ndarray)]


def _are_same(one: bytes | Pixels, other: bytes | Pixels) -> bool:
    """Whether two bodies are the same file or the same pixels."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return isinstance(one, bytes) and isinstance(other, bytes) and one == other


def _most(job: Job) -> int:
    """Parts of a run that begins with this one."""
    return job.model.batch
