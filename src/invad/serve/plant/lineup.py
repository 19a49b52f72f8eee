"""`line.toml`: the stations of a service, what judges there and where the parts come from."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from invad.errors import ConfigError, in_one_line, reason
from invad.serve.given import Given, Looking
from invad.serve.options import station_name
from invad.serve.plant.controllers import AnyController, ModbusController, OpcUaController
from invad.serve.plant.opcua.settings import OpcUa
from invad.serve.plant.outputs import AnyOutput, CsvOutput, FolderOutput, OpcUaOutput, ParquetOutput
from invad.serve.plant.sources import AnySource, CameraSource, FolderSource, GenicamSource
from invad.serve.plant.times import SHORT, require_seconds
from invad.system.plain import from_plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONTROLLER = "controller"
"""What the outbox calls that of a station, behind its name."""

SMALLEST = """\
[[station]]
name = "press-1"
model = "model"

[station.source]
kind = "folder"
path = "incoming"
"""

_WRITING = CsvOutput | ParquetOutput | FolderOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A place that parts come from. model: a folder. category: None for the limits over all. region: file of
    the part of its pictures that counts, None for that of the model. deadline: seconds until a part is late.
    controller: who asks for parts, or is shown each. output: who is told of results.
    """

    name: str
    model: str
    category: str | None = None
    region: str | None = None
    deadline: float | None = None
    source: AnySource | None = None
    controller: AnyController | None = None
    output: tuple[AnyOutput, ...] = ()

    def __post_init__(self) -> None:
        station_name(self.name)
        if not self.model:
            raise ConfigError("model = '': give a folder")
        if self.region == "":
            raise ConfigError("region = '': give a file, or leave it out")
        if self.deadline is not None:
            require_seconds("deadline", self.deadline, 0.001, SHORT)
        if self.controller is not None:
            self._require_controller(self.controller)
        self._require_outputs_apart()

    def unfit(self, members: Sequence[str]) -> str | None:
        """Why its source cannot serve a model of parts, in words. members: their pictures; none of a model of
        single pictures."""
        if self.source is None:
            return None
        if isinstance(self.source, FolderSource):
            rule = self.source.parts
            if rule is None or members:
                return None
            return f"its source has parts = {rule!r}, and its model judges one picture of each part"
        given = self.source.members
        if members and not given:
            return (
                "its model judges parts by several pictures, and its camera cannot know which of "
                f"{', '.join(members)} a frame is; where a trigger takes one frame of each, give members in "
                "their order, else let a folder bring them as files, or send them over HTTP"
            )
        if set(given) != set(members):
            has = f"has {', '.join(members)}" if members else "judges one picture of each part"
            return f"its camera has members = {list(given)}, and its model {has}"
        return None

    def _require_outputs_apart(self) -> None:
        names = [one.name for one in self.output]
        for name in names:
            station_name(name, "output")
            if names.count(name) > 1:
                raise ConfigError(f"{names.count(name)} outputs are called {name}; give each a name")
        for one in self.output:
            if not one.decisions and not getattr(one, "events", ()):
                raise ConfigError(
                    f"output {one.name}: decisions = []: it would be told of nothing; leave the key out"
                )
        written = [(one.kind, one.path) for one in self.output if isinstance(one, _WRITING)]
        for kind, path in written:
            if written.count((kind, path)) > 1:
                raise ConfigError(f"two outputs of kind {kind} write to {path}")

    @property
    def takes(self) -> bool:
        """Whether its source takes a picture when it is asked for one."""
        return getattr(self.source, "policy", None) == "trigger"

    def _require_controller(self, controller: AnyController) -> None:
        if controller.trigger and self.deadline is None:
            raise ConfigError("its controller triggers, so it needs a deadline; give one in seconds")
        if controller.trigger and not self.takes and hasattr(self.source, "policy"):
            raise ConfigError(
                "its camera judges frames by itself and its controller triggers; give "
                "the camera policy = 'trigger' or the controller trigger = false"
            )
        if self.takes and not controller.trigger:
            raise ConfigError(
                "its camera waits for triggers and its controller gives none; give the "
                "controller trigger = true or the camera another policy"
            )
        if any(one.name == CONTROLLER for one in self.output):
            raise ConfigError(f"an output cannot be called {CONTROLLER} beside one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """All stations of a file, in its order, and the server they share; the paths in them are whole."""

    station: tuple[Station, ...]
    opcua: OpcUa = field(default_factory=OpcUa)

    @property
    def uses_opcua(self) -> bool:
        """Whether a station has anything to do with its server."""
        return any(
            isinstance(used, OpcUaController | OpcUaOutput) and getattr(used, "mode", "server") == "server"
            for one in self.station
            for used in (one.controller, *one.output)
        )

    @property
    def models(self) -> dict[str, Given]:
        """Each station's model, with the region that it has there."""
        return {
            one.name: Path(one.model) if one.region is None else Looking(Path(one.model), Path(one.region))
            for one in self.station
        }


def example() -> str:
    """A file of stations with every key there is."""
    return Path(__file__).with_name("example.toml").read_text(encoding="utf-8")


def is_lineup(path: Path) -> bool:
    """Whether a path is meant as a file of stations and not as a model."""
    return path.suffix.lower() == ".toml"


def read_lineup(path: str | Path, data: Path | None = None) -> Lineup:
    """Read a `line.toml`. data: folder of the service that has it, which no station may watch. Raises
    ConfigError of one line: what is wrong, and where."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark of its encoding
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error, writing=False)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text in UTF-8; save it in that encoding") from None
    try:
        plain: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {in_one_line(error)}") from None
    lineup = from_plain(Lineup, plain, str(path), advice="see 'invad serve init --example'")
    if not lineup.station:
        raise ConfigError(f"{path}: no [[station]]; see 'invad serve init'")
    stations = tuple(_whole(one, path.absolute().parent) for one in lineup.station)
    for line in chain(_clashes(stations), _of_what_is_written(stations, data)):
        raise ConfigError(f"{path}: {line}")
    return Lineup(station=stations, opcua=lineup.opcua.below(path.absolute().parent))


def _whole(station: Station, base: Path) -> Station:
    """With paths that do not depend on where the program was started."""
    source = None if station.source is None else station.source.below(base)
    controller = None if station.controller is None else station.controller.below(base)
    outputs = tuple(one.below(base) for one in station.output)
    model = str(base / station.model)
    region = None if station.region is None else str(base / station.region)
    return replace(station, model=model, region=region, source=source, controller=controller, output=outputs)


def _clashes(stations: tuple[Station, ...]) -> Iterator[str]:
    names = [one.name for one in stations]
    for name in names:
        if names.count(name) > 1:
            yield f"station {name} is there {names.count(name)} times; give each a name of its own"
    taken: dict[tuple[str, int], str] = {}
    for one in stations:
        if isinstance(one.controller, ModbusController):
            holder = taken.setdefault((one.controller.place, one.controller.base), one.name)
            if holder != one.name:
                yield f"stations {holder} and {one.name} have the same registers at {one.controller.place}"
    nodes: dict[tuple[str, str], str] = {}
    for one in stations:
        if isinstance(one.controller, OpcUaController):
            for node in one.controller.nodes.given.values():
                holder = nodes.setdefault((one.controller.place, node), one.name)
                if holder != one.name:
                    at = one.controller.place
                    yield f"stations {holder} and {one.name} have the same node {node} at {at}"
    yield from _shared_cameras(stations)
    watched = [(one.name, one.source) for one in stations if isinstance(one.source, FolderSource)]
    for i, (name, source) in enumerate(watched):
        here = Path(source.path).resolve()
        for other_name, other in watched[:i]:
            there = Path(other.path).resolve()
            if here == there or (other.recursive and there in here.parents):
                yield f"stations {other_name} and {name} would both take the images of {source.path}"
            elif source.recursive and here in there.parents:
                yield f"stations {name} and {other_name} would both take the images of {other.path}"


def _of_what_is_written(stations: tuple[Station, ...], data: Path | None) -> Iterator[str]:
    """Pictures that are written into a watched folder would be taken for parts, and theirs again."""
    pictures = [
        (one.name, output) for one in stations for output in one.output if isinstance(output, FolderOutput)
    ]
    for one in stations:
        if not isinstance(one.source, FolderSource):
            continue
        for key in ("done", "failed"):
            target = getattr(one.source, key)
            if target is not None and _is_watched(one.source, target):
                yield f"station {one.name}: {key} = {target} lies in its source; images would come back"
        for name, output in pictures:
            # Plain images of one station may be what a second one is there for.
            is_meant = name != one.name and output.picture == "image"
            if not is_meant and _is_watched(one.source, Path(output.path, "day")):
                yield (
                    f"station {name}, output {output.name}: {output.path} lies in the source of station "
                    f"{one.name}; what is written there would be judged as parts"
                )
        if data is not None and _is_watched(one.source, data):
            yield (
                f"station {one.name}: the data folder {data} lies in its source {one.source.path}; the "
                "images that it keeps would be judged as parts; choose another one"
            )


def _is_watched(source: FolderSource, folder: str | Path) -> bool:
    """Whether images in that folder are taken."""
    here, there = Path(source.path).resolve(), Path(folder).resolve()
    return there == here or (source.recursive and here in there.parents)


def _shared_cameras(stations: tuple[Station, ...]) -> Iterator[str]:
    """Cameras of this machine have one user at a time; those of a network may have several."""
    users: dict[str, str] = {}
    for one in stations:
        source = one.source
        is_device = isinstance(source, CameraSource) and source.is_device
        if isinstance(source, CameraSource | GenicamSource) and (is_device or source.kind == "genicam"):
            if source.place in users:
                both = f"{users[source.place]} and {one.name}"
                yield f"stations {both} would both use the camera {source.place}"
            users[source.place] = one.name
