"""From decisions on the frames of a video to events: stretches in which many of them were flagged.

Neighbouring frames show nearly the same, so their p-values are strongly dependent: neither their product nor
any count of them is a p-value of the stretch. An event therefore tells counts only.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from invad.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRule:
    """An event is `flagged` flagged frames or more among any `among` judged ones in a row."""

    flagged: int = 3
    among: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.flagged <= self.among:
            raise ConfigError(
                f"events of {self.flagged} among {self.among} frames: give at least 1, and not more than "
                "there are"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedFrame:
    """number, time (seconds): of the frame in its video. flagged: whether it counts for an event."""

    number: int
    time: float
    score: float
    flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """start, end: seconds of the first and the last flagged frame. flagged, judged: frames from the one to
    the other. peak_frame, peak_time, peak_score: of the flagged frame with the highest score, the first of
    equals.
    """

    start: float
    end: float
    flagged: int
    judged: int
    peak_frame: int
    peak_time: float
    peak_score: float


class EventFinder:
    """Finds the events of one video while its frames are judged; holds `rule.flagged` frames at most."""

    def __init__(self, rule: EventRule):
        self.rule = rule
        self.found: list[Event] = []
        """Those so far; the last one may still grow."""
        self._recent: deque[tuple[int, JudgedFrame]] = deque(maxlen=rule.flagged)
        self._last = -1  # place of the last frame of the last event
        self._places = 0

    def add(self, frame: JudgedFrame) -> None:
        """The next frame that could be judged, in the order of time."""
        place, self._places = self._places, self._places + 1
        if not frame.flagged:
            return
        self._recent.append((place, frame))
        first = self._recent[0][0]
        if len(self._recent) < self.rule.flagged or place - first >= self.rule.among:
            return
        # Stretches that share a frame, or lie as near as the frames of one, are one event.
        goes_on = bool(self.found) and first - self._last < self.rule.among
        new = [(at, one) for at, one in self._recent if not goes_on or at > self._last]
        before = [self.found.pop()] if goes_on else []
        distance = place - (self._last if goes_on else first - 1)
        self.found.append(_event(before, [one for _, one in new], distance))
        self._last = place


def find_events(frames: Iterable[JudgedFrame], rule: EventRule | None = None) -> list[Event]:
    """The events of the frames of one video, given in the order of time."""
    finder = EventFinder(rule or EventRule())
    for frame in frames:
        finder.add(frame)
    return finder.found


def _event(before: list[Event], new: list[JudgedFrame], judged: int) -> Event:
    """The flagged frames `new` after an event, or as one of their own. judged: frames that they add."""
    peaks = [(e.peak_score, e.peak_frame, e.peak_time) for e in before]
    score, number, time = max([*peaks, *((f.score, f.number, f.time) for f in new)], key=lambda peak: peak[0])
    return Event(
        start=before[0].start if before else new[0].time,
        end=new[-1].time,
        flagged=sum(e.flagged for e in before) + len(new),
        judged=sum(e.judged for e in before) + judged,
        peak_frame=number,
        peak_time=time,
        peak_score=score,
    )
