"""Versions shadow, judge, and go: each step is one transaction and stored with who took it."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

from sqlalchemy import Connection

from invad.data.region import Region
from invad.errors import InvadError, in_one_line
from invad.records import Decision
from invad.report.wording import counted
from invad.serve.models import Loaded
from invad.serve.records import Refused, require_word, utc
from invad.serve.service import Service
from invad.serve.store import shadows, stations
from invad.serve.store.database import note
from invad.serve.store.shadows import Pair

LOG = logging.getLogger("invad.serve")
SHADOWED_BEFORE = 500
"""Parts that a version should have scored as a shadow before it judges."""

MOST_PAIRS = 5_000
"""Of a comparison: the page asks for one every few seconds, and parts must not wait for it."""


# ---------------------------------------------------------------------- beside the active one


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """A part whose decision differs. time: UTC."""

    id: str
    time: str
    score: float
    decision: Decision
    shadow_score: float
    shadow_decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A shadow beside the active version, over the newest parts that both have scored.

    parts: how many. needed: how many there should be before it judges. waiting: not scored yet. flagged:
    shares above good, by the active version and by the shadow. flips: parts whose decision differs, by
    `active > shadow`. correlation: of the ranks of the scores (Spearman), None below three parts. ms: median
    run of each. differing: the newest parts whose decision differs.
    """

    station: str
    active: str
    shadow: str
    parts: int
    needed: int
    waiting: int
    flagged: tuple[float, float]
    flips: Mapping[str, int]
    correlation: float | None
    ms: tuple[float, float]
    differing: Sequence[Differing]


def put_shadow(service: Service, station: str, name: str, hash: str, who: str) -> None:
    """Let a version score the parts of a station, too. Raises Refused (404, 409)."""
    model = _open(service, name, hash, shadowing=True)
    if service.active(station).hash == hash:
        raise Refused(f"version {hash[:12]} judges at station {station} already", 409)
    before = service.active(station)
    if set(model.members) != set(before.members):
        own, active = (", ".join(one.members) or "one picture" for one in (model, before))
        raise Refused(
            f"version {hash[:12]} judges parts by {own}, the active one by {active}; a shadow is shown the "
            "same pictures",
            409,
        )

    def change(connection: Connection) -> None:
        _require_usable(connection, name, hash)
        stations.put_shadow(connection, station, hash, model.calibrations)
        note(connection, who, "shadow", {"station": station, "version": hash})

    service.judging.switch(change)


def end_shadow(service: Service, station: str, who: str) -> None:
    """What it has scored stays. Raises Refused (404)."""
    _shadow_of(service, station)

    def change(connection: Connection) -> None:
        stations.put_shadow(connection, station, None, None)
        note(connection, who, "end shadow", {"station": station})

    service.judging.switch(change)


def compare(service: Service, station: str, most_differing: int) -> Comparison:
    """How the shadow of a station fares. Raises Refused (404) where there is none."""
    shadow, active = _shadow_of(service, station), service.active(station).hash
    with service.database.read() as connection:
        found = shadows.pairs(connection, station, active, shadow, MOST_PAIRS)
    flips = Counter(
        f"{one.decision} > {one.shadow_decision}" for one in found if one.decision != one.shadow_decision
    )
    return Comparison(
        station=station,
        active=active,
        shadow=shadow,
        parts=len(found),
        needed=SHADOWED_BEFORE,
        waiting=service.shadow.waiting,
        flagged=(
            _share([one.decision != "good" for one in found]),
            _share([one.shadow_decision != "good" for one in found]),
        ),
        flips=dict(sorted(flips.items())),
        correlation=_correlation(found),
        ms=_medians(found),
        differing=[_differing(one) for one in found if one.decision != one.shadow_decision][:most_differing],
    )


def _differing(one: Pair) -> Differing:
    return Differing(
        id=one.id,
        time=utc(one.time),
        score=one.score,
        decision=one.decision,
        shadow_score=one.shadow_score,
        shadow_decision=one.shadow_decision,
    )


def _shadow_of(service: Service, station: str) -> str:
    service.require_station(station)
    with service.database.read() as connection:
        here = next(one for one in stations.stations(connection) if one.name == station)
    if here.shadow is None:
        raise Refused(f"station {station} has no shadow", 404)
    return here.shadow


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0


def _medians(found: Sequence[Pair]) -> tuple[float, float]:
    if not found:
        return 0.0, 0.0
    return median(one.ms for one in found), median(one.shadow_ms for one in found)


def _correlation(found: Sequence[Pair]) -> float | None:
    """Spearman's, of the scores; None where they cannot be ranked."""
    from scipy.stats import spearmanr

    scores, others = [one.score for one in found], [one.shadow_score for one in found]
    if len(found) < 3 or len(set(scores)) == 1 or len(set(others)) == 1:
        return None
    return float(spearmanr(scores, others).statistic)


