"""Modbus TCP with real sockets: our server and a controller that is a client, and the reverse."""

import asyncio
import re
import socket
import struct
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("pymodbus", reason="needs invad[line]")

from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from greys import Greys, png
from invad.errors import ConfigError
from invad.serve import Options, Service
from invad.serve.plant import modbus
from invad.serve.plant.cycle import ERRORS
from invad.serve.plant.lineup import read_lineup
from invad.serve.plant.plant import Plant
from invad.serve.plant.registers import COMMANDS, NAMES, ROOM, commands, text_words
from invad.serve.records import Part
from plc import BUSY, ERROR, NG, OK, READY, RESULTS, REVIEW, Plc, free_port
from waiting import waits

STATION = '[[station]]\nname = "{name}"\nmodel = "m"\n{more}\n'
SERVER = '[station.controller]\nkind = "modbus"\nport = {port}\nunit = {unit}\n{more}\n'


@pytest.fixture
def plcs():
    """plcs(port, ...): a controller; all are closed with the test."""
    made = []

    def make(*where, **words):
        made.append(Plc(*where, **words))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def plants(tmp_path, monkeypatch):
    """plants(text, detector): a plant of a line.toml that was started, beside a service of its stations."""
    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    started = []

    def make(text, detector=None):
        path = tmp_path / "line.toml"
        path.write_text(text)
        names = [one.name for one in read_lineup(path).station]
        models = dict.fromkeys(names, detector or Greys())
        service = Service(models, tmp_path / "line", options=Options(reserve=0))
        plant = Plant(service, path)
        started.append((plant, service))
        plant.start()
        return plant

    yield make
    for plant, service in started:
        plant.close()
        service.close()


GOOD = png(5)


def post(plant, station="a", body=GOOD, **words):
    return plant.service.submit(Part(body=body, station=station, **words))


def one(port, more="", station="deadline = 30", **words):
    return STATION.format(name="a", more=station, **words) + SERVER.format(port=port, unit=1, more=more)


def test_a_part_is_triggered_answered_and_acknowledged(plants, plcs):
    port = free_port()
    plant = plants(one(port))
    plc = plcs(port)
    assert waits(plc.status) == READY
    plc.command(1, "SN-17", "lot 7")
    assert waits(plc.status) == BUSY
    result = post(plant, body=png(255)).result(60)
    told = plc.answer()
    assert (told[1], told[2]) == (RESULTS | NG, 0)
    assert (result.part_id, result.lot, result.decision) == ("SN-17", "lot 7", "bad")
    number, p_value, score = struct.unpack(">IIf", struct.pack(">6H", *told[3:9]))
    assert (number, p_value, score) == (1, round(result.p_value * 1e6), pytest.approx(result.score))
    region = result.regions[0]
    assert told[9:14] == [len(result.regions), region.x, region.y, region.width, region.height]
    assert told[14:16] == [int(result.model_version[:4], 16), result.calibration]
    assert told[16:48] == [*text_words("SN-17"), *text_words("lot 7")]
    plc.command(2)
    assert waits(lambda: not plc.status() & RESULTS)
    assert plc.status() == 0  # not ready before the controller has reset what it set
    plc.command(0)
    assert waits(plc.status) == READY
    state = plant.service.deliveries.states("a")["a/controller"]
    assert (state.kind, state.place, state.problem) == ("modbus", f"127.0.0.1:{port} unit 1", None)


def test_a_part_that_never_comes_is_late(plants, plcs):
    port = free_port()
    plants(one(port, station="deadline = 0.2"))
    plc = plcs(port)
    waits(plc.status)
    plc.command(1)
    told = plc.answer()
    assert (told[1], told[2]) == (RESULTS | NG | ERROR, ERRORS["late"][0])
    plc.acknowledge()


def test_without_triggers_each_result_is_shown_in_turn(plants, plcs):
    port = free_port()
    plant = plants(one(port, "trigger = false\nreview = 'review'", station=""))
    plc = plcs(port)
    for name, level in (("p1", 5), ("p2", 39), ("p3", 255)):
        post(plant, body=png(level), part_id=name).result(60)
    for name, bits in (("p1", OK), ("p2", REVIEW), ("p3", NG)):
        told = plc.answer()
        assert (told[16:32], told[1]) == (text_words(name), RESULTS | bits)
        plc.acknowledge()


def test_stations_share_a_port_by_unit_and_base(plants, plcs):
    port = free_port()
    second = STATION.format(name="b", more="deadline = 30") + SERVER.format(
        port=port, unit=2, more="base = 1000"
    )
    plant = plants(one(port) + second)
    first, other = plcs(port), plcs(port, unit=2, base=1000)
    other.command(1, "b1")
    post(plant, "b", body=png(255)).result(60)
    assert other.answer()[1] == RESULTS | NG
    assert first.status() == READY
    assert first.client.read_holding_registers(0, count=1, device_id=9).isError()


