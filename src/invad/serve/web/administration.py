"""What decides, and who may ask: stations, calibrations, keys."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query
from starlette.responses import Response

from invad.data.region import Region, digest_of, inside_of
from invad.errors import ConfigError
from invad.serve.records import Refused, SinkState, SourceState, utc
from invad.serve.service import Service
from invad.serve.store import keys, stations
from invad.serve.store.database import note
from invad.serve.web.answers import NO_KEY, NOT_THERE, ONLY_KNOWN, StationName, error, time_of
from invad.serve.web.auth import Caller, Gate


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionRecord:
    """The region of interest of the version that judges. frame: width and height of the pictures, in pixels.
    inspected: share of a picture that counts, in (0, 1). sha256: of what it says, by which the version and so
    each result names it."""

    frame: tuple[int, int]
    inspected: float
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartsRecord:
    """How the version that judges takes parts of several pictures. rule: by which files were parts in its
    training, as `--parts` says it. members: names of the pictures."""

    rule: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StationRecord:
    """active: content hash of the version that judges there. region: what of a picture counts for it,
    None where all does; regions: of categories that have their own. parts: None where a part is one
    picture. shadow: of one that scores parts, too. source: what brings parts by itself, None where they
    come over HTTP alone. outputs: who is told of its results, by name; one that is told of the results of
    all stations is not among them."""

    name: str
    created: str
    active: str
    region: RegionRecord | None
    parts: PartsRecord | None
    regions: dict[str, RegionRecord]
    shadow: str | None
    source: SourceState | None
    outputs: dict[str, SinkState]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRecord:
    """n: independent good images, or groups of them. The rates are those asked for; a limit is what a score
    has to exceed. warnings: what n is too small to promise."""

    station: str
    category: str | None
    revision: int
    in_force: bool
    model_version: str
    made_from: str
    created: str
    n: int
    review_rate: float
    bad_rate: float
    review_limit: float
    bad_limit: float
    warnings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """scopes: some of infer, read, review, admin. stations: where it is good, everywhere by default. expires:
    ISO date."""

    name: str
    scopes: list[str]
    stations: list[str] | None = None
    expires: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """secret: shown once, when the key is made."""

    id: str
    name: str
    scopes: list[str]
    stations: list[str] | None
    created: str
    expires: str | None
    last_used: str | None
    revoked: str | None
    secret: str | None = None


def router(service: Service, gate: Gate) -> APIRouter:
    """These calls."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY, dependencies=ONLY_KNOWN)
    reading = Annotated[Caller, Depends(gate.needs("read"))]
    administering = Annotated[Caller, Depends(gate.needs("admin"))]

    @api.get("/stations", summary="Where parts come from.")
    def list_stations(caller: reading) -> dict[str, list[StationRecord]]:
        """Those that the key is for."""
        mine = [one for one in service.stations() if caller.stations is None or one.name in caller.stations]
        sources = service.sources()
        outputs = service.deliveries.states
        return {
            "stations": [_station(one, service, sources.get(one.name), outputs(one.name)) for one in mine]
        }

    @api.post(
        "/stations",
        summary="Add a station.",
        status_code=201,
        responses={400: error("An impossible name."), 409: error("It is there already.")},
    )
    def add_station(
        caller: administering,
        name: Annotated[str, Body(embed=True, description="Small letters, digits, dots, dashes.")],
    ) -> StationRecord:
        """Its limits are those of the model at first, and its own from then on."""
        caller.require(name)
        made = service.add_station(name, caller.name)
        return _station(made, service, None, {})

    @api.get(
        "/stations/{station}/region",
        summary="What of a picture counts at a station.",
        responses=NOT_THERE,
    )
    def region(
        caller: reading,
        station: StationName,
        category: Annotated[str | None, Query(description="Of its parts; default: of those without.")] = None,
    ) -> dict[str, Any]:
        """As the file that `invad calibrate --roi` takes; 404 where all of a picture counts."""
        caller.require(station)
        try:
            found = service.active(station).detector.region_for(category)
        except ConfigError as error:
            raise Refused(str(error), 404) from None
        if found is None:
            raise Refused(f"at station {station!r} all of a picture counts", 404)
        return asdict(found)

    @api.get(
        "/stations/{station}/calibrations",
        summary="What decides at a station, and what did.",
        responses=NOT_THERE,
    )
    def calibrations(
        caller: reading,
        station: StationName,
    ) -> dict[str, list[RevisionRecord]]:
        """All revisions, newest first."""
        caller.require(station)
        service.require_station(station)
        with service.database.read() as connection:
            found = stations.revisions(connection, station)
            deciding = {one.id for one in stations.deciding(connection)}
        return {"calibrations": [revision_record(one, one.id in deciding) for one in found]}

    @api.get("/keys", summary="The keys, without their secrets.")
    def list_keys(caller: administering) -> dict[str, list[KeyRecord]]:
        """Oldest first, revoked ones too."""
        with service.database.read() as connection:
            return {"keys": [_key(one) for one in keys.keys(connection)]}

    @api.post("/keys", summary="Make a key.", status_code=201, responses={400: error("Unknown scopes.")})
    def make_key(caller: administering, wanted: NewKey) -> KeyRecord:
        """The secret is in this answer and nowhere else."""
        expires = time_of("expires", wanted.expires)
        with service.database.write() as connection:
            secret, key = keys.make(connection, wanted.name, wanted.scopes, wanted.stations, expires)
            note(connection, caller.name, "make key", {"key": key.id, "scopes": wanted.scopes})
        service.keyring.forget()
        return _key(key, secret)

    @api.delete("/keys/{id}", summary="Revoke a key.", status_code=204, responses=NOT_THERE)
    def revoke_key(caller: administering, id: str) -> Response:
        """It works no more from the next request on."""
        with service.database.write() as connection:
            if not keys.revoke(connection, id):
                raise Refused(f"no key {id} that works", 404)
            note(connection, caller.name, "revoke key", {"key": id})
        service.keyring.forget()
        return Response(status_code=204)

    return api


