"""A controller that asks for parts by messages, at a real broker."""

import json
import logging
import socket
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("paho.mqtt", reason="needs invad[line]")

from paho.mqtt import publish
from paho.mqtt.client import MQTTMessage

from greys import Greys, png
from invad.errors import ConfigError, DataError
from invad.serve import Options, Service
from invad.serve.plant.checking import problems
from invad.serve.plant.controllers import MqttController
from invad.serve.plant.lineup import read_lineup
from invad.serve.plant.mqtt import command
from invad.serve.plant.plant import Plant
from invad.serve.plant.sinks.mqtt import Connection
from invad.serve.records import Part
from waiting import waits

LINE = """
[[station]]
name = "a"
model = "m"
deadline = {deadline}

[station.controller]
kind = "mqtt"
url = "{url}"
site = "hall-2"
{more}
"""


class Plc:
    """Sends commands, and has all signals that came."""

    def __init__(self, running, reader, plant):
        self.running, self.reader, self.plant = running, reader, plant

    @property
    def all(self):
        return [json.loads(one) for one in self.reader.at("invad/hall-2/a/signals")]

    def now(self, **wanted):
        """The newest signals, once they are so."""

        def found():
            newest = self.all[-1] if self.all else {}
            return newest if newest.items() >= wanted.items() else None

        return waits(found)

    def send(self, what, payload=b"", *, retain=False):
        topic = f"invad/hall-2/a/cmd/{what}"
        publish.single(topic, payload, 1, retain, "127.0.0.1", self.running.port)

    def post(self, level, **words):
        return self.plant.service.submit(Part(body=png(level), station="a", **words)).result(60)

    @property
    def problem(self):
        return self.plant.service.deliveries.states("a")["a/controller"].problem


@pytest.fixture
def plc(tmp_path, monkeypatch, broker, subscriber):
    """plc(before, deadline, ...): a Plc of a line that runs. before: is called with the broker."""
    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    monkeypatch.setattr("invad.serve.plant.controls.LAST_SECONDS", 0.1)
    ended = []

    def make(before=lambda running: None, deadline=30, **keys):
        running = broker()
        before(running)
        path = tmp_path / "line.toml"
        more = "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
        path.write_text(LINE.format(url=running.url, more=more, deadline=deadline))
        service = Service({"a": Greys()}, tmp_path / "line", options=Options(reserve=0))
        plant = Plant(service, path)
        ended.extend([plant.close, service.close])
        plant.start()
        made = Plc(running, subscriber(running.port), plant)
        made.now(ready=True)
        return made

    yield make
    for end in ended:
        end()


def test_parts_are_triggered_answered_and_acknowledged(plc, caplog):
    caplog.set_level(logging.WARNING, "invad.serve")
    line = plc()
    line.send("inspect", '{"part_id": "P-1", "lot": "7"}')
    assert line.now(busy=True)["part_id"] == "P-1"
    good = line.post(5)
    shown = line.now(results_ready=True)
    assert (shown["ok"], shown["ng"], shown["error"], shown["counter"]) == (True, False, False, 1)
    assert (shown["part_id"], shown["lot"], shown["result_id"]) == ("P-1", "7", good.id)
    assert (shown["score"], shown["p_value"]) == (good.score, good.p_value)
    assert (good.part_id, good.lot) == ("P-1", "7")
    line.send("acknowledge", '{"part_id": "P-0"}')
    waits(lambda: "it names part P-0, and P-1 is shown" in caplog.text)
    assert line.now()["results_ready"]
    line.send("acknowledge", '{"part_id": "P-1"}')
    idle = line.now(ready=True)
    assert (idle["part_id"], idle["result_id"], idle["ok"]) == (None, None, False)
    line.send("inspect")
    line.now(busy=True)
    line.post(255, part_id="camera-17")
    shown = line.now(results_ready=True)
    assert (shown["ok"], shown["ng"], shown["error"], shown["counter"]) == (False, True, False, 2)
    line.send("acknowledge")
    line.now(ready=True)
    assert [one["ok"] for one in line.all].count(True) == 1
    assert len(line.all) == 7


def test_a_part_that_never_comes_is_late_and_acknowledges_itself(plc):
    line = plc(deadline=0.2, acknowledge=False, hold=0.1)
    line.send("inspect", '{"part_id": "P-1"}')
    waits(lambda: len(line.all) > 1 and line.all[-1]["ready"])
    (late,) = (one for one in line.all if one["results_ready"])
    assert (late["ok"], late["ng"], late["error_code"], late["part_id"]) == (False, True, 1, "P-1")


def test_a_retained_command_is_left_over_and_does_nothing(plc, caplog):
    caplog.set_level(logging.WARNING, "invad.serve")

    def before(running):
        Plc(running, None, None).send("inspect", '{"part_id": "P-0"}', retain=True)

    line = plc(before)
    waits(lambda: "retained, so left over from before" in caplog.text)
    assert line.now()["ready"]
    assert not any(one["busy"] for one in line.all)


