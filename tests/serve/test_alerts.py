"""Messages to people: by apprise, to an HTTP server of our own."""

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from greys import Greys, png
from invad.errors import ConfigError
from invad.serve import Options, Service
from invad.serve.delivery import Route, Sink, Unreachable
from invad.serve.options import GIB
from invad.serve.plant import making
from invad.serve.plant.lineup import Station
from invad.serve.plant.outputs import AlertOutput
from invad.serve.plant.sinks import situation
from invad.serve.readiness import Readiness
from invad.serve.records import SourceState
from waiting import waits

pytest.importorskip("apprise", reason="needs invad[alerts]")
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated")  # in apprise
STATION = "press-1"


class Phone:
    """Writes down (title, text) of each message while it is on."""

    def __init__(self):
        phone, self.seen, self.is_on = self, [], True

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if phone.is_on:
                    phone.seen.append((body["title"], body["message"]))
                self.send_response(200 if phone.is_on else 503)
                self.end_headers()

            def log_message(self, *words):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Answering)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"json://me:secret@127.0.0.1:{self.server.server_port}/"

    @property
    def titles(self):
        return [title for title, _ in self.seen]


@pytest.fixture
def phone():
    one = Phone()
    yield one
    one.server.shutdown()
    one.server.server_close()


@pytest.fixture
def service(tmp_path):
    with Service({STATION: Greys()}, tmp_path / "line", options=Options(reserve=0)) as service:
        yield service


@pytest.fixture
def told(monkeypatch, service):
    """told(url, key=...): people are told from now on; returns a function that gives the state of that."""
    monkeypatch.setattr("invad.serve.plant.sinks.alerts.LOOK_EVERY", 0.0)

    def begin(url, **keys):
        monkeypatch.setenv("ALERTS", url)
        output = AlertOutput(kind="alert", urls_variable="ALERTS", **{"after": 0.0, **keys})
        station = Station(name=STATION, model="m", output=(output,))
        service.deliveries.add(making.route(station, output), making.made_sink(STATION, output, service))
        return lambda: service.deliveries.states(STATION)[f"{STATION}/alert"]

    return begin


def inspect(service, *names, level=255):
    return [service.inspect(png(level), station=STATION, part_id=name) for name in names]


def test_bad_parts_are_told_and_then_counted(service, told, phone):
    state = told(phone.url, quiet=1.2 / 60, address="https://line.example/")
    inspect(service, "fine", level=5)
    (first,) = inspect(service, "a")
    waits(lambda: phone.seen)
    assert phone.seen == [
        (
            "press-1: 1 bad",
            f"One part: a, bad, score 255, limits {first.review_limit:.4g} and {first.bad_limit:.4g}, at "
            f"{first.time}.\nhttps://line.example/parts/{first.id}",
        )
    ]
    inspect(service, "b", "c", "d")
    assert state().waiting == 3  # they are not told at once, and not forgotten
    waits(lambda: len(phone.seen) == 2)
    title, text = phone.seen[1]
    assert title == "press-1: 3 bad"
    assert "The last: d, bad" in text
    waits(lambda: (state().waiting, state().delivered) == (0, 4))
    assert state().place == "JSON"


def test_a_phone_that_is_off_is_told_later(service, told, phone):
    phone.is_on = False
    state = told(phone.url, quiet=0.0)
    inspect(service, "a", "b")
    waits(lambda: state().problem is not None)
    assert state().problem.startswith("no message was taken (JSON: ")
    assert state().problem.endswith("; check ALERTS")
    assert "\n" not in state().problem
    assert "secret" not in state().problem
    phone.is_on = True
    waits(lambda: state().waiting == 0)
    assert phone.titles[-1] in ("press-1: 1 bad", "press-1: 2 bad")


def test_that_one_of_two_was_told_is_enough(service, told, phone, caplog):
    state = told(f"{phone.url} json://127.0.0.1:1/")
    inspect(service, "a")
    waits(lambda: state().delivered == 1)
    assert phone.titles == ["press-1: 1 bad"]
    assert "an alert was told to others alone: JSON: " in caplog.text


