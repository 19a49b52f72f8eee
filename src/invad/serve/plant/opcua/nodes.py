"""What clients see of a station: its last result, its signals, its methods and its events.

Names of nodes and fields are those of OPC 40001-101 (Machinery, Result Transfer) where it has them.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any, Protocol

from asyncua import Node, Server, ua
from asyncua.common.event_objects import BaseEvent
from asyncua.common.structures104 import new_enum

from invad.records import Decision
from invad.serve.plant.opcua.confirming import Fields
from invad.serve.plant.opcua.receipts import Receipts
from invad.serve.plant.opcua.values import Values
from invad.serve.records import Result, milliseconds

NAMESPACE = "urn:invad:line"
EVALUATIONS = ("Undefined", "OK", "NotOK", "NotDecidable")
"""By their number."""

EVALUATION: dict[Decision, int] = {"good": 1, "bad": 2, "review": 3}
SEVERITY: dict[Decision, int] = {"good": 1, "review": 300, "bad": 600}
COMPLETED = 1
"""Of the states of a result; others are never shown."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value that every result has. kind: of OPC UA; an enumeration where `is_evaluation`. is_long: takes
    time to make, for which a controller that only waits for its bit must not wait."""

    name: str
    kind: ua.VariantType
    of: Callable[[Result], Any]
    is_evaluation: bool = False
    is_array: bool = False
    is_long: bool = False


def _evaluation(result: Result) -> int:
    """A part that was late was told NG, whatever it is."""
    return EVALUATION["bad" if result.late else result.decision]


def _time(result: Result) -> datetime:
    return datetime.fromtimestamp(milliseconds(result.time) / 1000, timezone.utc)


def _region(result: Result) -> list[int]:
    return [int(n) for one in result.regions[:1] for n in (one.x, one.y, one.width, one.height)]


FIELDS = (
    Field("ResultId", ua.VariantType.String, lambda one: one.id),
    Field("CreationTime", ua.VariantType.DateTime, _time),
    Field("ResultState", ua.VariantType.Int32, lambda one: COMPLETED),
    Field("ResultEvaluation", ua.VariantType.Int32, _evaluation, is_evaluation=True),
    Field("PartId", ua.VariantType.String, lambda one: one.part_id),
    Field("JobId", ua.VariantType.String, lambda one: one.lot),
    Field("InternalRecipeId", ua.VariantType.String, lambda one: one.model_version),
    Field("InternalConfigurationId", ua.VariantType.String, lambda one: str(one.calibration)),
    Field("Score", ua.VariantType.Double, lambda one: one.score),
    Field("PValue", ua.VariantType.Double, lambda one: one.p_value),
    Field("Region", ua.VariantType.Int32, _region, is_array=True),
    Field("ResultContent", ua.VariantType.String, lambda one: json.dumps(one.plain()), is_long=True),
)
EMPTY = {
    ua.VariantType.DateTime: datetime(1601, 1, 1, tzinfo=timezone.utc),
    ua.VariantType.Int32: 0,
    ua.VariantType.Double: 0.0,
}
"""Before the first result."""


class ResultReady(BaseEvent):  # type: ignore[misc]
    """One result as an event. is_wanted: whether a client asked for it."""

    def __init__(self, types: "Types", source: Node, station: str, result: Result, receipts: Receipts):
        part = f" {result.part_id}" if result.part_id else ""
        late = ", and late" if result.late else ""
        super().__init__(
            source.nodeid, f"{station}: part{part} is {result.decision}{late}", SEVERITY[result.decision]
        )
        self.EventType = types.event
        # A client that gets it twice knows it by this.
        self.EventId = result.id.encode()
        self.SourceName = station
        self.Time = _time(result)
        self.ReceiveTime = datetime.now(timezone.utc)
        for field in FIELDS:
            self.add_property(field.name, field.of(result), field.kind)
        self.result, self.receipts, self.is_wanted = result.id, receipts, False

    def to_event_fields(self, select_clauses: list[ua.SimpleAttributeOperand]) -> list[ua.Variant]:
        self.is_wanted = True
        return Fields(super().to_event_fields(select_clauses), self.receipts, self.result)


@dataclass(frozen=True, slots=True)
class Types:
    """What all stations of a server share. index: of the namespace. folder: that they are in. values:
    of all variables."""

    index: int
    evaluation: ua.NodeId
    event: ua.NodeId
    folder: Node
    values: Values


async def add_types(server: Server) -> Types:
    """The own namespace of a server, before it starts."""
    index = await server.register_namespace(NAMESPACE)
    named = ua.QualifiedName("ResultEvaluationEnum", index)
    evaluation = await new_enum(server, ua.NodeId("ResultEvaluationEnum", index), named, list(EVALUATIONS))
    # Older clients read the words from here.
    await evaluation.add_property(
        ua.NodeId("ResultEvaluationEnum.EnumStrings", index),
        ua.QualifiedName("EnumStrings", 0),
        [ua.LocalizedText(word) for word in EVALUATIONS],
    )
    event = await server.nodes.base_event_type.add_object_type(
        ua.NodeId("ResultReadyEventType", index), ua.QualifiedName("ResultReadyEventType", index)
    )
    for field in FIELDS:
        await event.add_property(
            ua.NodeId(f"ResultReadyEventType.{field.name}", index),
            ua.QualifiedName(field.name, index),
            _empty(field),
            field.kind,
            evaluation.nodeid if field.is_evaluation else None,
        )
    folder = await server.nodes.objects.add_folder(
        ua.NodeId("Stations", index), ua.QualifiedName("Stations", index)
    )
    await server.nodes.server.set_event_notifier([ua.EventNotifier.SubscribeToEvents])
    return Types(index, evaluation.nodeid, event.nodeid, folder, Values(server))


class Answers(Protocol):
    """Who knows the results of a station. Methods of nodes are run by threads, so a database may be asked."""

    def latest(self, station: str) -> Result | None: ...

    def by_id(self, station: str, id: str) -> Result | None: ...

    def acknowledge(self, station: str, ids: Sequence[str]) -> list[bool]: ...

    def confirm(self, id: str) -> None: ...


class StationNodes:
    """The nodes of a station in a server that runs; used from its loop alone."""

    def __init__(self, server: Server, types: Types, name: str, answers: Answers):
        self.server, self.types, self.name, self.answers = server, types, name, answers
        self.object: Node = server.get_node(self.id(""))
        self._shown = ""

    async def add(self) -> None:
        """Make them."""
        self.object = await self.types.folder.add_object(self.id(""), self.named(self.name))
        await self.object.set_event_notifier([ua.EventNotifier.SubscribeToEvents])
        await self.object.add_reference(self.types.event, ua.ObjectIds.GeneratesEvent)
        await self.server.nodes.server.add_reference(self.object, ua.ObjectIds.HasNotifier)
        management = await self.object.add_object(self.id("ResultManagement"), self.named("ResultManagement"))
        latest = await management.add_object(self.id("LatestResult"), self.named("LatestResult"))
        for field in FIELDS:
            await latest.add_variable(
                self.id(f"LatestResult.{field.name}"),
                self.named(field.name),
                _empty(field),
                field.kind,
                self.types.evaluation if field.is_evaluation else None,
            )
        text, code = _argument("Result", ua.ObjectIds.String), _argument("Error", ua.ObjectIds.Int32)
        wanted = _argument("ResultId", ua.ObjectIds.String)
        several = _argument("ResultIds", ua.ObjectIds.String, rank=1)
        codes = _argument("Errors", ua.ObjectIds.Int32, rank=1)
        await self._method(management, "GetLatestResult", self._latest, [], [text, code])
        await self._method(management, "GetResultById", self._by_id, [wanted], [text, code])
        await self._method(management, "AcknowledgeResults", self._acknowledge, [several], [codes])

    def retire(self) -> None:
        """Say that nobody keeps it up any more. Nodes stay until the server ends: clients that subscribed to
        them hear of it, and go on when the station is back."""
        self._shown = ""
        for field in FIELDS:
            self.withdraw(f"LatestResult.{field.name}")

    def show(self, result: Result) -> None:
        """As the last result, unless a later one is shown already."""
        if result.id <= self._shown:
            return
        self._shown = result.id
        for field in FIELDS:
            made = partial(_value, field, result, datetime.now(timezone.utc))
            self.types.values.put(self.id(f"LatestResult.{field.name}"), made if field.is_long else made())

    def write(self, name: str, value: Any, kind: ua.VariantType) -> None:
        """A variable of this station."""
        self.types.values.put(self.id(name), _data(ua.Variant(value, kind), datetime.now(timezone.utc)))

    def withdraw(self, name: str) -> None:
        """A variable of this station has no value."""
        out = ua.DataValue(
            ua.Variant(None, ua.VariantType.Null), StatusCode=ua.StatusCode(ua.StatusCodes.BadOutOfService)
        )
        self.types.values.put(self.id(name), out)

    async def tell(self, result: Result, receipts: Receipts) -> tuple[bool, bool]:
        """Whether anybody listens to the events of this station, and whether somebody wants this one."""
        listened = wanted = False
        for place in (self.object.nodeid, self.server.nodes.server.nodeid):
            event = ResultReady(self.types, self.object, self.name, result, receipts)
            event.emitting_node = place
            for one in list(self.server.iserver.subscription_service.subscriptions.values()):
                listened |= await one.monitored_item_srv.trigger_event(event)
            wanted |= event.is_wanted
        return listened, wanted

    def id(self, name: str) -> ua.NodeId:
        """Of a node below the station; of the station itself for ""."""
        return ua.NodeId(f"{self.name}.{name}" if name else self.name, self.types.index)

    def named(self, name: str) -> ua.QualifiedName:
        """As clients browse for it."""
        return ua.QualifiedName(name, self.types.index)

    async def _method(self, parent: Node, name: str, call: Any, given: list[Any], back: list[Any]) -> None:
        await parent.add_method(self.id(name), self.named(name), call, given, back)

    def _latest(self, parent: ua.NodeId) -> list[ua.Variant]:
        return _answer(self.answers.latest(self.name))

    def _by_id(self, parent: ua.NodeId, id: ua.Variant) -> list[ua.Variant]:
        return _answer(self.answers.by_id(self.name, str(id.Value)))

    def _acknowledge(self, parent: ua.NodeId, ids: ua.Variant) -> list[ua.Variant]:
        known = self.answers.acknowledge(self.name, [str(one) for one in ids.Value or ()])
        return [ua.Variant([0 if one else 1 for one in known], ua.VariantType.Int32, is_array=True)]


def _value(field: Field, result: Result, now: datetime) -> ua.DataValue:
    value, kind = field.of(result), field.kind
    return _data(ua.Variant(value, kind, is_array=True) if field.is_array else ua.Variant(value, kind), now)


def _data(variant: ua.Variant, now: datetime) -> ua.DataValue:
    return ua.DataValue(variant, SourceTimestamp=now, ServerTimestamp=now)


def _answer(result: Result | None) -> list[ua.Variant]:
    """The record and 0, or nothing and 1."""
    text = None if result is None else json.dumps(result.plain())
    return [ua.Variant(text, ua.VariantType.String), ua.Variant(int(result is None), ua.VariantType.Int32)]


def _argument(name: str, kind: int, rank: int = -1) -> ua.Argument:
    return ua.Argument(Name=name, DataType=ua.NodeId(kind), ValueRank=rank)


def _empty(field: Field) -> Any:
    return [] if field.is_array else EMPTY.get(field.kind)
