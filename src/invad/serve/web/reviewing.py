"""People judge parts, and limits follow: reviews, the queue, new calibrations."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response

from invad.scoring.rates import Rates
from invad.serve import reviewing
from invad.serve.recalibration import Proposal
from invad.serve.records import Refused, Result, Verdict, utc
from invad.serve.service import Service
from invad.serve.store import reviews
from invad.serve.store.reviews import Review
from invad.serve.web.answers import NO_KEY, NOT_THERE, StationName, error, time_of
from invad.serve.web.auth import Caller, Gate

MOST_CLAIMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """mask: lengths of runs of pixels that are not, and are, defective, in turn, by rows of the image."""

    verdict: Verdict
    defect: str | None = None
    note: str | None = None
    mask: list[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRecord:
    """One verdict of one person."""

    result: str
    time: str
    who: str
    verdict: Verdict
    defect: str | None
    note: str | None
    mask: list[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """results: oldest first."""

    results: list[Result]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCalibration:
    """since, until: ISO dates, of the parts that count; all of them do. The rates are those in force unless
    given. let_pass: parts that were called bad may become good."""

    since: str | None = None
    until: str | None = None
    category: str | None = None
    review_rate: float | None = None
    bad_rate: float | None = None
    let_pass: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRecord:
    """What the limits of a window are, and what they would change; `revision` where it was put in force."""

    revision: int | None
    parts: int
    normals: int
    flagged_parts: int
    unreviewed: int
    audited: int
    audited_bad: int
    missed_at_most: float | None
    limits_before: tuple[float, float]
    limits_after: tuple[float, float] | None
    flagged_before: float
    flagged_after: float | None
    flips: Mapping[str, int]
    passing: tuple[str, ...]
    promise: Mapping[str, tuple[float, float]]
    refusals: tuple[str, ...]
    warnings: tuple[str, ...]


def router(service: Service, gate: Gate) -> APIRouter:
    """These calls."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY)
    reading = Annotated[Caller, Depends(gate.needs("read"))]
    judging = Annotated[Caller, Depends(gate.needs("review"))]
    administering = Annotated[Caller, Depends(gate.needs("admin"))]

    def require_mine(caller: Caller, id: str) -> None:
        if caller.stations is not None and service.result(id).result.station not in caller.stations:
            raise Refused(f"no result {id}", 404)

    @api.post(
        "/results/{id}/review",
        summary="Say what a part is.",
        status_code=201,
        responses={**NOT_THERE, 400: error("The mask is not of this image.")},
    )
    def review(caller: judging, id: str, given: NewReview) -> ReviewRecord:
        """Verdicts are added; the latest counts, and the stored decision stays."""
        require_mine(caller, id)
        made = reviewing.review(
            service,
            id,
            given.verdict,
            caller.name,
            defect=given.defect,
            text=given.note,
            mask=given.mask,
        )
        return _review(made)

    @api.get("/results/{id}/reviews", summary="What was said of a part.", responses=NOT_THERE)
    def history(caller: reading, id: str) -> dict[str, list[ReviewRecord]]:
        """The newest first."""
        require_mine(caller, id)
        service.result(id)
        with service.database.read() as connection:
            return {"reviews": [_review(one) for one in reviews.of_result(connection, id)]}

    @api.get("/queue", summary="Parts that wait for a verdict.", response_model=Waiting)
    def queue(
        caller: judging,
        station: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST_CLAIMED)] = 1,
    ) -> Response:
        """Flagged ones, and good ones drawn by lot. For five minutes nobody else gets them."""
        if station is not None:
            caller.require(station)
            service.require_station(station)
        found = reviewing.queue(service, caller.name, limit, station, caller.stations)
        return JSONResponse({"results": [one.result.plain() for one in found]})

    @api.post(
        "/stations/{station}/calibrations",
        summary="Make limits of what the line has seen.",
        response_model=ProposalRecord,
        responses={**NOT_THERE, 409: error("They would be wrong, and why.")},
    )
    def recalibrate(
        caller: administering,
        station: StationName,
        given: NewCalibration,
        preview: Annotated[bool, Query(description="Say what they would be, and change nothing.")] = False,
    ) -> ProposalRecord:
        """All parts of a time count: good ones without a verdict as normal, flagged ones by their verdict."""
        caller.require(station)
        service.require_station(station)
        window = (time_of("since", given.since), time_of("until", given.until))
        rates = _rates(service, station, given)
        arguments = (service, station, given.category, *window, rates)
        if preview:
            return _proposal(reviewing.proposal(*arguments, let_pass=given.let_pass), None)
        found, revision = reviewing.recalibrate(*arguments, caller.name, let_pass=given.let_pass)
        return _proposal(found, revision.revision)

    @api.post(
        "/stations/{station}/calibrations/{revision}:activate",
        summary="Let an earlier revision decide again.",
        responses={**NOT_THERE, 409: error("It is of another version of the model.")},
    )
    def roll_back(
        caller: administering, station: StationName, revision: int, category: str | None = None
    ) -> dict[str, int]:
        """From the next part on."""
        caller.require(station)
        service.require_station(station)
        return {"revision": reviewing.roll_back(service, station, category, revision, caller.name).revision}

    return api


def _rates(service: Service, station: str, given: NewCalibration) -> Rates | None:
    if given.review_rate is None and given.bad_rate is None:
        return None
    key = service.in_force.key(station, given.category)
    current = service.in_force.limits(station, key).calibration.rates
    return Rates(review=given.review_rate or current.review, bad=given.bad_rate or current.bad)


def _review(one: Review) -> ReviewRecord:
    mask = None if one.mask is None else list(one.mask)
    plain: dict[str, Any] = {**asdict(one), "time": utc(one.time), "mask": mask}
    return ReviewRecord(**plain)


def _proposal(found: Proposal, revision: int | None) -> ProposalRecord:
    names = ProposalRecord.__dataclass_fields__.keys() - {"revision"}
    return ProposalRecord(revision=revision, **{name: getattr(found, name) for name in names})