class Broken(Sink):
    kind, place, problem = "broken", "nowhere", "the cable is cut"

    def deliver(self, results):
        raise Unreachable(self.problem)

    def idle(self):
        if self.problem:
            raise Unreachable(self.problem)


def test_what_does_not_work_is_told_once_and_when_it_is_over(service, told, phone, monkeypatch):
    monkeypatch.setattr("invad.serve.delivery.LONGEST_WAIT", 0.1)
    source = SourceState(
        kind="folder", place="in", problem="it is gone", waiting=0, taken=0, failed=0, other=0
    )
    sources = {STATION: source}
    service.sources = lambda: sources
    broken = Broken()
    service.deliveries.add(Route(name="press-1/broker", station=STATION), broken)
    told(phone.url, quiet=0.0)
    waits(lambda: len(phone.seen) == 2)
    assert dict(phone.seen) == {
        "press-1: no parts from its folder": "it is gone",
        "press-1: press-1/broker takes no results": "the cable is cut; 0 waiting",
    }
    broken.problem = None
    sources.clear()
    waits(lambda: len(phone.seen) == 4)
    assert set(phone.titles[2:]) == {
        "press-1: no parts from its folder is over",
        "press-1: press-1/broker takes no results is over",
    }
    time.sleep(0.3)
    assert len(phone.seen) == 4


def test_what_is_over_soon_or_not_asked_for_is_not_told(service, told, phone):
    service.deliveries.add(Route(name="press-1/broker", station=STATION), Broken())
    told(phone.url, quiet=0.0, after=3600.0)
    other = AlertOutput(kind="alert", urls_variable="ALERTS", events=("disk",), after=0.0, name="other")
    sink = making.made_sink(STATION, other, service)
    waits(lambda: service.deliveries.states(STATION)["press-1/broker"].problem)
    sink.idle()
    time.sleep(0.3)
    assert phone.seen == []


def test_a_full_disk_and_drift_are_told(tmp_path, service, monkeypatch):
    with Service({STATION: Greys()}, tmp_path / "full", options=Options(reserve=10**9 * GIB)) as full:
        found = situation.troubles(full, STATION, ("disk",), "")
    assert "bytes are free" in found["the disk is nearly full"]
    assert situation.troubles(service, STATION, ("disk", "drift"), "") == {}

    away = Readiness.of(pictures="the share is away")
    with monkeypatch.context() as shared:
        shared.setattr(service, "readiness", lambda: away)
        found = situation.troubles(service, STATION, ("disk",), "")
        assert found == {"no pictures are kept": "the share is away"}
        assert situation.troubles(service, STATION, ("drift",), "") == {}

    real = service.watch.report
    changed = {"phase": "alarm", "since": "01M8JHXQP4K6F1Y6W8KR416549", "hints": ("it is darker",)}
    monkeypatch.setattr(service.watch, "report", lambda *given: replace(real(*given), **changed))
    found = situation.troubles(service, STATION, ("drift",), "")
    assert found["drift"] == "parts look different since 2026-11-29T02:25:09.828Z; it is darker"


@pytest.mark.parametrize(
    ("urls", "words"),
    [
        ("nonsense://x:secret@y", "address 1 of ALERTS is none of apprise's"),
        ("json://localhost mailto://x", "address 2 of ALERTS is none of apprise's"),
        (" ", "ALERTS holds no address"),
    ],
)
def test_an_address_that_is_none_is_named_without_its_secret(told, urls, words, caplog):
    with pytest.raises(ConfigError, match=words) as caught:
        told(urls)
    assert "secret" not in str(caught.value) + caplog.text
    assert "\n" not in str(caught.value)


def test_impossible_times_are_named():
    with pytest.raises(ConfigError, match="quiet = -1: give 0 to 1440"):
        AlertOutput(kind="alert", urls_variable="X", quiet=-1.0)
