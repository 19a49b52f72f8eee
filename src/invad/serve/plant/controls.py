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
from invad.serve.records import Part, Refused
from invad.serve.service import Service

LAST_SECONDS = 2.0
"""For a controller to see and acknowledge the answer to its last part."""


class Controls:
    """All that are at work now. Stations that share a link, such as a port, come and go together; of several
    services on one database one has them, with their sources."""

    def __init__(self, service: Service, opcua: OpcUaServer):
        """opcua: the server of all stations."""
        self.service, self.opcua = service, opcua
        self._stations: dict[str, tuple[Station, ...]] = {}
        self._links: dict[str, Link] = {}
        self._handshakes: dict[str, Handshake] = {}
        self._elsewhere: dict[str, tuple[Station, ...]] = {}
        self._leases = service.database.leases

    def take_turns(self, stations: Sequence[Station], sources: Mapping[str, Source]) -> None:
        """End what another service has by now, and begin what this one has."""
        for name in [name for name in self._stations if not self._leases.has(_lease(name))]:
            self._end(name, [one.name for one in stations])
        self.begin_new(stations, sources)

    def end_changed(self, stations: Sequence[Station]) -> None:
        """End what these stations, all that there are from now on, do not have as it is."""
        now = grouped(stations)
        still = {one.name for one in stations if one.controller is not None}
        for name in [name for name, group in self._stations.items() if now.get(name) != group]:
            self._end(name, still)
            self._leases.give_up(_lease(name))
        for name in [name for name, group in self._elsewhere.items() if now.get(name) != group]:
            self._forget(self._elsewhere.pop(name))
            self._leases.give_up(_lease(name))

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
            self._leases.want(_lease(name))
            if not self._leases.has(_lease(name)):
                self._stand_by(name, group)
                continue
            self._elsewhere.pop(name, None)  # what stood by is exchanged below
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

    def _stand_by(self, name: str, group: tuple[Station, ...]) -> None:
        """Leave stations to the service that has their controllers: parts which these have to agree on are
        not taken, and results that are only shown wait for that service."""
        if name in self._elsewhere:
            return
        self._elsewhere[name] = group
        for station in group:
            assert station.controller is not None
            if station.controller.trigger:
                self.service.line.expecting = {**self.service.line.expecting, station.name: _not_here}
            else:
                self.service.deliveries.keep(Route(name=_sink(station), station=station.name))

    def _forget(self, group: Sequence[Station]) -> None:
        """Take back what standing by for these stations was."""
        expecting = self.service.line.expecting
        left = [one.name for one in group if expecting.get(one.name) is _not_here]
        self.service.line.expecting = {name: one for name, one in expecting.items() if name not in left}
        for station in group:
            self.service.deliveries.forget(_sink(station))

    def _handshake(self, station: Station, source: Source | None) -> Handshake:
        assert station.controller is not None
        terms = station.controller.terms(station.deadline)
        take = getattr(source, "take", None) if station.takes and terms.triggered else None
        return Handshake(self.service, station.name, terms, take=take, fault=_fault(self.service, source))


def lease_of(station: Station) -> str:
    """What the service holds that has the source of a station: with its controller, if there is one."""
    if station.controller is None:
        return f"source {station.name}"
    return _lease(_link_of(station))


def _lease(name: str) -> str:
    return f"controller {name}"


def _link_of(station: Station) -> str:
    own = None if station.controller is None else station.controller.link
    return own or f"station {station.name}"


def _not_here(part: Part) -> None:
    raise Refused(f"another service has the controller of station {part.station}; send it there", 503, 1)


def grouped(stations: Sequence[Station]) -> dict[str, tuple[Station, ...]]:
    """Those with a controller, by the link that they share."""
    groups: dict[str, tuple[Station, ...]] = {}
    for one in stations:
        if one.controller is not None:
            groups[_link_of(one)] = (*groups.get(_link_of(one), ()), one)
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
