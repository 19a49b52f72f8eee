"""Who is told how a long job goes."""

from collections.abc import Mapping
from typing import Protocol


class Observer(Protocol):
    """Told how a long job goes."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` items or steps begins."""

    def advance(self, detail: str = "") -> None:
        """One item or step of the stage is done."""

    def note(self, text: str) -> None:
        """Something the user should know."""


class Silent:
    """An observer that says nothing."""

    def stage(self, name: str, total: int) -> None: ...
    def advance(self, detail: str = "") -> None: ...
    def note(self, text: str) -> None: ...


class Recorder(Protocol):
    """Told the numbers of every training step, to keep them."""

    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Numbers of step `step` (from 1) of a stage."""


class _Nobody:
    def record(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...


NO_RECORD: Recorder = _Nobody()
