"""What judges and decides at each station, and how that is changed: in one transaction."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from invad.errors import InvadError
from invad.serve.given import Given, open_given, take_given
from invad.serve.limits import InForce
from invad.serve.metrics import Metrics
from invad.serve.models import Loaded, Models
from invad.serve.options import station_name
from invad.serve.records import Refused
from invad.serve.store import stations
from invad.serve.store.database import Database, note
from invad.serve.store.stations import Revision, Station
from invad.serve.watching import Watch

LOG = logging.getLogger("invad.serve")
Changed = TypeVar("Changed")


class Judging:
    """The models and limits of all stations, in the database and at hand."""

    def __init__(self, models: Models, database: Database, in_force: InForce, watch: Watch, metrics: Metrics):
        self.models, self.database, self.in_force = models, database, in_force
        self.watch, self.metrics = watch, metrics
        self._switching = threading.Lock()

    def begin(self, given: Loaded | Mapping[str, Loaded]) -> None:
        """With the models of a start; see `take_given`."""
        with self.database.write() as connection:
            retired = take_given(connection, given)
        self.models.remove_all(retired)
        self.refresh()

    def stations(self) -> list[Station]:
        """Those that parts are taken for, by name. One that was just added is there as soon as it answers."""
        with self.database.read() as connection:
            found = stations.stations(connection)
        return [one for one in found if self.models.judges_at(one.name)]

    def add(self, name: str, who: str) -> Station:
        """A further place that parts come from, with limits of its own, at first those of the model.

        Raises ConfigError for an impossible name, Refused (409) for one that is there.
        """
        station_name(name)
        with self.database.read() as connection:
            first = stations.stations(connection)[0].name
        model = self.models.active(first)

        def add(connection: Connection) -> Station:
            if any(one.name == name for one in stations.stations(connection)):
                raise Refused(f"station {name} is there already", 409)
            stations.activate(connection, name, model.hash, model.calibrations, who)
            note(connection, who, "add station", {"station": name})
            (made,) = (one for one in stations.stations(connection) if one.name == name)
            return made

        return self.switch(add)

    def take(self, models: Mapping[str, Given]) -> None:
        """Let these models judge at their stations, which are made if need be, as a start with them would.

        Raises ArtifactError, ConfigError, NotCalibratedError or DataError, and then nothing has changed.
        """
        with self._switching:
            given = open_given(self.models, models, self.database)
        self.begin(given)

    def switch(self, change: Callable[[Connection], Changed]) -> Changed:
        """Change in one transaction what runs or decides at stations; it holds from the next part on."""
        with self._switching:
            with self.database.write() as connection:
                made = change(connection)
                # Whatever cannot run is not switched to: this is before the transaction ends.
                ready = self._ready(connection)
            self._apply(*ready)
        self.watch.reload()
        return made

    def refresh(self) -> None:
        """Judge and decide from the next part on by what is in force in the database."""
        with self._switching:
            with self.database.read() as connection:
                ready = self._ready(connection)
            self._apply(*ready)
        self.watch.reload()

    def _ready(self, connection: Connection) -> tuple[dict[str, Loaded], dict[str, Loaded], list[Revision]]:
        """What judges and what shadows at each station, ready to run, and their limits."""
        found = stations.stations(connection)
        names = {one.hash: one.model for one in stations.versions(connection)}
        active = {one.name: self.models.open(one.active, names[one.active]) for one in found}
        shadows = {}
        for one in found:
            if one.shadow is not None:
                try:
                    shadows[one.name] = self.models.open(one.shadow, names[one.shadow], shadowing=True)
                except InvadError as error:  # it decides nothing
                    LOG.error("station %s has no shadow: %s", one.name, error)
        used = {one.hash for one in (*active.values(), *shadows.values())}
        return active, shadows, stations.in_force_of(connection, used)

    def _apply(
        self, active: dict[str, Loaded], shadows: dict[str, Loaded], revisions: Sequence[Revision]
    ) -> None:
        """Limits first, because parts are judged by those of their version; a new station answers last."""
        self.in_force.replace(revisions, {station: one.hash for station, one in active.items()})
        self.models.assign(active, shadows)
        self.metrics.model.clear()
        for one in self.models.all_active().values():
            self.metrics.model.labels(one.name, one.hash, one.engine).set(1)
