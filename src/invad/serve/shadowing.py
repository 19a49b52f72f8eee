"""A second version scores the parts that were answered, and never holds one up.

Parts wait in a queue of their own. They are taken when no part is under way, by a thread of low priority, and
are left out, and counted, when the queue is full.
"""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError, InvadError
from invad.runtime.parts import judge_part, require_fusion
from invad.runtime.predictor import Pixels
from invad.serve.limits import InForce
from invad.serve.line import Line
from invad.serve.metrics import Metrics
from invad.serve.models import Loaded, Models
from invad.serve.parts import Job, decoded_members, since
from invad.serve.records import Result
from invad.serve.store import shadows
from invad.serve.store.database import Database, said
from invad.serve.store.shadows import Shadowed

LOG = logging.getLogger("invad.serve")
SHARE = 8
"""Part of the memory for bodies that the queue may hold."""

AT_A_TIME = 20
"""Parts of one transaction."""

NICENESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    """A part that was answered."""

    record: Result
    body: bytes | Pixels
    size: int


class Shadow:
    """The queue and its thread. `close` before the database is closed."""

    def __init__(
        self,
        models: Models,
        in_force: InForce,
        database: Database,
        metrics: Metrics,
        line: Line,
        *,
        most: int,
        memory: int,
    ):
        """most: parts that may wait. memory: bytes that all bodies of a service may have."""
        self.models, self.in_force, self.database = models, in_force, database
        self.metrics, self.line, self.most, self.memory = metrics, line, most, memory // SHARE
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._said: list[Shadowed] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="invad-shadow", daemon=True)
        self._thread.start()

    def offer(self, jobs: Sequence[Job]) -> None:
        """Let parts that were answered wait for the shadow of their station, where there is one and room."""
        for job in jobs:
            part = job.part
            shadow = self.models.shadow(part.station)
            if job.stored is None or shadow is None:
                continue
            if part.several != bool(shadow.members):  # a start gave the station a model of the other kind
                self.metrics.shadow_dropped.labels(part.station, "failed").inc()
                continue
            with self._changed:
                if len(self._waiting) >= self.most or self._bytes + part.size > self.memory:
                    self.metrics.shadow_dropped.labels(part.station, "full").inc()
                    continue
                self._waiting.append(_Waiting(record=job.stored.result, body=part.body, size=part.size))
                self._bytes += part.size
                self._changed.notify()

    @property
    def waiting(self) -> int:
        """Parts that were not scored yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Store what was scored; what waits is left out."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(5)

    def _work(self) -> None:
        _step_back()
        while (one := self._take()) is not None:
            try:
                scored = self._score(one)
            except (InvadError, RuntimeError, ValueError) as error:
                self.metrics.shadow_dropped.labels(one.record.station, "failed").inc()
                LOG.error("a shadow did not score %s: %s", one.record.id, error)
                continue
            if scored is not None:
                self._said.append(scored)
            if len(self._said) >= AT_A_TIME or not self._waiting:
                self._store()
        self._store()

    def _take(self) -> _Waiting | None:
        """The oldest part that waits, at a moment without parts under way; None after `close`."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return None
            if not self.line.wait_idle(1):
                continue
            with self._changed:
                if self._waiting:
                    one = self._waiting.popleft()
                    self._bytes -= one.size
                    return one

    def _score(self, one: _Waiting) -> Shadowed | None:
        record = one.record
        model = self.models.shadow(record.station)
        if model is None or model.hash == record.model_version:
            return None
        limits = self.in_force.limits(record.station, record.category or "", model.hash)
        said = _said_of_part(model, one.body) if model.members else _said_of(model, one)
        p_value, decision = limits.judge(said.score, said.wrong)
        change = "same" if decision == record.decision else f"{record.decision} > {decision}"
        self.metrics.shadow.labels(record.station, model.hash, change).inc()
        return Shadowed(
            result=record.id,
            model_version=model.hash,
            station=record.station,
            calibration=limits.revision,
            score=said.score,
            p_value=p_value,
            decision=decision,
            ms_infer=said.ms,
        )

    def _store(self) -> None:
        if not self._said:
            return
        try:
            with self.database.write() as connection:
                shadows.add(connection, self._said)
        except (SQLAlchemyError, DataError) as error:
            self.metrics.errors.labels("shadow").inc()
            LOG.error("what a shadow said was not stored: %s", said(error))
        self._said = []


@dataclass(frozen=True, slots=True)
class _Said:
    """What a shadow says. wrong: with the pictures of a part. ms: of its run."""

    score: float
    wrong: str
    ms: float


def _said_of(model: Loaded, one: _Waiting) -> _Said:
    pixels = model.detector.decode(one.body, one.record.category)
    started = time.monotonic()
    (prediction,) = model.detector.judge([pixels], one.record.category)
    return _Said(prediction.score, "", since(started))


def _said_of_part(model: Loaded, body: bytes | Pixels) -> _Said:
    """Raises DataError where no picture can be judged."""
    assert isinstance(body, bytes)
    members = decoded_members(model.detector, body)
    started = time.monotonic()
    found = judge_part(members, members, require_fusion(model.detector.fusion), model.detector.judge)
    if found.score is None:
        raise DataError(found.reason)
    return _Said(found.score, found.reason, since(started))


def _step_back() -> None:
    """Leave the processor to whoever answers; a thread has a priority of its own on Linux alone."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