def test_what_is_ours_cannot_be_written_and_what_is_not_there_not_read(plants, plcs):
    port = free_port()
    plants(one(port))
    plc = plcs(port)
    assert plc.client.write_registers(1, [RESULTS | OK], device_id=1).isError()
    assert plc.client.read_holding_registers(0, count=ROOM, device_id=1).registers[48:] == [0] * 52
    assert plc.client.read_holding_registers(135, count=1, device_id=1).isError()
    assert plc.client.write_coil(100, True, device_id=1).isError()
    assert plc.status() == READY


def test_a_controller_that_was_cut_finds_its_answer(plants, plcs):
    port = free_port()
    plant = plants(one(port))
    plc = plcs(port)
    plc.command(1, "p1")
    plc.client.close()
    post(plant).result(60)
    again = plcs(port)
    assert again.answer()[1] == RESULTS | OK
    again.acknowledge()


def test_a_controller_without_a_heartbeat_is_named(plants, plcs):
    port = free_port()
    plant = plants(one(port, "watchdog = 0.3"))
    deliveries = plant.service.deliveries
    waits(lambda: "no sign of life" in (deliveries.states("a")["a/controller"].problem or ""))
    plc = plcs(port)
    beats = iter(range(1, 60000))

    def beat():
        plc.client.write_registers(134, [next(beats)], device_id=1)
        return deliveries.states("a")["a/controller"].problem is None

    waits(beat)


def test_a_port_that_is_taken_is_named_and_had_once_it_is_free(plants, monkeypatch, plcs):
    monkeypatch.setattr(modbus, "AGAIN", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plant = plants(one(port))
        deliveries = plant.service.deliveries
        waits(lambda: "is the port taken?" in (deliveries.states("a")["a/controller"].problem or ""))
    assert waits(plcs(port).status) == READY
    waits(lambda: deliveries.states("a")["a/controller"].problem is None)


def test_a_file_read_again_changes_controllers_and_loses_no_result(plants, plcs):
    port, other = free_port(), free_port()
    plant = plants(one(port, "trigger = false", station=""))
    post(plant, part_id="p1").result(60)
    assert plcs(port).answer()[16:32] == text_words("p1")
    plant.path.write_text(one(other, "trigger = false", station=""))
    plant.reload()
    post(plant, part_id="p2").result(60)
    plc = plcs(other)
    for name in ("p1", "p2"):
        assert plc.answer()[16:32] == text_words(name)
        plc.acknowledge()
    plant.path.write_text(STATION.format(name="a", more=""))
    plant.reload()
    assert plant.service.deliveries.states("a") == {}
    assert not ModbusTcpClient("127.0.0.1", port=other, timeout=1, retries=0).connect()


# The controller is the server


class Memory:
    """A controller that is a server, with these registers, in a thread; it may go away and come back."""

    def __init__(self, port, first=0, count=200):
        self.port, self.first = port, first
        self.registers = [0] * count
        self.count = count
        self.start()

    def start(self):
        ready = threading.Event()

        async def access(function, start, address, count, registers, values):
            registers[: self.count] = self.registers
            if values is not None:
                self.registers[address - start : address - start + count] = values

        async def serve():
            data = SimData(self.first, count=self.count, datatype=DataType.REGISTERS)
            device = SimDevice(id=1, simdata=[data], action=access)
            self.server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
            await self.server.serve_forever(background=True)
            self.loop, self.ended = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await self.ended.wait()
            await self.server.shutdown()
            await asyncio.sleep(0)  # what had come is begun, and can be ended

        self.thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self.thread.start()
        assert ready.wait(30)

    def close(self):
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.ended.set)
            self.thread.join(30)

    def status(self):
        return self.registers[1]

    def command(self, bits, part_id=None):
        self.registers[102:118] = text_words(part_id)
        self.registers[100] = bits


@contextmanager
def memory(**words):
    made = Memory(free_port(), **words)
    try:
        yield made
    finally:
        made.close()


CLIENT = "mode = 'client'\npoll = 0.01"


def test_we_look_at_a_controller_that_is_the_server(plants):
    with memory() as plc:
        plant = plants(one(plc.port, CLIENT))
        waits(lambda: plc.status() == READY)
        (link,) = plant._controls._links.values()
        waits(lambda: link._met)  # what is set before would be left over
        for name, level, bits in (("p1", 5, OK), ("p2", 255, NG)):
            plc.command(1, name)
            waits(lambda: plc.status() == BUSY)
            post(plant, body=png(level)).result(60)
            waits(lambda bits=bits: plc.status() == RESULTS | bits)
            assert plc.registers[16:32] == text_words(name)
            plc.command(3)
            waits(lambda: plc.status() == 0)
            plc.command(0)
            waits(lambda: plc.status() == READY)
        first = plc.registers[0]
        waits(lambda: plc.registers[0] != first)
        plant.close()
        assert plc.status() == NG | ERROR
        assert plc.registers[2] == ERRORS["stopping"][0]


