"""What is said of a station beside its results: what judges there, whether its connections work, drift."""

from collections.abc import Collection, Mapping
from typing import Any

from invad.serve.ids import time_of_id
from invad.serve.records import SinkState, SourceState, utc
from invad.serve.service import Service
from invad.serve.store import stations
from invad.serve.store.stations import Revision

SCHEMA = 1


def told(service: Service, station: str) -> Mapping[str, Mapping[str, Any]]:
    """Both, by the names of their topics."""
    return {"state": state(service, station), "drift": drift(service, station)}


def state(service: Service, station: str) -> dict[str, Any]:
    """Model, calibration, source and outputs, without what changes with every part."""
    active = service.active(station)
    source = service.sources().get(station)
    return {
        "schema": SCHEMA,
        "station": station,
        "model": active.name,
        "model_version": active.hash,
        "calibrations": [
            {"category": one.category or None, "revision": one.revision}
            for one in _deciding(service, station)
        ],
        "source": None if source is None else _plain(source),
        "outputs": {name: _plain(one) for name, one in service.deliveries.states(station).items()},
    }


def drift(service: Service, station: str) -> dict[str, Any]:
    """The phase of each monitor, and since when and why parts look different."""
    reports = [service.watch.report(one, 0) for one in _deciding(service, station)]
    said = [
        {"category": one.category, "phase": one.phase, "since": one.since, "hints": list(one.hints)}
        for one in reports
    ]
    return {"schema": SCHEMA, "station": station, "drift": said}


def troubles(service: Service, station: str, events: Collection[str], own: str) -> dict[str, str]:
    """What people should know of, by what it is. events: some of drift, source, output, disk. own: name of
    the output that tells it."""
    found = {}
    if "drift" in events:
        for one in _deciding(service, station):
            report = service.watch.report(one, 0)
            if report.phase == "alarm":
                since = f" since {utc(time_of_id(report.since))}" if report.since else ""
                of = f" of {report.category}" if report.category else ""
                found[f"drift{of}"] = "; ".join([f"parts{of} look different{since}", *report.hints])
    source = service.sources().get(station)
    if "source" in events and source is not None and source.problem is not None:
        found[f"no parts from its {source.kind}"] = source.problem
    if "output" in events:
        outputs = {**service.deliveries.states(), **service.deliveries.states(station)}
        for name, output in outputs.items():
            if output.problem is not None and name != own:
                found[f"{name} takes no results"] = f"{output.problem}; {output.waiting} waiting"
    if "disk" in events:
        checks = service.readiness().checks  # of a disk or of pictures that services share
        if (disk := checks.get("disk", "ok")) != "ok":
            found["the disk is nearly full"] = f"{disk}; no pictures are kept until there is room"
        if (store := checks.get("pictures", "ok")) != "ok":
            found["no pictures are kept"] = store
    return found


def _deciding(service: Service, station: str) -> list[Revision]:
    with service.database.read() as connection:
        found = [one for one in stations.deciding(connection) if one.station == station]
    return sorted(found, key=lambda one: one.category)


def _plain(one: SourceState | SinkState) -> Mapping[str, Any]:
    return {"kind": one.kind, "place": one.place, "problem": one.problem}
