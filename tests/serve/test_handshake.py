"""The handshake at work beside a service: threads, deadlines, restarts."""

import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from greys import Greys, png
from invad.serve import Options, Refused, Service, maps, rows, storing
from invad.serve.delivery import Route
from invad.serve.pictures import decode_map
from invad.serve.plant.cycle import ERRORS, Terms
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.telling import Telling
from invad.serve.records import Part
from invad.serve.store.database import FILE
from invad.serve.store.results import Query
from waiting import waits

GOOD, BAD = png(5), png(255)


class Stand:
    """A service with one station and its controller."""

    def __init__(self, tmp_path):
        self.data, self.pictures = tmp_path / "line", {}
        self.seen = []

    @contextmanager
    def running(self, detector=None, camera=True, fault=lambda: "none", patience=5.0, options=None, **terms):
        terms = Terms(**{"deadline": 30, **terms})
        models = {"a": detector or Greys()}
        with Service(models, self.data, options=Options(reserve=0, **(options or {}))) as service:
            self.service = service

            def take(part_id, lot, request_id):
                body = self.pictures.get(part_id, GOOD)
                if body is None:
                    raise Refused("the camera is away", 503, code="source")
                words = {"part_id": part_id, "lot": lot, "request_id": request_id}
                part = Part(body=body, station="a", source="camera", **words)
                return service.submit(part)

            made = Handshake(
                service, "a", terms, take=take if camera else None, fault=fault, patience=patience
            )
            made.listen(self.seen.append)
            made.start()
            service.deliveries.add(Route(name="a/controller", station="a"), Telling(made, "test", "here"))
            try:
                yield made
            finally:
                made.close()

    def post(self, body=GOOD, **words):
        return self.service.submit(Part(body=body, station="a", **words))

    def newest(self):
        return self.service.history(Query(limit=1))[0][0].result

    def count(self, name, **labels):
        return self.service.metrics.registry.get_sample_value(name, {"station": "a", **labels}) or 0


@pytest.fixture
def stand(tmp_path):
    return Stand(tmp_path)


def shown(made):
    waits(lambda: made.signals.results_ready)
    return made.signals


def test_triggers_are_answered_in_turn(stand):
    stand.pictures["b"] = BAD
    with stand.running() as made:
        for name, ok in (("a", True), ("b", False)):
            made.trigger(name, "lot 7")
            told = shown(made)
            assert (told.ok, told.ng, told.error, told.part_id) == (ok, not ok, False, name)
            assert (told.result.part_id, told.result.lot, told.result.late) == (name, "lot 7", False)
            made.acknowledge()
            assert made.signals.ready
        assert [one.counter for one in stand.seen][-1] == 2
        assert stand.count("invad_told_total", answer="ok") == 1
        waits(lambda: stand.service.deliveries.states("a")["a/controller"].waiting == 0)
        assert stand.count("invad_untold_total") == 0


def test_what_only_follows_from_an_answer_begins_after_a_controller_was_told(stand, monkeypatch):
    monkeypatch.setattr(storing, "HEAD_START", 60)
    with stand.running() as made:
        committer, began = stand.service.line.committer, threading.Event()
        woken = committer.woken
        committer.woken = lambda sinks: (began.set(), woken(sinks))
        made.trigger("a")
        shown(made)
        assert not began.is_set()
        made.acknowledge()
        made.trigger("b")  # which whoever stores does not let wait
        assert shown(made).part_id == "b"
        assert began.is_set()


def test_the_log_of_the_database_is_settled_after_answers(stand, monkeypatch):
    monkeypatch.setattr(storing, "SETTLED_PARTS", 2)
    with stand.running() as made:
        stand.service.database.settle()
        written = (stand.data / FILE).stat().st_mtime_ns
        for _ in range(20):  # who reads at that moment keeps the log for a while, so one may not be enough
            made.trigger("a")
            shown(made)
            made.acknowledge()
            waits(lambda: stand.service.deliveries.states("a")["a/controller"].waiting == 0)
            if (stand.data / FILE).stat().st_mtime_ns != written:
                break
        assert (stand.data / FILE).stat().st_mtime_ns != written