def test_a_trigger_that_was_left_over_has_to_be_reset_first(plants):
    """Else a start in the middle of a cycle would inspect what happens to be there."""
    with memory() as plc:
        plc.registers[1] = RESULTS | OK  # of a service that was killed
        plc.command(1)
        plants(one(plc.port, CLIENT))
        waits(lambda: plc.status() == 0)
        time.sleep(0.1)
        assert plc.status() == 0
        plc.command(0)
        waits(lambda: plc.status() == READY)


def test_a_controller_that_goes_away_is_named_and_met_again(plants, monkeypatch):
    monkeypatch.setattr(modbus, "AGAIN", 0.1)
    with memory() as plc:
        plant = plants(one(plc.port, CLIENT))
        deliveries = plant.service.deliveries
        waits(lambda: plc.status() == READY)
        plc.close()
        waits(lambda: deliveries.states("a")["a/controller"].problem)
        plc.registers = [0] * plc.count
        plc.start()
        waits(lambda: plc.status() == READY)
        waits(lambda: deliveries.states("a")["a/controller"].problem is None)


def test_a_controller_with_other_registers_is_named_in_one_line(plants):
    with memory(count=40) as plc:
        plant = plants(one(plc.port, CLIENT))
        deliveries = plant.service.deliveries
        words = (
            "refuses holding registers 0 to 47 .exception 2.; "
            "compare its map with the table in docs/connections.md"
        )
        waits(lambda: re.search(words, deliveries.states("a")["a/controller"].problem or ""))


def test_check_tries_ports_and_registers(tmp_path, bundle):
    from typer.testing import CliRunner

    from invad.cli.app import app

    def check(text):
        path = tmp_path / "line.toml"
        path.write_text(text.replace('"m"', f'"{bundle}"'))
        return CliRunner().invoke(app, ["serve", "check", str(path)]).output

    assert check(one(free_port())) == "1 station\n"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "station a: Modbus at 127.0.0.1:" in check(one(taken.getsockname()[1]))
    with memory() as plc:
        assert check(one(plc.port, CLIENT)) == "1 station\n"
    assert "station a: the controller at 127.0.0.1:" in check(one(free_port(), CLIENT))
    with memory(first=100, count=40) as plc:
        assert "refuses holding registers 0 to 47 (exception 2)" in check(one(plc.port, CLIENT))


# The file and the table


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (one(5020, station=""), "station.a: its controller triggers, so it needs a deadline"),
        (one(5020, station="deadline = 0"), "station.a: deadline = 0: give 0.001 to 60 seconds"),
        (one(0), "port = 0: give 1 to 65535"),
        (one(5020, "base = -1"), "base = -1: give 0 to 65000"),
        (one(5020, "hold = 0"), "hold = 0: give 0.01 to 60 seconds"),
        (one(5020, "review = 'maybe'"), "review = 'maybe': expected one of ng, ok, review"),
        (one(5020, "baud = 1"), "unknown key 'station.a.controller.baud'"),
        (
            one(5020)
            + STATION.format(name="b", more="deadline = 1")
            + SERVER.format(port=5020, unit=1, more=""),
            "stations a and b have the same registers at 127.0.0.1:5020 unit 1",
        ),
        (
            one(5020) + '[[station.output]]\nkind = "webhook"\nurl = "http://h/"\nname = "controller"\n',
            "station.a: an output cannot be called controller beside one",
        ),
    ],
)
def test_what_a_controller_cannot_be_is_named(tmp_path, text, words):
    (tmp_path / "line.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_lineup(tmp_path / "line.toml")


def test_the_table_of_the_documentation_is_that_of_the_code():
    text = (Path(__file__).parents[2] / "docs" / "connections.md").read_text()
    for address, meaning in NAMES.items():
        assert f"| {address} | {meaning} |" in text
    for name, (number, meaning) in ERRORS.items():
        assert name == "none" or f"| {number} | {meaning} |" in text


def test_texts_of_a_controller_are_words():
    registers = [1, 0, *text_words("Teil ß"), *text_words("x" * 40), 7]
    found = commands(registers)
    assert (found.part_id, found.lot, found.trigger, found.acknowledge) == ("Teil ?", "x" * 32, True, False)
    assert found.heartbeat == 7
    assert len(registers) == COMMANDS
