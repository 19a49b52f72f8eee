"""Stations, the versions of models they run, and the calibrations that decide there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select

from invad.errors import ArtifactError
from invad.scoring.calibration import Calibration
from invad.serve.store.database import now_ms
from invad.serve.store.schema import calibration, in_force, model_version, station
from invad.system.plain import from_plain, to_plain

FROM_MODEL = "model"
"""What a revision was made from that came with the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A calibration of one station and category. category: "" is that over all categories."""

    id: int
    station: str
    category: str
    revision: int
    model_version: str
    calibration: Calibration
    made_from: str
    created: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A model by its content hash."""

    hash: str
    model: str
    added: int
    content: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """active: the hash of the version that judges its parts."""

    name: str
    created: int
    active: str


def stations(connection: Connection) -> list[Station]:
    """All, by name."""
    rows = connection.execute(select(station).order_by(station.c.name))
    return [Station(name=row.name, created=row.created, active=row.active) for row in rows]


def versions(connection: Connection, model: str | None = None) -> list[Version]:
    """Those of a model, or all, newest first."""
    wanted = select(model_version).order_by(model_version.c.added.desc(), model_version.c.hash)
    if model is not None:
        wanted = wanted.where(model_version.c.model == model)
    return [
        Version(hash=row.hash, model=row.model, added=row.added, content=json.loads(row.content))
        for row in connection.execute(wanted)
    ]


def add_version(connection: Connection, hash: str, model: str, content: Mapping[str, Any]) -> None:
    """Remember a version; one that is known stays as it is."""
    if connection.scalar(select(model_version.c.hash).where(model_version.c.hash == hash)) is None:
        values = {"hash": hash, "model": model, "added": now_ms(), "content": json.dumps(dict(content))}
        connection.execute(model_version.insert().values(values))


def activate(
    connection: Connection, name: str, version: str, calibrations: Mapping[str, Calibration]
) -> None:
    """Let `version` judge the parts of a station, which is made if need be.

    calibrations: of the model; they become revisions in force, where the station has none for this version.
    """
    made = connection.execute(station.update().where(station.c.name == name).values(active=version))
    if not made.rowcount:
        connection.execute(station.insert().values(name=name, created=now_ms(), active=version))
    of_station = (in_force.c.station == name, in_force.c.model_version == version)
    there = set(connection.scalars(select(in_force.c.category).where(*of_station)))
    for category, limits in calibrations.items():
        if category not in there:
            added = add_revision(connection, name, category, version, limits, FROM_MODEL)
            put_in_force(connection, added)


def add_revision(
    connection: Connection, name: str, category: str, version: str, limits: Calibration, made_from: str
) -> Revision:
    """The next revision of a station and category; it decides nothing yet."""
    of_category = (calibration.c.station == name, calibration.c.category == category)
    last = connection.scalar(select(func.max(calibration.c.revision)).where(*of_category)) or 0
    values: dict[str, Any] = {
        "station": name,
        "category": category,
        "revision": last + 1,
        "model_version": version,
        "made_from": made_from,
        "created": now_ms(),
    }
    content = json.dumps(to_plain(limits))
    made = connection.execute(calibration.insert().values(**values, content=content))
    assert made.inserted_primary_key is not None
    return Revision(id=made.inserted_primary_key[0], calibration=limits, **values)


def put_in_force(connection: Connection, revision: Revision) -> None:
    """Let a revision decide from now on."""
    values = {"calibration": revision.id, "since": now_ms()}
    keys = {name: getattr(revision, name) for name in ("station", "category", "model_version")}
    where = [in_force.c[name] == value for name, value in keys.items()]
    if not connection.execute(in_force.update().where(*where).values(**values)).rowcount:
        connection.execute(in_force.insert().values(**keys, **values))


def revisions(connection: Connection, name: str) -> list[Revision]:
    """All of a station, newest first."""
    wanted = select(calibration).where(calibration.c.station == name).order_by(calibration.c.id.desc())
    return [_revision(row) for row in connection.execute(wanted)]


def deciding(connection: Connection) -> list[Revision]:
    """What is in force at each station for the version that is active there."""
    joined = select(calibration).join(in_force, in_force.c.calibration == calibration.c.id)
    active = joined.join(
        station, (station.c.name == in_force.c.station) & (station.c.active == in_force.c.model_version)
    )
    return [_revision(row) for row in connection.execute(active)]


def _revision(row: Row[Any]) -> Revision:
    where = f"calibration {row.revision} of station {row.station}"
    limits = from_plain(Calibration, json.loads(row.content), where, ArtifactError)
    names: Sequence[str] = ("id", "station", "category", "revision", "model_version", "made_from", "created")
    return Revision(calibration=limits, **{key: getattr(row, key) for key in names})
