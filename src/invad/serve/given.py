"""The models that a start, or a file of stations, is told to use, put to work where they are new."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from sqlalchemy import Connection

from invad.errors import DataError
from invad.runtime.predictor import Predictor
from invad.serve.models import Loaded, Models, told_of
from invad.serve.options import DEFAULT_STATION
from invad.serve.store import stations
from invad.serve.store.database import note

LOG = logging.getLogger("invad.serve")
Given = str | Path | Predictor
"""A folder of a model or bundle, or a detector."""


def open_given(models: Models, model: Given | Mapping[str, Given]) -> Loaded | dict[str, Loaded]:
    """One for all stations, or one of each by name, each folder opened once. Raises as `Models.give`."""
    if not isinstance(model, Mapping):
        return _open(models, model)
    opened: dict[Given, Loaded] = {}
    for one in model.values():
        if one not in opened:
            opened[one] = _open(models, one)
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


def _open(models: Models, model: Given) -> Loaded:
    if isinstance(model, Predictor):
        return models.hold("model", model)
    loaded = models.give(Path(model))
    try:
        models.share(loaded.hash)
    except DataError as error:  # it runs here; other services say that they cannot have it
        LOG.error("the model was not shared with other services: %s", error)
    return loaded


def _distinct(models: Iterable[Loaded]) -> list[Loaded]:
    return list({one.hash: one for one in models}.values())
