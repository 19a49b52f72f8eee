"""A controller that is an OPC UA server of asyncua, over loopback."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("asyncua", reason="OPC UA needs invad[line]")

from asyncua import Server, ua

from greys import Greys, png
from invad.errors import ConfigError
from invad.serve import Options, Service
from invad.serve.plant.controllers import OpcUaController, OpcUaNodes
from invad.serve.plant.cycle import ERRORS, Terms
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.lineup import read_lineup
from invad.serve.plant.opcua import client
from invad.serve.plant.opcua.client import OpcUaClient, problems
from plc import free_port
from waiting import waits

TYPES = {
    "trigger": ua.VariantType.Boolean,
    "acknowledge": ua.VariantType.Boolean,
    "part_id": ua.VariantType.String,
    "lot": ua.VariantType.String,
    "ready": ua.VariantType.Boolean,
    "results_ready": ua.VariantType.Boolean,
    "ok": ua.VariantType.Boolean,
    "ng": ua.VariantType.Boolean,
    "error_code": ua.VariantType.Int16,
    "counter": ua.VariantType.Byte,
    "result_id": ua.VariantType.String,
    "score": ua.VariantType.Float,
}
NODES = {name: f"ns=2;s=Camera.{name}" for name in TYPES}


class Plc:
    """A server with the nodes of a controller, in a thread. port: kept over its restarts."""

    def __init__(self):
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.do(self._make())

    def do(self, call):
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(60)

    async def _make(self):
        self.server = Server()
        await self.server.init()
        self.server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self.server.set_endpoint(self.url)
        await self.server.register_namespace("urn:plc")
        for name, kind in TYPES.items():
            empty = {"part_id": "", "lot": "", "result_id": "", "score": 0.0}.get(name, 0)
            empty = False if kind == ua.VariantType.Boolean else empty
            node = await self.server.nodes.objects.add_variable(NODES[name], f"2:{name}", empty, kind)
            await node.set_writable()
        await self.server.start()

    @property
    def url(self):
        return f"opc.tcp://127.0.0.1:{self.port}/plc"

    def read(self, name):
        return self.do(self.server.get_node(NODES[name]).read_value())

    def write(self, **values):
        for name, value in values.items():
            self.do(self.server.get_node(NODES[name]).write_value(ua.Variant(value, TYPES[name])))

    @property
    def sessions(self):
        return len(self.server.bserver.clients)

    def stop(self):
        self.do(self.server.bserver.stop())

    def start(self):
        self.do(self.server.bserver.start())

    def close(self):
        self.do(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def plc():
    made = Plc()
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opcua") / "line"
    with Service({"a": Greys()}, folder, options=Options(reserve=0)) as service:
        yield service


def controller(plc, **words):
    given = {"mode": "client", "url": plc.url, "poll": 0.01, "nodes": OpcUaNodes(**NODES), **words}
    return OpcUaController(kind="opcua", **given)


@pytest.fixture
def station(service, plc):
    """station(**words of the controller): the handshake of one that writes into the nodes of the PLC."""
    made = []

    def make(**words):
        handshake = Handshake(service, "a", Terms(deadline=60))
        link = OpcUaClient(handshake, controller(plc, **words), "")
        handshake.start()
        link.start()
        made.append((handshake, link))
        return handshake

    def end():
        while made:
            handshake, link = made.pop()
            handshake.close()
            link.close()

    make.end = end
    yield make
    end()
    plc.write(trigger=False, acknowledge=False)


def cycle(service, plc, part, level):
    """What the controller is told of a part."""
    waits(lambda: plc.read("ready"))
    plc.write(part_id=part, lot="L1", trigger=True)
    waits(lambda: not plc.read("ready"))
    result = service.inspect(png(level), station="a")
    waits(lambda: plc.read("results_ready"))
    told = {name: plc.read(name) for name in ("ok", "ng", "error_code", "result_id", "score")}
    plc.write(acknowledge=True)
    waits(lambda: not plc.read("results_ready"))
    assert not plc.read("ready")  # before both are reset
    plc.write(trigger=False, acknowledge=False)
    return result, told


def test_a_part_is_triggered_answered_and_acknowledged(service, plc, station):
    station()
    for part, level, bits in (("P-1", 5, (True, False)), ("P-2", 255, (False, True))):
        result, told = cycle(service, plc, part, level)
        assert (result.part_id, result.lot) == (part, "L1")
        assert (told["ok"], told["ng"], told["error_code"]) == (*bits, 0)
        assert (told["result_id"], told["score"]) == (result.id, result.score)
    assert plc.sessions == 1


def test_a_plc_that_tells_of_changes_is_seldom_looked_at(service, plc, station, monkeypatch):
    looks, read = [], client.Session.read

    async def counted(session):
        looks.append(time.monotonic())
        return await read(session)

    monkeypatch.setattr(client.Session, "read", counted)
    monkeypatch.setattr(client, "LOOK", 60.0)  # it has to be told
    station()
    cycle(service, plc, "P-5", 5)
    waits(lambda: plc.read("ready"))
    before = len(looks)
    time.sleep(0.5)
    assert len(looks) - before < 10  # one each time that our heart beats; of looking alone it would be 50


def test_a_plc_that_tells_of_nothing_is_looked_at(service, plc, station, monkeypatch):
    monkeypatch.setattr(plc.server.iserver, "max_subscriptions", 0)
    monkeypatch.setattr(client, "LOOK", 60.0)
    handshake = station()
    _, told = cycle(service, plc, "P-6", 5)
    assert (told["ok"], handshake.problem) == (True, None)


def test_a_plc_that_was_away_is_met_again_and_has_to_reset_what_it_had_set(service, plc, station):
    handshake = station()
    cycle(service, plc, "P-3", 5)
    waits(lambda: plc.read("ready"))
    plc.stop()
    waits(lambda: "cannot be reached" in (handshake.problem or ""))
    assert "\n" not in handshake.problem
    plc.start()
    waits(lambda: handshake.problem is None)
    result, told = cycle(service, plc, "P-4", 5)
    assert (result.part_id, told["ok"]) == ("P-4", True)
    assert plc.sessions == 1


def test_a_trigger_that_was_left_set_asks_for_nothing_and_the_end_leaves_ng(service, plc, station):
    station()
    waits(lambda: plc.read("ready"))
    station.end()
    assert (plc.read("ready"), plc.read("ng"), plc.read("error_code")) == (False, True, ERRORS["stopping"][0])
    plc.write(trigger=True)
    station()
    waits(lambda: not plc.read("ng"))
    assert not plc.read("ready")
    plc.write(trigger=False)
    waits(lambda: plc.read("ready"))


def test_nodes_that_are_not_there_are_named_by_check_and_while_it_runs(plc, station):
    nodes = OpcUaNodes(**{**NODES, "ok": "ns=2;s=Camera.Okay", "busy": "Camera.Busy"})
    found = list(problems(controller(plc, nodes=nodes), ""))
    assert found == [
        "busy = 'Camera.Busy': is no node id; give one such as 'ns=3;s=Camera.busy'",
        f"{plc.url}: ok = 'ns=2;s=Camera.Okay': BadNodeIdUnknown; check the node id",
    ]
    assert list(problems(controller(plc), "")) == []
    handshake = station(nodes=nodes)
    waits(lambda: "Camera.Busy" in (handshake.problem or ""))


def test_a_plc_that_is_away_or_wants_another_user_is_named(plc):
    (away,) = problems(controller(plc, url=f"opc.tcp://127.0.0.1:{free_port()}/"), "")
    assert "cannot be reached; check url, user and certificate" in away
    (refused,) = problems(controller(plc, certificate="none.pem", private_key="none.key"), "")
    assert refused == "none.pem: No such file or directory; check the path"


STATION = (
    '[[station]]\nname = "a"\nmodel = "m"\ndeadline = 1.0\n[station.controller]\nkind = "opcua"\n'
    'mode = "client"\nurl = "opc.tcp://plc:4840"\n{more}\n[station.controller.nodes]\n{nodes}\n'
)
NEEDED = "\n".join(
    f'{name} = "ns=2;s={name}"' for name in ("trigger", "acknowledge", "results_ready", "ok", "ng")
)


@pytest.mark.parametrize(
    ("more", "nodes", "words"),
    [
        ("", NEEDED.replace("trigger =", "busy ="), "nodes.trigger is missing; give the node id"),
        ("", NEEDED.replace("ok =", "busy ="), "nodes.ok is missing; give the node id"),
        ("watchdog = 1", NEEDED, "watchdog needs nodes.alive, which the controller changes"),
        ("poll = 0", NEEDED, "poll = 0: give 0.005 to 60 seconds"),
        ('user = "a"', NEEDED, "give both user and password_variable, or neither"),
        ("", NEEDED + '\ncolour = "x"', "unknown key 'station.a.controller.nodes.colour'"),
    ],
)
def test_what_a_file_cannot_say_of_a_controller_is_named(tmp_path, more, nodes, words):
    (tmp_path / "line.toml").write_text(STATION.format(more=more, nodes=nodes))
    with pytest.raises(ConfigError, match=words) as caught:
        read_lineup(tmp_path / "line.toml")
    assert "\n" not in str(caught.value)


def test_two_stations_cannot_write_one_node(tmp_path):
    text = STATION.format(more="", nodes=NEEDED)
    (tmp_path / "line.toml").write_text(text + text.replace('name = "a"', 'name = "b"'))
    with pytest.raises(
        ConfigError, match=r"stations a and b have the same node ns=2;s=trigger at opc\.tcp://plc"
    ):
        read_lineup(tmp_path / "line.toml")


def test_a_controller_is_tried_from_within_a_running_loop_too():
    controller = OpcUaController(
        kind="opcua",
        mode="client",
        url=f"opc.tcp://127.0.0.1:{free_port()}/plc",
        nodes=OpcUaNodes(**dict.fromkeys(("trigger", "acknowledge", "results_ready", "ok", "ng"), "i=1")),
    )

    async def within():
        return list(problems(controller, ""))

    with ThreadPoolExecutor(1) as pool:  # a browser's driver may leave a loop running in this thread
        (line,) = pool.submit(asyncio.run, within()).result()
    assert "cannot be reached" in line
