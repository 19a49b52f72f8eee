"""The handshake of a station with its controller, as a value and functions of it; nothing here waits.

    idle -- trigger --> busy -- result, error or deadline --> shown -- acknowledge --> clearing --> idle

An error always sets NG as well. OK is set for nothing but a good result of the very part that is answered.
ready and results_ready are never set together. `clearing` ends when the controller has reset what it set.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

from invad.serve.records import Refused, Result

Phase = Literal["idle", "busy", "shown", "clearing"]
Error = Literal[
    "none", "late", "image", "engine", "full", "source", "busy", "database", "disk", "stopping", "other"
]
Review = Literal["ng", "ok", "review"]

ERRORS: dict[Error, tuple[int, str]] = {
    "none": (0, "no error"),
    "late": (1, "the part was not judged within the deadline of its station"),
    "image": (2, "the image cannot be read"),
    "engine": (3, "the engine failed at this part"),
    "full": (4, "the line is full"),
    "source": (5, "the camera or folder gives no images"),
    "busy": (6, "a trigger came before the station was ready; of the parts since, none counts as inspected"),
    "database": (7, "the database does not take the result"),
    "disk": (8, "the disk is full"),
    "stopping": (9, "the service is stopping"),
    "other": (99, "something else, which the log of the service names"),
}
"""Number and meaning of each; numbers never change."""


OF_REFUSED: dict[str, Error] = {
    "image": "image",
    "full": "full",
    "source": "source",
    "database": "database",
    "disk": "disk",
    "stopping": "stopping",
}
"""By the code of a refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a station and its controller agreed on.

    triggered: the controller asks for each part; else it is shown what comes. deadline: seconds from the
    trigger to the answer, None for none. review: what a part to review sets. hold: None where the controller
    acknowledges; else for how many seconds a result is shown at least. own_parts: whether a trigger fetches
    its part; else it waits for the next one that comes. watchdog: seconds within which the controller has to
    give a sign of life, None where it gives none.
    """

    triggered: bool = True
    deadline: float | None = None
    review: Review = "ng"
    hold: float | None = None
    own_parts: bool = True
    watchdog: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a part: a result, an error, or both, such as a result that came too late."""

    result: Result | None = None
    error: Error = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """Where a station stands. Times are seconds of a clock that only rises.

    number: of the triggers so far; an answer to an earlier one is none to this. name: of the trigger; sorts
    before the id of every result that may answer it. part_id, lot: as the controller gave them. since: when
    the phase began. due: when a busy station is late. quiet: until when a part that was too late may still
    come, so that it is not taken for another's. counter: outcomes shown so far. fault: why triggers are not
    taken now. has_part: whether the part of the trigger has come. trigger, acknowledge: the bits of the
    controller as they are.
    """

    phase: Phase = "idle"
    number: int = 0
    name: str = ""
    part_id: str | None = None
    lot: str | None = None
    since: float = 0.0
    due: float | None = None
    quiet: float = 0.0
    has_part: bool = False
    outcome: Outcome = field(default_factory=Outcome)
    counter: int = 0
    fault: Error = "none"
    trigger: bool = False
    acknowledge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What a controller sees. part_id, lot, result: of the part that is under way or shown. error_code: of
    `ERRORS`. counter: outcomes shown since the start. drift: parts have come to look different. heartbeat:
    one more each second."""

    ready: bool
    busy: bool
    results_ready: bool
    ok: bool
    ng: bool
    review: bool
    error: bool
    error_code: int
    counter: int
    drift: bool
    heartbeat: int
    part_id: str | None
    lot: str | None
    result: Result | None


def triggered(
    cycle: Cycle, terms: Terms, now: float, name: str, part_id: str | None = None, lot: str | None = None
) -> Cycle:
    """The controller asks for a part. Before the station is ready that is an error, of which the controller
    is told in place of whatever was shown or under way, because it could be taken for the new part's."""
    if not terms.triggered:
        return cycle
    asked = replace(
        cycle, number=cycle.number + 1, name=name, part_id=part_id, lot=lot, has_part=False, quiet=0.0
    )
    if cycle.phase != "idle":
        return _shown(asked, Outcome(error="busy"), now)
    if cycle.fault != "none":
        return _shown(asked, Outcome(error=cycle.fault), now)
    due = None if terms.deadline is None else now + terms.deadline
    return replace(asked, phase="busy", since=now, due=due)


def answered(cycle: Cycle, now: float, number: int, outcome: Outcome) -> Cycle:
    """What came of the part of trigger `number`; nothing changes where that one is over."""
    if cycle.number == number and cycle.phase == "busy":
        if cycle.due is not None and now >= cycle.due:
            outcome = replace(outcome, error="late")
        return _shown(cycle, outcome, now)
    return cycle


def presented(cycle: Cycle, now: float, result: Result) -> Cycle:
    """Show a result that no trigger asked for; nothing changes while the station is not idle."""
    if cycle.phase != "idle":
        return cycle
    shown = replace(cycle, part_id=result.part_id, lot=result.lot)
    return _shown(shown, Outcome(result=result, error="late" if result.late else "none"), now)


