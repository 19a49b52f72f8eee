"""Triggers that wait for frames of a camera, and what becomes of them."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field

from invad.serve.plant.feeds import Frame
from invad.serve.records import Result


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A trigger. since: when it came, on the clock that only rises. frames: what it got so far; None for one
    that could not be used."""

    part_id: str | None
    lot: str | None
    request_id: str
    since: float
    frames: list[Frame | None] = field(default_factory=list)
    answer: "Future[Result]" = field(default_factory=Future)

    @property
    def last(self) -> float:
        """When it came, or the last of its frames."""
        return max([self.since, *(one.arrived for one in self.frames if one is not None)])


@dataclass(frozen=True, slots=True)
class Shot:
    """Frames that are to be judged as one part, in their order, and who asked for them. There is one at
    least, and None stands for one that could not be used."""

    frames: tuple[Frame | None, ...]
    request_id: str
    asked: Asked | None = None


class Triggers:
    """Those of a camera that were not answered. All methods may be called from any thread."""

    def __init__(self, count: int):
        """count: frames that each takes, one after the other."""
        self.count = count
        self._lock = threading.Lock()
        self._waiting: list[Asked] = []  # without all of their frames
        self._open: dict[str, Asked] = {}  # without an answer

    def add(self, asked: Asked) -> "tuple[Future[Result], list[Asked]]":
        """What answers it: of one that is under way already, the same. And those that get no more frames,
        because of a part of several frames the next ones show another part."""
        with self._lock:
            if (same := self._open.get(asked.request_id)) is not None:
                return same.answer, []
            asked.answer.set_running_or_notify_cancel()  # who stops waiting does not stop the part
            self._open[asked.request_id] = asked
            before, others = ([], self._waiting) if self.count > 1 else (self._waiting, [])
            self._waiting = [*before, asked]
            return asked.answer, others

    def give(self, frame: Frame | None, exposed: float) -> list[Shot]:
        """What is to be judged, now that there is a frame that was exposed then; None: it cannot be used."""
        with self._lock:
            for one in self._waiting:
                if one.since <= exposed:
                    one.frames.append(frame)
            whole = [one for one in self._waiting if len(one.frames) >= self.count]
            self._waiting = [one for one in self._waiting if len(one.frames) < self.count]
        return [Shot(tuple(one.frames), one.request_id, one) for one in whole]

    def give_up(self, until: float = float("inf")) -> list[Asked]:
        """Those that wait for a frame since then or earlier, which now do not any more."""
        with self._lock:
            left = [one for one in self._waiting if one.last <= until]
            self._waiting = [one for one in self._waiting if one.last > until]
        return left

    def end(self, asked: Asked, outcome: Result | BaseException) -> None:
        """Answer it."""
        with self._lock:
            self._open.pop(asked.request_id, None)
        if isinstance(outcome, BaseException):
            asked.answer.set_exception(outcome)
        else:
            asked.answer.set_result(outcome)
