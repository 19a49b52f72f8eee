"""A part under way, and the places where parts wait for each other."""

import logging
import math
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from invad.data.images import ImageSource
from invad.errors import DataError, InvadError
from invad.records import Prediction
from invad.runtime.predictor import Pixels, Predictor
from invad.serve.metrics import RunMetrics
from invad.serve.models import Loaded
from invad.serve.records import Awaited, Part, Refused, Result
from invad.serve.store import results

LOG = logging.getLogger("invad.serve")
Waiting = TypeVar("Waiting")


@dataclass(slots=True, eq=False)
class Job:
    """A part under way, and what is known of it so far. Times are those of a clock that only rises.

    digest: SHA-256 of the image file; of pixels it is known when they were encoded, "" until then.
    """

    part: Part
    digest: str
    came: int
    model: Loaded
    answer: "Future[Result]" = field(default_factory=Future)
    pixels: Pixels | None = None
    pixel_bytes: int = 0
    picture: tuple[float, float, float] = (0.0, 0.0, 0.0)
    key: str = ""
    image: "Future[bool] | None" = None  # whether its file is kept, when it is known
    map_png: bytes = b""
    map_later: NDArray[np.float32] | None = None  # is kept after the answer
    due: float | None = None  # when it is late
    awaited: Awaited | None = None  # by a controller, which counts it when it is late
    bytes_held: int = 0
    decode_ms: float = 0.0
    queued: float = 0.0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    judged: float = 0.0
    prediction: Prediction | None = None
    stored: results.Stored | None = None


def other_image(part: Part) -> Refused:
    """What is said of a request whose name came with another image before."""
    return Refused(
        f"request_id {part.request_id!r} came with another image before; give each part its own", 409
    )


def since(started: float) -> float:
    """Milliseconds since a reading of the clock that only rises."""
    return (time.monotonic() - started) * 1000


class Budget:
    """Bytes that may be held at a time; one holder may always have what it needs."""

    def __init__(self, limit: int):
        self.limit, self.held = limit, 0
        self._changed = threading.Condition()

    def take(self, amount: int) -> None:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + amount <= self.limit)
            self.held += amount

    def give(self, amount: int) -> None:
        with self._changed:
            self.held -= amount
            self._changed.notify_all()


class Queue(Generic[Waiting]):
    """Decoded parts, sorted by what may share a run; kinds take turns."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, deque[Waiting]] = OrderedDict()
        self._changed = threading.Condition()
        self.closed = False

    def put(self, kind: Hashable, job: Waiting) -> None:
        """Jobs of one kind are of one version."""
        with self._changed:
            self._kinds.setdefault(kind, deque()).append(job)
            self._changed.notify()

    def take(self, most: Callable[[Waiting], int], delay: float) -> list[Waiting]:
        """Parts of one kind, when there is one; [] after `close`.

        most: how many a run may have that begins with a part. delay: seconds to wait for more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._kinds or self.closed)
            if not self._kinds:
                return []
            kind = next(iter(self._kinds))
            room = most(self._kinds[kind][0])
            if delay and len(self._kinds[kind]) < room:
                self._changed.wait_for(lambda: len(self._kinds.get(kind, ())) >= room, delay)
                if kind not in self._kinds:  # another run took them meanwhile
                    return self.take(most, 0)
            waiting = self._kinds.pop(kind)
            taken = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            if waiting:
                self._kinds[kind] = waiting
                self._changed.notify()
            return taken

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()


def decoded(detector: Predictor, image: ImageSource, metrics: RunMetrics) -> Pixels:
    """The pixels of a part. Raises Refused (400) when it cannot be read or judged."""
    try:
        return detector.decode(image)
    except DataError as error:
        metrics.rejected.labels("image").inc()
        raise Refused(re.sub("^<(bytes|array)>", "the image", str(error)), 400, code="image") from None


def judged(
    detector: Predictor, pixels: Sequence[Pixels], category: str | None, metrics: RunMetrics
) -> list[Prediction | Exception]:
    """What a detector says of parts of one kind; one at which it fails does not take the others with it."""
    try:
        return [_finite(one) for one in detector.judge(pixels, category)]
    except Exception as error:
        if len(pixels) > 1:
            return [found for one in pixels for found in judged(detector, [one], category, metrics)]
        metrics.errors.labels("engine").inc()
        LOG.exception("the engine failed")
        return [error]


def _finite(prediction: Prediction) -> Prediction | Exception:
    if math.isfinite(prediction.score):
        return prediction
    return InvadError(f"the engine gave the score {prediction.score}; test the model with 'invad verify'")