@pytest.fixture
def gate(monkeypatch):
    """gate.open: an event that connections wait for; gate.made: those there were."""
    gate = SimpleNamespace(open=threading.Event(), made=[])
    gate.open.set()

    def opened(*rest):
        gate.open.wait(60)
        gate.made.append(Connection(*rest))
        return gate.made[-1]

    monkeypatch.setattr("invad.serve.plant.mqtt.Connection", opened)
    monkeypatch.setattr("invad.serve.plant.mqtt.AGAIN", 0.1)
    return gate


def test_a_broker_is_killed_and_back_and_what_was_sent_while_we_were_away_is_not_done(plc, gate):
    line = plc()
    gate.open.clear()
    line.running.kill()
    assert waits(lambda: line.problem).startswith(f"{line.running.url}: ")
    line.running.start()
    line.send("inspect", '{"part_id": "P-0"}')
    gate.open.set()
    waits(lambda: line.problem is None)
    line.send("inspect", '{"part_id": "P-1"}')
    line.now(busy=True)
    line.post(5)
    assert line.now(results_ready=True)["ok"]
    assert {one["part_id"] for one in line.all} == {None, "P-1"}


def test_a_lost_connection_and_the_end_are_error_9_and_ng(plc, gate):
    line = plc()
    gate.open.clear()
    gate.made[0]._client.socket().shutdown(socket.SHUT_RDWR)
    lost = line.now(error_code=9)
    assert (lost["ng"], lost["error"], lost["ready"], lost["ok"]) == (True, True, False, False)
    gate.open.set()
    line.now(ready=True)
    line.plant.close()
    gone = line.now(error_code=9)
    assert (gone["ng"], gone["error"], gone["ready"], gone["ok"]) == (True, True, False, False)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("go", "'go': give nothing"),
        ("[1]", "give nothing, or JSON such as"),
        ('{"part": "P-1"}', "give nothing, or JSON such as"),
        ('{"part_id": 17}', "part_id: give text of at most"),
        ('{"lot": "a\\u0000b"}', "lot: give text of at most"),
        (json.dumps({"part_id": 500 * "x"}), "part_id: give text of at most"),
        (5000 * "[", "it has 5000 bytes; give at most 4096"),
        (4000 * "[", "give nothing, or JSON such as"),
        (b"\xff\xfe", "give nothing, or JSON such as"),
    ],
)
def test_what_is_no_command_is_named(payload, words):
    with pytest.raises(DataError, match=words.replace("[", r"\[")):
        command(payload if isinstance(payload, bytes) else payload.encode())


def test_garbage_is_a_line_in_the_log_and_never_a_trigger(plc, caplog):
    caplog.set_level(logging.WARNING, "invad.serve")
    line = plc()
    line.send("inspect", "go!")
    waits(lambda: "a message at invad/hall-2/a/cmd/inspect is ignored: 'go!': give nothing" in caplog.text)
    line.send("inspect", '{"part_id": "P-1"}')
    line.now(busy=True, part_id="P-1", counter=0)


def test_the_same_trigger_again_is_none_and_another_is_too_early(plc, caplog):
    caplog.set_level(logging.WARNING, "invad.serve")
    line = plc()
    for _ in range(2):
        line.send("inspect", '{"part_id": "P-1"}')
    waits(lambda: "part P-1 came before, so this is the same trigger again" in caplog.text)
    line.post(5)
    assert line.now(results_ready=True)["ok"]
    again = MQTTMessage(topic=b"invad/hall-2/a/cmd/inspect")  # a broker may mark one
    again.payload, again.dup = b'{"part_id": "P-1"}', True
    (link,) = line.plant._controls._links.values()
    link._hear(again)
    assert link.handshake.signals.ok
    line.send("acknowledge")
    line.now(ready=True)
    for name in ("P-2", "P-3"):
        line.send("inspect", json.dumps({"part_id": name}))
    shown = line.now(results_ready=True)
    assert (shown["ng"], shown["error_code"], shown["part_id"], shown["counter"]) == (True, 6, "P-3", 2)


def test_check_tries_the_connection(tmp_path, broker):
    running = broker()
    path = tmp_path / "line.toml"
    path.write_text(LINE.format(url=running.url, more="", deadline=1))
    lineup = read_lineup(path)

    def said():
        return [one for one in problems(lineup) if "mqtt:" in one]

    assert said() == []
    running.kill()
    assert said() == [
        f"station a: {running.url}: Connection refused; check the address, and whether the broker runs"
    ]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "broker"}, "give one that begins with mqtt:// or mqtts://"),
        ({"url": "mqtt://a", "site": "a/b"}, "site = 'a/b'"),
        ({"url": "mqtt://a", "ca_file": "ca.pem"}, "is not encrypted"),
        ({"url": "mqtt://a", "watchdog": 1.0}, "has no heartbeat"),
        ({"url": "mqtt://a", "hold": 0.0}, "hold = 0"),
    ],
)
def test_what_a_controller_cannot_say_is_named(keys, words):
    with pytest.raises(ConfigError, match=words):
        MqttController(kind="mqtt", **keys)
