"""People judge parts, and limits follow the process: each step is stored with who took it."""

from collections.abc import Sequence

from invad.scoring.rates import Rates
from invad.serve.recalibration import MOST, Proposal, propose
from invad.serve.records import Refused, Verdict
from invad.serve.service import Service, require_word
from invad.serve.store import results, reviews, stations
from invad.serve.store.database import note, now_ms
from invad.serve.store.reviews import Review
from invad.serve.store.stations import Revision

LONGEST_NOTE = 2000


def review(
    service: Service,
    id: str,
    verdict: Verdict,
    who: str,
    *,
    defect: str | None = None,
    text: str | None = None,
    mask: Sequence[int] | None = None,
) -> Review:
    """Add a person's verdict on a result. mask: see `Review`; it is of the size of the image.

    Raises Refused (400, 404).
    """
    require_word("defect", defect)
    if text is not None and (len(text) > LONGEST_NOTE or "\0" in text):
        raise Refused(f"note: give at most {LONGEST_NOTE} characters", 400)
    stored = service.result(id)
    pixels = stored.result.width * stored.result.height
    if mask is not None and (any(run < 0 for run in mask) or sum(mask) != pixels):
        raise Refused(f"mask: the runs have to add up to the {pixels} pixels of the image", 400)
    one = Review(
        result=id,
        time=now_ms(),
        who=who,
        verdict=verdict,
        defect=defect,
        note=text,
        mask=None if mask is None else tuple(mask),
    )
    with service.database.write() as connection:
        reviews.add(connection, one)
    return one


def queue(
    service: Service, who: str, limit: int, station: str | None, allowed: Sequence[str] | None
) -> list[results.Stored]:
    """The oldest parts that wait for a verdict, for this person alone for five minutes. allowed: stations."""
    with service.database.write() as connection:
        return reviews.claim_next(connection, who, limit, station, allowed)


def proposal(
    service: Service,
    station: str,
    category: str | None,
    since: int | None,
    until: int | None,
    rates: Rates | None,
    *,
    let_pass: bool = False,
) -> Proposal:
    """What limits the parts of a time would give; nothing is changed. rates: those in force unless given."""
    service.require_station(station)
    key = service.in_force.key(station, category)
    current = service.in_force.limits(station, key).calibration
    version = service.model[1]
    with service.database.read() as connection:
        window = reviews.window(connection, station, key, version, since, until, MOST)
        bad = reviews.known_bad(connection, station, key, version, MOST)
    return propose(window, bad, current, rates or current.rates, let_pass=let_pass)


def recalibrate(
    service: Service,
    station: str,
    category: str | None,
    since: int | None,
    until: int | None,
    rates: Rates | None,
    who: str,
    *,
    let_pass: bool = False,
) -> tuple[Proposal, Revision]:
    """The same, put in force as the next revision. Raises Refused (409) with the reasons if it must not."""
    found = proposal(service, station, category, since, until, rates, let_pass=let_pass)
    if found.calibration is None:
        raise Refused("; ".join(found.refusals), 409)
    key = service.in_force.key(station, category)
    made_from = f"window of {found.parts} parts, {found.normals} normal"
    with service.database.write() as connection:
        revision = stations.add_revision(
            connection, station, key, service.model[1], found.calibration, made_from
        )
        stations.put_in_force(connection, revision)
        told = {"station": station, "category": key, "revision": revision.revision, "let_pass": let_pass}
        note(connection, who, "recalibrate", told)
    service.refresh_limits()
    return found, revision


def roll_back(service: Service, station: str, category: str | None, number: int, who: str) -> Revision:
    """Put a revision in force that there was. Raises Refused (404, 409)."""
    key = service.in_force.key(station, category)
    with service.database.write() as connection:
        of_category = (one for one in stations.revisions(connection, station) if one.category == key)
        found = next((one for one in of_category if one.revision == number), None)
        if found is None:
            raise Refused(f"station {station} has no revision {number}", 404)
        if found.model_version != service.model[1]:
            raise Refused(f"revision {number} is of another version of the model", 409)
        stations.put_in_force(connection, found)
        note(connection, who, "roll back", {"station": station, "category": key, "revision": number})
    service.refresh_limits()
    return found
