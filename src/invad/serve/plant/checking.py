"""Whether what a `line.toml` names can be used: models are opened, folders looked at, receivers reached."""

import os
from collections.abc import Iterator
from pathlib import Path

from invad.detector.opening import AUTO, open_detector
from invad.errors import InvadError, reason
from invad.scoring.calibration import known_category
from invad.serve.plant.lineup import Lineup
from invad.serve.plant.making import made_sink
from invad.serve.plant.sources import FolderSource
from invad.system.files import is_folder


def problems(lineup: Lineup) -> Iterator[str]:
    """What is wrong, a line each."""
    opened: dict[str, object] = {}
    for station in lineup.station:
        if station.model not in opened:
            try:
                opened[station.model] = open_detector(Path(station.model), AUTO, None, 1).calibrations
            except InvadError as error:
                opened[station.model] = error
        found = opened[station.model]
        if isinstance(found, InvadError):
            yield f"station {station.name}: {found}"
        elif station.category is not None:
            try:
                known_category(found, station.category)  # type: ignore[arg-type]
            except InvadError as error:
                yield f"station {station.name}: {error}"
        if station.source is not None:
            for line in _of_folder(station.source):
                yield f"station {station.name}: {line}"
        for output in station.output:
            try:
                sink = made_sink(station.name, output)
                for line in sink.problems():
                    yield f"station {station.name}, output {output.name}: {line}"
                sink.close()
            except InvadError as error:
                yield f"station {station.name}, output {output.name}: {error}"


def _of_folder(source: FolderSource) -> Iterator[str]:
    try:
        with os.scandir(source.path):
            pass
    except OSError as error:
        yield f"{source.path}: {reason(error, writing=False)}"
    moved = [Path(folder) for folder in (source.done, source.failed) if folder is not None]
    if moved and is_folder(Path(source.path)) and not os.access(source.path, os.W_OK):
        yield f"{source.path}: images cannot be moved out of it; let this user write there"
    for folder in moved:
        nearest = next(at for at in (folder, *folder.absolute().parents) if at.exists())
        if not is_folder(nearest):
            yield f"{folder}: {nearest} is a file; choose another folder"
        elif not os.access(nearest, os.W_OK):
            yield f"{folder}: nothing can be written to {nearest}; let this user write there"
