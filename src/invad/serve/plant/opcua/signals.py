"""The signals of a station as a controller sees them, and its commands, as variables and methods."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from asyncua import ua

from invad.serve.plant.cycle import Signals
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.opcua.nodes import StationNodes

BOOLEAN, TEXT = ua.VariantType.Boolean, ua.VariantType.String


@dataclass(frozen=True, slots=True)
class Signal:
    """A variable that a controller reads."""

    name: str
    kind: ua.VariantType
    of: Callable[[Signals], Any]


SIGNALS = (
    Signal("Ok", BOOLEAN, lambda one: one.ok),
    Signal("Ng", BOOLEAN, lambda one: one.ng),
    Signal("Review", BOOLEAN, lambda one: one.review),
    Signal("Error", BOOLEAN, lambda one: one.error),
    Signal("ErrorCode", ua.VariantType.UInt16, lambda one: one.error_code),
    Signal("Counter", ua.VariantType.UInt32, lambda one: one.counter),
    Signal("PartId", TEXT, lambda one: one.part_id),
    Signal("JobId", TEXT, lambda one: one.lot),
    Signal("ResultId", TEXT, lambda one: None if one.result is None else one.result.id),
    Signal("Drift", BOOLEAN, lambda one: one.drift),
    Signal("Heartbeat", ua.VariantType.UInt16, lambda one: one.heartbeat),
    Signal("Busy", BOOLEAN, lambda one: one.busy),
    Signal("Ready", BOOLEAN, lambda one: one.ready),
)
READY = Signal("ResultsReady", BOOLEAN, lambda one: one.results_ready)
"""Set after all others, and reset before them, so that nobody reads the answer to another part."""

COMMANDS = {
    "PartId": TEXT,
    "JobId": TEXT,
    "Trigger": BOOLEAN,
    "Acknowledge": BOOLEAN,
    "Heartbeat": ua.VariantType.UInt16,
}
"""Variables that a controller writes."""


class SignalNodes:
    """Those of a station with a controller; used from the loop of the server alone."""

    def __init__(self, station: StationNodes):
        self.station = station
        self.handshake: Handshake | None = None
        self._written: dict[str, Any] = {}
        self._commands: dict[str, Any] = {}

    async def add(self) -> None:
        """Make them; they belong to nobody yet."""
        station, place = self.station, self.station.object
        signals = await place.add_object(station.id("Signals"), station.named("Signals"))
        commands = await place.add_object(station.id("Commands"), station.named("Commands"))
        for one in (*SIGNALS, READY):
            name = f"Signals.{one.name}"
            await signals.add_variable(station.id(name), station.named(one.name), _EMPTY[one.kind], one.kind)
        for name, kind in COMMANDS.items():
            node = await commands.add_variable(
                station.id(f"Commands.{name}"), station.named(name), _EMPTY[kind], kind
            )
            await node.set_writable()
            station.server.set_attribute_value_setter(node.nodeid, self._setter(name))
        given = [_argument("PartId"), _argument("JobId")]
        code = ua.Argument(Name="ErrorCode", DataType=ua.NodeId(ua.ObjectIds.UInt16))
        for name, call, ins, outs in (
            ("Trigger", self._trigger, given, [code]),
            ("Acknowledge", self._acknowledge, [], []),
        ):
            made = await commands.add_method(station.id(name), station.named(name), call, ins, outs)
            # Of the station too, where people look for it.
            await place.add_reference(made, ua.ObjectIds.HasComponent)

    def belong(self, handshake: Handshake | None) -> None:
        """Show the signals of this one from now on, or none."""
        self.handshake = handshake
        self._written = {}
        if handshake is not None:
            self.show(handshake.signals)
            return
        for one in (READY, *SIGNALS):
            self.station.withdraw(f"Signals.{one.name}")

    def show(self, signals: Signals) -> None:
        """What is shown is complete before it is said to be ready."""
        if signals.result is not None:
            self.station.show(signals.result)
        for one in (*SIGNALS, READY) if signals.results_ready else (READY, *SIGNALS):
            value = one.of(signals)
            if self._written.get(one.name, self) != value:
                self.station.write(f"Signals.{one.name}", value, one.kind)
                self._written[one.name] = value

    # ------------------------------------------------------------------ what the controller does

    async def _trigger(self, parent: ua.NodeId, part_id: ua.Variant, lot: ua.Variant) -> Any:
        """Ask for a part; answers the error code, 0 where it was taken."""
        if (handshake := self.handshake) is None:
            return ua.StatusCode(ua.StatusCodes.BadOutOfService)
        handshake.alive()
        handshake.trigger(part_id.Value or None, lot.Value or None)
        return [ua.Variant(handshake.signals.error_code, ua.VariantType.UInt16)]

    async def _acknowledge(self, parent: ua.NodeId) -> Any:
        if (handshake := self.handshake) is None:
            return ua.StatusCode(ua.StatusCodes.BadOutOfService)
        handshake.alive()
        self._confirm(handshake)
        handshake.acknowledge()
        return []

    def _confirm(self, handshake: Handshake) -> None:
        """What is shown, to an output that waits for that."""
        if (shown := handshake.signals.result) is not None:
            self.station.answers.confirm(shown.id)

    def _setter(self, name: str) -> Callable[..., None]:
        def written(node: Any, attribute: ua.AttributeIds, data: ua.DataValue) -> None:
            node.attributes[attribute].value = data
            self._commands[name] = None if data.Value is None else data.Value.Value
            if (handshake := self.handshake) is None:
                return
            handshake.alive()
            if name == "Acknowledge" and self._commands[name]:
                self._confirm(handshake)
            if name in ("Trigger", "Acknowledge"):
                handshake.levels(
                    trigger=bool(self._commands.get("Trigger")),
                    acknowledge=bool(self._commands.get("Acknowledge")),
                    part_id=self._commands.get("PartId") or None,
                    lot=self._commands.get("JobId") or None,
                )

        return written


_EMPTY = {
    BOOLEAN: False,
    TEXT: None,
    ua.VariantType.UInt16: 0,
    ua.VariantType.UInt32: 0,
}


def _argument(name: str) -> ua.Argument:
    return ua.Argument(Name=name, DataType=ua.NodeId(ua.ObjectIds.String), ValueRank=-1)
