"""How a long job goes: a bar with loss and time left on a terminal, plain lines elsewhere."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from invad.cli.voice import complain, remark, shown
from invad.fit.launch import first_to_fail
from invad.system.signals import INTERRUPT, answering, is_unanswered

if TYPE_CHECKING:
    from invad.fit.distributed import Workers

SECONDS_BETWEEN_LINES = 10.0
STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that are treated like Ctrl-C, unless somebody has them ignored (nohup)."""


INTERRUPTED = 130
"""Exit status after Ctrl-C."""


class Shown(Protocol):
    """What `observer.Observer` asks for."""

    def stage(self, name: str, total: int) -> None: ...
    def advance(self, detail: str = "") -> None: ...
    def note(self, text: str) -> None: ...


class Bar:
    """One rich progress bar per stage."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.task: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        self.task = self.progress.add_task(shown(name), total=total, detail="")

    def advance(self, detail: str = "") -> None:
        if self.task is not None:
            self.progress.update(self.task, advance=1, detail=shown(detail))

    def note(self, text: str) -> None:
        remark(self.progress.console, text)


class Lines:
    """A line when a stage begins and every ten seconds after."""

    def __init__(self, console: Console):
        self.console = console
        self.name, self.total, self.done = "", 0, 0
        self.started = self.spoke = 0.0

    def stage(self, name: str, total: int) -> None:
        self.name, self.total, self.done = name, total, 0
        self.started = self.spoke = time.monotonic()
        self.note(f"{name}: {total}")

    def advance(self, detail: str = "") -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.spoke < SECONDS_BETWEEN_LINES:
            return
        self.spoke = now
        left = (now - self.started) / self.done * max(0, self.total - self.done)  # a video may state too few
        said = f", {detail}" if detail else ""
        self.note(f"{self.name}: {self.done} of {self.total}{said}, about {left:.0f} s left")

    def note(self, text: str) -> None:
        remark(self.console, text)


class Quiet:
    """For the processes that do not lead."""

    def stage(self, name: str, total: int) -> None: ...
    def advance(self, detail: str = "") -> None: ...
    def note(self, text: str) -> None: ...


class Interruptible:
    """Passes on to another observer, and turns Ctrl-C or SIGTERM into an exception between two steps.

    A checkpoint written halfway through a step would not continue to the same result. A second Ctrl-C
    does not wait, unless patient: a launcher passes the first one on to processes that have seen it.
    """

    def __init__(self, inner: Shown, patient: bool = False):
        self.inner, self.patient = inner, patient
        self.working = self.asked = False

    def stage(self, name: str, total: int) -> None:
        self.inner.stage(name, total)
        self.working = total > 0

    def advance(self, detail: str = "") -> None:
        self.inner.advance(detail)
        if self.asked:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.inner.note(text)

    def on_signal(self) -> None:
        if not self.working or (self.asked and not self.patient):
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def ending_when_interrupted(says: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C ends the command with the line that `says` makes, once for all processes of a job."""
    try:
        yield
    except KeyboardInterrupt:
        if first_to_fail():
            complain(says())
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def observing(console: Console, team: "Workers | None" = None) -> Iterator[Shown]:
    """An observer that shows progress on `console` and makes Ctrl-C safe. Of a team one process shows it."""
    if team is not None:
        with _safe_interrupt(Quiet() if team.rank else Lines(console), patient=True) as observer:
            yield observer
        return
    if not console.is_terminal:
        with _safe_interrupt(Lines(console)) as observer:
            yield observer
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console) as progress, _safe_interrupt(Bar(progress)) as observer:
        yield observer


@contextmanager
def _safe_interrupt(inner: Shown, patient: bool = False) -> Iterator[Interruptible]:
    observer = Interruptible(inner, patient)
    # The processes of a team are ended by their launcher, which waits for none of them.
    others = () if patient else filter(is_unanswered, STOPPING)
    with answering([INTERRUPT, *others], observer.on_signal):
        yield observer
