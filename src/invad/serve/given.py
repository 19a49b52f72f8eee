"""The models that a start, or a file of stations, is told to use, put to work where they are new."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from invad.data.region import Region, digest_of, read_region
from invad.detector.regional import doubts_of, looks_at, with_region
from invad.errors import ArtifactError, ConfigError, DataError
from invad.runtime.predictor import Predictor
from invad.serve.models import Loaded, Models, told_of
from invad.serve.options import DEFAULT_STATION
from invad.serve.store import stations
from invad.serve.store.database import Database, note

LOG = logging.getLogger("invad.serve")


@dataclass(frozen=True, slots=True)
class Looking:
    """A model that looks at the region in a file. model: the folder of a trained one, or of a bundle that has
    this very region."""

    model: Path
    region: Path


Given = str | Path | Predictor | Looking
"""A folder of a model or bundle, with a region or without, or a detector."""


def open_given(
    models: Models, model: Given | Mapping[str, Given], database: Database
) -> Loaded | dict[str, Loaded]:
    """One for all stations, or one of each by name, each folder opened once.

    database: knows which versions were made for a region before. Raises as `Models.give`; also DataError for
    a file that is no region or that the model cannot look at, and ConfigError as `with_region`.
    """
    if not isinstance(model, Mapping):
        return _open(models, model, database)
    opened: dict[Given, Loaded] = {}
    for one in model.values():
        if one not in opened:
            opened[one] = _open(models, one, database)
    return {station: opened[one] for station, one in model.items()}


def take_given(connection: Connection, given: Loaded | Mapping[str, Loaded]) -> list[str]:
    """Let models judge at their stations, one alone at all, unless the last start was given the same: then
    what was activated since stays. Returns the hashes of versions that are out of use."""
    before = stations.stations(connection)
    for one in _distinct([given] if isinstance(given, Loaded) else given.values()):
        stations.add_version(connection, one.hash, one.name, told_of(one))
    if isinstance(given, Loaded):
        names = [one.name for one in before] or [DEFAULT_STATION]
        changed = stations.give(connection, given.hash) or not before
        taken = dict.fromkeys(names, given) if changed else {}
    else:
        last = {name: stations.given(connection, name) for name in given}
        taken = {name: one for name, one in given.items() if last[name] != one.hash}
    for name, one in taken.items():
        stations.activate(connection, name, one.hash, one.calibrations, reason=stations.GIVEN)
    for one in _distinct(taken.values()):
        here = [old for old in before if old.name in taken and taken[old.name].hash == one.hash]
        if switched := [old.name for old in here if old.active != one.hash]:
            note(connection, "invad", "switch model", {"to": one.hash, "stations": switched})
    return [one.hash for one in stations.versions(connection) if one.retired is not None]


def _open(models: Models, model: Given, database: Database) -> Loaded:
    if isinstance(model, Predictor):
        return models.hold("model", model)
    loaded = _looking(models, model, database) if isinstance(model, Looking) else models.give(Path(model))
    try:
        models.share(loaded.hash)
    except DataError as error:  # it runs here; other services say that they cannot have it
        LOG.error("the model was not shared with other services: %s", error)
    return loaded


def _looking(models: Models, wanted: Looking, database: Database) -> Loaded:
    """A version of its own: what judges names its region, and its limits are its own, too."""
    region = read_region(wanted.region)
    given = models.try_out(wanted.model)
    if looks_at(given.detector, region):  # type: ignore[arg-type]
        return models.give(wanted.model)
    known = _made_before(models, given, region, database)
    if known is not None:
        return known
    try:
        made = with_region(given.detector, region)  # type: ignore[arg-type]
    except (ConfigError, DataError) as error:
        raise type(error)(f"{wanted.region}, for {wanted.model}: {error}") from None
    for line in doubts_of(made):
        LOG.warning("%s, for %s: %s", wanted.region, wanted.model, line)
    return models.give_made(made, given)


def _made_before(models: Models, given: Loaded, region: Region, database: Database) -> Loaded | None:
    """The version that was made of this model for this region, by this service or another one: making it
    again on another processor could differ in the last digits, and would be another version."""
    with database.read() as connection:
        found = stations.versions(connection)
    for one in found:
        content = one.content
        if content.get("made_of") == given.hash and content.get("region") == digest_of(region):
            try:
                return replace(models.open(one.hash, given.name), made_of=given.hash)
            except ArtifactError as error:
                LOG.warning("version %s is made again: %s", one.hash[:12], error)
    return None


def _distinct(models: Iterable[Loaded]) -> list[Loaded]:
    return list({one.hash: one for one in models}.values())