def claimed(cycle: Cycle, now: float) -> Cycle | None:
    """The part that came by itself is that of the trigger, also when it is too late; None where none is
    waited for."""
    if cycle.has_part or not (cycle.phase == "busy" or now < cycle.quiet):
        return None
    return settled(replace(cycle, has_part=True, quiet=0.0), now)


def acknowledged(cycle: Cycle, now: float) -> Cycle:
    """The controller has seen what is shown."""
    if cycle.phase != "shown":
        return cycle
    return settled(replace(cycle, phase="clearing", since=now, outcome=Outcome()), now)


def levels(
    cycle: Cycle,
    terms: Terms,
    now: float,
    name: str,
    *,
    trigger: bool,
    acknowledge: bool,
    part_id: str | None = None,
    lot: str | None = None,
) -> Cycle:
    """The bits of the controller as they are; what counts is that one rises."""
    rises = (trigger and not cycle.trigger, acknowledge and not cycle.acknowledge)
    cycle = replace(cycle, trigger=trigger, acknowledge=acknowledge)
    if rises[1]:
        cycle = acknowledged(cycle, now)
    if rises[0]:
        cycle = triggered(cycle, terms, now, name, part_id, lot)
    return settled(cycle, now)


def found(cycle: Cycle, now: float, trigger: bool, acknowledge: bool) -> Cycle:
    """The bits of a controller that is met (again): what is set is left over, and has to be reset first."""
    cycle = replace(cycle, trigger=trigger, acknowledge=acknowledge)
    if cycle.phase == "idle" and (trigger or acknowledge):
        return replace(cycle, phase="clearing", since=now)
    return settled(cycle, now)


def error_of(error: BaseException) -> Error:
    """What a controller is told of an exception that came in place of a result."""
    return OF_REFUSED.get(error.code, "other") if isinstance(error, Refused) else "engine"


def passed(cycle: Cycle, terms: Terms, now: float) -> Cycle:
    """What time alone changes."""
    if cycle.phase == "busy" and cycle.due is not None and now >= cycle.due:
        waits = terms.deadline if not (terms.own_parts or cycle.has_part) else None
        late = replace(cycle, quiet=0.0 if waits is None else now + waits)
        return _shown(late, Outcome(error="late"), now)
    if cycle.phase == "shown" and terms.hold is not None and now >= cycle.since + terms.hold:
        return acknowledged(cycle, now)
    return settled(cycle, now)


def settled(cycle: Cycle, now: float) -> Cycle:
    """Idle again, once the controller has reset its bits and no late part is waited for."""
    if cycle.phase != "clearing" or cycle.trigger or cycle.acknowledge or now < cycle.quiet:
        return cycle
    return replace(cycle, phase="idle", since=now, part_id=None, lot=None, quiet=0.0)


def next_time(cycle: Cycle, terms: Terms) -> float | None:
    """When `passed` may change something."""
    if cycle.phase == "busy":
        return cycle.due
    if cycle.phase == "shown" and terms.hold is not None:
        return cycle.since + terms.hold
    if cycle.phase == "clearing" and cycle.quiet:
        return cycle.quiet
    return None


def signals(cycle: Cycle, terms: Terms, heartbeat: int = 0, drift: bool = False) -> Signals:
    """What the controller sees of it."""
    shown = cycle.phase == "shown"
    outcome = cycle.outcome
    error = outcome.error if shown else cycle.fault if cycle.phase != "busy" else "none"
    sets = ""
    if error != "none":
        sets = "ng"
    elif shown and outcome.result is not None:
        sets = {"good": "ok", "bad": "ng", "review": terms.review}[outcome.result.decision]
    return Signals(
        ready=cycle.phase == "idle" and error == "none",
        busy=cycle.phase == "busy",
        results_ready=shown,
        ok=sets == "ok",
        ng=sets == "ng",
        review=sets == "review",
        error=error != "none",
        error_code=ERRORS[error][0],
        counter=cycle.counter,
        drift=drift,
        heartbeat=heartbeat,
        part_id=cycle.part_id,
        lot=cycle.lot,
        result=outcome.result if shown else None,
    )


def overdue(cycle: Cycle, terms: Terms, now: float, patience: float) -> str | None:
    """What the controller has not done for so many seconds, in words."""
    seconds = now - max(cycle.since, cycle.quiet)
    if seconds < patience:
        return None
    if cycle.phase == "shown" and terms.hold is None:
        return f"the controller has not acknowledged part {cycle.part_id} for {seconds:.0f} s"
    if cycle.phase == "clearing":
        what = "trigger" if cycle.trigger else "acknowledge"
        return f"the controller has not reset {what} for {seconds:.0f} s"
    return None


def _shown(cycle: Cycle, outcome: Outcome, now: float) -> Cycle:
    return replace(
        cycle, phase="shown", since=now, due=None, outcome=outcome, counter=(cycle.counter + 1) % 2**32
    )
