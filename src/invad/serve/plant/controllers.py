"""What a station and its controller agree on, as a `line.toml` says it, and what speaks with controllers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from invad.errors import ConfigError
from invad.serve.plant.cycle import Review, Terms
from invad.serve.plant.outputs import MqttOutput
from invad.serve.plant.times import SHORT, require_seconds

WELL_KNOWN_PORT = 502
"""Of Modbus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """What is the same for every protocol; see example.toml. Times in seconds."""

    trigger: bool = True
    acknowledge: bool = True
    hold: float = 1.0
    review: Review = "ng"
    watchdog: float | None = None

    def __post_init__(self) -> None:
        require_seconds("hold", self.hold, 0.01, SHORT)
        if self.watchdog is not None:
            require_seconds("watchdog", self.watchdog, 0.1)

    def terms(self, deadline: float | None) -> Terms:
        """For the handshake. deadline: of the station."""
        return Terms(
            triggered=self.trigger,
            deadline=deadline,
            review=self.review,
            hold=None if self.acknowledge else self.hold,
            watchdog=self.watchdog,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModbusController(Controller):
    """A controller that speaks Modbus TCP. mode: who is the server. unit: the station's on that server. base:
    address of its first register. poll: seconds between two looks at the controller, where that is the
    server."""

    kind: Literal["modbus"]
    mode: Literal["server", "client"] = "server"
    host: str = "127.0.0.1"
    port: int = WELL_KNOWN_PORT
    unit: int = 1
    base: int = 0
    poll: float = 0.02

    def __post_init__(self) -> None:
        Controller.__post_init__(self)
        for name, low, high in (("port", 1, 65535), ("unit", 1, 247), ("base", 0, 65000)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name)}: give {low} to {high}")
        require_seconds("poll", self.poll, 0.001, SHORT)

    def below(self, base: Path) -> "ModbusController":
        """With paths that do not depend on where the program was started."""
        return self

    @property
    def link(self) -> str:
        """What stations with the same share: one server of ours; each controller that is one has its own."""
        where = f"{self.host}:{self.port}"
        return f"modbus {where}" if self.mode == "server" else f"modbus {where} unit {self.unit}"

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port} unit {self.unit}"


COMMAND_NODES = ("trigger", "acknowledge", "part_id", "lot", "alive")
"""Those of `OpcUaNodes` that the controller writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcUaNodes:
    """Nodes of a controller that is an OPC UA server, such as "ns=3;s=Camera.Trigger". The first ones, up to
    `alive`, it writes and we read; the others we write, as its types are."""

    trigger: str | None = None
    acknowledge: str | None = None
    part_id: str | None = None
    lot: str | None = None
    alive: str | None = None
    ready: str | None = None
    busy: str | None = None
    results_ready: str | None = None
    ok: str | None = None
    ng: str | None = None
    review: str | None = None
    error: str | None = None
    drift: str | None = None
    error_code: str | None = None
    counter: str | None = None
    heartbeat: str | None = None
    result_id: str | None = None
    score: str | None = None
    p_value: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """By name, those that there are."""
        named = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: node for name, node in named if node is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcUaController(Controller):
    """A controller that is a client of the OPC UA server which all stations share; or, with mode "client", a
    server itself. What follows mode is for that alone. certificate, private_key: ours, PEM or DER;
    server_certificate: that the controller has to have. poll: seconds between two looks at its nodes,
    or within which it has to tell of changes to be looked at less."""

    kind: Literal["opcua"]
    mode: Literal["server", "client"] = "server"
    url: str | None = None
    user: str | None = None
    password_variable: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    server_certificate: str | None = None
    poll: float = 0.05
    nodes: OpcUaNodes = field(default_factory=OpcUaNodes)

    def __post_init__(self) -> None:
        Controller.__post_init__(self)
        require_seconds("poll", self.poll, 0.005, SHORT)
        for one, other in (("certificate", "private_key"), ("user", "password_variable")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ConfigError(f"controller: give both {one} and {other}, or neither")
        if self.mode == "server":
            if self.url is not None or self.nodes != OpcUaNodes():
                raise ConfigError(
                    "controller: url and nodes are of a server of the controller; give mode = 'client'"
                )
            return
        if self.url is None or not self.url.startswith("opc.tcp://"):
            raise ConfigError(f"controller: url = {self.url!r}: give one that begins with opc.tcp://")
        needed = {"trigger": self.trigger, "acknowledge": self.acknowledge}
        needed |= {"results_ready": True, "ok": True, "ng": True}
        for name in (name for name, is_needed in needed.items() if is_needed):
            if getattr(self.nodes, name) is None:
                raise ConfigError(f"controller: nodes.{name} is missing; give the node id at the controller")
        if self.watchdog is not None and self.nodes.alive is None:
            raise ConfigError("controller: watchdog needs nodes.alive, which the controller changes")

    @property
    def link(self) -> None:
        """Each station has its own."""
        return

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.url or "OPC UA server"

    def below(self, base: Path) -> "OpcUaController":
        """With paths that do not depend on where the program was started."""
        files = (self.certificate, self.private_key, self.server_certificate)
        ours, key, theirs = (None if one is None else str(base / one) for one in files)
        return replace(self, certificate=ours, private_key=key, server_certificate=theirs)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttController(Controller):
    """A controller that sends and reads messages at a broker. Its keys mean what those of `MqttOutput` do."""

    kind: Literal["mqtt"]
    url: str
    user: str | None = None
    password_variable: str | None = None
    ca_file: str | None = None
    certificate: str | None = None
    private_key: str | None = None
    prefix: str = "invad"
    site: str = "plant"

    def __post_init__(self) -> None:
        Controller.__post_init__(self)
        if self.watchdog is not None:
            raise ConfigError("watchdog: a controller by MQTT has no heartbeat; leave it out")
        _ = self.broker  # which refuses what cannot be

    @property
    def broker(self) -> MqttOutput:
        """What an output at the same broker would say."""
        names = ("url", "user", "password_variable", "prefix", "site", *_FILES)
        return MqttOutput(kind="mqtt", **{name: getattr(self, name) for name in names})

    @property
    def link(self) -> None:
        """Each station has its own."""
        return

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.url} {self.prefix}/{self.site}"

    def below(self, base: Path) -> "MqttController":
        """With paths that do not depend on where the program was started."""
        whole = self.broker.below(base)
        return replace(self, **{name: getattr(whole, name) for name in _FILES})


_FILES = ("ca_file", "certificate", "private_key")

AnyController = ModbusController | OpcUaController | MqttController
"""Grows with each kind; the key `kind` tells them apart."""


class Link(ABC):
    """Speaks with the controllers of one or several stations, from threads of its own."""

    @abstractmethod
    def start(self) -> None:
        """Begin; what cannot be reached is tried again and again, and the handshakes are told."""

    @abstractmethod
    def close(self) -> None:
        """End."""
