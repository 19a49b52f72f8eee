"""What parts can come from by themselves, as a `line.toml` says it, and what every such source does."""

import os
import re
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from invad.data.members import Rule
from invad.errors import ConfigError
from invad.serve.plant.times import SHORT, require_seconds
from invad.serve.records import Result, SourceState


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """Images that appear in a folder; see example.toml. Times in seconds. parts: how files become pictures of
    parts, where they are named otherwise than those that the model was trained on."""

    kind: Literal["folder"]
    path: str
    pattern: str = "*"
    parts: str | None = None
    recursive: bool = False
    settle: float = 0.5
    rescan: float = 2.0
    missing_after: float = 10.0
    done: str | None = None
    failed: str | None = None

    def __post_init__(self) -> None:
        require_seconds("settle", self.settle, 0.0, SHORT)
        require_seconds("rescan", self.rescan, 0.05)
        require_seconds("missing_after", self.missing_after, 0.0)
        if self.parts is not None:
            Rule.parse(self.parts)
        if not self.pattern or "/" in self.pattern:
            raise ConfigError(f"pattern = {self.pattern!r}: give one of file names, such as '*.png'")

    def below(self, base: Path) -> "FolderSource":
        """With paths that do not depend on where the program was started."""
        done, failed = (None if one is None else str(base / one) for one in (self.done, self.failed))
        return replace(self, path=str(base / self.path), done=done, failed=failed)


Policy = Literal["every", "latest", "trigger"]
"""Which frames are judged: each; the newest when there is room, the others counted; those asked for."""


def _require_members(members: tuple[str, ...], policy: Policy, lag: float | None) -> None:
    """Raises ConfigError where frames cannot be told apart by their order after a trigger."""
    if members and (policy != "trigger" or lag is None):
        raise ConfigError(
            f"members = {list(members)}: frames are told apart by their order after a trigger; give "
            "policy = 'trigger', and lag, without which the first one would be left out"
        )
    if len(set(members)) < len(members) or not all(members):
        raise ConfigError(f"members = {list(members)}: give each picture of a part once")


SCHEMES = ("http", "https", "rtsp", "rtsps")


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraSource:
    """A camera at an address, at a device such as /dev/video0, or a video file; see example.toml. Times in
    seconds. members: of a part of several pictures, which one each frame after a trigger is. login_variable:
    of the environment, holds user:password."""

    kind: Literal["camera"]
    url: str
    policy: Policy = "every"
    interval: float = 0.0
    lag: float | None = None
    timeout: float = 5.0
    members: tuple[str, ...] = ()
    loop: bool = False
    login_variable: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _require_times(self.interval, self.lag, self.timeout)
        _require_members(self.members, self.policy, self.lag)
        if not self.url:
            raise ConfigError("url = '': give an address, a device such as /dev/video0 or a video file")
        if "://" in self.url:
            address = urlsplit(self.url)
            if address.scheme not in SCHEMES or not address.hostname:
                raise ConfigError(f"url = {self.place!r}: give one that begins with {', '.join(SCHEMES)}://")
            if address.username is not None:
                raise ConfigError(
                    f"url = {self.place!r}: put user:password in a variable of the environment, and name it "
                    "as login_variable"
                )
        elif self.login_variable is not None:
            raise ConfigError("login_variable: a device or a file asks for no login; leave it out")
        if self.loop and not self.is_file:
            raise ConfigError("loop = true: only a video file is played again and again; leave it out")
        if self.is_file and not self.loop and self.policy != "every":
            raise ConfigError(
                f"policy = {self.policy!r}: a video file waits until each frame is judged; choose 'every', "
                "or play it as a camera would, with loop = true"
            )

    @property
    def is_device(self) -> bool:
        """Whether it is a camera of this machine."""
        return re.match(r"/dev/", self.url) is not None

    @property
    def is_file(self) -> bool:
        return not (self.is_device or "://" in self.url)

    @property
    def place(self) -> str:
        """Where it is, without a password."""
        return re.sub(r"(?<=://)[^/@]*@", "", self.url)

    @property
    def address(self) -> str:
        """The url with its login. Raises ConfigError where the environment does not have it."""
        if self.login_variable is None:
            return self.url
        if self.login_variable not in os.environ:
            raise ConfigError(
                f"the environment has no variable {self.login_variable}; set it before the service starts"
            )
        user, _, password = os.environ[self.login_variable].partition(":")
        return self.url.replace("://", f"://{quote(user, '')}:{quote(password, '')}@", 1)

    def below(self, base: Path) -> "CameraSource":
        """With paths that do not depend on where the program was started."""
        return replace(self, url=str(base / self.url)) if self.is_file else self


@dataclass(frozen=True, slots=True, kw_only=True)
class GenicamSource:
    """An industrial camera by the GenTL producer of its maker; see example.toml. Times in seconds."""

    kind: Literal["genicam"]
    producer: str
    serial: str | None = None
    nodes: dict[str, Any] = field(default_factory=dict)
    policy: Policy = "every"
    interval: float = 0.0
    lag: float | None = None
    timeout: float = 5.0
    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require_times(self.interval, self.lag, self.timeout)
        _require_members(self.members, self.policy, self.lag)
        for name, value in self.nodes.items():
            if not isinstance(value, bool | int | float | str):
                raise ConfigError(f"nodes.{name} = {value!r}: give a number, a text, true or false")

    @property
    def place(self) -> str:
        """Which camera it is."""
        return self.producer if self.serial is None else f"{self.producer}, serial {self.serial}"

    def below(self, base: Path) -> "GenicamSource":
        """With paths that do not depend on where the program was started."""
        return replace(self, producer=str(base / self.producer))


FeedSource = CameraSource | GenicamSource
"""What gives frames."""

AnySource = FolderSource | CameraSource | GenicamSource
"""Grows with each kind; the key `kind` tells them apart."""


def _require_times(interval: float, lag: float | None, timeout: float) -> None:
    require_seconds("interval", interval, 0.0)
    require_seconds("lag", lag or 0.0, 0.0, SHORT)
    require_seconds("timeout", timeout, 0.1)


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

    def take(self, part_id: str | None, lot: str | None, request_id: str) -> "Future[Result]":
        """Judge the next picture that shows what is there now, for whoever has a trigger.

        request_id: one for each part; the same one gives the result that there is. May be called from any
        thread and returns at once. The future always ends: with the result when it is stored, with Refused
        where the source cannot see, or as `Service.submit` says. Raises ConfigError for a source that brings
        parts by itself, and Refused where another service has it.
        """
        raise ConfigError(
            "its source brings parts by itself; a trigger needs one of kind camera or genicam with "
            "policy = 'trigger'"
        )
