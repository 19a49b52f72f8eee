"""The path of a part."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from greys import LIMITS, Greys, png
from invad.data.images import read_image
from invad.data.png import encode_png
from invad.errors import ConfigError, DataError, InvadError, NotCalibratedError
from invad.serve import Options, Refused, Service, storing
from invad.serve.parts import Budget, Queue
from invad.serve.pictures import decode_map, encode_map, statistics
from invad.serve.records import Part
from invad.serve.store import results, stations
from invad.serve.store.schema import outbox, result
from waiting import waits


@pytest.fixture
def made(tmp_path):
    """made(detector, option=...): a service; closed with the test."""
    opened = []

    def make(detector=None, **options):
        chosen = Options(**{"reserve": 0, "batch": 4, "wait_seconds": 1, **options})
        opened.append(Service(detector or Greys(), tmp_path / "line", options=chosen))
        return opened[-1]

    yield make
    for one in opened:
        for model in one.models.all_active().values():
            getattr(model.detector, "gate", threading.Event()).set()
        one.close()


def stored(service):
    with service.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(result))


def test_the_service_decides_by_its_own_limits(made):
    service = made()
    found = service.inspect(png(39), part_id="7", lot="L")
    assert (found.score, found.p_value, found.decision) == (39, 2 / 41, "review")
    assert (found.review_limit, found.bad_limit) == LIMITS.score_limits()
    assert (found.width, found.height, found.part_id, found.lot) == (4, 3, "7", "L")
    (place,) = found.regions
    assert (place.x, place.y, place.width, place.height, place.peak) == (0, 0, 2, 2, 39)
    assert (place.area, place.length_px, place.width_px, place.centroid_x) == (4, 8**0.5, 2, 1)
    assert (place.cell_px, place.share_of_limit) == (3, 39 / LIMITS.map_limits()[0])
    assert service.result(found.id).result == found
    assert service.inspect(png(200)).decision == "bad"
    of_category = service.inspect(png(39), category="part")
    assert (of_category.category, of_category.decision, of_category.p_value) == ("part", "good", 1)


def test_a_revision_in_force_decides_from_the_next_part_on(made):
    service = made()
    assert service.inspect(png(39)).calibration == 1
    strict = replace(LIMITS, scores=tuple(i / 100 for i in range(40)))
    with service.database.write() as connection:
        revision = stations.add_revision(connection, "default", "", "0" * 64, strict, "test")
        stations.put_in_force(connection, revision)
    service.judging.refresh()
    found = service.inspect(png(1))
    assert (found.calibration, found.decision) == (revision.revision, "bad")


def test_parts_of_one_kind_share_a_run(made):
    detector = Greys()
    service = made(detector)
    detector.gate.clear()
    first = service.submit(Part(body=png(1), station="default"))
    waits(lambda: detector.entered)
    sizes = [(4, 3), (5, 3), (4, 3), (4, 3), (4, 3), (4, 3), (5, 3)]
    answers = []
    for i, size in enumerate(sizes):
        answers.append(service.submit(Part(body=png(i, size), station="default")))
        waits(lambda i=i: sum(map(len, service.line.queue._kinds.values())) == i + 1)
    detector.gate.set()
    assert first.result(60).score == 1
    assert [one.result(60).score for one in answers] == list(range(7))
    # the runs: the first part alone, then kinds in turn, four at most
    small, wide = ((3, 4), None), ((3, 5), None)
    assert detector.runs == [[small], [small] * 4, [wide] * 2, [small]]


def test_a_full_line_refuses_and_says_when_to_come_again(made):
    detector = Greys()
    service = made(detector, queue=3)
    detector.gate.clear()
    answers = [service.submit(Part(body=png(i), station="default")) for i in range(3)]
    with pytest.raises(Refused) as caught:
        service.inspect(png(9))
    assert (caught.value.status, caught.value.retry_after >= 1) == (503, True)
    detector.gate.set()
    assert [one.result(60).score for one in answers] == [0, 1, 2]
    assert service.inspect(png(9)).score == 9
    assert stored(service) == 4


def test_bodies_are_bounded_in_sum_but_one_is_always_taken(made):
    detector = Greys()
    service = made(detector, memory=len(png(1)) + 10)
    detector.gate.clear()
    first = service.submit(Part(body=png(1), station="default"))
    with pytest.raises(Refused, match="wait already"):
        service.inspect(png(2))
    detector.gate.set()
    assert first.result(60).score == 1


def test_one_request_id_is_one_result_also_at_the_same_time(made):
    detector = Greys()
    service = made(detector)
    detector.gate.clear()
    parts = [Part(body=png(5), station="default", request_id="r") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(service.submit, parts))
    with pytest.raises(Refused) as caught:
        service.inspect(png(6), request_id="r")
    assert caught.value.status == 409
    detector.gate.set()
    found = {one.result(60).id for one in answers}
    assert len(found) == 1
    assert service.inspect(png(5), request_id="r").id in found
    with pytest.raises(Refused, match="came with another image"):
        service.inspect(png(6), request_id="r")
    service.add_station("second")
    assert service.inspect(png(6), request_id="r", station="second").score == 6
    assert stored(service) == 2


def test_a_part_at_which_the_engine_fails_takes_no_other_with_it(made):
    detector = Greys(fails=2.0)
    service = made(detector)
    detector.gate.clear()
    answers = [service.submit(Part(body=png(i), station="default")) for i in range(4)]
    detector.gate.set()
    assert [one.result(60).score for one in answers if one is not answers[2]] == [0, 1, 3]
    with pytest.raises(RuntimeError, match="a fault"):
        answers[2].result(60)
    assert stored(service) == 3


def test_a_station_is_listed_when_it_answers(made):
    service = made()

    def rows():
        with service.database.read() as connection:
            return stations.stations(connection)

    with ThreadPoolExecutor(1) as pool:
        with service.judging._switching:  # its model is opened meanwhile
            taken = pool.submit(service.judging.begin, {"second": service.active()})
            waits(lambda: len(rows()) == 2)
            assert [one.name for one in service.stations()] == ["default"]
        taken.result(60)
    assert [one.name for one in service.stations()] == ["default", "second"]
    assert service.inspect(png(1), station="second").score == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_no_result(made, number):
    with pytest.raises(InvadError, match="invad verify"):
        made(Greys(number=number)).inspect(png(1))


def test_what_cannot_be_read_is_refused_and_leaves_nothing(made, tmp_path):
    service = made()
    for body, words in ((b"no picture", "none of the formats"), (png(1)[:50], "the image")):
        with pytest.raises(Refused, match=words) as caught:
            service.inspect(body)
        assert caught.value.status == 400
    with pytest.raises(Refused, match="no category 'x'"):
        service.inspect(png(1), category="x")
    with pytest.raises(Refused, match="no station 'x'"):
        service.inspect(png(1), station="x")
    with pytest.raises(Refused, match="part_id: give 1 to 200 printable"):
        service.inspect(png(1), part_id="a\0b")
    with pytest.raises(DataError, match=r"none\.png: No such file"):
        service.inspect(tmp_path / "none.png")
    assert (stored(service), list(service.files.names()), service.line.under_way) == (0, [], 0)


def test_closing_answers_all_that_were_taken(made):
    detector = Greys()
    service = made(detector)
    detector.gate.clear()
    answers = [service.submit(Part(body=png(i), station="default")) for i in range(9)]
    threading.Timer(0.2, detector.gate.set).start()
    assert service.stop()
    assert [one.result(0).score for one in answers] == list(range(9))
    with pytest.raises(Refused, match="stopping"):
        service.inspect(png(1))


def test_a_service_that_cannot_finish_says_so_and_ends(made, caplog):
    detector = Greys()
    service = made(detector)
    detector.gate.clear()
    service.submit(Part(body=png(1), station="default"))
    waits(lambda: detector.entered)
    started = time.monotonic()
    service.close(0.2)
    assert time.monotonic() - started < 15
    assert "1 parts were not answered in time" in caplog.text


def test_a_database_that_is_away_and_comes_back_loses_nothing(made, monkeypatch):
    service = made(wait_seconds=60)
    file = service.database.path
    away = file.with_name("away")
    file.rename(away)
    answer = service.submit(Part(body=png(1), station="default"))
    time.sleep(0.5)
    assert not answer.done()
    assert not service._look().ready
    away.rename(file)
    assert answer.result(60).score == 1
    assert stored(service) == 1


def test_a_database_that_stays_away_is_said_and_the_part_may_come_again(made):
    service = made(wait_seconds=0.3)
    file = service.database.path
    file.rename(file.with_name("away"))
    # Where a pooled connection is free the row before is still read, and it is storing that fails.
    with pytest.raises(Refused, match=r"(not stored|not answer).*send it again") as caught:
        service.inspect(png(1), request_id="r")
    assert (caught.value.status, service.line.under_way) == (503, 0)
    file.with_name("away").rename(file)
    assert service.inspect(png(1), request_id="r").score == 1


def test_who_reads_while_the_database_is_away_makes_no_empty_one(made):
    service = made()
    service.inspect(png(1), request_id="r")
    file = service.database.path
    file.rename(file.with_name("away"))
    service.database.reader.dispose()
    with pytest.raises(SQLAlchemyError), service.database.read():
        pass
    assert not file.exists()
    file.with_name("away").rename(file)
    assert stored(service) == 1


def test_a_row_that_the_database_does_not_take_keeps_no_other_back(made, monkeypatch):
    detector = Greys()
    service = made(detector)
    whole = storing.Committer._row

    def spoiled(committer, job):
        row = whole(committer, job)
        wrong = replace(row.result, station="nowhere") if row.result.score == 2 else row.result
        return replace(row, result=wrong)

    monkeypatch.setattr(storing.Committer, "_row", spoiled)
    detector.gate.clear()
    answers = [service.submit(Part(body=png(i), station="default")) for i in range(4)]
    detector.gate.set()
    assert [one.result(60).score for one in answers if one is not answers[2]] == [0, 1, 3]
    with pytest.raises(Refused, match="not stored"):
        answers[2].result(60)


def test_no_answer_comes_before_the_row_and_its_files_are_there(made, monkeypatch):
    service, insert = made(), results.insert
    entered, released, seen = threading.Event(), threading.Event(), []

    def slow(*arguments):
        entered.set()
        assert released.wait(60)
        insert(*arguments)

    monkeypatch.setattr(results, "insert", slow)
    answer = service.submit(Part(body=png(1), station="default"))
    answer.add_done_callback(lambda _: seen.append((stored(service), len(list(service.files.names())))))
    assert entered.wait(60)
    assert len(list(service.files.names())) == 2
    time.sleep(0.1)
    assert (answer.done(), stored(service)) == (False, 0)
    released.set()
    answer.result(60)
    waits(lambda: seen)
    assert seen == [(1, 2)]


def test_a_fault_of_ours_is_answered_and_the_next_part_is_judged(made, monkeypatch):
    service = made()
    with monkeypatch.context() as faulty:
        faulty.setattr(results, "insert", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.inspect(png(1))
    assert service.inspect(png(2)).score == 2
    service.line.committer.watched = lambda _: 1 / 0
    assert service.inspect(png(3)).score == 3
    assert service.inspect(png(4)).score == 4


def test_a_commit_whose_end_was_not_heard_of_is_not_done_twice(made, monkeypatch):
    service = made()
    insert, calls = results.insert, []

    def unheard(connection, rows, sinks):
        insert(connection, rows, sinks)
        calls.append(len(rows))
        if len(calls) == 1:
            connection.commit()  # it is stored, and then the connection breaks
            raise DataError("the connection broke")

    monkeypatch.setattr(results, "insert", unheard)
    found = service.inspect(png(1))
    assert (stored(service), calls) == (1, [1])
    assert service.result(found.id).result == found


def test_below_the_reserve_rows_are_kept_and_pictures_are_not(made, monkeypatch):
    service = made(reserve=1000)
    monkeypatch.setattr(service.files, "free_bytes", lambda: 999)
    found = service.inspect(png(1))
    assert (found.image_kept, found.map_kept, list(service.files.names())) == (False, False, [])
    with pytest.raises(Refused, match="not kept"):
        service.picture(service.result(found.id), "image")
    assert "are reserved" in service.readiness().checks["disk"]
    monkeypatch.setattr(service.files, "free_bytes", lambda: 249)
    with pytest.raises(Refused, match="the disk is full"):
        service.inspect(png(1))


def test_a_picture_that_cannot_be_written_costs_no_result(made, monkeypatch):
    service = made()

    def full(*_, **__):
        raise DataError("No space left on device")

    monkeypatch.setattr(service.files, "put", full)
    found = service.inspect(png(1))
    assert (found.image_kept, found.map_kept) == (False, False)
    assert service.result(found.id).result == found


def test_every_result_has_a_row_for_the_sink(made):
    service = made(webhook="http://127.0.0.1:1/")  # where nobody listens
    for i in range(3):
        service.inspect(png(i))
    with service.database.read() as connection:
        assert connection.scalar(select(func.count()).select_from(outbox)) == 3


def test_two_services_do_not_share_a_folder(made):
    made()
    with pytest.raises(DataError, match="another service is writing here"):
        made()


def test_pictures_without_rows_are_a_lost_database(made):
    service = made()
    service.inspect(png(1))
    service.close()
    for path in service.folder.glob("invad.db*"):
        path.unlink()
    with pytest.raises(InvadError, match="has no rows of them; restore a backup"):
        made()
    assert len(list(service.files.names())) == 2


def test_another_model_takes_over_with_its_own_limits_and_the_old_one_comes_back(made):
    first = made()
    first.add_station("second")
    first.close()
    other = Greys()
    other.content_hash = "1" * 64
    other.calibrations = {"": replace(LIMITS, scores=(0.0, 1.0, 2.0), peaks=(0.0, 1.0, 2.0))}
    second = made(other)
    found = second.inspect(png(50), station="second")
    assert (found.model_version, found.decision, found.calibration) == ("1" * 64, "bad", 2)
    second.close()
    third = made()
    found = third.inspect(png(10), station="second")
    assert (found.model_version, found.decision, found.calibration) == ("0" * 64, "good", 1)


def test_a_detector_without_limits_or_name_does_not_serve(tmp_path):
    bare = Greys()
    bare.calibrations = {}
    with pytest.raises(NotCalibratedError):
        Service(bare, tmp_path)
    unsaved = Greys()
    unsaved.content_hash = None
    with pytest.raises(ConfigError, match="save it first"):
        Service(unsaved, tmp_path)


def test_a_budget_lets_one_through_and_others_wait():
    budget = Budget(10)
    budget.take(50)
    taken = threading.Event()
    threading.Thread(target=lambda: (budget.take(5), taken.set()), daemon=True).start()
    assert not taken.wait(0.1)
    budget.give(50)
    assert taken.wait(60)


def test_a_queue_waits_for_a_fuller_run_only_so_long():
    def two(job):
        return 2

    queue = Queue()
    queue.put("a", 1)
    started = time.monotonic()
    assert queue.take(two, 0.1) == [1]
    assert time.monotonic() - started >= 0.09
    queue.put("a", 1)
    threading.Timer(0.05, queue.put, ("a", 2)).start()
    assert queue.take(two, 5) == [1, 2]
    queue.close()
    assert queue.take(two, 0) == []


def test_statistics_of_a_picture_tell_lamp_clipping_and_lens():
    rng = np.random.default_rng(0)
    sharp = rng.integers(50, 200, (60, 80, 1), dtype=np.uint8).repeat(3, axis=2)
    grey, clipped, sharpness = statistics(sharp)
    assert grey == pytest.approx(sharp.mean() / 255, rel=1e-6)
    assert clipped == 0
    steps = np.abs(np.diff(sharp[..., 0].astype(float), axis=1)).mean() / sharp.mean()
    assert sharpness == pytest.approx(steps, rel=1e-5)
    brighter = np.minimum(sharp.astype(int) * 2, 255).astype(np.uint8)
    assert statistics(brighter)[0] > grey
    assert statistics(brighter)[1] == pytest.approx((brighter == 255).all(axis=2).mean())
    blurred = ((sharp[:, :-1].astype(int) + sharp[:, 1:]) // 2).astype(np.uint8)
    assert statistics(blurred)[2] < 0.8 * sharpness
    deep = statistics(sharp.astype(np.uint16) * 257)
    assert deep == pytest.approx((grey, clipped, sharpness), rel=1e-5)
    floats = statistics((sharp / 255).astype(np.float32))
    assert floats == pytest.approx((grey, clipped, sharpness), rel=1e-5)
    assert statistics(np.zeros((1, 1, 3), np.uint8)) == (0, 1, 0)
    large = np.broadcast_to(sharp[:, :1], (60, 100_000, 3))
    assert statistics(large)[0] == pytest.approx(sharp[:, 0].mean() / 255, abs=0.1)


@pytest.mark.parametrize("shape", [(3, 4), (750, 700)])
def test_a_map_keeps_its_values_and_large_ones_every_nth_pixel(shape):
    values = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    back = decode_map(encode_map(values))
    step = math.ceil(math.sqrt(values.size / 65_536))
    expected = values[step // 2 :: step, step // 2 :: step]
    assert np.abs(back - expected).max() <= np.ptp(values) / 65535
    flat = np.full(shape, 2.5, np.float32)
    assert (decode_map(encode_map(flat)) == 2.5).all()


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (1, np.uint16), (3, np.uint16)], ids=str
)
def test_pixels_score_as_the_file_that_is_kept_of_them(bundle, draw, tmp_path, channels, dtype):
    pixels = draw(500).astype(dtype)
    if dtype == np.uint16:  # levels that 8 bits do not have
        pixels = pixels * np.uint16(256) + np.arange(64, dtype=np.uint16)[:, None, None] * np.uint16(3)
    pixels = pixels if channels == 3 else pixels[..., 0]
    with Service(bundle, tmp_path / "line", options=Options(reserve=0), threads=1) as service:
        found = service.inspect(pixels)
        judge = service.active().detector
        content = service.picture(service.result(found.id), "image")
    assert found.image_sha256 == sha256(content).hexdigest()
    assert np.array_equal(read_image(content), read_image(pixels))
    assert read_image(content).dtype == dtype
    assert found.score == judge.predict(content).score == judge.predict(pixels).score


def test_pixels_that_come_again_give_the_result_there_is(made):
    detector = Greys()
    service = made(detector)
    pixels = np.full((3, 4, 3), 900, np.uint16)
    detector.gate.clear()
    parts = [Part(body=pixels.copy(), station="default", request_id="r") for _ in range(3)]
    answers = [service.submit(part) for part in parts]
    for other in (pixels + np.uint16(1), pixels.astype(np.uint8), encode_png(pixels)):
        with pytest.raises(Refused, match="came with another image"):
            service.submit(Part(body=other, station="default", request_id="r"))
    detector.gate.set()
    assert {one.result(60).score for one in answers} == {900}
    assert stored(service) == 1
    assert service.inspect(pixels, request_id="r").id == answers[0].result().id
    assert service.inspect(encode_png(pixels), request_id="r").id == answers[0].result().id
    with pytest.raises(Refused, match="came with another image"):
        service.inspect(pixels + np.uint16(1), request_id="r")


def test_pixels_count_as_what_is_held(made, monkeypatch):
    detector = Greys()
    pixels = np.full((3, 4, 3), 7, np.uint8)
    service = made(detector, memory=60, max_body=10)  # bytes of a file, that is
    detector.gate.clear()
    first = service.submit(Part(body=pixels, station="default"))
    waits(lambda: detector.entered)
    assert (service.line._bytes, service.line.pixels.held) == (36, 48)  # the map, but the pixels only once
    with pytest.raises(Refused, match="wait already"):
        service.inspect(pixels)
    detector.gate.set()
    first.result(60)
    waits(lambda: not service.line.under_way)
    detector.gate.clear()
    grey = service.submit(Part(body=pixels[..., 0], station="default"))
    waits(lambda: detector.entered == 2)
    assert (service.line._bytes, service.line.pixels.held) == (12, 36 + 48)  # three channels are made of one
    detector.gate.set()
    assert grey.result(60).score == 7
    assert (service.line._bytes, service.line.pixels.held) == (0, 0)
    monkeypatch.setenv("INVAD_MAX_PIXELS", "11")
    with pytest.raises(Refused, match="12 pixels, the limit is 11") as caught:
        service.inspect(pixels)
    assert caught.value.status == 413
    for no_image in (pixels.astype(np.float32), pixels[..., :2]):
        with pytest.raises(Refused, match=r"the image is .*: give H x W or H x W x 3 pixels") as caught:
            service.inspect(no_image)
        assert caught.value.status == 400


def test_of_pixels_that_are_not_kept_the_digest_is_known(made, monkeypatch):
    service = made()
    pixels = np.full((3, 4, 3), 7, np.uint8)
    monkeypatch.setattr(service.line, "_has_room", lambda: False)
    found = service.inspect(pixels, request_id="r")
    assert (found.image_kept, found.map_kept) == (False, False)
    assert found.image_sha256 == sha256(encode_png(pixels)).hexdigest()
    assert service.inspect(pixels, request_id="r").id == found.id
