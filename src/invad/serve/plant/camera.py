"""Frames of a camera as parts: each, the newest, or those that a trigger asks for.

One thread reads, so that no frame grows old in between, and one hands frames to the line. What is not judged
is counted. A camera that is lost is opened again until it is there.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import closing
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from invad.data.png import encode_png
from invad.errors import ConfigError, InvadError, in_one_line
from invad.runtime.predictor import Pixels
from invad.serve.groups import packed
from invad.serve.ids import Ids
from invad.serve.plant.feeds import Feed, Frame, NoFrame, SpoiledFrame, are_same, look_of
from invad.serve.plant.lineup import Station
from invad.serve.plant.sources import FeedSource, Source
from invad.serve.plant.triggers import Asked, Shot, Triggers
from invad.serve.records import Part, Refused, Result, SourceState
from invad.serve.service import Service
from invad.serve.store import results

LOG = logging.getLogger("invad.serve")
PAUSES = (0.1, 0.25, 0.5, 1.0)
"""Seconds before a camera is opened again, one after the other; the last stays."""

AHEAD = 2
"""Frames that are read before they are handed over, where each is judged."""

LONGEST_WAIT = 5.0
"""Seconds between two tries to hand a part to a line that is full."""

PATIENCE = 5.0
"""Seconds beyond its time-out, for opening and again for reading, after which a camera is called silent."""

CLOSING_SECONDS = 10.0
"""How long a camera that is silent is waited for, before its thread is left to its time-out."""

NEVER = float("-inf")


class CameraWatch(Source):
    """Hands the frames of a camera to a service."""

    def __init__(self, service: Service, station: Station, source: FeedSource, opened: Callable[[], Feed]):
        """opened: opens the camera. Raises DataError or ConfigError while it cannot."""
        self.service, self.station, self.source, self.opened = service, station, source, opened
        # Enough to keep the engine at work, no more: a frame that waits in the line grows old. A controller
        # tells results apart by their order, which is that of the frames where each is awaited.
        most = 1 if station.controller is not None else service.options.streams + 1
        self._most = max(1, min(most, service.options.queue // 2))
        self._ids = Ids()
        self._changed = threading.Condition()
        self._frames: deque[Shot] = deque()
        self._triggers = Triggers(max(1, len(source.members)))
        self._under_way = self._skipped = 0
        self._counts = {"taken": 0, "failed": 0}
        self._problem: str | None = "not opened yet"
        self._fault: str | None = None  # of the last frame, where it could not be judged
        self._note: str | None = None
        self._look: str | None = None
        self._last: Frame | None = None
        self._last_arrived: float | None = None  # since the camera was opened
        self._reading_since: float | None = None
        self._stop = threading.Event()
        name = station.name
        self._reader = threading.Thread(target=self._work, name=f"invad-camera-{name}", daemon=True)
        self._sender = threading.Thread(target=self._send, name=f"invad-frames-{name}", daemon=True)

    def start(self) -> None:
        self._reader.start()
        self._sender.start()

    def close(self) -> None:
        """Take no more frames, and wait for the answers of those under way."""
        self._refuse_triggers("the station is stopping", "stopping")
        with self._changed:
            self._stop.set()
            left = [one for one in self._frames if one.asked is None]
            self._frames = deque(one for one in self._frames if one.asked is not None)
            self._skip(len(left))
            self._changed.notify_all()
        self._refuse_triggers("the station is stopping", "stopping")
        self._sender.join()
        self._reader.join(CLOSING_SECONDS)

    def state(self) -> SourceState:
        return SourceState(
            kind=self.source.kind,
            place=self.source.place,
            problem=self._lost() or (self._fault and f"frames cannot be judged: {self._fault}"),
            waiting=self._under_way + len(self._frames),
            taken=self._counts["taken"],
            failed=self._counts["failed"],
            other=0,
            skipped=self._skipped,
            note=self._note,
        )

    def take(self, part_id: str | None, lot: str | None, request_id: str) -> "Future[Result]":
        """As `Source.take`: the next frame that was exposed after this call; for a part of several pictures
        also those that follow it."""
        if self.source.policy != "trigger":
            raise ConfigError(
                f"station {self.station.name}: its camera has policy = {self.source.policy!r}; a trigger "
                "needs policy = 'trigger'"
            )
        answer, others = self._triggers.add(Asked(part_id, lot, request_id, time.monotonic()))
        self._cut_off(others, "the next trigger came")
        if self._stop.is_set():
            self._refuse_triggers("the station is stopping", "stopping")
        elif (problem := self._lost()) is not None:
            self._refuse_triggers(problem)
        return answer

    # ------------------------------------------------------------------ the thread that reads

    def _work(self) -> None:
        tries = 0
        while not self._stop.is_set():
            try:
                self._reading_since = time.monotonic()
                with closing(self.opened()) as feed:
                    self._last_arrived = None
                    while not self._stop.is_set():
                        if not self._read(feed):
                            return
                        tries = 0
            except InvadError as error:
                self._trouble(in_one_line(error))
            except Exception as error:  # a fault of ours must not end the station without a word
                LOG.exception("the camera of station %s failed", self.station.name)
                self._trouble(in_one_line(error))
            self._reading_since = None
            self._stop.wait(PAUSES[min(tries, len(PAUSES) - 1)])
            tries += 1

    def _read(self, feed: Feed) -> bool:
        """Take one frame; False at the end of a file."""
        self._reading_since = time.monotonic()
        try:
            frame = feed.read()
        except SpoiledFrame as error:
            self._trouble(None)
            self._cannot(in_one_line(error))
            if self.source.members and self.source.lag is not None:  # it was one of the lights
                self._give(None, time.monotonic() - self.source.lag)
            return True
        except NoFrame as error:
            # A trigger that has just come waits for as long as any other.
            silent = self._triggers.give_up(time.monotonic() - self.source.timeout)
            self._cut_off(silent, in_one_line(error))
            return True
        finally:
            self._reading_since = None
        self._trouble(None)
        if frame is None:
            self._note = "the video has ended"
            LOG.info("station %s: %s has ended", self.station.name, self.source.place)
            return False
        self._arrived(frame)
        return True

    def _arrived(self, frame: Frame) -> None:
        """Hand over a frame, if it is one to be judged."""
        before, self._last_arrived = self._last_arrived, frame.arrived
        if self.source.policy == "trigger":
            self._fault = (
                None  # no other frame is judged to tell that this one is good, until it is asked for
            )
            # Without a lag that is known: what began to come after the trigger was exposed after it, where a
            # camera exposes no earlier than it sends the frame before.
            lag = self.source.lag
            self._give(frame, frame.arrived - lag if lag is not None else NEVER if before is None else before)
            return
        last = self._last
        if last is not None and 0 <= frame.at - last.at < self.source.interval:
            return
        if last is not None and before is None and are_same(last, frame):
            return  # a camera that is opened again may begin with the frame that it sent last
        self._last = frame
        shot = Shot((frame,), f"{self.source.kind}-{frame.name or self._ids.new()}")
        with self._changed:
            if self.source.policy == "latest":
                self._skip(len(self._frames))
                self._frames.clear()
            else:
                self._changed.wait_for(lambda: len(self._frames) < AHEAD or self._stop.is_set())
            if not self._stop.is_set():
                self._frames.append(shot)
                self._changed.notify_all()

    def _give(self, frame: Frame | None, exposed: float) -> None:
        """Let the triggers have a frame that came before it was exposed; None for one that is of no use."""
        with self._changed:
            if self._stop.is_set():
                return
            self._frames.extend(self._triggers.give(frame, exposed))
            self._changed.notify_all()

    # ------------------------------------------------------------------ the thread that hands over

    def _send(self) -> None:
        while (shot := self._next()) is not None:
            try:
                self._submit(shot)
            except Exception as error:  # such as pixels that a frame does not give
                self._answered(shot, error)

    def _next(self) -> Shot | None:
        """The oldest frame that waits, when there is room; None when all is done."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    (self._frames and self._under_way < self._most)
                    or (self._stop.is_set() and not self._frames and not self._under_way)
                )
            )
            if not self._frames:
                return None
            self._under_way += 1
            shot = self._frames.popleft()
            self._changed.notify_all()
            return shot

    def _submit(self, shot: Shot) -> None:
        bodies = [None if one is None else _content(one) for one in shot.frames]
        there = [one for one in bodies if one is not None]
        if not there:
            self._answered(shot, Refused("no frame after the trigger can be used", 503, 1, "source"))
            return
        members = self.source.members
        part = Part(
            body=_together(members, bodies) if members else there[0],
            several=bool(members),
            station=self.station.name,
            category=self.station.category,
            part_id=None if shot.asked is None else shot.asked.part_id,
            lot=None if shot.asked is None else shot.asked.lot,
            source=self.source.kind,
            request_id=shot.request_id,
        )
        while True:
            try:
                future = self.service.submit(part)
            except Refused as error:
                if error.status != 503 or not self._waits(shot):
                    self._answered(shot, error)
                    return
                self._stop.wait(min(error.retry_after or 1, LONGEST_WAIT))
            else:
                future.add_done_callback(partial(self._judged, shot, look_of(there[0])))
                return

    def _waits(self, shot: Shot) -> bool:
        """Whether a frame is still wanted for which the line has no room now."""
        if shot.asked is not None:
            return time.monotonic() - shot.asked.since < self.source.timeout
        return self.source.policy == "every" and not self._stop.is_set()

    def _answered(self, shot: Shot, outcome: Result | BaseException) -> None:
        is_full = isinstance(outcome, Refused) and outcome.status == 503
        with self._changed:
            self._under_way -= 1
            if is_full and shot.asked is None:
                if self._waits(shot):
                    self._frames.appendleft(shot)
                else:
                    self._skip(1)
            self._changed.notify_all()
            self.service.metrics.source_waiting.labels(self.station.name).set(self._under_way)
        if isinstance(outcome, Result):
            self._fault = None
            self._count("taken")
        elif not is_full:
            self._cannot(in_one_line(outcome))
        if shot.asked is not None:
            self._triggers.end(shot.asked, outcome)

    def _judged(self, shot: Shot, look: str, done: "Future[Result]") -> None:
        if (error := done.exception()) is None:
            self._see(done.result(), look)
        elif shot.asked is not None and isinstance(error, Refused) and error.status == 409:
            self._answered(shot, self._stored(shot.request_id) or error)  # the trigger came twice
            return
        self._answered(shot, error or done.result())

    def _see(self, result: Result, look: str) -> None:
        """Notice when frames become others: limits are of pictures as they were."""
        now, before = f"{result.width} x {result.height} pixels, {look}", self._look
        if before is not None and now != before:
            self._note = f"since {result.time} frames are {now}; before they were {before}"
            LOG.warning("station %s: %s", self.station.name, self._note)
        self._look = now

    # ------------------------------------------------------------------ triggers, counts and troubles

    def _stored(self, request_id: str) -> Result | None:
        try:
            with self.service.database.read() as connection:
                found = results.by_request(connection, self.station.name, request_id)
        except SQLAlchemyError:
            return None
        return None if found is None else found.result

    def _refuse_triggers(self, why: str, code: str = "source") -> None:
        """Nobody waits for a frame that shows another part, or none."""
        self._cut_off(self._triggers.give_up(), why, code)

    def _cut_off(self, left: Sequence[Asked], why: str, code: str = "source") -> None:
        """No more frames for these: a part of several pictures is judged by those that came, and others are
        refused."""
        with self._changed:
            # When the station stops nobody hands over any more.
            begun = [one for one in left if any(one.frames) and not self._stop.is_set()]
            self._frames.extend(Shot(tuple(one.frames), one.request_id, one) for one in begun)
            self._changed.notify_all()
        for one in begun:
            came = f"{len(one.frames)} of {self._triggers.count} frames"
            LOG.error("station %s judges part %s by %s: %s", self.station.name, one.part_id, came, why)
        for one in left:
            if one not in begun:
                self._triggers.end(one, Refused(f"no frame: {why}", 503, 1, code))

    def _skip(self, count: int) -> None:
        self._skipped += count
        if count:
            self.service.metrics.skipped.labels(self.station.name).inc(count)

    def _cannot(self, why: str) -> None:
        """A frame that cannot be judged; of many for the same reason one is named."""
        self._count("failed")
        if why != self._fault:
            self.service.metrics.errors.labels("source").inc()
            LOG.error("station %s cannot judge a frame: %s", self.station.name, why)
        self._fault = why

    def _count(self, outcome: str) -> None:
        self._counts[outcome] += 1
        self.service.metrics.source_files.labels(self.station.name, outcome).inc()

    def _lost(self) -> str | None:
        """Why no frames come, in words; also where a driver does not keep to its time-out."""
        if self._problem is not None:
            return self._problem
        since, most = self._reading_since, 2 * self.source.timeout + PATIENCE
        if since is not None and time.monotonic() - since > most:
            return f"{self.source.place}: has not answered for {time.monotonic() - since:.0f} s"
        return None

    def _trouble(self, problem: str | None) -> None:
        if problem != self._problem:
            if problem is None:
                LOG.info("the camera of station %s is there", self.station.name)
            else:
                self.service.metrics.errors.labels("source").inc()
                LOG.error("station %s takes no frames: %s", self.station.name, problem)
        self._problem = problem
        self.service.metrics.source_up.labels(self.station.name).set(problem is None)
        if problem is not None:
            self._refuse_triggers(problem)


def _content(frame: Frame) -> bytes | Pixels:
    return frame.body if isinstance(frame.body, bytes) else frame.body()


def _together(members: Sequence[str], bodies: Sequence[bytes | Pixels | None]) -> bytes:
    """The pictures of a part, those that came; pixels without losing a level."""
    return packed(
        (member, body if isinstance(body, bytes) else encode_png(body))
        for member, body in zip(members, bodies, strict=False)
        if body is not None
    )
