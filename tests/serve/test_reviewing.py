"""People judge, limits follow: what counts, what is refused, and who gets which part."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from invad.errors import ConfigError
from invad.metrics.alarms import realised_interval
from invad.scoring.calibration import Calibration, upper_limit
from invad.scoring.rates import Rates
from invad.serve.ids import Ids
from invad.serve.limits import Limits
from invad.serve.recalibration import propose
from invad.serve.store.database import Database
from invad.serve.store.reviews import Seen
from invad.serve.store.schema import audit, claim
from invad.serve.store.stations import Revision

INSPECT = "/api/v1/stations/default/inspect"
RATES = Rates(review=0.05, bad=0.01)


IDS = Ids()


def seen(score, decision="good", verdict=None, audit=False, image=None):
    id = IDS.new()
    return Seen(
        id=id,
        score=float(score),
        peak=float(score) + 0.5,
        decision=decision,
        verdict=verdict,
        audit=audit,
        image_sha256=image or id,
    )


def window_of(scores, current, verdict="good"):
    """All parts of a line, flagged ones with a verdict."""
    found = []
    for score in scores:
        decision = current.decide(score)
        found.append(seen(score, decision, None if decision == "good" else verdict))
    return found


@pytest.fixture
def current():
    scores = tuple(np.random.default_rng(0).normal(size=200).tolist())
    return Calibration(scores=scores, peaks=scores, rates=RATES)


def test_a_whole_window_gives_the_limits_of_its_normals(current):
    scores = np.random.default_rng(1).normal(0.5, 1, 2000)
    found, made = propose(window_of(scores, current), [], current, RATES)
    assert found.refusals == ()
    assert found.limits_before == current.score_limits()
    assert found.limits_after == (upper_limit(scores, 0.05), upper_limit(scores, 0.01))
    assert made.map_limits()[0] == upper_limit(scores + 0.5, 0.05)
    assert found.flagged_after == 99 / 2000  # above the hundredth largest
    assert found.flagged_before == (scores > current.score_limits()[0]).mean()
    review, bad = current.score_limits()
    expected = sum((s > review) and (s <= bad) and s <= found.limits_after[0] for s in scores)
    assert found.flips["review > good"] == expected
    assert found.promise["review"] == realised_interval(2000, 0.05)


def test_reviewed_parts_alone_would_let_defects_pass_and_are_refused(current):
    """The measurement behind the rule: limits of the flagged parts alone keep a much smaller rate."""
    rng = np.random.default_rng(2)
    stream = rng.normal(size=2000)
    chosen = [one for one in window_of(stream, current) if one.verdict == "good"]
    merged = np.concatenate([current.scores, [one.score for one in chosen]])
    fresh = rng.normal(size=50_000)
    assert (fresh > upper_limit(merged, 0.05)).mean() < 0.02
    whole, _ = propose(window_of(stream, current), [], current, RATES)
    assert (fresh > whole.limits_after[0]).mean() == pytest.approx(0.05, abs=0.015)
    refused, made = propose(chosen[:90], [], current, RATES)
    assert made is None
    assert "too few" in refused.refusals[0]


def test_a_window_of_unreviewed_flags_is_refused_up_to_two_in_a_hundred(current):
    scores = np.random.default_rng(3).normal(0.5, 1, 2000)
    parts = window_of(scores, current)
    flagged = [i for i, one in enumerate(parts) if one.decision != "good"]
    few, many = list(parts), list(parts)
    for i in flagged[: int(0.02 * len(flagged))]:
        few[i] = replace(parts[i], verdict="unsure")
    for i in flagged[: len(flagged) // 2]:
        many[i] = replace(parts[i], verdict=None)
    assert propose(few, [], current, RATES)[0].refusals == ()
    (line,) = propose(many, [], current, RATES)[0].refusals
    assert line.startswith(f"{len(flagged) // 2} of {len(flagged)} flagged parts have no verdict")


def test_a_known_bad_part_that_would_pass_is_refused_unless_it_may(current):
    scores = np.random.default_rng(4).normal(1, 1, 500)
    parts, bad = window_of(scores, current), [seen(2.0, "bad", "bad"), seen(9.0, "bad", "bad")]
    found, made = propose(parts, bad, current, RATES)
    assert found.passing == (bad[0].id,)
    assert "called bad would be good" in found.refusals[0]
    allowed, made = propose(parts, bad, current, RATES, let_pass=True)
    assert (allowed.refusals, allowed.passing) == ((), (bad[0].id,))
    assert made.n == len(parts)


def test_bad_parts_are_left_out_and_copies_count_once(current):
    scores = np.random.default_rng(5).normal(size=300)
    parts = window_of(scores, current)
    more = [*parts, *[seen(8, "bad", "bad") for _ in range(30)], *[seen(0, image="same") for _ in range(50)]]
    found, made = propose(more, [], current, RATES)
    assert made.n == found.normals == 301
    assert found.flagged_parts == sum(one.decision != "good" for one in more)


def test_the_audit_bounds_what_is_missed(current):
    scores = np.random.default_rng(6).normal(size=300)
    parts = window_of(scores, current)
    assert propose(parts, [], current, RATES)[0].missed_at_most is None
    audited = [*parts, *[seen(0, "good", "good", audit=True) for _ in range(100)]]
    found, made = propose(audited, [], current, RATES)
    assert found.missed_at_most == pytest.approx(1 - 0.05 ** (1 / 100))  # none of a hundred
    found, made = propose([*audited, seen(0, "good", "bad", audit=True)], [], current, RATES)
    assert (found.audited, found.audited_bad) == (101, 1)
    assert any("defects pass the present limits" in line for line in found.warnings)
    assert made.n == 400


def test_a_limit_that_somebody_draws_falls_back_to_the_score_of_a_normal_part(current):
    """As rates do, so that the promise holds for it, too."""
    scores = np.random.default_rng(8).normal(size=300)
    parts = window_of(scores, current)
    ordered = np.sort(scores)[::-1]
    drawn = (float(ordered[20] + ordered[19]) / 2, float(ordered[3]))
    found, made = propose(parts, [], current, RATES, wanted=drawn)
    assert found.limits_after == (ordered[20], ordered[3])
    assert found.rates == (21 / 301, 4 / 301)
    assert found.promise["review"] == realised_interval(300, 21 / 301)
    assert propose(parts, [], current, made.rates)[1] == made
    for limit, expected in ((99.0, ordered[0]), (-99.0, ordered[-1])):
        assert propose(parts, [], current, RATES, wanted=(limit, 99.0))[0].limits_after[0] == expected
    assert propose(parts, [], current, RATES, wanted=(None, 1.9))[0].rates[0] == RATES.review
    with pytest.raises(ConfigError, match="review >= bad"):
        propose(parts, [], current, RATES, wanted=(1.0, 0.5))


def test_the_histogram_holds_every_part_once_and_one_defect_does_not_press_it(current):
    scores = np.random.default_rng(9).normal(size=500)
    parts = [*window_of(scores, current, None), seen(900.0, "bad", "bad"), seen(1.9, "review", "unsure")]
    found = propose(parts, [], current, RATES)[0].histogram
    assert len(found.edges) == len(found.normal) + 1
    assert sum(found.normal) == sum(one.decision == "good" for one in parts)
    waiting = sum(one.verdict != "bad" and one.decision != "good" for one in parts)
    assert (sum(found.bad), found.bad[-1], sum(found.waiting)) == (1, 1, waiting)
    assert found.edges[0] == scores.min()
    assert current.score_limits()[1] < found.edges[-1] < 5


def test_limits_at_hand_say_what_the_calibration_says():
    rng = np.random.default_rng(7)
    scores = tuple(rng.normal(size=50).round(1).tolist())
    for groups in ((), tuple(i // 3 for i in range(50))):
        calibration = Calibration(scores=scores, peaks=scores, rates=RATES, groups=groups)
        revision = Revision(
            id=1,
            station="s",
            category="",
            revision=1,
            model_version="v",
            calibration=calibration,
            made_from="",
            created=0,
        )
        limits = Limits.of(revision)
        for score in (*scores, -9.0, 9.0, math.inf):
            assert limits.judge(score) == (calibration.p_value(score), calibration.decide(score))


def test_an_empty_window_changes_nothing(current):
    found, made = propose([], [], current, RATES)
    assert (found.limits_after, made, found.flips) == (None, None, {})


# ---------------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def line(start, tmp_path_factory):
    """A service of its own: the queue has the parts of these tests alone."""
    return start(tmp_path_factory.mktemp("review") / "line", "--audit-share", "0")


@pytest.fixture(scope="module")
def admin(line):
    with line.http() as client:
        yield client


def send(http, body):
    return http.post(INSPECT, files={"image": body}).json()


def reviewer(admin, name):
    made = admin.post("/api/v1/keys", json={"name": name, "scopes": ["review", "read"]})
    return made.json()["secret"]


def test_two_people_review_without_getting_one_part(line, admin, pictures):
    sent = [send(admin, body) for body in (*pictures[0], *pictures[1])]
    assert {one["verdict"] for one in sent} == {None}
    bad = [one for one in sent if one["decision"] != "good"]
    assert 2 <= len(bad) < len(sent)
    with line.http(reviewer(admin, "Ada")) as ada, line.http(reviewer(admin, "Bob")) as bob:
        (first,) = ada.get("/api/v1/queue").json()["results"]
        (second,) = bob.get("/api/v1/queue").json()["results"]
        assert [first, second] == bad[:2]
        assert ada.get("/api/v1/queue", params={"limit": 9}).json()["results"] == [first, *bad[2:]]
        mask = [64 * 20 + 10, 5, 64 * 64 - 64 * 20 - 15]
        given = {"verdict": "good", "defect": None, "note": "a shadow", "mask": mask}
        made = ada.post(f"/api/v1/results/{first['id']}/review", json=given)
        assert made.status_code == 201
        assert (made.json()["mask"], made.json()["who"].endswith("(Ada)")) == (mask, True)
        ada.post(f"/api/v1/results/{first['id']}/review", json={"verdict": "bad", "defect": "spot"})
        assert ada.get("/api/v1/queue", params={"limit": 9}).json()["results"] == bad[2:]
        said = ada.get(f"/api/v1/results/{first['id']}/reviews").json()["reviews"]
        assert [one["verdict"] for one in said] == ["bad", "good"]
        kept = ada.get(f"/api/v1/results/{first['id']}").json()
        assert kept == {**first, "verdict": "bad"}
        listed = ada.get("/api/v1/results", params={"reviewed": True}).json()["results"]
        assert [one["id"] for one in listed] == [first["id"]]
        assert f"invad_review_pending {len(bad) - 1}.0" in ada.get("/metrics").text
        answer = ada.post(f"/api/v1/results/{first['id']}/review", json={"verdict": "open"})
        assert answer.json()["verdict"] == "open"
        again = ada.get("/api/v1/queue").json()
        assert again == {"results": [first], "waiting": len(bad)}  # as it was before anybody spoke
        ada.post(f"/api/v1/results/{first['id']}/review", json={"verdict": "bad"})
        said = ada.get(f"/api/v1/results/{first['id']}/reviews").json()["reviews"]
        assert [one["verdict"] for one in said] == ["bad", "open", "bad", "good"]
        short, negative = ({"verdict": "bad", "mask": mask} for mask in ([1], [-1, 4097]))
        for wrong in ({"verdict": "fine"}, short, negative):
            answer = ada.post(f"/api/v1/results/{second['id']}/review", json=wrong)
            assert answer.status_code in (400, 422), wrong
        assert ada.post("/api/v1/results/none/review", json={"verdict": "bad"}).status_code == 404
        calibrations = "/api/v1/stations/default/calibrations"
        assert ada.post(calibrations, json={}).status_code == 403
        shown = ada.post(calibrations, params={"preview": True}, json={"review_limit": 1e9})
        assert (shown.status_code, shown.json()["revision"]) == (200, None)
        mixed = {"review_limit": -1e9, "bad_rate": 0.3}
        shown = ada.post(calibrations, params={"preview": True}, json=mixed).json()
        assert shown["rates"][0] > shown["rates"][1] == 0.3


def test_new_limits_are_shown_refused_made_and_rolled_back(start, tmp_path, draw):
    """At rates that a hundred parts are enough for."""
    line = start(tmp_path / "line", "--audit-share", "0")
    with line.http() as http:
        address = "/api/v1/stations/default/calibrations"
        refused = http.post(address, json={})
        assert (refused.status_code, "too few" in refused.json()["error"]) == (409, True)
        for number in range(40):
            stream = io.BytesIO()
            Image.fromarray(draw(3000 + number)).save(stream, "PNG")
            send(http, stream.getvalue())
        window = {"review_rate": 0.2, "bad_rate": 0.1}
        while waiting := http.get("/api/v1/queue", params={"limit": 20}).json()["results"]:
            for one in waiting:
                http.post(f"/api/v1/results/{one['id']}/review", json={"verdict": "good"})
        shown = http.post(address, params={"preview": True}, json=window).json()
        assert (shown["revision"], shown["refusals"], shown["normals"]) == (None, [], 40)
        before = http.get("/api/v1/results", params={"limit": 100}).json()["results"]
        assert {one["phase"] for one in http.get("/api/v1/drift").json()["drift"]} == {"commissioning"}
        made = http.post(address, json=window).json()
        assert {**made, "revision": None} == shown
        found = send(http, stream.getvalue())
        assert found["calibration"] == made["revision"] > 1
        assert [found["review_limit"], found["bad_limit"]] == made["limits_after"]
        assert http.get("/api/v1/results", params={"limit": 100}).json()["results"][1:] == before
        (drift,) = (one for one in http.get("/api/v1/drift").json()["drift"] if one["category"] is None)
        assert (drift["phase"], drift["parts"], drift["window"]) == ("watching", 1, 1)
        assert 'invad_drift_alarm{category="",station="default"} 0.0' in http.get("/metrics").text
        trends = http.get("/api/v1/stations/default/trends").json()
        assert trends["block_seconds"] == 60
        assert sum(one["parts"] for one in trends["blocks"]) == 41
        assert [(one["revision"], one["labels"]["parts"]) for one in trends["revisions"]] == [
            (made["revision"], 1),
            (1, 40),
        ]
        flagged = sum(one["decision"] != "good" for one in before)
        by_hand = trends["revisions"][1]["false_alarms"]["value"]
        assert by_hand == flagged / 40  # all of them were called good
        later = {"since": "2100-01-01"}
        assert http.get("/api/v1/stations/default/trends", params=later).json()["blocks"] == []
        known = http.post("/api/v1/stations/default/drift:acknowledge", json={"why": "a test"})
        assert known.status_code == 204
        listed = http.get(address).json()["calibrations"]
        assert [one["revision"] for one in listed if one["in_force"] and one["category"] is None] == [
            made["revision"]
        ]
        assert http.post(f"{address}/1:activate").json() == {"revision": 1}
        assert send(http, stream.getvalue())["calibration"] == 1
        assert http.post(f"{address}/99:activate").status_code == 404
    assert line.stop() == 0
    database = Database(tmp_path / "line")
    with database.read() as connection:
        actions = [row.action for row in connection.execute(select(audit).order_by(audit.c.id))]
        assert connection.execute(select(claim)).all() == []
    database.close()
    assert actions == ["first key", "recalibrate", "acknowledge drift", "roll back"]