def test_what_was_acknowledged_at_the_very_end_is_not_told_again(stand):
    with stand.running(triggered=False) as made:
        stand.post().result(60)
        shown(made)
        with made._changed:  # whoever waits for this comes to look when the station has ended
            made.acknowledge()
            made._closed = True
        waits(lambda: stand.service.deliveries.states("a")["a/controller"].waiting == 0)


def test_a_late_part_is_told_at_its_deadline_and_stored_as_late(stand):
    slow = Greys()
    with stand.running(slow, deadline=0.2) as made:
        slow.gate.clear()
        started = time.monotonic()
        made.trigger("a")
        told = shown(made)
        assert time.monotonic() - started >= 0.2
        assert (told.ng, told.error_code, told.result) == (True, ERRORS["late"][0], None)
        assert stand.count("invad_late_total") == 1
        made.acknowledge()
        assert made.signals.ready
        slow.gate.set()
        waits(lambda: stand.service.line.under_way == 0)
        late = stand.newest()
        assert (late.part_id, late.late, late.decision) == ("a", True, "good")
        assert made.signals.ready
        waits(lambda: stand.service.deliveries.states("a")["a/controller"].waiting == 0)
        assert (stand.count("invad_untold_total"), stand.count("invad_late_total")) == (0, 1)


def test_a_part_that_is_late_while_it_is_stored_is_marked_afterwards(stand, monkeypatch):
    with stand.running(deadline=0.3) as made:
        store = type(stand.service.line.committer)._store
        held = threading.Event()

        def slowly(committer, jobs):
            assert held.wait(60)
            store(committer, jobs)

        monkeypatch.setattr(type(stand.service.line.committer), "_store", slowly)
        made.trigger("a")
        assert shown(made).error_code == ERRORS["late"][0]
        held.set()
        waits(lambda: stand.service.line.under_way == 0)
        waits(lambda: stand.newest().late)


@pytest.mark.parametrize(
    ("picture", "code"), [(b"no picture", "image"), (None, "source"), (png(9), "engine"), (GOOD, "database")]
)
def test_what_goes_wrong_is_ng_with_its_code(stand, monkeypatch, picture, code):
    stand.pictures["a"] = picture
    with stand.running(Greys(fails=9.0), options={"wait_seconds": 0}) as made:
        if code == "database":
            lost = Refused("not stored", 503, code="database")
            monkeypatch.setattr(
                type(stand.service.line.committer),
                "_store",
                lambda committer, jobs: [committer.finish(job, lost) for job in jobs],
            )
        made.trigger("a")
        told = shown(made)
        assert (told.error, told.ng, told.ok, told.error_code) == (True, True, False, ERRORS[code][0])
        made.acknowledge()
        assert made.signals.ready


def test_a_fault_takes_ready_away_and_comes_back(stand):
    faults = ["none"]
    with stand.running(fault=lambda: faults[-1]) as made:
        faults.append("source")
        waits(lambda: made.signals.error)
        assert (made.signals.ready, made.signals.ng, made.signals.results_ready) == (False, True, False)
        made.trigger("a")
        assert shown(made).error_code == ERRORS["source"][0]
        made.acknowledge()
        faults.append("none")
        waits(lambda: made.signals.ready)


def test_a_trigger_waits_for_the_next_part_that_comes(stand):
    with stand.running(camera=False) as made:
        stand.post().result(60)
        assert made.signals.ready  # nobody asked
        made.trigger("a", "lot")
        result = stand.post(BAD).result(60)
        told = shown(made)
        assert (told.ng, told.result, result.part_id, result.lot) == (True, result, "a", "lot")
        made.acknowledge()
        waits(lambda: stand.count("invad_untold_total") == 1)


