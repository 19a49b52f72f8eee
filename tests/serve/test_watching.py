"""The service watches for drift: as the mathematics says, also across restarts."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from invad.errors import DataError
from invad.metrics.alarms import realised_interval
from invad.scoring.calibration import Calibration
from invad.scoring.drift import DriftSettings, start
from invad.scoring.labels import Labels
from invad.serve.hints import hints
from invad.serve.ids import Ids
from invad.serve.metrics import Metrics
from invad.serve.monitors import POINT_EVERY
from invad.serve.records import SCHEMA, Milliseconds, Picture, Refused, Result, utc
from invad.serve.store import drifts, results, stations, trends
from invad.serve.store.database import Database
from invad.serve.store.schema import audit
from invad.serve.store.stations import Revision
from invad.serve.trends import kept
from invad.serve.watching import Watch

IDS = Ids()
SETTINGS = DriftSettings(evidence=1e4)


@pytest.fixture
def calibration():
    scores = tuple(np.random.default_rng(0).normal(size=200).tolist())
    return Calibration(scores=scores, peaks=scores)


@pytest.fixture
def database(tmp_path, database_url, calibration):
    opened = Database(tmp_path, database_url)
    with opened.write() as connection:
        stations.add_version(connection, "hash", "model", {"engine": "none"})
        stations.activate(connection, "default", "hash", {"": calibration})
    yield opened
    opened.close()


def put_in_force(database, calibration):
    with database.write() as connection:
        revision = stations.add_revision(connection, "default", "", "hash", calibration, "window")
        stations.put_in_force(connection, revision)
    return revision


def store(database, scores, revision, time_ms=lambda i: 1000 * i, **each):
    """Results of these scores. each: further fields, by the number of the part."""
    records = [
        Result(
            schema=SCHEMA,
            id=IDS.new(),
            station="default",
            time=utc(time_ms(i)),
            part_id=None,
            lot=None,
            category=None,
            source="http",
            request_id=None,
            image_sha256="0" * 64,
            width=4,
            height=3,
            model="model",
            model_version="hash",
            calibration=revision,
            score=score,
            peak=score,
            p_value=0.5,
            decision="good",
            review_limit=1.0,
            bad_limit=2.0,
            regions=(),
            image_kept=False,
            map_kept=False,
            audit=False,
            late=False,
            verdict=None,
            picture=Picture(grey=0.5, clipped=0.25, sharpness=0.125),
            ms=Milliseconds(queue=0, decode=0, infer=0, store=0),
        )
        for i, score in enumerate(scores)
    ]
    records = [replace(one, **{name: of(i) for name, of in each.items()}) for i, one in enumerate(records)]
    rows = [results.Stored(result=one, map_sha256=None, map_limits=(1, 2)) for one in records]
    with database.write() as connection:
        results.insert(connection, rows, lambda result: ())
    return records


def watch(database):
    made = Watch(database, Metrics(), SETTINGS)
    made.reload()
    return made


def monitor_of(watch):
    return watch._watched["default", ""].monitor


def test_limits_of_the_training_are_commissioning(database, calibration):
    watching = watch(database)
    watching.observe(store(database, [5.0] * 100, 1))
    with database.read() as connection:
        (revision,) = stations.deciding(connection)
    found = watching.report(revision, 10)
    assert (found.phase, found.parts, found.points, found.since) == ("commissioning", 0, [], None)
    assert (found.hints, found.log10_needed, found.floor) == ((), 4, 0.1)
    assert (found.window, found.flagged) == (100, 100)
    with pytest.raises(Refused):
        watching.acknowledge("default", "", "somebody", "lamp")


def test_it_is_the_monitor_and_a_kill_changes_nothing(database, calibration):
    """One service watches all; others are killed now and then, with what they had not stored."""
    revision = put_in_force(database, calibration)
    rng = np.random.default_rng(1)
    scores = (rng.normal(size=700) + (np.arange(700) >= 450) * 0.3).tolist()
    first = watch(database)
    seed = monitor_of(first).seed
    expected = start(calibration, SETTINGS, seed)
    place = 0
    for count in (130, 7, 1, 222, 340):
        watching = watch(database)
        watching.observe(store(database, scores[place : place + count], revision.revision))
        place += count
    last = watch(database)
    for score in scores:
        expected.update(score)
    found = monitor_of(last)
    assert (found.parts, found.seed, found.reference) == (700, seed, expected.reference)
    assert found.log_evidence == pytest.approx(expected.log_evidence, rel=1e-9)
    assert found.effect == pytest.approx(expected.effect, rel=1e-9)
    assert found.since == expected.since
    report = last.report(revision, 1000)
    assert len(report.points) == 700 // POINT_EVERY
    assert [point.result for point in report.points] == sorted({point.result for point in report.points})


def test_an_alarm_names_its_beginning_and_ends_when_the_cause_is_known(database, calibration):
    revision = put_in_force(database, calibration)
    watching = watch(database)
    rng = np.random.default_rng(2)
    greys = rng.normal(0.5, 0.01, 700).tolist()

    def lamp(fading):
        return lambda i: Picture(grey=greys[i] - fading, clipped=0.0, sharpness=0.1)

    quiet = store(database, rng.normal(size=300).tolist(), revision.revision, picture=lamp(0))
    watching.observe(quiet)
    assert watching.report(revision, 10).phase == "watching"
    moved = store(database, (rng.normal(size=400) + 1).tolist(), revision.revision, picture=lamp(0.1))
    watching.observe(moved)
    found = watching.report(revision, 1000)
    assert (found.phase, found.points[-1].alarm, found.effect < 0.4) == ("alarm", True, True)
    assert found.flagged > found.flagged_limit
    order = [one.id for one in (*quiet, *moved)]
    assert abs(order.index(found.since) - 300) < 60
    (hint,) = found.hints
    assert re.match(r"mean grey fell from (0.5|0.49\d*) to 0.4\d*: look at the lamp", hint), hint
    watching.close()
    again = watch(database)
    assert again.report(revision, 1000) == found
    again.acknowledge("default", "", "key 1 (Ada)", "lamp")
    assert again.report(revision, 1000).phase == "watching"
    assert monitor_of(again).parts == 0
    with database.read() as connection:
        assert [row.action for row in connection.execute(select(audit))] == ["acknowledge drift"]


def test_other_limits_begin_anew_and_strangers_do_not_count(database, calibration):
    revision = put_in_force(database, calibration)
    watching = watch(database)
    watching.observe(store(database, [0.1] * 30, revision.revision))
    watching.observe(store(database, [9.9] * 30, 1))  # decided by limits of before
    assert monitor_of(watching).parts == 30
    other = put_in_force(database, replace(calibration, scores=tuple(s + 1 for s in calibration.scores)))
    watching.reload()
    assert monitor_of(watching).parts == 0
    with database.read() as connection:
        assert drifts.states(connection)["default", ""].calibration == other.id


def test_scores_of_likened_neighbours_are_thinned(database, calibration):
    alike = tuple(np.repeat(np.random.default_rng(3).normal(size=60), 5).tolist())
    put_in_force(database, Calibration(scores=alike, peaks=alike))
    watching = watch(database)
    assert 4 <= monitor_of(watching).settings.every <= 6


def test_a_database_that_is_away_loses_nothing_and_raises_nothing(database, calibration, monkeypatch):
    revision = put_in_force(database, calibration)
    watching = watch(database)
    records = store(database, np.random.default_rng(4).normal(size=200).tolist(), revision.revision)

    def gone():
        raise DataError("the file is gone")

    with monkeypatch.context() as away:
        away.setattr(database, "write", gone)
        watching.observe(records[:150])
    watching.observe(records[150:])
    assert monitor_of(watching).parts == 200
    watching.close()
    assert monitor_of(watch(database)).parts == 200


def test_blocks_sum_what_lines_flag_what_people_say_and_what_pictures_are_like(database, calibration):
    """Against loops over the same parts; two revisions, three hours."""
    revision = put_in_force(database, calibration)
    rng = np.random.default_rng(5)
    hour, begin = 3_600_000, round(time.time() * 1000) // 3_600_000 * 3_600_000 - 3 * 3_600_000
    decisions = rng.choice(["good", "review", "bad"], 300, p=[0.8, 0.1, 0.1]).tolist()
    verdicts = rng.choice(["good", "bad", "unsure", None], 300, p=[0.4, 0.3, 0.1, 0.2]).tolist()
    audits = [one == "good" and bool(rng.random() < 0.3) for one in decisions]
    for number in (1, revision.revision):
        store(
            database,
            [0.0] * 300,
            number,
            lambda i: begin + i * 36_000,
            decision=decisions.__getitem__,
            verdict=verdicts.__getitem__,
            audit=audits.__getitem__,
            picture=lambda i: Picture(grey=i / 300, clipped=0.25, sharpness=0.5),
        )
    store(database, [0.0] * 5, 1, lambda i: begin - hour)
    with database.read() as connection:
        span = ("default", "", begin, begin + 9 * hour)
        first = trends.beginning(connection, "default", begin, begin + 9 * hour, 1000)
        assert trends.first_and_last(connection, *span, first) == (begin, begin + 299 * 36_000)
        assert (
            trends.first_and_last(connection, "default", "", begin + 9 * hour, begin + 9 * hour, "") is None
        )
        found = trends.blocks(connection, *span, first, hour)
        newest = trends.beginning(connection, "default", begin, begin + 9 * hour, 304)
        last = trends.blocks(connection, *span, newest, hour)
        assert {one.revision for one in last} == {revision.revision}
        assert sum(one.labels.parts for one in last) == 300
    assert [(one.revision, one.since) for one in found] == [
        (number, begin + i * hour) for i in range(3) for number in (1, revision.revision)
    ]
    for block in found:
        parts = [
            (decisions[i], verdicts[i], audits[i], i / 300)
            for i in range(300)
            if (begin + i * 36_000) // hour * hour == block.since
        ]
        flagged = [verdict for decision, verdict, _, _ in parts if decision != "good"]
        audited = [verdict for decision, verdict, audit, _ in parts if decision == "good" and audit]
        assert block.labels == Labels(
            parts=len(parts),
            flagged=len(flagged),
            said=sum(one in ("good", "bad") for one in flagged),
            false_alarms=flagged.count("good"),
            audited=sum(one in ("good", "bad") for one in audited),
            missed=audited.count("bad"),
        )
        assert block.grey == pytest.approx(np.mean([one[3] for one in parts]))
        assert (block.clipped, block.sharpness) == (0.25, 0.5)


def test_verdicts_tell_whether_a_revision_keeps_what_was_asked(calibration):
    """n = 200 at 5 %: 2.3 to 8.1 % lie within what such a calibration may do."""
    revision = Revision(
        id=1,
        station="s",
        category="",
        revision=3,
        model_version="v",
        calibration=calibration,
        made_from="",
        created=0,
    )

    def of(flagged, said):
        labels = Labels(parts=1000, flagged=flagged, said=said, false_alarms=said, audited=0, missed=0)
        return kept(revision, [labels, labels])

    assert [of(*numbers).found for numbers in ((50, 0), (50, 50), (5, 5), (150, 150))] == [
        "unknown",
        "as asked",
        "fewer",
        "more",
    ]
    found = of(50, 50)
    assert (found.labels.parts, found.promised) == (2000, realised_interval(200, 0.05))
    assert found.false_alarms.value == 0.05


def test_pictures_say_what_moved_and_what_did_not():
    rng = np.random.default_rng(6)
    before = rng.normal([0.5, 0.01, 0.2], [0.02, 0.001, 0.01], (200, 3))
    assert "the parts themselves" in hints(before, before)[0]
    blurred = hints(before, before * [1, 1, 0.8])
    assert [one.split(":")[0].split(" from")[0] for one in blurred] == ["sharpness fell"]
    bright = hints(before, before * [1.2, 3, 1])
    assert [one.split(" from")[0] for one in bright] == ["mean grey rose", "clipped share rose"]
    assert hints(before, before[:5]) == ()
    alike = np.full((50, 3), 0.25)
    assert "the parts themselves" in hints(alike, alike)[0]
    assert hints(alike, alike + np.array([0.01, 0, 0]))[0].startswith("mean grey rose from 0.25 to 0.26")
