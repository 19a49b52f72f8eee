"""`line.toml`: the stations of a service, what judges there and where the parts come from."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from invad.errors import ConfigError, in_one_line, reason
from invad.serve.options import station_name
from invad.system.plain import from_plain

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SMALLEST = """\
[[station]]
name = "press-1"
model = "model"

[station.source]
kind = "folder"
path = "incoming"
"""

EXAMPLE = """\
# The stations of a service. Paths are relative to this file. Start it with
#     invad serve line.toml --data line/

[[station]]                   # one for each place that parts come from
name = "press-1"              # small letters, digits, dots, dashes, underscores; names the results for ever
model = "models/gasket"       # folder of 'invad train' or 'invad export'; another one later takes over here
category = "gasket"           # whose limits decide; left out: those over all categories of the model

[station.source]              # left out: parts come over HTTP alone
kind = "folder"               # a folder that a camera or another program writes images to
path = "incoming/press-1"
pattern = "*.png"             # which of its images; "*" is the default. Other files are left alone
recursive = false             # true: folders inside it, too
settle = 0.5                  # seconds that size and time of a file must not change before it is read
rescan = 2.0                  # seconds between two looks, also where the system tells of new files
done = "done/press-1"         # images that were judged go there; left out: they stay where they are
failed = "failed/press-1"     # those that cannot be read go there; left out: they stay, and are named once

[[station]]                   # a second one, to which programs post: POST /api/v1/stations/press-2/inspect
name = "press-2"
model = "models/gasket"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSource:
    """Images that appear in a folder; see EXAMPLE. Times in seconds."""

    kind: Literal["folder"]
    path: str
    pattern: str = "*"
    recursive: bool = False
    settle: float = 0.5
    rescan: float = 2.0
    done: str | None = None
    failed: str | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("settle", 0.0, 3600.0), ("rescan", 0.05, 3600.0)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name):g}: give {low:g} to {high:g} seconds")
        if not self.pattern or "/" in self.pattern:
            raise ConfigError(f"pattern = {self.pattern!r}: give one of file names, such as '*.png'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A place that parts come from. model: a folder. category: None for the limits over all."""

    name: str
    model: str
    category: str | None = None
    source: FolderSource | None = None

    def __post_init__(self) -> None:
        station_name(self.name)
        if not self.model:
            raise ConfigError(f"station {self.name}: model = '': give a folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineup:
    """All stations of a file, in its order; the paths in them are whole."""

    station: tuple[Station, ...]

    @property
    def models(self) -> dict[str, Path]:
        """The folder of each station's model."""
        return {one.name: Path(one.model) for one in self.station}


def is_lineup(path: Path) -> bool:
    """Whether a path is meant as a file of stations and not as a model."""
    return path.suffix.lower() == ".toml"


def read_lineup(path: str | Path) -> Lineup:
    """Read a `line.toml`. Raises ConfigError of one line: what is wrong, and where."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {reason(error, writing=False)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no text in UTF-8") from None
    try:
        plain: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {in_one_line(error)}") from None
    lineup = from_plain(Lineup, plain, str(path), advice="see 'invad serve init --example'")
    if not lineup.station:
        raise ConfigError(f"{path}: no [[station]]; see 'invad serve init'")
    stations = tuple(_whole(one, path.absolute().parent) for one in lineup.station)
    for line in _clashes(stations):
        raise ConfigError(f"{path}: {line}")
    return Lineup(station=stations)


def _whole(station: Station, base: Path) -> Station:
    """With paths that do not depend on where the program was started."""
    source = station.source
    if source is not None:
        done, failed = (None if one is None else str(base / one) for one in (source.done, source.failed))
        source = replace(source, path=str(base / source.path), done=done, failed=failed)
    return replace(station, model=str(base / station.model), source=source)


def _clashes(stations: tuple[Station, ...]) -> Iterator[str]:
    names = [one.name for one in stations]
    for name in names:
        if names.count(name) > 1:
            yield f"station {name} is there {names.count(name)} times; give each a name of its own"
    watched = [(one.name, one.source) for one in stations if one.source is not None]
    for i, (name, source) in enumerate(watched):
        here = Path(source.path).resolve()
        for other_name, other in watched[:i]:
            there = Path(other.path).resolve()
            if here == there or (other.recursive and there in here.parents):
                yield f"stations {other_name} and {name} would both take the images of {source.path}"
            elif source.recursive and here in there.parents:
                yield f"stations {name} and {other_name} would both take the images of {other.path}"
        for key in ("done", "failed"):
            if getattr(source, key) is None:
                continue
            target = Path(getattr(source, key)).resolve()
            if target == here or (source.recursive and here in target.parents):
                yield f"station {name}: {key} = {target} lies in its source; images would come back"
