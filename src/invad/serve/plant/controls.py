"""The controllers of all stations of a `line.toml`: their handshakes, and what speaks with them."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from invad.serve.delivery import Route
from invad.serve.plant.controllers import Link
from invad.serve.plant.cycle import Error
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.lineup import CONTROLLER, Station
from invad.serve.plant.making import made_link
from invad.serve.plant.opcua.server import OpcUaServer
from invad.serve.plant.sources import Source
from invad.serve.plant.telling import Telling
from invad.serve.service import Service

LAST_SECONDS = 2.0
"""For a controller to see and acknowledge the answer to its last part."""


class Controls:
    """All that are at work now. Stations that share a link, such as a port, come and go together."""

    def __init__(self, service: Service, opcua: OpcUaServer):
        """opcua: the server of all stations."""
        self.service, self.opcua = service, opcua
        self._stations: dict[str, tuple[Station, ...]] = {}
        self._links: dict[str, Link] = {}
        self._handshakes: dict[str, Handshake] = {}

    def end_changed(self, stations: Sequence[Station]) -> None:
        """End what these stations, all that there are from now on, do not have as it is."""
        now = grouped(stations)
        still = {one.name for one in stations if one.controller is not None}
        for name in [name for name, group in self._stations.items() if now.get(name) != group]:
            self._end(name, still)

    def _end(self, name: str, still: Collection[str]) -> None:
        """A link and its stations. still: those that will have a controller again, who is told then."""
        for station in self._stations.pop(name):
            self._handshakes.pop(station.name).close()
            end = self.service.deliveries.rest if station.name in still else self.service.deliveries.remove
            end(_sink(station))
        self._links.pop(name).close()

    def begin_new(self, stations: Sequence[Station], sources: Mapping[str, Source]) -> None:
        """Begin what these stations have and is not at work. sources: by station, started."""
        deadlines = {one.name: one.deadline for one in stations if one.deadline is not None}
        self.service.line.deadlines = deadlines
        for name, group in grouped(stations).items():
            if name in self._stations:
                continue
            made = {station.name: self._handshake(station, sources.get(station.name)) for station in group}
            link = made_link(
                [(made[one.name], one.controller) for one in group if one.controller], self.opcua
            )
            for station in group:
                assert station.controller is not None
                handshake = made[station.name]
                handshake.start()
                telling = Telling(handshake, station.controller.kind, station.controller.place)
                self.service.deliveries.add(Route(name=_sink(station), station=station.name), telling)
            self._handshakes.update(made)
            self._stations[name], self._links[name] = group, link
            link.start()

    def stop(self) -> None:
        """Take no more triggers."""
        for one in self._handshakes.values():
            one.stop()

    def close(self) -> None:
        """End, when controllers have seen the answers to their last parts or some time has passed."""
        until = time.monotonic() + LAST_SECONDS
        while time.monotonic() < until and any(
            one.signals.busy or (one.signals.results_ready and one.terms.triggered)
            for one in self._handshakes.values()
        ):
            time.sleep(0.02)
        for name in list(self._stations):
            self._end(name, list(self._handshakes))

    def _handshake(self, station: Station, source: Source | None) -> Handshake:
        assert station.controller is not None
        terms = station.controller.terms(station.deadline)
        take = getattr(source, "take", None) if station.takes and terms.triggered else None
        return Handshake(self.service, station.name, terms, take=take, fault=_fault(self.service, source))


def grouped(stations: Sequence[Station]) -> dict[str, tuple[Station, ...]]:
    """Those with a controller, by the link that they share."""
    groups: dict[str, tuple[Station, ...]] = {}
    for one in stations:
        if one.controller is not None:
            link = one.controller.link or f"station {one.name}"
            groups[link] = (*groups.get(link, ()), one)
    return groups


def _fault(service: Service, source: Source | None) -> "Callable[[], Error]":
    """Why no part can come now."""

    def fault() -> Error:
        if service.readiness().checks["database"] != "ok":
            return "database"
        return "source" if source is not None and source.state().problem is not None else "none"

    return fault


def _sink(station: Station) -> str:
    return f"{station.name}/{CONTROLLER}"