def _station(
    one: stations.Station,
    service: Service,
    source: SourceState | None,
    outputs: dict[str, SinkState],
) -> StationRecord:
    return StationRecord(
        name=one.name,
        created=utc(one.created),
        active=one.active,
        region=region_record(service, one.name),
        regions=region_records(service, one.name),
        parts=parts_record(service, one.name),
        shadow=one.shadow,
        source=source,
        outputs=outputs,
    )


def region_record(service: Service, station: str) -> RegionRecord | None:
    """What is said of the region of interest of the version that judges at a station."""
    if not service.models.judges_at(station):
        return None
    region = service.active(station).detector.region
    return None if region is None else _region_record(region)


def region_records(service: Service, station: str) -> dict[str, RegionRecord]:
    """The same by category, of those that have a region of their own."""
    if not service.models.judges_at(station):
        return {}
    detector = service.active(station).detector
    return {name: _region_record(one) for name, one in detector.regions.items() if one != detector.region}


@lru_cache(maxsize=256)
def _region_record(region: Region) -> RegionRecord:
    share = float(inside_of(region).mean())
    return RegionRecord(frame=region.frame, inspected=share, sha256=digest_of(region))


def parts_record(service: Service, station: str) -> PartsRecord | None:
    """What is said of the pictures that a part has at a station."""
    if not service.models.judges_at(station):
        return None
    fusion = service.active(station).detector.fusion
    return None if fusion is None else PartsRecord(rule=fusion.rule, members=fusion.members)


def revision_record(one: stations.Revision, in_force: bool) -> RevisionRecord:
    """What is said of a revision."""
    limits = one.calibration
    review, bad = limits.score_limits()
    return RevisionRecord(
        station=one.station,
        category=one.category or None,
        revision=one.revision,
        in_force=in_force,
        model_version=one.model_version,
        made_from=one.made_from,
        created=utc(one.created),
        n=limits.n,
        review_rate=limits.rates.review,
        bad_rate=limits.rates.bad,
        review_limit=review,
        bad_limit=bad,
        warnings=list(limits.warnings()),
    )


def _key(one: keys.Key, secret: str | None = None) -> KeyRecord:
    times = (None if value is None else utc(value) for value in (one.expires, one.last_used, one.revoked))
    expires, last_used, revoked = times
    return KeyRecord(
        id=one.id,
        name=one.name,
        scopes=list(one.scopes),
        stations=None if one.stations is None else list(one.stations),
        created=utc(one.created),
        expires=expires,
        last_used=last_used,
        revoked=revoked,
        secret=secret,
    )
