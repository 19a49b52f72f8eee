"""The sources and outputs of all stations of a `line.toml`, started, told anew and ended together."""

import logging
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from invad.errors import ConfigError, InvadError, in_one_line
from invad.serve.delivery import Route, Sink
from invad.serve.plant.controls import Controls, lease_of
from invad.serve.plant.lineup import Lineup, Station, read_lineup
from invad.serve.plant.making import (
    made_opcua,
    made_sink,
    made_source,
    opcua_password,
    require_controllers,
    route,
)
from invad.serve.plant.outputs import AnyOutput
from invad.serve.plant.sources import Source
from invad.serve.plant.turns import InTurn
from invad.serve.records import SourceState
from invad.serve.service import Service

LOG = logging.getLogger("invad.serve")
TURN_SECONDS = 0.5
"""Between two looks whether another service has the controllers, where there may be one."""


class Plant:
    """What a `line.toml` says, at work beside a service that has its models."""

    def __init__(self, service: Service, path: str | Path):
        """Raises ConfigError for a file that cannot be, a category that a model does not know, or a secret
        that is not there."""
        self.service, self.path = service, Path(path)
        self.lineup = read_lineup(path, service.folder)
        _require_models(service, self.lineup)
        self._sources: dict[str, Source] = {}
        self._outputs: dict[Route, AnyOutput] = {}
        self._opcua = made_opcua(service, self.lineup)
        self._sinks = self._made_sinks(self.lineup)
        self._controls = Controls(service, self._opcua)
        require_controllers(self.lineup.station)
        self._changing = threading.Lock()
        self._asked, self._closing = threading.Event(), False
        self._thread = threading.Thread(target=self._reload_when_asked, name="invad-plant", daemon=True)

    def start(self) -> None:
        """Take parts from now on."""
        self.service.sources = self.states
        self._tell(self._sinks)
        for station in self.lineup.station:
            self._begin(station)
        self._controls.begin_new(self.lineup.station, self._sources)
        self._thread.start()

    def close(self) -> None:
        """Take no more parts; those under way are answered first."""
        self._closing = True
        self._asked.set()
        with self._changing:
            self._controls.stop()
            for source in self._sources.values():
                source.close()
            self._controls.close()
            self._sources = {}  # sinks end with the service, after its last result

    def states(self) -> Mapping[str, SourceState]:
        """What each source does, by station."""
        return {name: source.state() for name, source in self._sources.items()}

    def ask_reload(self) -> None:
        """As `reload`, soon; may be called by a signal."""
        self._asked.set()

    def reload(self) -> None:
        """Read the file again: models and sources that changed are exchanged, the others go on.

        Raises ConfigError, ArtifactError or DataError, and then everything stays as it was.
        """
        lineup = read_lineup(self.path, self.service.folder)
        with self._changing:
            require_controllers(lineup.station)
            password, sinks = opcua_password(lineup), self._made_sinks(lineup)
            before = {one.name: one for one in self.lineup.station}
            self.service.take_models(lineup.models)
            _require_models(self.service, lineup)
            now = {one.name: one for one in lineup.station}
            self._controls.end_changed(lineup.station)
            for name, station in before.items():
                if station.source is not None and now.get(name) != station:
                    self._sources.pop(name).close()
            self.lineup = lineup
            self._opcua.change(lineup.opcua, password)
            self._tell(sinks)
            for name, station in now.items():
                if name not in self._sources:
                    self._begin(station)
            self._controls.begin_new(lineup.station, self._sources)
        LOG.info("%s was read again: %d stations", self.path, len(lineup.station))

    def _begin(self, station: Station) -> None:
        if station.source is not None:
            made = partial(made_source, self.service, station, station.source)
            leases = self.service.database.leases
            is_shared = self.service.database.is_shared
            source = InTurn(station.name, lease_of(station), leases, made) if is_shared else made()
            self._sources[station.name] = source
            source.start()

    def _tell(self, new: Mapping[Route, Sink]) -> None:
        """Let the outputs of the file be those that are told: some end, some go on, `new` ones begin."""
        now = _outputs(self.lineup)
        for known, output in self._outputs.items():
            if now.get(known) != output:
                self.service.deliveries.remove(known.name)
        for added, sink in new.items():
            self.service.deliveries.add(added, sink)
        self._outputs = now

    def _made_sinks(self, lineup: Lineup) -> dict[Route, Sink]:
        """Those of outputs that are not told yet. Raises ConfigError for what an output needs and has not."""
        return {
            route(station, output): made_sink(station.name, output, self.service, self._opcua)
            for station in lineup.station
            for output in station.output
            if self._outputs.get(route(station, output)) != output
        }

    def _reload_when_asked(self) -> None:
        seconds = TURN_SECONDS if self.service.database.is_shared else None
        while True:
            is_asked = self._asked.wait(seconds)
            self._asked.clear()
            if self._closing:
                return
            if is_asked:
                self._try_reload()
            else:
                self._take_turns()

    def _try_reload(self) -> None:
        """The service tells why it could not be, until one can."""
        try:
            self.reload()
        except InvadError as error:
            LOG.error("all stays as it was: %s", error)
            self.service.unread = str(error)
        except Exception as error:  # a fault of ours must not end this without a word
            LOG.exception("%s was not read again", self.path)
            self.service.unread = in_one_line(error)
        else:
            self.service.unread = None

    def _take_turns(self) -> None:
        with self._changing:
            if self._closing:
                return
            try:
                self._controls.take_turns(self.lineup.station, self._sources)
            except Exception:  # a fault of ours must not end this without a word
                LOG.exception("the controllers did not change hands")


def _outputs(lineup: Lineup) -> dict[Route, AnyOutput]:
    return {route(station, output): output for station in lineup.station for output in station.output}


def _require_models(service: Service, lineup: Lineup) -> None:
    """Raises ConfigError for a category without limits, and for a model of parts at a source that cannot
    bring them."""
    for station in lineup.station:
        if (why := station.unfit(service.active(station.name).members)) is not None:
            raise ConfigError(f"station {station.name}: {why}")
        if station.category is not None:
            service.in_force.key(station.name, station.category)
