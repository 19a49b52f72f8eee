"""People judge parts, and limits follow: reviews, the queue, new calibrations."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.responses import JSONResponse, Response

from invad.scoring.rates import Rates
from invad.serve import reviewing
from invad.serve.recalibration import Proposal
from invad.serve.records import Judgement, Refused, Result, utc
from invad.serve.service import Service
from invad.serve.store import reviews
from invad.serve.store.reviews import Review
from invad.serve.web.answers import NO_KEY, NOT_THERE, ONLY_KNOWN, StationName, error, time_of
from invad.serve.web.auth import Caller, Gate

MOST_CLAIMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """verdict: `open` takes back what was said before, so that the part waits again. mask: lengths of runs of
    pixels that are not, and are, defective, in turn, by rows of the image."""

    verdict: Judgement
    defect: str | None = None
    note: str | None = None
    mask: list[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRecord:
    """One verdict of one person."""

    result: str
    time: str
    who: str
    verdict: Judgement
    defect: str | None
    note: str | None
    mask: list[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """results: oldest first. waiting: how many parts wait in all, those of this answer too."""

    results: list[Result]
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCalibration:
    """since, until: ISO dates, of the parts that count; all of them do. The rates are those in force unless
    given. review_limit, bad_limit: of the score, in place of the rates; each falls back to the next score of
    a normal part. let_pass: parts that were called bad may become good."""

    since: str | None = None
    until: str | None = None
    category: str | None = None
    review_rate: float | None = None
    bad_rate: float | None = None
    review_limit: float | None = None
    bad_limit: float | None = None
    let_pass: bool = False


def router(service: Service, gate: Gate) -> APIRouter:
    """These calls."""
    api = APIRouter(prefix="/api/v1", responses=NO_KEY, dependencies=ONLY_KNOWN)
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
        found, waiting = reviewing.queue(service, caller.name, limit, station, caller.stations)
        return JSONResponse({"results": [one.result.plain() for one in found], "waiting": waiting})

    @api.post(
        "/stations/{station}/calibrations",
        summary="Make limits of what the line has seen.",
        responses={**NOT_THERE, 409: error("They would be wrong, and why.")},
    )
    def recalibrate(
        caller: reading,
        station: StationName,
        given: NewCalibration,
        preview: Annotated[bool, Query(description="Say what they would be, and change nothing.")] = False,
    ) -> Proposal:
        """All parts of a time count: good ones without a verdict as normal, flagged ones by their verdict.
        A preview needs the scope `read`, all else `admin`."""
        caller.require(station)
        if not preview:
            caller.require_scope("admin")
        service.require_station(station)
        window = (time_of("since", given.since), time_of("until", given.until))
        rates = _rates(service, station, given)
        arguments = (service, station, given.category, *window, rates)
        asked: Any = {"wanted": (given.review_limit, given.bad_limit), "let_pass": given.let_pass}
        if preview:
            return reviewing.proposal(*arguments, **asked)[0]
        return reviewing.recalibrate(*arguments, caller.name, **asked)

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
    review, bad = given.review_rate or current.review, given.bad_rate or current.bad
    if given.review_limit is not None:  # which takes the place of this rate
        review = max(review, bad)
    if given.bad_limit is not None:
        bad = min(review, bad)
    return Rates(review=review, bad=bad)


def _review(one: Review) -> ReviewRecord:
    mask = None if one.mask is None else list(one.mask)
    plain: dict[str, Any] = {**asdict(one), "time": utc(one.time), "mask": mask}
    return ReviewRecord(**plain)
