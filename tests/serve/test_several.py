"""Several services on one PostgreSQL database: one line to whoever looks at it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
from sqlalchemy import text

from greys import LIMITS, Greys, png
from invad.scoring.calibration import Calibration
from invad.serve import Options, Refused, Service
from invad.serve.delivery import Route, Sink
from invad.serve.plant.lineup import read_lineup
from invad.serve.plant.plant import Plant
from invad.serve.plant.registers import text_words
from invad.serve.records import Part
from invad.serve.store import keys, reviews, stations
from invad.serve.store.results import Query
from invad.serve.sweeping import LEASE as SWEEP
from waiting import waits

pytest.importorskip("psycopg", reason="needs invad[postgres]")


@pytest.fixture
def begin(tmp_path, new_database, monkeypatch):
    """begin(): another service on the same database, with a data folder of its own."""
    monkeypatch.setattr("invad.serve.store.leases.RENEWED_SECONDS", 0.05)
    monkeypatch.setattr("invad.serve.following.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("invad.serve.sweeping.LOOK_SECONDS", 0.05)
    with ExitStack() as ends:
        count = iter(range(9))

        def go(detector=None, folder=None, **options):
            folder = folder or tmp_path / f"service-{next(count)}"
            options = Options(**{"reserve": 0, **options})
            where = {"database": new_database, "pictures": (tmp_path / "share").as_uri()}
            service = Service(detector or Greys(), folder, **where, options=options)
            return ends.enter_context(service)

        yield go


def history(service):
    """All results, oldest first."""
    return [one.result for one in service.history(Query(limit=1000))[0]][::-1]


def cut_off(service):
    """End its session with the server, as the server does when the process is killed."""
    with service.database.reader.connect() as connection:
        of_session = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE objsubid = 2 AND pid = :pid"
        pid = service.database.leases._session.execute(text("SELECT pg_backend_pid()")).scalar()
        connection.execute(text(of_session), {"pid": pid})


# ---------------------------------------------------------------------- parts


def test_ids_rise_in_the_order_of_storing_though_clocks_are_apart(begin, monkeypatch):
    first, second = begin(), begin()
    real = time.time_ns
    ahead = threading.local()
    monkeypatch.setattr(time, "time_ns", lambda: real() + getattr(ahead, "ns", 0))
    new = first.line.committer.ids.new

    def from_a_clock_ahead():
        ahead.ns = 3_600_000_000_000
        given = new()
        ahead.ns = 0
        return given

    monkeypatch.setattr(first.line.committer.ids, "new", from_a_clock_ahead)
    order = []
    for number in range(4):
        for service in (first, second):
            order.append(service.inspect(png(number)).id)
    assert order == sorted(order)
    assert [one.id for one in history(second)] == order
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda i: (first, second)[i % 2].inspect(png(i)).id, range(40)))
    assert len({*ids, *order}) == 48


def test_a_request_that_comes_to_two_services_at_once_is_one_result(begin):
    first, second = begin(), begin()
    for number in range(10):
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(lambda one, n=number: one.inspect(png(n), request_id=f"r{n}"), (first, second))
            assert len({one.id for one in answers}) == 1
    assert len(history(first)) == 10
    together = [Greys(), Greys()]
    pair = begin(together[0]), begin(together[1])
    for one in together:
        one.gate.clear()  # both have looked for the request, and neither has stored it
    with ThreadPoolExecutor(2) as pool:
        same = [pool.submit(one.inspect, png(50), request_id="same") for one in pair]
        other = [
            pool.submit(one.inspect, png(level), request_id="other")
            for one, level in zip(pair, (60, 70), strict=True)
        ]
        waits(lambda: all(one.entered for one in together))
        for one in together:
            one.gate.set()
        assert len({one.result(60).id for one in same}) == 1
        said = [one.exception(60) for one in other]
    (refused,) = [one for one in said if one is not None]
    assert (type(refused), refused.status) == (Refused, 409)
    assert len(history(first)) == 12


# ---------------------------------------------------------------------- what is in force


def test_limits_that_one_service_changes_hold_at_the_others(begin):
    first, second = begin(), begin()
    assert second.inspect(png(20)).decision == "good"
    strict = Calibration(scores=tuple(np.linspace(0, 10, 40)), peaks=LIMITS.peaks)

    def change(connection):
        made = stations.add_revision(connection, "default", "", "0" * 64, strict, "window")
        stations.put_in_force(connection, made)

    first.judging.switch(change)
    waits(lambda: second.inspect(png(20)).decision == "bad")
    first.add_station("other")
    waits(lambda: second.models.judges_at("other"))
    assert second.inspect(png(1), station="other").station == "other"


def test_a_service_that_cannot_follow_takes_no_parts_and_says_so(begin):
    first, second = begin(), begin()

    def change(connection):
        stations.add_version(connection, "1" * 64, "model", {"engine": "greys"})
        stations.activate(connection, "default", "1" * 64, {"": LIMITS})

    with first.database.write() as connection:
        change(connection)
    waits(lambda: not second.readiness().ready)
    assert "cannot be used here" in second.readiness().checks["model"]
    with pytest.raises(Refused, match="is gone") as caught:
        second.inspect(png(1))
    assert caught.value.status == 503
    with first.database.write() as connection:
        stations.activate(connection, "default", "0" * 64, {"": LIMITS})
    waits(lambda: second.readiness().ready)
    assert second.inspect(png(1)).decision == "good"


def test_keys_are_known_and_revoked_everywhere(begin, monkeypatch):
    monkeypatch.setattr("invad.serve.store.keys.REMEMBERED_SECONDS", 0.1)
    first, second = begin(), begin()
    with ThreadPoolExecutor(2) as pool:
        secrets = list(pool.map(Service.first_key, (first, second)))
    assert sorted(one is None for one in secrets) == [False, True]
    (secret,) = [one for one in secrets if one]
    owner = second.keyring.owner(secret)
    assert owner is not None
    with first.database.write() as connection:
        keys.revoke(connection, owner.id)
    waits(lambda: second.keyring.owner(secret) is None)


def test_two_people_at_two_services_never_get_one_part(begin):
    first, second = begin(), begin()
    for number in range(6):
        first.inspect(png(200 + number))

    def claim(service, who):
        with service.database.write() as connection:
            return [one.result.id for one in reviews.claim_next(connection, who, 1)]

    with ThreadPoolExecutor(6) as pool:
        got = list(pool.map(lambda i: claim((first, second)[i % 2], f"person {i}"), range(6)))
    assert sorted(len(one) for one in got) == [1] * 6
    assert len({one[0] for one in got}) == 6


# ---------------------------------------------------------------------- what one alone does


class Book(Sink):
    """Writes down what it is given, in a list that all of its kind share."""

    kind, place = "book", "here"

    def __init__(self, seen):
        self.seen, self.rested = seen, 0

    def deliver(self, results):
        for one in results:
            self.seen.append(one.id)
            yield one.id

    def rest(self):
        self.rested += 1


def test_a_sink_is_told_by_one_service_in_the_order_of_storing(begin):
    seen, services = [], [begin(), begin()]
    books = [Book(seen), Book(seen)]
    for service, book in zip(services, books, strict=True):
        service.deliveries.add(Route(name="book"), book)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: services[i % 2].inspect(png(i)), range(30)))

    def holders():
        return [one.database.leases.has("sink book") for one in services]

    order = [one.id for one in history(services[0])]
    waits(lambda: len(seen) == 30)
    assert seen == order
    assert [one.deliveries.states()["book"].elsewhere for one in services] == [False, True]
    cut_off(services[0])
    waits(lambda: services[0].database.leases.problem is None and any(holders()))
    services[0].close()
    waits(lambda: holders()[1])
    more = services[1].inspect(png(1)).id
    waits(lambda: seen[-1] == more)
    assert seen == [*order, more]


def test_one_service_sweeps_and_another_goes_on(begin, monkeypatch):
    first, second = begin(), begin()
    assert (first.database.leases.has(SWEEP), second.database.leases.has(SWEEP)) == (True, False)
    second.refresh_metrics()
    assert 'invad_lease{name="sweep"} 0.0' in second.metrics.text().decode()
    swept = threading.Event()
    monkeypatch.setattr("invad.serve.store.retention.sweep", lambda *all: swept.set() or _nothing())
    assert not swept.wait(0.3)
    first.close()
    assert swept.wait(60)


def _nothing():
    from invad.serve.store.retention import Swept

    return Swept()


def test_one_service_watches_for_drift_what_all_have_stored(begin):
    first, second = begin(), begin()
    scores = tuple(float(i) for i in range(120))

    def change(connection):
        limits = Calibration(scores=scores, peaks=scores)
        made = stations.add_revision(connection, "default", "", "0" * 64, limits, "window")
        stations.put_in_force(connection, made)
        return made

    revision = second.judging.switch(change)
    waits(lambda: first.watch.report(revision, 9).phase == "watching")
    waits(lambda: first.inspect(png(1)).calibration == 2)
    for number in range(40):
        (first, second)[number % 2].inspect(png(number))
    counted = len([one for one in history(first) if one.calibration == 2])
    for one in (first, second):
        waits(lambda one=one: one.watch.report(revision, 9).parts == counted)
    held = first.watch._watched["default", ""].monitor
    assert not second.watch._watched  # it shows what the first has stored
    first.close()  # whoever takes over has seen the same parts, in the same order
    waits(lambda: second.watch._watched)
    taken = second.watch._watched["default", ""].monitor
    assert (taken.parts, taken.reference) == (held.parts, held.reference)
    assert taken.log_evidence == pytest.approx(held.log_evidence)
    third = begin()
    third.watch.reload()
    third.watch.acknowledge("default", "", "somebody", "lamp")
    waits(lambda: second.watch.report(revision, 9).parts == 0)
    third.inspect(png(3))
    waits(lambda: second.watch.report(revision, 9).parts == 1)
    waits(lambda: third.watch.report(revision, 9).parts == 1)


def test_a_watched_folder_is_read_by_one_service_and_then_by_another(begin, tmp_path, monkeypatch):
    monkeypatch.setattr("invad.serve.plant.turns.LOOK_SECONDS", 0.05)
    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    source = '[station.source]\nkind = "folder"\npath = "in"\nsettle = 0.02\nrescan = 0.05\n'
    (tmp_path / "line.toml").write_text(f'[[station]]\nname = "a"\nmodel = "m"\n{source}')
    (tmp_path / "in").mkdir()
    names = [one.name for one in read_lineup(tmp_path / "line.toml").station]
    services = [begin(dict.fromkeys(names, Greys())) for _ in range(2)]
    plants = [Plant(one, tmp_path / "line.toml") for one in services]
    for one in plants:
        one.start()
    waits(lambda: not plants[0].states()["a"].elsewhere)
    for number in range(5):
        (tmp_path / "in" / f"{number}.png").write_bytes(png(number))
    waits(lambda: plants[0].states()["a"].taken == 5)
    assert (plants[1].states()["a"].taken, plants[1].states()["a"].elsewhere) == (0, True)
    plants[0].close()
    services[0].close()
    (tmp_path / "in" / "last.png").write_bytes(png(9))
    waits(lambda: plants[1].states()["a"].taken == 1)
    assert [one.part_id for one in history(services[1])][-1] == "last"
    assert len(history(services[1])) == 6
    plants[1].close()


CONTROLLER = """
[[station]]
name = "a"
model = "m"
deadline = 60
[station.controller]
kind = "modbus"
port = {port}
{more}
"""


@pytest.mark.parametrize("more", ["", "trigger = false"])
def test_a_controller_is_spoken_with_by_one_service_and_then_by_another(begin, tmp_path, monkeypatch, more):
    pytest.importorskip("pymodbus", reason="needs invad[line]")
    from plc import Plc, free_port

    monkeypatch.setattr("invad.serve.plant.plant.TURN_SECONDS", 0.05)
    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    port = free_port()
    (tmp_path / "line.toml").write_text(CONTROLLER.format(port=port, more=more))
    services = [begin({"a": Greys()}) for _ in range(2)]
    plants = [Plant(one, tmp_path / "line.toml") for one in services]
    for one in plants:
        one.start()

    def asked(one, name):
        return one.submit(Part(body=png(5), station="a", part_id=name))

    def told(name):
        """What the controller reads, once it is of this part."""
        plc = Plc(port)
        try:
            if not more:
                waits(plc.status)
                plc.command(1, name)
                asked(services[0] if name == "p1" else services[1], name).result(60)
            words = plc.answer()
            plc.acknowledge()
            return words[16:32] == text_words(name)
        finally:
            plc.close()

    if more:  # what any service stores is shown
        asked(services[1], "p1").result(60)
    else:
        with pytest.raises(Refused, match="another service has the controller of station a; send it there"):
            asked(services[1], "p1")
    assert told("p1")
    plants[0].close()
    services[0].close()
    waits(lambda: not plants[1]._controls._elsewhere)
    if more:
        asked(services[1], "p2").result(60)
    assert told("p2")
    plants[1].close()


# ---------------------------------------------------------------------- as processes


class Receiver(BaseHTTPRequestHandler):
    """A webhook that writes ids down."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.ids.append(self.headers["X-Invad-Id"])
        self.send_response(200)
        self.end_headers()

    def log_message(self, *words):
        return


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.ids = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_process_that_is_killed_loses_nothing_and_another_delivers(
    start, new_database, tmp_path, receiver, pictures
):
    """kill -9 of the one that owns the sink, in the middle of the parts of both."""
    address = f"http://127.0.0.1:{receiver.server_port}/"
    options = ("--no-auth", "--database", new_database, "--webhook", address)
    options += ("--pictures", (tmp_path / "share").as_uri())
    first, second = (start(tmp_path / name, *options) for name in ("first", "second"))
    good, _ = pictures

    def send(one, count):
        answered = []
        with one.http() as http:
            for number in range(count):
                try:
                    answer = http.post(
                        "/api/v1/stations/default/inspect",
                        content=good[number % len(good)],
                        headers={"Content-Type": "image/png"},
                    )
                except httpx.TransportError:  # it was killed
                    return answered
                answered.append(answer.json()["id"])
        return answered

    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(send, first, 500), pool.submit(send, second, 20)]
        waits(lambda: len(receiver.ids) > 5)
        first.kill()
        answered = [one for future in both for one in future.result(120)]
    killed = time.monotonic()
    answered += send(second, 3)
    waits(lambda: set(answered) <= set(receiver.ids))
    assert time.monotonic() - killed < 30
    with second.http() as http:
        stored = [one["id"] for one in http.get("/api/v1/results?limit=500").json()["results"]][::-1]
    assert set(answered) <= set(stored)
    once = list(dict.fromkeys(receiver.ids))
    assert once == stored  # all, in the order of storing
    assert len(receiver.ids) - len(once) <= 32  # only what was under way was told twice
