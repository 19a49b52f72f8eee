"""What a station and its controller agree on, as a `line.toml` says it, and what speaks with controllers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from invad.errors import ConfigError
from invad.serve.plant.cycle import Review, Terms

WELL_KNOWN_PORT = 502
"""Of Modbus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """What is the same for every protocol; see EXAMPLE. Times in seconds."""

    trigger: bool = True
    acknowledge: bool = True
    hold: float = 1.0
    review: Review = "ng"
    watchdog: float | None = None

    def __post_init__(self) -> None:
        for name, low in (("hold", 0.01), ("watchdog", 0.1)):
            value = getattr(self, name)
            if value is not None and not low <= value <= 3600:
                raise ConfigError(f"{name} = {value:g}: give {low:g} to 3600 seconds")

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
        if not 0.001 <= self.poll <= 60:
            raise ConfigError(f"poll = {self.poll:g}: give 0.001 to 60 seconds")

    @property
    def link(self) -> str:
        """What stations with the same share: one server of ours; each controller that is one has its own."""
        where = f"{self.host}:{self.port}"
        return f"modbus {where}" if self.mode == "server" else f"modbus {where} unit {self.unit}"

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return f"{self.host}:{self.port} unit {self.unit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpcUaController(Controller):
    """A controller that is a client of the OPC UA server which all stations share."""

    kind: Literal["opcua"]

    @property
    def link(self) -> None:
        """Each station has its own."""
        return

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return "OPC UA server"


AnyController = ModbusController | OpcUaController
"""Grows with each kind; the key `kind` tells them apart."""


class Link(ABC):
    """Speaks with the controllers of one or several stations, from threads of its own."""

    @abstractmethod
    def start(self) -> None:
        """Begin; what cannot be reached is tried again and again, and the handshakes are told."""

    @abstractmethod
    def close(self) -> None:
        """End."""