# ---------------------------------------------------------------------- judging, and going


def activate(
    service: Service, station: str, name: str, hash: str, who: str, reason: str | None = None
) -> None:
    """Let a version judge at a station from the next part on, by the calibration that is in force for it.

    reason: needed where too few parts were shadowed, or where limits of a category are missing. Raises
    Refused (404, 409) with what speaks against it.
    """
    require_word("reason", reason)
    model = _open(service, name, hash)
    before = service.active(station)
    if before.hash == hash:
        raise Refused(f"version {hash[:12]} judges at station {station} already", 409)
    if reason is None and (against := _objections(service, station, before, model)):
        raise Refused(f"{'; '.join(against)}; give a reason to activate it nevertheless", 409)
    _switch(service, station, before, model, who, "activate", reason)


def roll_back(service: Service, station: str, who: str, reason: str | None = None) -> Loaded:
    """Let the version judge that did before; doing it twice returns. Raises Refused (404, 409)."""
    require_word("reason", reason)
    before = service.active(station)
    with service.database.read() as connection:
        past = stations.activated(connection, station)
        found = stations.version(connection, past[1]) if len(past) > 1 else None
    if found is None:
        raise Refused(f"station {station} has had no other version", 409)
    model = _open(service, found.model, found.hash)
    _switch(service, station, before, model, who, "roll back version", reason)
    return model


def retire(service: Service, name: str, hash: str, who: str, reason: str | None = None) -> None:
    """Take a version out of use and delete its folder; results go on naming it. Raises Refused (404, 409)."""
    require_word("reason", reason)

    def change(connection: Connection) -> None:
        _require_usable(connection, name, hash)
        places = stations.stations(connection)
        if used := [one.name for one in places if hash in (one.active, one.shadow)]:
            raise Refused(f"version {hash[:12]} runs at station {', '.join(used)}; end that first", 409)
        stations.retire(connection, hash)
        note(connection, who, "retire version", {"model": name, "version": hash, "reason": reason})

    service.judging.switch(change)
    with suppress(InvadError):  # the next start tries again
        service.models.remove(hash)


def _switch(
    service: Service, station: str, before: Loaded, model: Loaded, who: str, action: str, reason: str | None
) -> None:
    if (before.detector.fusion is None) != (model.detector.fusion is None):
        raise Refused(
            f"one of versions {before.hash[:12]} and {model.hash[:12]} judges parts by several pictures, the "
            "other by one; start the service with the model that is to judge",
            409,
        )

    def change(connection: Connection) -> None:
        _require_usable(connection, model.name, model.hash)
        calibrations = model.calibrations
        stations.activate(connection, station, model.hash, calibrations, who, reason)
        told = {"station": station, "from": before.hash, "to": model.hash, "reason": reason}
        note(connection, who, action, told)

    service.judging.switch(change)
    LOG.warning("station %s: version %s judges from now on", station, model.hash[:12])


def _objections(service: Service, station: str, before: Loaded, model: Loaded) -> list[str]:
    with service.database.read() as connection:
        shadowed = shadows.count(connection, station, model.hash)
    lines = []
    if shadowed < SHADOWED_BEFORE:
        seen = f"{counted(shadowed, 'part')} {'was' if shadowed == 1 else 'were'} shadowed"
        lines.append(f"{seen}, {SHADOWED_BEFORE} are asked")
    missing = sorted(set(before.calibrations) - set(model.calibrations))
    if missing:
        lines.append(f"it has no limits for category {', '.join(missing)}")
    if looked_at(before) and looked_at(model) != looked_at(before):
        lines.append("its region of interest is not that of the version that judges there")
    return lines


def looked_at(model: Loaded) -> dict[str, Region]:
    """Its regions of interest by category, "" for that of all."""
    of_all = {} if model.detector.region is None else {"": model.detector.region}
    return {**of_all, **model.detector.regions}


def _open(service: Service, name: str, hash: str, *, shadowing: bool = False) -> Loaded:
    """Ready to run, before the transaction: that must not take long. Raises Refused (404, 409, 422)."""
    with service.database.read() as connection:
        _require_usable(connection, name, hash)
    try:
        return service.models.open(hash, name, shadowing=shadowing)
    except InvadError as error:
        raise Refused(f"version {hash[:12]} cannot run: {in_one_line(error)}", 422) from None


def _require_usable(connection: Connection, name: str, hash: str) -> None:
    found = stations.version(connection, hash)
    if found is None or found.model != name:
        raise Refused(f"model {name!r} has no version {hash[:64]!r}; 'GET /api/v1/models' lists them", 404)
    if found.retired is not None:
        raise Refused(f"version {hash[:12]} is retired; upload it again", 409)
