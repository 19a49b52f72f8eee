"""Who is told of the results of a station, as a `line.toml` says it."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from invad.errors import ConfigError
from invad.records import Decision

EVERY: tuple[Decision, ...] = ("good", "review", "bad")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookOutput:
    """Each result is posted to an address. secret_variable: of the environment, holds what signs it."""

    kind: Literal["webhook"]
    url: str
    secret_variable: str | None = None
    name: str = "webhook"
    decisions: tuple[Decision, ...] = EVERY

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ConfigError(f"url = {self.url!r}: give one that begins with https:// or http://")

    def below(self, base: Path) -> "WebhookOutput":
        """With paths that do not depend on where the program was started."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttOutput:
    """Each result is a message of MQTT 5. url: mqtt:// or, encrypted, mqtts://. password_variable: of the
    environment. ca_file: certificates that the broker's is checked by, those of the system without one.
    certificate, private_key: ours, PEM files, for brokers that ask for one. prefix, site: of the topics.
    address: of the service, as receivers reach it, for links to pictures."""

    kind: Literal["mqtt"]
    url: str
    user: str | None = None
    password_variable: str | None = None
    ca_file: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    prefix: str = "invad"
    site: str = "plant"
    address: str | None = None
    name: str = "mqtt"
    decisions: tuple[Decision, ...] = EVERY

    def __post_init__(self) -> None:
        parts = _address(self.url, ("mqtt", "mqtts"))
        if parts.username is not None:
            raise ConfigError("url: give user and password_variable; whoever reads this file reads its url")
        if parts.path.strip("/") or parts.query:
            raise ConfigError(f"url = {self.url!r}: give mqtt://HOST:PORT alone; prefix begins the topics")
        for key in ("ca_file", "certificate"):
            if getattr(self, key) is not None and not self.is_encrypted:
                raise ConfigError(f"{key}: {self.url} is not encrypted; give mqtts://")
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("mqtt: give both certificate and private_key, or neither")
        if self.password_variable is not None and self.user is None:
            raise ConfigError("password_variable: give a user, too")
        for key in ("prefix", "site"):
            word = getattr(self, key)
            levels = 1 if key == "site" else 9
            if not re.fullmatch(rf"[^/+#$\s\0]+(/[^/+#$\s\0]+){{0,{levels - 1}}}", word):
                raise ConfigError(f"{key} = {word!r}: give a word without +, # and $ and blanks")
        if self.address is not None:
            _address(self.address, ("http", "https"))

    @property
    def is_encrypted(self) -> bool:
        return self.url.lower().startswith("mqtts://")

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (8883 if self.is_encrypted else 1883)

    def below(self, base: Path) -> "MqttOutput":
        """With paths that do not depend on where the program was started."""
        files = (self.ca_file, self.certificate, self.private_key)
        theirs, ours, key = (None if one is None else str(base / one) for one in files)
        return replace(self, ca_file=theirs, certificate=ours, private_key=key)


Taken = Literal["received", "acknowledged", "shown"]
"""When a result counts as delivered by OPC UA: the subscription of a client confirmed it, a client
acknowledged it by a method, or it stood in the variables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcUaOutput:
    """Each result is an event of the OPC UA server, and stands in its variables until the next one."""

    kind: Literal["opcua"]
    taken: Taken = "received"
    name: str = "opcua"
    decisions: ClassVar[tuple[Decision, ...]] = EVERY

    def below(self, base: Path) -> "OpcUaOutput":
        """With paths that do not depend on where the program was started."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class CsvOutput:
    """Each result is a line of a CSV file, one a day. most_mib: size after which another begins."""

    kind: Literal["csv"]
    path: str
    most_mib: float = 64.0
    name: str = "csv"
    decisions: tuple[Decision, ...] = EVERY

    def __post_init__(self) -> None:
        _require_within("most_mib", self.most_mib, 0.01, 4096)

    def below(self, base: Path) -> "CsvOutput":
        """With paths that do not depend on where the program was started."""
        return replace(self, path=str(base / self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetOutput:
    """Results are gathered into Parquet files. every: seconds, or rows, whichever is reached first."""

    kind: Literal["parquet"]
    path: str
    every: float = 300.0
    rows: int = 5000
    name: str = "parquet"
    decisions: tuple[Decision, ...] = EVERY

    def __post_init__(self) -> None:
        _require_within("every", self.every, 1, 86400)
        _require_within("rows", self.rows, 1, 20000)

    def below(self, base: Path) -> "ParquetOutput":
        """With paths that do not depend on where the program was started."""
        return replace(self, path=str(base / self.path))


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOutput:
    """A picture of each result is written to a folder. side: pixels of its longer side at most."""

    kind: Literal["folder"]
    path: str
    picture: Literal["overlay", "image", "map"] = "overlay"
    form: Literal["png", "jpeg"] = "png"
    side: int | None = None
    name: str = "folder"
    decisions: tuple[Decision, ...] = ("review", "bad")

    def __post_init__(self) -> None:
        if self.picture == "map" and (self.form != "png" or self.side is not None):
            raise ConfigError(
                "picture = 'map': its values are kept as a PNG of 16 bits; leave form and side out"
            )
        if self.side is not None:
            _require_within("side", self.side, 16, 16384)

    def below(self, base: Path) -> "FolderOutput":
        """With paths that do not depend on where the program was started."""
        return replace(self, path=str(base / self.path))


Event = Literal["drift", "source", "output", "disk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertOutput:
    """People get messages. urls_variable: of the environment, holds addresses of apprise. quiet: minutes
    between two messages of one kind, at least. after: seconds until what does not work is told. address: of
    the service, as people reach it, for links to parts."""

    kind: Literal["alert"]
    urls_variable: str
    events: tuple[Event, ...] = ("drift", "source", "output", "disk")
    quiet: float = 10.0
    after: float = 30.0
    address: str | None = None
    name: str = "alert"
    decisions: tuple[Decision, ...] = ("bad",)

    def __post_init__(self) -> None:
        _require_within("quiet", self.quiet, 0, 1440)
        _require_within("after", self.after, 0, 86400)
        if self.address is not None:
            _address(self.address, ("http", "https"))

    def below(self, base: Path) -> "AlertOutput":
        """With paths that do not depend on where the program was started."""
        return self


AnyOutput = WebhookOutput | MqttOutput | CsvOutput | ParquetOutput | FolderOutput | OpcUaOutput | AlertOutput
"""Grows with each kind; the key `kind` tells them apart."""


def _require_within(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key} = {value:g}: give {low:g} to {high:g}")


def _address(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """Raises ConfigError for what is no address of one of these schemes."""
    try:
        parts = urlsplit(url)
        if parts.scheme in schemes and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError:  # an impossible port
        pass
    raise ConfigError(f"address {url!r}: give one that begins with {':// or '.join(schemes)}://")


def secret(variable: str | None) -> str:
    """What a variable of the environment holds, "" for None. Raises ConfigError where it is not set.

    Secrets are never in a `line.toml`, which people copy and mail.
    """
    if variable is None:
        return ""
    if variable not in os.environ:
        raise ConfigError(f"the environment has no variable {variable}; set it before the service starts")
    return os.environ[variable]
