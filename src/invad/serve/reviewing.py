"""People judge parts, and limits follow the process: each step is stored with who took it."""

from collections.abc import Sequence
from dataclasses import replace

from invad.report.wording import counted
from invad.scoring.calibration import Calibration
from invad.scoring.rates import Rates
from invad.serve.recalibration import MOST, Proposal, Wanted, propose
from invad.serve.records import Judgement, Refused, require_word
from invad.serve.service import Service
from invad.serve.store import results, reviews, stations
from invad.serve.store.database import note, now_ms
from invad.serve.store.reviews import Review
from invad.serve.store.stations import Revision

LONGEST_NOTE = 2000


def review(
    service: Service,
    id: str,
    verdict: Judgement,
    who: str,
    *,
    defect: str | None = None,
    text: str | None = None,
    mask: Sequence[int] | None = None,
) -> Review:
    """Add a person's verdict on a result; "open" takes back what was said. mask: see `Review`; it is
    of the size of the image.

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
) -> tuple[list[results.Stored], int]:
    """The oldest parts that wait for a verdict, for this person alone for five minutes, and how many wait in
    all. allowed: stations."""
    with service.database.write() as connection:
        found = reviews.claim_next(connection, who, limit, station, allowed)
        return found, reviews.waiting(connection, station, allowed)[0]


def proposal(
    service: Service,
    station: str,
    category: str | None,
    since: int | None,
    until: int | None,
    rates: Rates | None,
    *,
    wanted: Wanted = (None, None),
    let_pass: bool = False,
) -> tuple[Proposal, Calibration | None]:
    """What limits the parts of a time would give, see `propose`; nothing is changed. rates: those in force
    unless given."""
    service.require_station(station)
    key = service.in_force.key(station, category)
    current = service.in_force.limits(station, key).calibration
    version = service.active(station).hash
    with service.database.read() as connection:
        window = reviews.window(connection, station, key, version, since, until, MOST)
        bad = reviews.known_bad(connection, station, key, version, MOST)
    return propose(window, bad, current, rates or current.rates, wanted=wanted, let_pass=let_pass)


def recalibrate(
    service: Service,
    station: str,
    category: str | None,
    since: int | None,
    until: int | None,
    rates: Rates | None,
    who: str,
    *,
    wanted: Wanted = (None, None),
    let_pass: bool = False,
) -> Proposal:
    """The same, put in force as the next revision. Raises Refused (409) with the reasons if it must not."""
    found, made = proposal(service, station, category, since, until, rates, wanted=wanted, let_pass=let_pass)
    if made is None:
        raise Refused("; ".join(found.refusals), 409)
    key = service.in_force.key(station, category)
    made_from = f"window of {counted(found.parts, 'part')}, {found.normals} normal"
    with service.database.write() as connection:
        version = service.active(station).hash
        revision = stations.add_revision(connection, station, key, version, made, made_from)
        stations.put_in_force(connection, revision)
        told = {"station": station, "category": key, "revision": revision.revision, "let_pass": let_pass}
        note(connection, who, "recalibrate", told)
    service.judging.refresh()
    return replace(found, revision=revision.revision)


def roll_back(service: Service, station: str, category: str | None, number: int, who: str) -> Revision:
    """Put a revision in force that there was. Raises Refused (404, 409)."""
    key = service.in_force.key(station, category)
    with service.database.write() as connection:
        of_category = (one for one in stations.revisions(connection, station) if one.category == key)
        found = next((one for one in of_category if one.revision == number), None)
        if found is None:
            raise Refused(f"station {station} has no revision {number}", 404)
        if found.model_version != service.active(station).hash:
            raise Refused(f"revision {number} is of another version of the model", 409)
        stations.put_in_force(connection, found)
        note(connection, who, "roll back", {"station": station, "category": key, "revision": number})
    service.judging.refresh()
    return found
