"""What parts can come from by themselves, as a `line.toml` says it, and what every such source does."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from invad.errors import ConfigError
from invad.serve.records import SourceState


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """Images that appear in a folder; see EXAMPLE. Times in seconds."""

    kind: Literal["folder"]
    path: str
    pattern: str = "*"
    recursive: bool = False
    settle: float = 0.5
    rescan: float = 2.0
    done: str | None = None
    failed: str | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("settle", 0.0, 3600.0), ("rescan", 0.05, 3600.0)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name):g}: give {low:g} to {high:g} seconds")
        if not self.pattern or "/" in self.pattern:
            raise ConfigError(f"pattern = {self.pattern!r}: give one of file names, such as '*.png'")

    def below(self, base: Path) -> "FolderSource":
        """With paths that do not depend on where the program was started."""
        done, failed = (None if one is None else str(base / one) for one in (self.done, self.failed))
        return replace(self, path=str(base / self.path), done=done, failed=failed)


AnySource = FolderSource
"""Grows with each kind; the key `kind` tells them apart."""


class Source(ABC):
    """Brings parts to a service, from a thread of its own."""

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def close(self) -> None:
        """Take no more parts, and wait for the answers of those under way."""

    @abstractmethod
    def state(self) -> SourceState:
        """What it does now."""
