"""Triggers that wait for frames of a camera, and what becomes of them."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from invad.serve.plant.feeds import Frame
from invad.serve.records import Result


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A trigger. since: when it came, on the clock that only rises."""

    part_id: str | None
    lot: str | None
    request_id: str
    since: float
    answer: "Future[Result]" = field(default_factory=Future)


@dataclass(frozen=True, slots=True)
class Shot:
    """A frame that is to be judged, and who asked for it."""

    frame: Frame
    request_id: str
    asked: Asked | None = None


class Triggers:
    """Those of a camera that were not answered. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Asked] = []  # without a frame
        self._open: dict[str, Asked] = {}  # without an answer

    def add(self, asked: Asked) -> "Future[Result]":
        """What answers it: of one that is under way already, the same."""
        with self._lock:
            if (same := self._open.get(asked.request_id)) is not None:
                return same.answer
            asked.answer.set_running_or_notify_cancel()  # who stops waiting does not stop the part
            self._open[asked.request_id] = asked
            self._waiting.append(asked)
            return asked.answer

    def give(self, frame: Frame, exposed: float) -> list[Shot]:
        """What is to be judged by a frame that was exposed then."""
        with self._lock:
            due = [one for one in self._waiting if one.since <= exposed]
            self._waiting = [one for one in self._waiting if one.since > exposed]
        return [Shot(frame, one.request_id, one) for one in due]

    def give_up(self) -> list[Asked]:
        """Those that have waited for a frame until now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        return waiting

    def end(self, asked: Asked, outcome: Result | BaseException) -> None:
        """Answer it."""
        with self._lock:
            self._open.pop(asked.request_id, None)
        if isinstance(outcome, BaseException):
            asked.answer.set_exception(outcome)
        else:
            asked.answer.set_result(outcome)