def test_an_answer_that_was_there_before_the_trigger_is_none(stand):
    """A request that comes again, or a file that is found again, gives an old result: a stale OK."""
    with stand.running(camera=False) as made:
        stand.post(request_id="r").result(60)
        made.trigger("a")
        stand.post(request_id="r").result(60)
        time.sleep(0.1)
        assert made.signals.busy
        stand.post(BAD, request_id="s").result(60)
        assert shown(made).ng


def test_a_part_of_another_name_does_not_answer(stand):
    with stand.running(camera=False) as made:
        made.trigger("a")
        stand.post(part_id="b").result(60)
        assert made.signals.busy
        stand.post(BAD, part_id="a").result(60)
        assert shown(made).result.part_id == "a"


def test_a_part_that_was_refused_may_come_again(stand):
    slow = Greys()
    with stand.running(slow, camera=False, options={"queue": 1}) as made:
        slow.gate.clear()
        other = stand.post()
        made.trigger("a")
        with pytest.raises(Refused):
            stand.post()
        slow.gate.set()
        other.result(60)
        result = stand.post().result(60)
        assert shown(made).result == result


def test_a_picture_that_comes_too_late_does_not_answer_the_next_trigger(stand):
    with stand.running(camera=False, deadline=0.2) as made:
        made.trigger("a")
        assert shown(made).error_code == ERRORS["late"][0]
        made.acknowledge()
        assert not made.signals.ready
        result = stand.post().result(60)
        assert (result.part_id, result.late) == ("a", True)
        waits(lambda: made.signals.ready)
        assert stand.count("invad_late_total") == 1


def test_without_triggers_results_are_shown_in_turn_until_acknowledged(stand):
    with stand.running(triggered=False, deadline=None) as made:
        for name in ("a", "b", "c"):
            stand.post(part_id=name).result(60)
        for name in ("a", "b", "c"):
            told = shown(made)
            assert (told.result.part_id, told.ok) == (name, True)
            waiting = stand.service.deliveries.states("a")["a/controller"].waiting
            assert waiting == {"a": 3, "b": 2, "c": 1}[name]
            made.acknowledge()
        waits(lambda: stand.service.deliveries.states("a")["a/controller"].waiting == 0)
        assert made.signals.ready


def test_without_acknowledgements_each_is_shown_for_a_while(stand):
    with stand.running(triggered=False, deadline=None, hold=0.05) as made:
        for name in ("a", "b", "c"):
            stand.post(part_id=name).result(60)
        waits(lambda: made.signals.counter == 3 and made.signals.ready)
        parts = [one.part_id for one in stand.seen if one.results_ready]
        assert list(dict.fromkeys(parts)) == ["a", "b", "c"]


def test_what_came_without_triggers_outlives_a_restart(stand):
    with stand.running(triggered=False, deadline=None) as made:
        stand.post(part_id="a").result(60)
        stand.post(part_id="b").result(60)
        shown(made)
        made.acknowledge()
        waits(lambda: made.signals.part_id == "b")
    with stand.running(triggered=False, deadline=None) as made:
        assert shown(made).part_id == "b"


def test_what_a_restart_left_is_never_the_answer_to_the_next_part(stand, caplog):
    with stand.running() as made:
        made.trigger("a")
        assert shown(made).ok
    stand.pictures["b"] = BAD
    with stand.running() as made:
        assert made.signals.ready
        waits(lambda: "not told of result" in caplog.text)
        assert stand.count("invad_untold_total") == 1
        made.trigger("b")
        assert shown(made).ng
        assert stand.service.deliveries.states("a")["a/controller"].waiting == 1


def test_a_controller_that_does_not_do_its_part_is_named(stand):
    with stand.running(patience=0.2) as made:
        made.levels(trigger=True, acknowledge=False, part_id="a")
        shown(made)
        waits(lambda: "has not acknowledged part a" in (made.problem or ""))
        made.levels(trigger=True, acknowledge=True)
        waits(lambda: "has not reset trigger" in (made.problem or ""))
        assert not made.signals.ready
        made.levels(trigger=False, acknowledge=False)
        waits(lambda: made.problem is None)
        assert made.signals.ready
        assert stand.count("invad_controller_up") == 1


