"""Whether what a `line.toml` names can be used: models and cameras are opened, folders looked at, receivers
reached."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

from invad.data.images import image_size
from invad.data.region import Region, inside_of, read_region, require_frame
from invad.detector.opening import AUTO, AnyDetector, open_detector
from invad.detector.regional import looks_at, with_region
from invad.errors import DataError, InvadError, reason
from invad.scoring.calibration import known_category
from invad.serve.plant import modbus
from invad.serve.plant.controllers import AnyController, MqttController, OpcUaController
from invad.serve.plant.feeds import described
from invad.serve.plant.found import is_taken
from invad.serve.plant.lineup import CONTROLLER, Lineup, Station
from invad.serve.plant.making import made_sink, opcua_password, opened_feed, require_controllers, route
from invad.serve.plant.opcua.server import require_port
from invad.serve.plant.outputs import OpcUaOutput, secret
from invad.serve.plant.sources import FolderSource
from invad.serve.webhook import NAME
from invad.system.files import is_folder

FOLDERS_OF_PARTS = ("views",)
"""Rules by which pictures lie in folders."""

LOOK_SECONDS = 2.0
"""How long the frames of a camera are looked at."""


def leftovers(lineup: Lineup, waiting: Mapping[str, int]) -> Iterator[str]:
    """Names that results wait for and no output has, a line each. waiting: results, by name."""
    named = {NAME}  # of the command line, of which a file says nothing
    for station in lineup.station:
        named |= {f"{station.name}/{CONTROLLER}", *(route(station, one).name for one in station.output)}
    for name, count in waiting.items():
        if name not in named:
            yield (
                f"{name}: {count} waiting, and no output is called so; bring it back, or let go of them with "
                f"'invad serve outputs --discard {name}'"
            )


def problems(lineup: Lineup, seen: Callable[[str], None] = lambda line: None) -> Iterator[str]:
    """What is wrong, a line each. seen: is told of each region what counts, of each camera what it sends."""
    opened: dict[str, AnyDetector | InvadError] = {}
    tried: set[str] = set()
    for station in lineup.station:
        if station.model not in opened:
            try:
                opened[station.model] = open_detector(Path(station.model), AUTO, None, 1)
            except InvadError as error:
                opened[station.model] = error
        found = opened[station.model]
        region = None if isinstance(found, InvadError) else found.region
        if station.region is not None:
            try:
                region = read_region(station.region)
                if not isinstance(found, InvadError):
                    found = _looking(found, region)
                    share = inside_of(region).mean()
                    frame = f"{region.frame[0]} x {region.frame[1]} pixels"
                    seen(
                        f"station {station.name}: {station.region}: {share:.0%} of pictures of {frame} count"
                    )
            except InvadError as error:
                at = "" if station.region in str(error) else f"{station.region}: "
                yield f"station {station.name}: {at}{error}"
        if isinstance(found, InvadError):
            yield f"station {station.name}: {found}"
        else:
            for line in _of_model(station, found, seen):
                yield f"station {station.name}: {line}"
        if isinstance(station.source, FolderSource):
            for line in _of_folder(station.source, region):
                yield f"station {station.name}: {line}"
        elif station.source is not None:
            try:
                with closing(opened_feed(station.source)) as feed:
                    sent = described(feed, LOOK_SECONDS)
                seen(f"station {station.name}: {station.source.place}: {sent.words}")
                require_frame(region, sent.size_hw, station.source.place)
            except InvadError as error:
                yield f"station {station.name}: {error}"
        if station.controller is not None:
            for line in _of_controller(station, station.controller, tried):
                yield f"station {station.name}: {line}"
        for output in station.output:
            if isinstance(output, OpcUaOutput):
                continue  # its server is that of all stations
            try:
                sink = made_sink(station.name, output)
                for line in sink.problems():
                    yield f"station {station.name}, output {output.name}: {line}"
                sink.close()
            except InvadError as error:
                yield f"station {station.name}, output {output.name}: {error}"
    if lineup.uses_opcua:
        yield from (f"opcua: {line}" for line in _of_opcua(lineup))


def _looking(model: AnyDetector, region: Region) -> AnyDetector:
    """What judges at a station with a region of its own. Raises ConfigError, DataError."""
    return model if looks_at(model, region) else with_region(model, region)


def _of_model(station: Station, model: AnyDetector, seen: Callable[[str], None]) -> Iterator[str]:
    fusion, source = model.fusion, station.source
    if fusion is None:
        if station.category is not None:
            try:
                known_category(model.calibrations, station.category)
            except InvadError as error:
                yield str(error)
        return
    if station.category is not None:
        yield f"category = {station.category!r}: a model of parts has limits of whole parts; leave it out"
    if (why := station.unfit(fusion.members)) is not None:
        yield why
    elif isinstance(source, FolderSource):
        rule = source.parts or fusion.rule
        seen(
            f"station {station.name}: a part is {', '.join(fusion.members)} by {rule!r}; one that "
            f"lacks a picture goes to review after {source.missing_after:g} s"
        )
        if rule in FOLDERS_OF_PARTS and not source.recursive:
            yield f"the model has a folder for each part ({rule}); give its source recursive = true"
    elif source is not None:
        seen(f"station {station.name}: a part is the frames after a trigger: {', '.join(source.members)}")


def _of_opcua(lineup: Lineup) -> Iterator[str]:
    try:
        opcua_password(lineup)
    except InvadError as error:  # it may be that the package is missing, which the others need
        yield str(error)
        return
    from invad.serve.plant.opcua.certificates import usable_identity

    opcua = lineup.opcua
    for tried in (
        lambda: usable_identity(opcua.certificate, opcua.private_key),
        opcua.require_trusted,
        lambda: require_port(opcua),
    ):
        try:
            tried()
        except InvadError as error:
            yield str(error)


def _of_controller(station: Station, controller: AnyController, tried: set[str]) -> Iterator[str]:
    """tried: links that were looked at before."""
    try:
        require_controllers([station])
    except InvadError as error:
        yield str(error)
        return
    if isinstance(controller, OpcUaController):
        if controller.mode == "client":
            from invad.serve.plant.opcua import client

            yield from client.problems(controller, secret(controller.password_variable))
    elif isinstance(controller, MqttController):
        from invad.serve.plant import mqtt

        yield from mqtt.problems(controller, secret(controller.password_variable))
    elif controller.link not in tried:
        tried.add(controller.link)
        yield from modbus.problems(controller)


def _of_folder(source: FolderSource, region: Region | None) -> Iterator[str]:
    try:
        with os.scandir(source.path) as listed:
            pictures = (Path(one) for one in listed if is_taken(Path(one), source.pattern))
            first = None if region is None else next(pictures, None)
    except OSError as error:
        yield f"{source.path}: {reason(error, writing=False)}"
    else:
        yield from _of_picture(first, region)
    moved = [Path(folder) for folder in (source.done, source.failed) if folder is not None]
    if moved and is_folder(Path(source.path)) and not os.access(source.path, os.W_OK):
        yield f"{source.path}: images cannot be moved out of it; let this user write there"
    for folder in moved:
        nearest = next(at for at in (folder, *folder.absolute().parents) if at.exists())
        if not is_folder(nearest):
            yield f"{folder}: {nearest} is a file; choose another folder"
        elif not os.access(nearest, os.W_OK):
            yield f"{folder}: nothing can be written to {nearest}; let this user write there"


def _of_picture(path: Path | None, region: Region | None) -> Iterator[str]:
    """Whether a picture that lies there has the size of the region; one that is half written says nothing."""
    if path is None:
        return
    with suppress(DataError):
        size_hw = image_size(path)
        try:
            require_frame(region, size_hw, path)
        except DataError as error:
            yield str(error)
