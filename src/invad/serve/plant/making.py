"""From what a `line.toml` says to what does it; what a kind needs is imported when it is first made."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from invad.serve.delivery import Route, Sink
from invad.serve.plant.camera import CameraWatch
from invad.serve.plant.controllers import (
    AnyController,
    Link,
    ModbusController,
    MqttController,
    OpcUaController,
)
from invad.serve.plant.feeds import Feed
from invad.serve.plant.folder import FolderWatch
from invad.serve.plant.genicam import IndustrialCamera
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.lineup import Lineup, Station
from invad.serve.plant.opcua.control import OpcUaControl
from invad.serve.plant.opcua.events import OpcUaEvents
from invad.serve.plant.opcua.server import OpcUaServer
from invad.serve.plant.outputs import (
    AlertOutput,
    AnyOutput,
    CsvOutput,
    MqttOutput,
    OpcUaOutput,
    ParquetOutput,
    WebhookOutput,
    secret,
)
from invad.serve.plant.sinks import files, situation
from invad.serve.plant.sinks.csv_files import CsvFiles
from invad.serve.plant.sinks.pictures import Pictures
from invad.serve.plant.sources import AnySource, CameraSource, FeedSource, FolderSource, Source
from invad.serve.plant.streams import Stream
from invad.serve.service import Service
from invad.serve.webhook import Webhook
from invad.system.packages import require


def made_source(service: Service, station: Station, source: AnySource) -> Source:
    """A source that was not started."""
    if isinstance(source, FolderSource):
        return FolderWatch(service, station, source)
    return CameraWatch(service, station, source, partial(opened_feed, source))


def opened_feed(source: FeedSource) -> Feed:
    """A camera or video, open. Raises DataError or ConfigError in one line where it cannot be opened."""
    return Stream(source) if isinstance(source, CameraSource) else IndustrialCamera(source)


def made_sink(
    station: str, output: AnyOutput, service: Service | None = None, opcua: OpcUaServer | None = None
) -> Sink:
    """service, and opcua, the server of all stations: None where it is only tried. Raises ConfigError for a
    secret or package that is not there."""
    if isinstance(output, OpcUaOutput):
        assert opcua is not None, "it is that server which is tried"
        return OpcUaEvents(opcua, station, output.taken)
    if isinstance(output, MqttOutput):
        from invad.serve.plant.sinks.mqtt import Mqtt

        def told() -> Mapping[str, Mapping[str, Any]]:
            return {} if service is None else situation.told(service, station)

        return Mqtt(output, station, secret(output.password_variable), told)
    if isinstance(output, AlertOutput):
        from invad.serve.plant.sinks.alerts import Alerts

        own = f"{station}/{output.name}"

        def troubles() -> Mapping[str, str]:
            return {} if service is None else situation.troubles(service, station, output.events, own)

        return Alerts(output, station, secret(output.urls_variable), troubles)
    if isinstance(output, WebhookOutput):
        return Webhook(output.url, secret(output.secret_variable))
    if service is not None:
        files.begin(Path(output.path))
    if isinstance(output, ParquetOutput):
        from invad.serve.plant.sinks.parquet import ParquetFiles

        return ParquetFiles(output, station)
    return CsvFiles(output, station) if isinstance(output, CsvOutput) else Pictures(output, service)


def made_opcua(service: Service, lineup: Lineup) -> OpcUaServer:
    """The server of all stations, which runs once one of them uses it. Raises as `opcua_password`."""
    return OpcUaServer(service, lineup.opcua, opcua_password(lineup))


def opcua_password(lineup: Lineup) -> str:
    """Raises ConfigError for one that is not there, or where a package is missing."""
    if not lineup.uses_opcua:
        return ""
    require(("asyncua",), "line", "OPC UA")
    return secret(lineup.opcua.password_variable)


def made_link(stations: Sequence[tuple[Handshake, AnyController]], opcua: OpcUaServer) -> Link:
    """What speaks with the controllers of stations that share it, not started. opcua: the server of all
    stations."""
    from invad.serve.plant.modbus import ModbusClient, ModbusServer

    handshake, controller = stations[0]
    if isinstance(controller, OpcUaController):
        if controller.mode == "server":
            return OpcUaControl(opcua, handshake)
        from invad.serve.plant.opcua.client import OpcUaClient

        return OpcUaClient(handshake, controller, secret(controller.password_variable))
    if isinstance(controller, MqttController):
        from invad.serve.plant.mqtt import MqttLink

        return MqttLink(handshake, controller, secret(controller.password_variable))
    if controller.mode == "client":
        return ModbusClient(handshake, controller)
    units = {shared: one for shared, one in stations if isinstance(one, ModbusController)}
    return ModbusServer(controller.host, controller.port, units)


def require_controllers(stations: Sequence[Station]) -> None:
    """Raises ConfigError where a package or a secret is missing that a controller of theirs needs."""
    if any(isinstance(one.controller, ModbusController) for one in stations):
        require(("pymodbus",), "line", "Modbus")
    for one in stations:
        if isinstance(one.controller, OpcUaController):
            require(("asyncua",), "line", "OPC UA")
            secret(one.controller.password_variable)
        elif isinstance(one.controller, MqttController):
            require(("paho-mqtt",), "line", "MQTT")
            secret(one.controller.password_variable)


def route(station: Station, output: AnyOutput) -> Route:
    """What the outbox calls an output, and what goes there."""
    return Route(name=f"{station.name}/{output.name}", station=station.name, decisions=output.decisions)
