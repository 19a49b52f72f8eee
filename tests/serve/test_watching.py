"""The service watches for drift: as the mathematics says, also across restarts."""

from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select

from invad.errors import DataError
from invad.scoring.calibration import Calibration
from invad.scoring.drift import DriftSettings, start
from invad.serve.ids import Ids
from invad.serve.metrics import Metrics
from invad.serve.records import SCHEMA, Milliseconds, Picture, Refused, Result, utc
from invad.serve.store import drifts, results, stations
from invad.serve.store.database import Database
from invad.serve.store.schema import audit
from invad.serve.watching import POINT_EVERY, Watch

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


def store(database, scores, revision):
    """Results of these scores."""
    records = [
        Result(
            schema=SCHEMA,
            id=IDS.new(),
            station="default",
            time=utc(1000 * i),
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
            verdict=None,
            picture=Picture(grey=0.5, clipped=0.25, sharpness=0.125),
            ms=Milliseconds(queue=0, decode=0, infer=0, store=0),
        )
        for i, score in enumerate(scores)
    ]
    rows = [results.Stored(result=one, map_sha256=None, map_limits=(1, 2)) for one in records]
    with database.write() as connection:
        results.insert(connection, rows, ())
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
    quiet = store(database, rng.normal(size=300).tolist(), revision.revision)
    watching.observe(quiet)
    assert watching.report(revision, 10).phase == "watching"
    moved = store(database, (rng.normal(size=400) + 1).tolist(), revision.revision)
    watching.observe(moved)
    found = watching.report(revision, 1000)
    assert (found.phase, found.points[-1].alarm, found.effect < 0.4) == ("alarm", True, True)
    assert found.flagged > found.flagged_limit
    order = [one.id for one in (*quiet, *moved)]
    assert abs(order.index(found.since) - 300) < 60
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
