"""Receivers that are away under load, and results that nobody will be told of any more."""

import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from greys import Greys, png
from invad.cli.app import app
from invad.serve import Options, Service
from invad.serve.delivery import Route, Sink
from invad.serve.plant import making
from invad.serve.plant.checking import leftovers
from invad.serve.plant.lineup import Lineup, Station
from invad.serve.plant.outputs import MqttOutput, WebhookOutput
from invad.serve.store.backup import check
from invad.serve.store.results import Query
from invad.serve.store.schema import audit
from waiting import waits

STATIONS = ("press-1", "press-2")


class Receiver:
    """A webhook's, on a port that stays; it may go and come."""

    def __init__(self):
        self.port, self.seen = 0, []
        self.begin()

    def begin(self):
        seen = self.seen

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self):
                seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Answering)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


def order(records):
    """Numbers of parts by station, each once, as they came."""
    found = defaultdict(dict)
    for one in records:
        found[one["station"]][int(one["part_id"])] = True
    return {station: list(numbers) for station, numbers in found.items()}


def test_outages_under_load_lose_nothing_and_are_seen(tmp_path, broker, subscriber, served):
    running, receiver = broker(), Receiver()
    reader = subscriber(running.port)
    url = f"http://127.0.0.1:{receiver.port}/"
    outputs = WebhookOutput(kind="webhook", url=url), MqttOutput(kind="mqtt", url=running.url)
    models = {name: Greys() for name in STATIONS}
    with (
        Service(models, tmp_path / "line", options=Options(reserve=0)) as service,
        served(service, without_keys=True) as address,
        httpx.Client(base_url=address, trust_env=False, timeout=60) as client,
    ):
        for name in STATIONS:
            station = Station(name=name, model="m", output=outputs)
            for output in outputs:
                sink = making.made_sink(name, output, service)
                service.deliveries.add(making.route(station, output), sink)
        taken, over = dict.fromkeys(STATIONS, 0), threading.Event()

        def load(station):
            while not over.wait(0.01):
                service.inspect(png(5), station=station, part_id=str(taken[station]))
                taken[station] += 1

        loading = [threading.Thread(target=load, args=(name,)) for name in STATIONS]
        for thread in loading:
            thread.start()

        def states():
            found = client.get("/api/v1/stations").json()["stations"]
            return {
                name: one for of in found if of["name"] in STATIONS for name, one in of["outputs"].items()
            }

        waits(lambda: all(one["delivered"] > 2 for one in states().values()))
        running.kill()
        receiver.end()
        away = time.monotonic()
        waits(lambda: all(one["problem"] and one["waiting"] for one in states().values()))
        assert time.monotonic() - away < 5 + 10  # on a busy machine
        time.sleep(1)
        running.start()
        receiver.begin()
        waits(lambda: all(one["problem"] is None for one in states().values()))
        over.set()
        for thread in loading:
            thread.join()
        waits(lambda: not any(one["waiting"] for one in states().values()))
        wanted = {name: list(range(taken[name])) for name in STATIONS}
        assert order(receiver.seen) == wanted
        waits(lambda: order(map(json.loads, reader.at("/result"))) == wanted)
    receiver.end()


class Away(Sink):
    kind, place = "away", "nowhere"

    def takes_now(self, waiting):
        return False

    def deliver(self, results):
        yield from ()


@pytest.fixture
def left(tmp_path):
    """The data folder of a service that ended while three results waited for press-1/old."""
    with Service({"press-1": Greys()}, tmp_path / "line", options=Options(reserve=0)) as service:
        service.deliveries.add(Route(name="press-1/old", station="press-1"), Away())
        for number in range(3):
            service.inspect(png(5), station="press-1", part_id=str(number))
    return tmp_path / "line"


def test_names_that_results_wait_for_in_vain_are_said(left):
    waiting = check(left).waiting
    assert waiting == {"press-1/old": 3}
    hook = WebhookOutput(kind="webhook", url="http://127.0.0.1:1/", name="old")

    def lineup(*outputs):
        return Lineup(station=(Station(name="press-1", model="m", output=outputs),))

    assert list(leftovers(lineup(hook), waiting)) == []
    assert list(leftovers(lineup(), {**waiting, "webhook": 2, "press-1/controller": 1})) == [
        "press-1/old: 3 waiting, and no output is called so; bring it back, or let go of them with "
        "'invad serve outputs --discard press-1/old'"
    ]


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_what_waits_is_listed_and_let_go_of(left):
    said = run("serve", "outputs", "--data", left).stdout
    assert said.startswith("press-1/old: 3 waiting, the oldest since 20")
    wrong = run("serve", "outputs", "--data", left, "--discard", "press-1/new")
    assert wrong.exit_code != 0
    assert "nothing waits for it; names are press-1/old" in wrong.stderr
    done = run("serve", "outputs", "--data", left, "--discard", "press-1/old")
    assert done.stdout == "press-1/old is not told of 3 results\n"
    assert run("serve", "outputs", "--data", left).stdout == "nothing waits\n"
    with Service({"press-1": Greys()}, left, options=Options(reserve=0)) as service:
        with service.database.read() as connection:
            rows = connection.execute(select(audit.c.who, audit.c.content).order_by(audit.c.id)).all()
        assert ("command line", json.dumps({"output": "press-1/old", "results": 3})) in rows
        assert len(service.history(Query(station="press-1"))[0]) == 3
