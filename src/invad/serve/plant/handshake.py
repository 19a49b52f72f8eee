"""The handshake of one station with its controller, at work: threads, clocks and the service around `cycle`.

Whatever speaks a protocol calls `trigger` and `acknowledge`, or `levels`, and is told of each change of the
`Signals`. It knows nothing else of the service.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from invad.errors import in_one_line
from invad.serve.plant import cycle as rules
from invad.serve.plant.care import PATIENCE, Care
from invad.serve.plant.cycle import Cycle, Error, Outcome, Signals, Terms
from invad.serve.records import LONGEST_WORD, Awaited, Part, Result
from invad.serve.service import Service

LOG = logging.getLogger("invad.serve")
BEAT = 1.0
"""Seconds between two heartbeats."""

Take = Callable[[str | None, str | None, str], "Future[Result]"]
"""As `Source.take`: part_id, lot, request_id; returns at once."""


def no_fault() -> Error:
    return "none"


class Handshake:
    """One station towards its controller. All methods may be called from any thread, and none waits but
    `show` and `close_account`."""

    def __init__(
        self,
        service: Service,
        station: str,
        terms: Terms,
        *,
        take: Take | None = None,
        fault: Callable[[], Error] = no_fault,
        patience: float = PATIENCE,
    ):
        """take: fetches the part of a trigger; without it a trigger waits for the next part of the station.
        fault: asked twice a second why no part can come now; it may wait."""
        self.service, self.station = service, station
        self.terms = replace(terms, own_parts=take is not None)
        self.take, self.fault = take, fault
        self._care = Care(service, station, self.terms, patience)
        self._changed = threading.Condition(threading.RLock())
        self._cycle = Cycle(since=time.monotonic(), fault=fault())
        self._drift, self._beats, self._listeners = False, 0, list[Callable[[Signals], None]]()
        self._last = rules.signals(self._cycle, self.terms)
        self._told: set[str] = set()  # results that the controller has, until the outbox is told
        self._under_way: set[int] = set()  # triggers whose part has a future without a result
        self._late: set[int] = set()  # triggers that were told "late"
        self._stopping = self._closed = False
        self._threads = [
            threading.Thread(target=self._keep_time, name=f"invad-clock-{station}", daemon=True),
            threading.Thread(target=self._look_after, name=f"invad-care-{station}", daemon=True),
        ]

    # ------------------------------------------------------------------ for the service

    def start(self) -> None:
        """Take triggers from now on."""
        if self.terms.triggered:
            self.service.line.expecting = {**self.service.line.expecting, self.station: self._expected}
        self._care.alive()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Take no more triggers; a part that is under way is still answered."""
        with self._changed:
            self._stopping = True
            self._become(replace(self._cycle, fault="stopping"))

    def close(self) -> None:
        """End; what is shown and not acknowledged stays untold."""
        self.stop()
        with self._changed:
            self._closed = True
            # Nothing that is shown may stand for a part that comes while nobody is here.
            gone = Cycle(counter=self._cycle.counter, fault="stopping")
            self._last = rules.signals(gone, self.terms, self._beats)
            for listener in self._listeners:
                self._tell(listener)
            self._changed.notify_all()
        if self.service.line.expecting.get(self.station) == self._expected:
            others = {name: one for name, one in self.service.line.expecting.items() if name != self.station}
            self.service.line.expecting = others
        for thread in self._threads:
            if thread.is_alive():
                thread.join(1)

    def show(self, result: Result) -> bool:
        """Of a station without triggers: show a result and wait until the controller has it; False when the
        station ends before."""
        with self._changed:
            while not self._is_told(result):
                if self._closed:
                    return False
                self._become(rules.presented(self._cycle, time.monotonic(), result))
                self._changed.wait(1)
            return True

    def close_account(self, result: Result) -> bool:
        """Of a station with triggers: wait until the controller has a result that answers its trigger, and
        count and log one that it was not told of; False when the station ends before."""
        with self._changed:
            while not self._is_told(result):
                if self._closed:
                    return False
                if not self._is_shown(result) and not self._under_way:
                    self.service.metrics.untold.labels(self.station).inc()
                    LOG.warning(
                        "station %s: its controller was not told of result %s of part %s, %s",
                        *(self.station, result.id, result.part_id, result.decision),
                    )
                    return True
                self._changed.wait(1)
            return True

    def _is_told(self, result: Result) -> bool:
        """Whether the controller has it, also at the very end; asked once."""
        is_told = result.id in self._told
        self._told.discard(result.id)
        return is_told

    # ------------------------------------------------------------------ for controllers

    @property
    def signals(self) -> Signals:
        """As they are now."""
        return self._last

    @property
    def problem(self) -> str | None:
        """What the controller does not do, in words."""
        return self._care.problem

    def listen(self, listener: Callable[[Signals], None]) -> None:
        """Call it with the signals now and at each change, in their order. It must return at once, and must
        not call the handshake."""
        with self._changed:
            self._listeners.append(listener)
            self._tell(listener)

    def trigger(self, part_id: str | None = None, lot: str | None = None) -> None:
        """The controller asks for a part."""
        name = self.service.line.committer.ids.new()
        with self._changed:
            before, now = self._cycle, time.monotonic()
            asked = rules.triggered(before, self.terms, now, name, _word(part_id), _word(lot))
            self._become(asked)
        self._fetch(before, asked)

    def acknowledge(self) -> None:
        """The controller has seen what is shown."""
        with self._changed:
            self._become(rules.acknowledged(self._cycle, time.monotonic()))

    def levels(
        self, *, trigger: bool, acknowledge: bool, part_id: str | None = None, lot: str | None = None
    ) -> None:
        """The bits of the controller as they are; one that rises is a trigger, or acknowledges."""
        name = self.service.line.committer.ids.new()
        with self._changed:
            before = self._cycle
            asked = rules.levels(
                before,
                self.terms,
                time.monotonic(),
                name,
                trigger=trigger,
                acknowledge=acknowledge,
                part_id=_word(part_id),
                lot=_word(lot),
            )
            self._become(asked)
        self._fetch(before, asked)

    def found(self, *, trigger: bool, acknowledge: bool) -> None:
        """The bits of a controller that is met (again): what is set is left over, and is reset first."""
        with self._changed:
            self._become(rules.found(self._cycle, time.monotonic(), trigger, acknowledge))

    def alive(self) -> None:
        """The controller gave a sign of life."""
        self._care.alive()

    def away(self, problem: str | None) -> None:
        """The controller cannot be reached, in words, or is there again."""
        self._care.away = problem

    # ------------------------------------------------------------------ parts

    def _fetch(self, before: Cycle, asked: Cycle) -> None:
        """The part of a trigger, where there is a new one and it was taken."""
        if asked.number == before.number:
            return
        if asked.phase != "busy":
            LOG.error("station %s: trigger for part %s refused: %s", *self._words(asked))
        elif self.take is not None:
            with self._changed:
                self._under_way.add(asked.number)
            try:
                future = self.take(asked.part_id, asked.lot, _request(asked))
            except Exception as error:
                self._failed(asked.number, error)
                return
            self._follow(asked, future)

    def _expected(self, part: Part) -> Awaited | None:
        """Whether the part of this station answers a trigger."""
        with self._changed:
            cycle, now = self._cycle, time.monotonic()
            fits = part.request_id == _request(cycle) if self.take is not None else _may_be(part, cycle)
            taken = rules.claimed(cycle, now) if fits else None
            if taken is None:
                return None
            self._become(taken)
            self._under_way.add(cycle.number)
        due = now if cycle.phase != "busy" else float("inf") if cycle.due is None else cycle.due
        return Awaited(
            part=replace(part, part_id=cycle.part_id or part.part_id, lot=cycle.lot or part.lot),
            due=due,
            # The future of `take` also knows of a camera that gave no picture.
            admitted=lambda future: None if self.take is not None else self._follow(cycle, future),
            refused=lambda: self._wait_again(cycle.number),
            is_new=self.take is not None,
        )

    def _wait_again(self, number: int) -> None:
        """The part was none, and another one may come."""
        with self._changed:
            self._under_way.discard(number)
            if self._cycle.number == number and self._cycle.phase == "busy":
                self._become(replace(self._cycle, has_part=False))

    def _follow(self, asked: Cycle, future: "Future[Result]") -> None:
        future.add_done_callback(lambda done: self._came(asked, done))

    def _came(self, asked: Cycle, future: "Future[Result]") -> None:
        """What came of the part of a trigger."""
        error = future.exception()
        with self._changed:
            self._under_way.discard(asked.number)
            self._changed.notify_all()
            if error is not None:
                self._failed(asked.number, error)
                return
            result = future.result()
            if result.id <= asked.name:
                # A request that came again gives an older result, which says nothing of this part.
                self._wait_again(asked.number)
                return
            answer = rules.answered(self._cycle, time.monotonic(), asked.number, Outcome(result=result))
            self._become(answer)
            if not self._is_shown(result):
                self._told.add(result.id)  # an error was told in its place
            if asked.number in self._late and not result.late:
                self._care.unmarked.append(result.id)
            self._late.discard(asked.number)

    def _failed(self, number: int, error: BaseException) -> None:
        with self._changed:
            self._under_way.discard(number)
            LOG.error("station %s: no result of a part: %s", self.station, in_one_line(error))
            self._become(
                rules.answered(self._cycle, time.monotonic(), number, Outcome(error=rules.error_of(error)))
            )

    # ------------------------------------------------------------------ changes

    def _become(self, cycle: Cycle) -> None:
        """Take it, and tell everybody what has changed by it."""
        before, self._cycle = self._cycle, cycle
        if cycle is not before:
            if before.phase == "shown" and (cycle.phase != "shown" or cycle.counter != before.counter):
                self._seen(before, acknowledged=cycle.phase != "shown")
            if cycle.counter != before.counter and cycle.outcome.error == "late" and self.terms.triggered:
                self._late = (self._late & self._under_way) | {cycle.number}
                self.service.metrics.late.labels(self.station).inc()
                LOG.error("station %s: part %s: %s", *self._words(cycle))
        now = rules.signals(cycle, self.terms, self._beats, self._drift)
        if now != self._last:
            self._last = now
            for listener in self._listeners:
                self._tell(listener)
        if cycle != before:
            self._changed.notify_all()

    def _seen(self, cycle: Cycle, *, acknowledged: bool) -> None:
        if cycle.outcome.result is not None:
            self._told.add(cycle.outcome.result.id)
        if acknowledged:
            seen = rules.signals(cycle, self.terms)
            answer = "error" if seen.error else "ok" if seen.ok else "ng" if seen.ng else "review"
            self.service.metrics.told.labels(self.station, answer).inc()

    def _is_shown(self, result: Result) -> bool:
        shown = self._cycle.outcome.result
        return shown is not None and shown.id == result.id

    def _tell(self, listener: Callable[[Signals], None]) -> None:
        try:
            listener(self._last)
        except Exception:  # the others, and the part, do not wait for it
            LOG.exception("a listener of station %s failed", self.station)

    def _words(self, cycle: Cycle) -> tuple[str, str | None, str]:
        return self.station, cycle.part_id, rules.ERRORS[cycle.outcome.error][1]

    # ------------------------------------------------------------------ threads

    def _keep_time(self) -> None:
        """Deadlines, and the heartbeat. It waits for nothing else, so that both are kept whatever happens."""
        beat = time.monotonic() + BEAT
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                if now >= beat:
                    self._beats, beat = (self._beats + 1) % 2**16, now + BEAT
                self._become(rules.passed(self._cycle, self.terms, now))
                due = rules.next_time(self._cycle, self.terms)
                until = beat if due is None else min(beat, due)
                self._changed.wait(max(0.0, until - time.monotonic()))

    def _look_after(self) -> None:
        """What may wait: why no part can come, rows of late parts, a controller that does not do its part."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._care.unmarked, 0.5)
            self._care.mark_late()
            fault, drift = self.fault(), self.service.watch.alarmed(self.station)
            with self._changed:
                if not self._stopping:
                    self._drift = drift
                    self._become(replace(self._cycle, fault=fault))
            self._care.look(self._cycle)


def _request(cycle: Cycle) -> str:
    return f"trigger-{cycle.name}"


def _may_be(part: Part, cycle: Cycle) -> bool:
    """Whether a part that came by itself may be the one that was asked for; files are named by whoever
    writes them."""
    return part.source == "folder" or None in (part.part_id, cycle.part_id) or part.part_id == cycle.part_id


def _word(text: str | None) -> str | None:
    """What a controller gave as a word that can be stored."""
    kept = "".join(one if one.isprintable() else "?" for one in (text or "").strip("\0 "))
    return kept[:LONGEST_WORD] or None
