"""invad predict on videos: a row for each frame, and the events."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invad.data.formats import VIDEO_SUFFIXES
from invad.errors import ConfigError, DataError
from invad.scoring.events import Event, EventFinder, EventRule, JudgedFrame

if TYPE_CHECKING:
    from invad.cli.lot import Measured
    from invad.detector.opening import AnyDetector
    from invad.records import Prediction
    from invad.runtime.predictor import Pixels

FLAGGED = "bad"
"""The decision that counts for an event."""

Save = Callable[[Path, Path, "Pixels", "Prediction"], None]
"""Writes the overlay of a file, under the name that is second."""


def is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def interval(text: str) -> Fraction:
    """`0.2s`, `200ms` or `0.2` in seconds. Raises ConfigError for anything else, and for none at all."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(ms|s)?", text.strip())
    seconds = Fraction(0) if match is None else Fraction(match[1]) / (1000 if match[2] == "ms" else 1)
    if not seconds:
        raise ConfigError(f"--every {text}: give a time above 0, such as 0.2s or 200ms")
    return seconds


def event_rule(text: str | None) -> EventRule:
    """`3/5` as 3 flagged frames among 5. Raises ConfigError for anything else."""
    if text is None:
        return EventRule()
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
    if match is None:
        raise ConfigError(f"--events {text}: give two numbers of frames, such as 3/5 for 3 bad ones among 5")
    return EventRule(flagged=int(match[1]), among=int(match[2]))


def said_of(found: "Prediction | DataError") -> dict[str, Any]:
    """What a row says of an image or a frame, whichever it is."""
    if isinstance(found, DataError):
        return {**dict.fromkeys(("score", "p_value", "decision")), "error": str(found)}
    return {"score": found.score, "p_value": found.p_value, "decision": found.decision}


class Footage:
    """The videos of one run, one after the other."""

    def __init__(self, every: Fraction | None, rule: EventRule):
        self.every, self.rule = every, rule
        self.events: list[tuple[Path, EventFinder]] = []

    def expected(self, videos: Sequence[Path]) -> int:
        """About how many rows they will have; at least one each."""
        if not videos:
            return 0
        from invad.data.video import expected_frames

        return sum(max(1, expected_frames(video, self.every)) for video in videos)

    def rows(
        self,
        detector: "AnyDetector",
        videos: Sequence[tuple[Path, Path]],
        save: Save | None,
        category: str | None,
        batch: int,
        strict: bool,
        say: Callable[[str], None],
        measured: "Measured | None" = None,
    ) -> Iterator[dict[str, Any]]:
        """The row of each frame; its overlay is written when the row has been taken.

        say: told the events of each video after its rows. measured: what is, of their defects.
        """
        for video, below in videos:
            finder = EventFinder(self.rule)
            self.events.append((video, finder))
            judged = detector.predict_video(
                video, every=self.every, category=category, batch=batch, strict=strict
            )
            try:
                for frame, found in judged:
                    row = {"path": str(video), "frame": frame.number, "time": frame.time, **said_of(found)}
                    if isinstance(found, DataError) or isinstance(frame.pixels, DataError):
                        yield row
                        continue
                    yield row | ({} if measured is None else measured.of(detector, frame.pixels, found))
                    flagged, time = found.decision == FLAGGED, frame.time
                    finder.add(
                        JudgedFrame(number=frame.number, time=time, score=found.score, flagged=flagged)
                    )
                    if save is not None:
                        name = f"{below.stem}_{time:09.3f}s.png"
                        save(video, below.with_name(name), frame.pixels, found)
            except DataError as error:
                if strict:
                    raise
                yield {"path": str(video), "frame": None, "time": None, **said_of(error)}
            for event in finder.found:
                say(event_line(video, event))

    def told(self) -> dict[str, Any]:
        """The events of all videos so far, as they stand in the JSON."""
        return {
            "events": [
                {"path": str(video), **asdict(event)}
                for video, finder in self.events
                for event in finder.found
            ]
        }


def event_line(video: Path, event: Event) -> str:
    """An event in words."""
    return (
        f"event       {event.start:.3f} s to {event.end:.3f} s  {event.flagged} {FLAGGED} of {event.judged} "
        f"frames  peak score {event.peak_score:.4g} in frame {event.peak_frame} at {event.peak_time:.3f} s  "
        f"{video}"
    )