def test_a_controller_without_a_sign_of_life_is_named(stand):
    with stand.running(watchdog=0.2) as made:
        waits(lambda: "no sign of life" in (made.problem or ""))
        waits(lambda: made.alive() or made.problem is None)


def test_the_heart_beats_whatever_the_part_does(stand):
    never = Greys()
    never.gate.clear()
    with stand.running(never) as made:
        made.trigger("a")
        first = made.signals.heartbeat
        waits(lambda: made.signals.heartbeat > first)
        never.gate.set()


def test_a_stop_answers_the_part_under_way_and_takes_no_more(stand):
    slow = Greys()
    with stand.running(slow) as made:
        slow.gate.clear()
        made.trigger("a")
        made.stop()
        slow.gate.set()
        assert shown(made).ok
        made.acknowledge()
        made.trigger("b")
        assert shown(made).error_code == ERRORS["stopping"][0]


def test_a_camera_whose_future_never_comes_holds_up_its_own_part_alone(stand):
    with stand.running(deadline=0.2) as made:
        take, made.take = made.take, lambda *words: Future()
        made.trigger("a")
        assert shown(made).error_code == ERRORS["late"][0]
        made.acknowledge()
        made.take = take
        made.trigger("b")
        assert shown(made).ok


def test_a_controller_does_not_wait_for_the_map_which_is_kept_all_the_same(stand, monkeypatch):
    held = threading.Event()
    encode = maps.encode_map
    monkeypatch.setattr(maps, "encode_map", lambda map_HW: held.wait(60) and encode(map_HW))
    with stand.running() as made:
        made.trigger("a")
        told = shown(made)
        assert told.ok
        assert not told.result.map_kept
        held.set()
        stored = stand.service.result(told.result.id)
        assert stored.result.map_kept
        assert decode_map(stand.service.picture(stored, "map")).max() == pytest.approx(5)
        made.acknowledge()
        made.trigger("b")
        shown(made)
    assert not list((stand.data / "files" / "unfinished").iterdir())
    with stand.running():
        assert all(one.result.map_kept for one in stand.service.history(Query(limit=5))[0])


def test_a_controller_is_told_when_the_picture_of_its_part_is_on_the_disk(stand, monkeypatch):
    greys, held = Greys(), threading.Event()
    with stand.running(greys) as made:
        files = stand.service.files
        put = files.put
        monkeypatch.setattr(files, "put", lambda *words, **how: held.wait(60) and put(*words, **how))
        made.trigger("a")
        waits(lambda: greys.runs)
        time.sleep(0.2)
        assert made.signals.busy
        held.set()
        stored = stand.service.result(shown(made).result.id)
        assert stored.result.image_kept
        assert stand.service.picture(stored, "image") == GOOD


def test_a_fault_at_the_picture_or_the_row_of_a_part_is_told_and_the_next_part_is_judged(stand, monkeypatch):
    with stand.running() as made:
        for module, name in ((storing, "statistics"), (rows, "regions"), (rows, "utc")):
            with monkeypatch.context() as broken:
                broken.setattr(module, name, None)
                stand.pictures[name] = BAD
                made.trigger(name)
                assert shown(made).error_code == ERRORS["engine"][0], name
                made.acknowledge()
        assert stand.count("invad_parts_total", decision="bad") == 0
        made.trigger("b")
        assert shown(made).ok


def test_a_station_is_not_ready_before_its_source_was_found_to_be_there(tmp_path):
    with Service({"a": Greys()}, tmp_path / "line", options=Options(reserve=0)) as service:
        made = Handshake(service, "a", Terms(), fault=lambda: "source")
        assert (made.signals.ready, made.signals.error) == (False, True)
        assert Handshake(service, "a", Terms()).signals.ready
