"""A part under way, and the places where parts wait for each other."""

import logging
import math
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from invad.data.images import ImageSource
from invad.errors import DataError, InvadError
from invad.records import PartPrediction, Prediction
from invad.runtime.parts import Decoded, judge_part, require_fusion
from invad.runtime.predictor import Pixels, Predictor
from invad.scoring.calibration import for_category
from invad.serve.groups import unpacked
from invad.serve.metrics import RunMetrics
from invad.serve.models import Loaded
from invad.serve.records import Awaited, Member, Part, Refused, Result
from invad.serve.store import results

LOG = logging.getLogger("invad.serve")
Waiting = TypeVar("Waiting")


@dataclass(slots=True, eq=False)
class Job:
    """A part under way, and what is known of it so far. Times are those of a clock that only rises.

    digest: SHA-256 of the image file, "" until the look at it. digests: of a part of several pictures each
    member and the SHA-256 of its file, in the order of their archive, from then on.
    """

    part: Part
    came: int
    model: Loaded
    answer: "Future[Result]" = field(default_factory=Future)
    pixels: Pixels | None = None
    pixel_bytes: int = 0
    picture: tuple[float, float, float] = (0.0, 0.0, 0.0)
    key: str = ""
    digest: str = ""
    digests: tuple[tuple[str, str], ...] = ()
    steps_left: int = 2  # before its row: the run, and the look at its image
    image_kept: bool = False
    fault: BaseException | None = None  # of the look
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
    members: "Decoded | None" = None  # of a part of several pictures, whose `pixels` are those of one
    of_part: PartPrediction | None = None
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


def decoded(
    detector: Predictor, image: ImageSource, metrics: RunMetrics, category: str | None = None
) -> Pixels:
    """The pixels of a part of a category. Raises Refused (400) when it cannot be read or judged."""
    try:
        return detector.decode(image, category)
    except DataError as error:
        metrics.rejected.labels("image").inc()
        raise Refused(re.sub("^<(bytes|array)>", "the image", str(error)), 400, code="image") from None


def decoded_members(detector: Predictor, body: bytes) -> "Decoded":
    """The pixels of each member, or why there are none, as `Predictor.predict_part` takes them."""
    found: Decoded = {}
    for member, content in unpacked(body):
        if member in found:
            found[member] = DataError(f"{member} is there twice")
        else:
            found[member] = _decoded(detector, member, content)
    return found


def _decoded(detector: Predictor, member: str, content: bytes) -> Pixels | DataError:
    try:
        return detector.decode(content)
    except DataError as error:
        return DataError(re.sub("^<bytes>", member, str(error)))


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


def judged_part(detector: Predictor, members: "Decoded", metrics: RunMetrics) -> PartPrediction | Exception:
    """What a detector says of a part by its pictures, of which one at least is needed."""
    try:
        fusion = require_fusion(detector.fusion)
        found = judge_part(members, members, fusion, detector.judge, detector.smallest)
        if found.score is None:
            raise Refused(f"no picture of the part can be judged: {found.reason}", 400, code="image")
        wrong = [one for one in map(_finite, found.members.values()) if isinstance(one, Exception)]
        return wrong[0] if wrong else found
    except Refused as refused:
        metrics.rejected.labels("image").inc()
        return refused
    except Exception as error:
        metrics.errors.labels("engine").inc()
        LOG.exception("the engine failed")
        return error


def shown_of(part: PartPrediction) -> Prediction:
    """What is said of a part, with the picture and the map of the member that lies highest; of pictures of
    one frame that were fused cell by cell with the map of the part."""
    assert part.seen_by is not None
    assert part.score is not None
    one = part.members[part.seen_by]
    fused_map = one.anomaly_map if part.anomaly_map is None else part.anomaly_map
    return replace(one, score=part.score, anomaly_map=fused_map)


def members_of(job: Job) -> tuple[Member, ...]:
    """Each picture of a part that came, in the order of their archive."""
    if job.of_part is None:
        return ()
    judged, above = job.of_part.members, job.of_part.above
    return tuple(
        Member(
            member=name,
            score=judged[name].score if name in judged else None,
            p_value=judged[name].p_value if name in judged else None,
            above=above.get(name),
            sha256=digest,
        )
        for name, digest in job.digests
    )


def digests_of(body: bytes) -> tuple[tuple[str, str], ...]:
    """Each member of a part of several pictures and the SHA-256 of its file."""
    return tuple((member, sha256(content).hexdigest()) for member, content in unpacked(body))


def map_limits_of(job: Job) -> tuple[float, float] | None:
    """(review, bad) limits of the map of one member, where that is what a part shows."""
    if job.of_part is None or job.of_part.anomaly_map is not None:
        return None
    return for_category(job.model.detector.calibrations, job.of_part.seen_by).map_limits()


def _finite(prediction: Prediction) -> Prediction | Exception:
    if math.isfinite(prediction.score):
        return prediction
    return InvadError(f"the engine gave the score {prediction.score}; test the model with 'invad verify'")
