"""Stations, the versions of models they run, and the calibrations that decide there."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, select

from invad.errors import ArtifactError
from invad.scoring.calibration import Calibration
from invad.serve.store.database import now_ms
from invad.serve.store.schema import (
    activation,
    calibration,
    in_force,
    model_version,
    shadowing,
    station,
)
from invad.system.plain import from_plain, to_plain

GIVEN = "given at the start"
"""Why a version is active that a start was told to use."""

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
    """A model by its content hash. retired: when it was taken out of use."""

    hash: str
    model: str
    added: int
    content: dict[str, Any]
    retired: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """active: the hash of the version that judges its parts. shadow: of one that scores them, too."""

    name: str
    created: int
    active: str
    shadow: str | None = None


def stations(connection: Connection) -> list[Station]:
    """All, by name."""
    wanted = select(station, shadowing.c.model_version.label("shadow")).order_by(station.c.name)
    rows = connection.execute(wanted.outerjoin(shadowing, shadowing.c.station == station.c.name))
    names = ("name", "created", "active", "shadow")
    return [Station(**{name: getattr(row, name) for name in names}) for row in rows]


def versions(connection: Connection, model: str | None = None) -> list[Version]:
    """Those of a model, or all, newest first."""
    wanted = select(model_version).order_by(model_version.c.added.desc(), model_version.c.hash)
    if model is not None:
        wanted = wanted.where(model_version.c.model == model)
    return [_version(row) for row in connection.execute(wanted)]


def version(connection: Connection, hash: str) -> Version | None:
    """One version, if it is known."""
    row = connection.execute(select(model_version).where(model_version.c.hash == hash)).first()
    return None if row is None else _version(row)


def add_version(connection: Connection, hash: str, model: str, content: Mapping[str, Any]) -> None:
    """Remember a version; one that is known stays as it is, and is retired no more."""
    known = model_version.update().where(model_version.c.hash == hash).values(retired=None)
    if not connection.execute(known).rowcount:
        values = {"hash": hash, "model": model, "added": now_ms(), "content": json.dumps(dict(content))}
        connection.execute(model_version.insert().values(values))


def retire(connection: Connection, hash: str) -> None:
    """Take a version out of use; its results go on naming it."""
    connection.execute(model_version.update().where(model_version.c.hash == hash).values(retired=now_ms()))


def give(connection: Connection, hash: str) -> bool:
    """Note that a start was told to use this version; returns whether the last start was told another."""
    wanted = select(model_version.c.hash).where(model_version.c.given.is_not(None))
    last = connection.scalar(wanted.order_by(model_version.c.given.desc()).limit(1))
    # Two starts within a millisecond, or a clock that was set back, must not leave an older one the last.
    newest = connection.scalar(select(func.max(model_version.c.given))) or 0
    now = max(now_ms(), newest + 1)
    connection.execute(model_version.update().where(model_version.c.hash == hash).values(given=now))
    return last != hash


def activate(
    connection: Connection,
    name: str,
    version: str,
    calibrations: Mapping[str, Calibration],
    who: str = "invad",
    reason: str | None = None,
) -> None:
    """Let `version` judge the parts of a station, which is made if need be.

    calibrations: of the model; they become revisions in force, where the station has none for this version.
    It shadows there no more.
    """
    made = connection.execute(station.update().where(station.c.name == name).values(active=version))
    if not made.rowcount:
        connection.execute(station.insert().values(name=name, created=now_ms(), active=version))
    values = {"station": name, "model_version": version, "time": now_ms(), "who": who, "reason": reason}
    if reason == GIVEN or activated(connection, name)[:1] != [version]:
        connection.execute(activation.insert().values(values))
    here = (shadowing.c.station == name, shadowing.c.model_version == version)
    connection.execute(delete(shadowing).where(*here))
    take_calibrations(connection, name, version, calibrations)


def activated(connection: Connection, name: str) -> list[str]:
    """The last two versions that were active at a station, the one that is now first."""
    of_station = select(activation.c.model_version).where(activation.c.station == name)
    last: list[str] = []
    for version in connection.scalars(of_station.order_by(activation.c.id.desc())):
        if version not in last[-1:]:
            last.append(version)
        if len(last) == 2:
            break
    return last


def given(connection: Connection, name: str) -> str | None:
    """The version that the last start which was told to use one at this station was told."""
    of_station = select(activation.c.model_version).where(
        activation.c.station == name, activation.c.reason == GIVEN
    )
    return connection.scalar(of_station.order_by(activation.c.id.desc()).limit(1))


def put_shadow(
    connection: Connection, name: str, version: str | None, calibrations: Mapping[str, Calibration] | None
) -> None:
    """Let a version score the parts of a station, too, and decide nothing; None ends it."""
    connection.execute(delete(shadowing).where(shadowing.c.station == name))
    if version is not None:
        values = {"station": name, "model_version": version, "since": now_ms()}
        connection.execute(shadowing.insert().values(values))
        take_calibrations(connection, name, version, calibrations or {})


def take_calibrations(
    connection: Connection, name: str, version: str, calibrations: Mapping[str, Calibration]
) -> None:
    """Those of a model become revisions in force at a station that has none for this version."""
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


def in_force_of(connection: Connection, hashes: Collection[str]) -> list[Revision]:
    """What is in force at each station for these versions, whether they are active or not."""
    joined = select(calibration).join(in_force, in_force.c.calibration == calibration.c.id)
    wanted = joined.where(in_force.c.model_version.in_(sorted(hashes)))
    return [_revision(row) for row in connection.execute(wanted)]


def deciding(connection: Connection) -> list[Revision]:
    """What is in force at each station for the version that is active there."""
    joined = select(calibration).join(in_force, in_force.c.calibration == calibration.c.id)
    active = joined.join(
        station, (station.c.name == in_force.c.station) & (station.c.active == in_force.c.model_version)
    )
    return [_revision(row) for row in connection.execute(active)]


def whole(connection: Connection) -> tuple[frozenset[tuple[Any, ...]], ...]:
    """All that says which versions run and what decides, to compare with what it was a moment ago."""
    columns = (
        (station.c.name, station.c.active),
        (shadowing.c.station, shadowing.c.model_version),
        (in_force.c.station, in_force.c.category, in_force.c.model_version, in_force.c.calibration),
    )
    return tuple(frozenset(tuple(row) for row in connection.execute(select(*each))) for each in columns)


def _version(row: Row[Any]) -> Version:
    names = ("hash", "model", "added", "retired")
    return Version(content=json.loads(row.content), **{name: getattr(row, name) for name in names})


def _revision(row: Row[Any]) -> Revision:
    where = f"calibration {row.revision} of station {row.station}"
    limits = from_plain(Calibration, json.loads(row.content), where, ArtifactError)
    names: Sequence[str] = ("id", "station", "category", "revision", "model_version", "made_from", "created")
    return Revision(calibration=limits, **{key: getattr(row, key) for key in names})
