"""OPC UA with asyncua at both ends, over loopback."""

import asyncio
import json
import shutil
import socket
import threading
from datetime import datetime, timedelta, timezone

import pytest

pytest.importorskip("asyncua", reason="OPC UA needs invad[line]")

from asyncua import Client, ua
from asyncua.common.events import get_filter_from_event_type
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from greys import Greys, png
from invad.errors import ConfigError
from invad.serve import Options, Service
from invad.serve.delivery import Route
from invad.serve.plant.checking import problems
from invad.serve.plant.controllers import OpcUaController, OpcUaNodes
from invad.serve.plant.cycle import ERRORS, Terms
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.lineup import read_lineup
from invad.serve.plant.opcua import events
from invad.serve.plant.opcua.certificates import usable_identity
from invad.serve.plant.opcua.client import problems as client_problems
from invad.serve.plant.opcua.control import OpcUaControl
from invad.serve.plant.opcua.events import OpcUaEvents
from invad.serve.plant.opcua.nodes import EVALUATIONS, FIELDS, NAMESPACE
from invad.serve.plant.opcua.server import OpcUaServer
from invad.serve.plant.opcua.settings import OpcUa
from invad.serve.plant.plant import Plant
from waiting import waits

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncua's own


class Loop:
    """A loop in a thread, so that tests read as they run."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def do(self, call):
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(60)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@pytest.fixture(scope="module")
def loop():
    made = Loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    stations = ("a", "b", "c", "d")
    folder = tmp_path_factory.mktemp("opcua") / "line"
    options = Options(reserve=0, audit_share=0)
    with Service(dict.fromkeys(stations, Greys()), folder, options=options) as service:
        yield service


@pytest.fixture(scope="module")
def server(service):
    """Of all stations of this module; it runs while one is shown."""
    made = OpcUaServer(service, OpcUa(endpoint="opc.tcp://127.0.0.1:0/invad"), "")
    made.add("a")
    waits(lambda: made.problem is None)
    yield made
    thread = made._thread
    made.remove("a")
    thread.join(30)


class Plc:
    """A client that keeps the events of a station."""

    def __init__(self, loop, server, **settings):
        self.loop, self.events = loop, []
        self.client = Client(f"opc.tcp://127.0.0.1:{server.port}/invad", timeout=20)
        for name, value in settings.items():
            setattr(self.client, name, value)
        loop.do(self.client.connect())
        self.index = loop.do(self.client.get_namespace_index(NAMESPACE))

    def node(self, name):
        return self.client.get_node(ua.NodeId(name, self.index))

    def read(self, name):
        return self.loop.do(self.node(name).read_value())

    def call(self, parent, name, *given):
        method = ua.NodeId(f"{parent.split('.')[0]}.{name}", self.index)
        return self.loop.do(self.node(parent).call_method(method, *given))

    def listen(self, node, period=20, **options):
        async def subscribe():
            made = await self.client.create_subscription(period, self)
            await made.subscribe_events(node, self.node("ResultReadyEventType"), **options)
            return made

        return self.loop.do(subscribe())

    def event_notification(self, event):
        self.events.append(event)

    def watch(self, name):
        """The values of a variable from now on, as they come."""
        heard = []

        class Heard:
            def datachange_notification(self, node, value, data):
                heard.append(value)

        async def subscribe():
            made = await self.client.create_subscription(20, Heard())
            await made.subscribe_data_change(self.node(name))

        self.loop.do(subscribe())
        return heard

    def hang(self):
        """It reads nothing more; its session and its subscription stay."""
        self.loop.loop.call_soon_threadsafe(self.client.uaclient.protocol.transport.pause_reading)

    def close(self):
        self.loop.loop.call_soon_threadsafe(self.client.uaclient.protocol.transport.resume_reading)
        self.loop.do(self.client.disconnect())


@pytest.fixture
def plc(loop, server):
    opened = []

    def make(**settings):
        opened.append(Plc(loop, server, **settings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def told(service, server):
    """told(station, taken): an output of it, and the state of that."""
    names = []

    def add(station, taken="received"):
        name = f"{station}/{taken}"
        names.append(name)
        service.deliveries.add(Route(name=name, station=station), OpcUaEvents(server, station, taken))
        return lambda: service.deliveries.states(station)[name]

    yield add
    for name in names:
        service.deliveries.remove(name)


def inspect(service, station, *names, level=5):
    return [service.inspect(png(level), station=station, part_id=name, lot="L1") for name in names]


def heard(client, count):
    """Its events, once there are so many: a client confirms an event before it looks at it."""
    waits(lambda: len(client.events) >= count)
    return list(client.events)


def test_a_client_finds_the_last_result_and_asks_for_others(service, server, plc, told):
    told("a", "shown")
    client = plc()
    good = inspect(service, "a", "P-1")[0]
    waits(lambda: client.read("a.LatestResult.ResultId") == good.id)
    values = {field.name: client.read(f"a.LatestResult.{field.name}") for field in FIELDS}
    assert values["ResultEvaluation"] == EVALUATIONS.index("OK") == 1
    assert (values["PartId"], values["JobId"], values["ResultState"]) == ("P-1", "L1", 1)
    assert (values["Score"], values["PValue"]) == (good.score, good.p_value)
    assert (values["InternalRecipeId"], values["InternalConfigurationId"]) == ("0" * 64, "1")
    assert values["Region"] == []
    assert json.loads(values["ResultContent"]) == good.plain()
    contents = client.watch("a.LatestResult.ResultContent")
    waits(lambda: contents)
    bad = inspect(service, "a", "P-2", level=255)[0]
    waits(lambda: len(contents) == 2)
    assert [json.loads(one)["id"] for one in contents] == [good.id, bad.id]
    assert client.read("a.LatestResult.ResultId") == bad.id
    assert client.read("a.LatestResult.ResultEvaluation") == EVALUATIONS.index("NotOK") == 2
    place = bad.regions[0]
    assert client.read("a.LatestResult.Region") == [place.x, place.y, place.width, place.height]
    text, error = client.call("a.ResultManagement", "GetResultById", good.id)
    assert (json.loads(text)["part_id"], error) == ("P-1", 0)
    assert client.call("a.ResultManagement", "GetResultById", "none") == [None, 1]
    text, error = client.call("a.ResultManagement", "GetLatestResult")
    assert (json.loads(text)["part_id"], error) == ("P-2", 0)


def test_names_lead_to_the_nodes_and_the_evaluation_says_its_words(server, loop, plc):
    client = plc()
    n = client.index
    path = [f"{n}:Stations", f"{n}:a", f"{n}:ResultManagement", f"{n}:LatestResult", f"{n}:ResultEvaluation"]
    node = loop.do(client.client.nodes.objects.get_child(path))
    kind = client.client.get_node(loop.do(node.read_data_type()))
    words = loop.do(kind.read_data_type_definition()).Fields
    assert [one.Name for one in words] == ["Undefined", "OK", "NotOK", "NotDecidable"]
    older = loop.do(loop.do(kind.get_child("0:EnumStrings")).read_value())
    assert [one.Text for one in older] == ["Undefined", "OK", "NotOK", "NotDecidable"]
    status = client.client.get_node(ua.ObjectIds.Server_ServerStatus_BuildInfo)
    assert loop.do(status.read_value()).ManufacturerName == "invad"


def test_clients_change_nothing(loop, plc):
    client = plc()
    with pytest.raises(ua.UaStatusCodeError):
        loop.do(
            client.node("a.LatestResult.ResultEvaluation").write_value(ua.Variant(1, ua.VariantType.Int32))
        )
    with pytest.raises(ua.UaStatusCodeError):
        loop.do(client.node("a").add_variable(client.index, "mine", 1))
    with pytest.raises(ua.UaStatusCodeError):
        Plc(
            loop, type("Other", (), {"port": client.client.server_url.port}), _username="admin", _password="x"
        )


def test_events_wait_until_a_client_has_confirmed_them(service, plc, told):
    state = told("b")
    before = inspect(service, "b", "P-1", "P-2")
    waits(lambda: state().problem == "no client listens to the events of b")
    assert state().waiting == 2
    client = plc()
    client.listen(client.node("b"))
    waits(lambda: state().waiting == 0)
    assert [one.ResultId for one in heard(client, len(before))] == [one.id for one in before]
    waits(lambda: state().problem is None)
    event = client.events[0]
    assert (event.PartId, event.JobId, event.ResultEvaluation) == ("P-1", "L1", 1)
    assert (event.SourceName, event.Message.Text) == ("b", "b: part P-1 is good")
    assert json.loads(event.ResultContent) == before[0].plain()


def test_the_newest_result_is_shown_whatever_waits_for_a_client(service, plc, told):
    state = told("c")
    client = plc()
    made = inspect(service, "c", *(f"P-{i}" for i in range(40)))
    waits(lambda: state().waiting == 40)
    waits(lambda: client.read("c.LatestResult.ResultId") == made[-1].id)
    client.listen(client.node("c"))
    waits(lambda: state().waiting == 0)
    assert [one.ResultId for one in heard(client, len(made))] == [one.id for one in made]


def test_a_client_that_hangs_gets_in_order_what_it_missed(service, plc, told, monkeypatch):
    monkeypatch.setattr(events, "CONFIRM_SECONDS", 0.5)
    state = told("b")
    first = plc()
    first.listen(first.node("b"))
    inspect(service, "b", "P-3")
    waits(lambda: state().waiting == 0)
    first.hang()
    missed = inspect(service, "b", "P-4", "P-5", "P-6")
    waits(lambda: state().problem is not None and state().waiting == 3)
    again = plc()
    again.listen(again.node("b"))
    waits(lambda: state().waiting == 0)
    waits(lambda: {one.ResultId for one in again.events} == {one.id for one in missed})
    assert list(dict.fromkeys(one.ResultId for one in again.events)) == [one.id for one in missed]


def test_a_client_that_asks_to_keep_one_event_gets_all_of_them_in_order(service, plc, told):
    state = told("c")
    made = inspect(service, "c", *(f"P-{i}" for i in range(6)))
    client = plc()
    client.listen(client.node("c"), period=100, queuesize=1)
    waits(lambda: state().waiting == 0)
    assert [one.ResultId for one in heard(client, len(made))] == [one.id for one in made]


def test_a_client_hears_of_all_stations_at_the_server_and_leaves_out_what_it_does_not_want(
    service, plc, told
):
    c, d = told("c"), told("d")
    client = plc()
    wanted = ua.ContentFilterElement(FilterOperator=ua.FilterOperator.Equals)
    path = [ua.QualifiedName("ResultEvaluation", client.index)]
    wanted.FilterOperands = [
        ua.SimpleAttributeOperand(BrowsePath=path, AttributeId=ua.AttributeIds.Value),
        ua.LiteralOperand(Value=ua.Variant(EVALUATIONS.index("NotOK"), ua.VariantType.Int32)),
    ]

    async def subscribe():
        kind = client.node("ResultReadyEventType")
        choice = await get_filter_from_event_type([kind], where_clause_generation=False)
        choice.WhereClause = ua.ContentFilter(Elements=[wanted])
        made = await client.client.create_subscription(20, client)
        await made.subscribe_events(client.client.nodes.server, kind, choice)

    client.loop.do(subscribe())
    inspect(service, "c", "good")
    bad = [inspect(service, station, "bad", level=255)[0] for station in ("c", "d")]
    waits(lambda: c().waiting == d().waiting == 0)
    assert {one.ResultId for one in heard(client, len(bad))} == {one.id for one in bad}


def test_results_can_wait_for_a_client_that_acknowledges_each(service, server, plc, told):
    state = told("d", "acknowledged")
    client = plc()
    client.listen(client.node("d"))
    first, second = inspect(service, "d", "P-1", "P-2")
    waits(lambda: first.id in server.received)  # the event was, which is not enough
    assert state().waiting == 2
    assert heard(client, 1)[0].ResultId == first.id
    assert client.call("d.ResultManagement", "AcknowledgeResults", [second.id, "none"]) == [0, 1]
    assert client.call("d.ResultManagement", "AcknowledgeResults", [first.id]) == [0]
    waits(lambda: state().waiting == 0)


# A controller


@pytest.fixture
def control(service, server):
    """control(**terms): the handshake of station d, whose controller is a client of the server."""
    made = []

    def make(**terms):
        handshake = Handshake(service, "d", Terms(**{"deadline": 60, **terms}))
        link = OpcUaControl(server, handshake)
        handshake.start()
        link.start()
        made.append((handshake, link))
        return handshake

    yield make
    for handshake, link in made:
        handshake.close()
        link.close()


def is_shown(client, name):
    """Whether there is such a node by now."""
    try:
        client.read(name)
    except ua.UaStatusCodeError:
        return False
    return True


def seen(client):
    """The signals that are set."""
    names = ("Ready", "Busy", "ResultsReady", "Ok", "Ng", "Review", "Error")
    return {name for name in names if client.read(f"d.Signals.{name}")}


def goes_on(client):
    waits(lambda: is_shown(client, "d.Signals.Ready"))


def test_a_part_is_triggered_and_acknowledged_by_methods(service, plc, control, told):
    state = told("d", "acknowledged")
    control()
    client = plc()
    goes_on(client)
    assert seen(client) == {"Ready"}
    assert client.call("d", "Trigger", "SN-17", "lot 7") == 0
    waits(lambda: seen(client) == {"Busy"})
    result = service.inspect(png(255), station="d")
    assert (result.part_id, result.lot, result.decision) == ("SN-17", "lot 7", "bad")
    waits(lambda: seen(client) == {"ResultsReady", "Ng"})
    assert client.read("d.Signals.ResultId") == client.read("d.LatestResult.ResultId") == result.id
    assert (client.read("d.Signals.Counter"), client.read("d.Signals.PartId")) == (1, "SN-17")
    assert state().waiting == 1
    assert client.call("d", "Trigger", "too", "early") == ERRORS["busy"][0]
    waits(lambda: seen(client) == {"ResultsReady", "Ng", "Error"})
    assert client.read("d.Signals.ErrorCode") == ERRORS["busy"][0]
    client.call("d", "Acknowledge")
    waits(lambda: seen(client) == {"Ready"})
    assert client.read("d.Signals.ResultId") is None
    client.call("d", "Trigger", "", "")
    good = service.inspect(png(5), station="d")
    waits(lambda: seen(client) == {"ResultsReady", "Ok"})
    client.call("d", "Acknowledge")  # of the result, too
    client.call("d.ResultManagement", "AcknowledgeResults", [result.id])
    waits(lambda: state().waiting == 0)
    assert good.part_id is None


def test_a_controller_without_methods_writes_its_bits(service, loop, plc, control):
    control(review="review")
    client = plc()
    goes_on(client)

    def write(name, value, kind=ua.VariantType.Boolean):
        loop.do(client.node(f"d.Commands.{name}").write_value(ua.Variant(value, kind)))

    write("PartId", "SN-18", ua.VariantType.String)
    write("Trigger", True)
    waits(lambda: seen(client) == {"Busy"})
    result = service.inspect(png(39), station="d")
    assert (result.part_id, result.decision) == ("SN-18", "review")
    waits(lambda: seen(client) == {"ResultsReady", "Review"})
    assert client.read("d.LatestResult.ResultId") == client.read("d.Signals.ResultId") == result.id
    write("Acknowledge", True)
    waits(lambda: seen(client) == set())  # not ready before both are reset
    write("Trigger", False)
    assert seen(client) == set()
    write("Acknowledge", False)
    waits(lambda: seen(client) == {"Ready"})
    with pytest.raises(ua.UaStatusCodeError, match="BadTypeMismatch"):
        write("Trigger", 1, ua.VariantType.Int32)


def test_a_client_hears_of_signals_and_finds_the_result_that_they_speak_of(service, loop, plc, control):
    control(deadline=0.3, triggered=True)
    client = plc()
    goes_on(client)
    heard = []

    class Heard:
        def datachange_notification(self, node, value, data):
            heard.append((node.nodeid.Identifier.removeprefix("d.Signals."), value))

    async def subscribe():
        made = await client.client.create_subscription(10, Heard())
        await made.subscribe_data_change([client.node(f"d.Signals.{one}") for one in ("ResultsReady", "Ng")])

    loop.do(subscribe())
    waits(lambda: len(heard) == 2)
    client.call("d", "Trigger", "", "")
    waits(lambda: len(heard) == 4)  # nothing came: late
    assert client.read("d.Signals.ErrorCode") == ERRORS["late"][0]
    assert set(heard[2:]) == {("ResultsReady", True), ("Ng", True)}


def test_a_server_that_begins_anew_shows_signals_again_and_its_problem_is_the_controllers(
    service, loop, other, keys
):
    server = other()
    handshake = Handshake(service, "d", Terms(deadline=60))
    link = OpcUaControl(server, handshake)
    handshake.start()
    link.start()
    waits(lambda: server.problem is None)
    certificate, key = keys("gone", end=-1)
    server.change(OpcUa(endpoint=server.place, certificate=certificate, private_key=key), "")
    waits(lambda: "expired" in (handshake.problem or ""))
    server.change(OpcUa(endpoint=server.place), "")
    waits(lambda: handshake.problem is None)
    client = Plc(loop, server)
    waits(lambda: is_shown(client, "d.Signals.Ready") and seen(client) == {"Ready"})
    client.close()
    handshake.close()
    link.close()


def test_a_client_that_subscribed_hears_when_a_station_ends_and_goes_on_when_it_is_back(
    loop, server, plc, control
):
    handshake = control()
    client = plc()
    goes_on(client)
    heard = []

    class Heard:
        def datachange_notification(self, node, value, data):
            heard.append((value, data.monitored_item.Value.StatusCode.is_good()))

    async def subscribe():
        made = await client.client.create_subscription(10, Heard())
        await made.subscribe_data_change(client.node("d.Signals.Ready"))

    loop.do(subscribe())
    waits(lambda: heard == [(True, True)])
    handshake.close()
    server.release(handshake)
    waits(lambda: heard[-1] == (None, False))
    with pytest.raises(ua.UaStatusCodeError, match="BadOutOfService"):
        client.call("d", "Trigger", "", "")
    server.add("d")  # which the end of the fixture takes away
    control()
    waits(lambda: heard[-1] == (True, True))


# Who may come


@pytest.fixture
def other(service):
    """other(**settings): one more server, which shows station d; of its own port."""
    started = []

    def make(password="", **settings):
        settings = {"endpoint": "opc.tcp://127.0.0.1:0/invad", **settings}
        made = OpcUaServer(service, OpcUa(**settings), password)
        made.add("d")
        started.append((made, made._thread))
        return made

    yield make
    for made, thread in started:
        made.remove("d")
        thread.join(30)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """keys(name, begin, end): files of a certificate, valid between these days from now, and of its key."""
    folder = tmp_path_factory.mktemp("keys")
    key = rsa.generate_private_key(65537, 2048)

    def make(name, begin=-40, end=30):
        now = datetime.now(timezone.utc)
        named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:test:{name}")])
        made = x509.CertificateBuilder(named, named, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now + timedelta(begin)).not_valid_after(now + timedelta(end))
        made = made.add_extension(uri, critical=False).sign(key, hashes.SHA256())
        files = folder / f"{name}.pem", folder / f"{name}-key.pem"
        files[0].write_bytes(made.public_bytes(Encoding.PEM))
        files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return tuple(map(str, files))

    return make


def test_a_server_with_a_certificate_and_a_user_lets_nobody_else_in(loop, other, keys):
    certificate, key = keys("server")
    files = {"certificate": certificate, "private_key": key}
    server = other("secret", **files, user="plc", password_variable="X")
    waits(lambda: server.problem is None)
    client, client_key = keys("client")

    async def encrypted(made):
        await made.set_security_string(f"Basic256Sha256,SignAndEncrypt,{client},{client_key}")
        await made.connect()

    def connect(user, password):
        made = Client(f"opc.tcp://127.0.0.1:{server.port}/invad", timeout=20)
        made.application_uri = "urn:test:client"
        made.set_user(user)
        made.set_password(password)
        loop.do(encrypted(made))
        return made

    made = connect("plc", "secret")
    assert NAMESPACE in loop.do(made.get_namespace_array())
    loop.do(made.disconnect())
    for user, password in (("plc", "wrong"), ("admin", "secret")):
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            connect(user, password)
    with pytest.raises(ua.UaError, match="No matching endpoints"):
        Plc(loop, server)
    # The other way round, as one that writes into the nodes of a controller.
    nodes = OpcUaNodes(**dict.fromkeys(("trigger", "acknowledge", "results_ready", "ok", "ng"), "s=none"))
    plc = OpcUaController(
        kind="opcua",
        mode="client",
        url=f"opc.tcp://127.0.0.1:{server.port}/invad",
        certificate=client,
        private_key=client_key,
        server_certificate=certificate,
        user="plc",
        password_variable="X",
        nodes=nodes,
    )
    found = list(client_problems(plc, "secret"))
    assert found[0] == f"{plc.url}: trigger = 's=none': BadNodeIdUnknown; check the node id"
    (refused,) = client_problems(plc, "wrong")
    assert refused == f"{plc.url}: BadUserAccessDenied; check url, user and certificate"


def test_without_encryption_a_client_learns_where_to_come_and_nothing_else(loop, other, keys, monkeypatch):
    certificate, key = keys("server")
    server = other(certificate=certificate, private_key=key)
    waits(lambda: server.problem is None)
    # A client of somebody who does not care which endpoints there are.
    monkeypatch.setattr(Client, "find_endpoint", staticmethod(lambda endpoints, mode, policy: endpoints[0]))
    made = Client(f"opc.tcp://127.0.0.1:{server.port}/invad", timeout=20)

    async def read():
        try:
            await made.connect()
            return await made.get_namespace_array()
        finally:
            await made.disconnect()

    with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
        loop.do(read())


def test_of_clients_with_a_certificate_those_come_whose_it_lies_in_the_folder(
    loop, other, keys, tmp_path, caplog
):
    certificate, key = keys("server")
    trusted = tmp_path / "clients"
    files = {"certificate": certificate, "private_key": key, "trusted": str(trusted)}
    server = other(**files)
    waits(
        lambda: server.problem == f"{trusted}: is no folder; make it, and put certificates of clients there"
    )
    trusted.mkdir()
    (trusted / "notes.txt").write_text("of the plant")
    client, client_key = keys("client")

    async def encrypted(made):
        await made.set_security_string(f"Basic256Sha256,SignAndEncrypt,{client},{client_key}")
        await made.connect()

    def connect():
        made = Client(f"opc.tcp://127.0.0.1:{server.port}/invad", timeout=2)
        made.application_uri = "urn:test:client"
        loop.do(encrypted(made))
        loop.do(made.disconnect())

    waits(lambda: server.problem is None)
    with pytest.raises((OSError, ua.UaError, asyncio.TimeoutError)):
        connect()
    assert f"CN=client does not lie in {trusted}; put it there if it may come" in caplog.text
    shutil.copy(client, trusted)
    connect()


def test_a_port_that_is_taken_and_a_certificate_that_expired_are_named(other, keys):
    taken = socket.create_server(("127.0.0.1", 0))
    address = f"opc.tcp://127.0.0.1:{taken.getsockname()[1]}/invad"
    made = other(endpoint=address)
    waits(lambda: made.problem.startswith(f"{address}: Address already in use; choose another endpoint"))
    taken.close()
    waits(lambda: made.problem is None)
    certificate, key = keys("old", end=-1)
    made.change(OpcUa(endpoint=address, certificate=certificate, private_key=key), "")
    waits(lambda: "the certificate expired at" in (made.problem or ""))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"begin": 1, "end": 2}, "the certificate is valid from .* on; set the clock, or make a new one"),
        ({"end": -1}, r"old\.pem: the certificate expired at .* UTC; make a new one"),
    ],
)
def test_a_certificate_of_another_time_is_named(keys, change, words):
    certificate, key = keys("old", **change)
    with pytest.raises(ConfigError, match=words):
        usable_identity(certificate, key)


def test_files_that_are_no_certificate_and_no_key_of_it_are_named(keys, tmp_path):
    certificate, key = keys("fits")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    foreign = tmp_path / "foreign.key"
    foreign.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    for files, words in (
        ((str(tmp_path / "none.pem"), key), r"none\.pem: No such file"),
        ((str(text), key), r"text\.pem: is no certificate in PEM or DER"),
        ((certificate, str(text)), r"text\.pem: is no private key in PEM or DER"),
        ((certificate, str(foreign)), r"foreign\.key: is not the RSA key of .*fits\.pem"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            usable_identity(*files)
        assert "\n" not in str(caught.value)


# The file


STATION = '[[station]]\nname = "a"\nmodel = "m"\n[[station.output]]\nkind = "opcua"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('taken = "read"\n', "taken = 'read': expected one of received, acknowledged, shown"),
        ('decisions = ["bad"]\n', "unknown key 'station.a.output.0.decisions'"),
        ('[opcua]\nendpoint = "http://h:1/"\n', "endpoint = 'http://h:1/': give one such as 'opc.tcp:"),
        ('[opcua]\nendpoint = "opc.tcp://h/invad"\n', "endpoint = 'opc.tcp://h/invad': give one such as"),
        ('[opcua]\nendpoint = "opc.tcp://0.0.0.0:4840/"\n', "can be reached from other machines: give cert"),
        ('[opcua]\ncertificate = "c.pem"\n', "opcua: give both certificate and private_key, or neither"),
        ('[opcua]\ntrusted = "clients"\n', "trusted needs certificate and private_key, and insecure = false"),
        ('[opcua]\nuser = "plc"\n', "opcua: give both user and password_variable, or neither"),
    ],
)
def test_what_a_file_cannot_say_of_opc_ua_is_named(tmp_path, text, words):
    (tmp_path / "line.toml").write_text(STATION + text)
    with pytest.raises(ConfigError, match=words) as caught:
        read_lineup(tmp_path / "line.toml")
    assert "\n" not in str(caught.value)


def test_check_names_what_keeps_the_server_away(tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    opcua = (
        f'[opcua]\nendpoint = "opc.tcp://127.0.0.1:{port}/"\ncertificate = "c.pem"\nprivate_key = "c.key"\n'
        'trusted = "clients"\n'
    )
    (tmp_path / "line.toml").write_text(STATION + opcua)
    _, *found = problems(read_lineup(tmp_path / "line.toml"))  # the model is not there, either
    taken.close()
    said = "Address already in use; choose another endpoint if something else listens there"
    assert found == [
        f"opcua: {tmp_path / 'c.pem'}: No such file or directory; check the path",
        f"opcua: {tmp_path / 'clients'}: is no folder; make it, and put certificates of clients there",
        f"opcua: opc.tcp://127.0.0.1:{port}/: {said}",
    ]


def test_a_plant_starts_and_ends_its_server_with_the_outputs_that_use_it(
    service, loop, tmp_path, monkeypatch
):
    monkeypatch.setattr(Service, "take_models", lambda service, models: None)
    monkeypatch.setenv("INVAD_TEST_PASSWORD", "secret")
    endpoint = '[opcua]\nendpoint = "opc.tcp://127.0.0.1:0/invad"\n'
    user = 'user = "plc"\npassword_variable = "INVAD_TEST_PASSWORD"\n'
    line = tmp_path / "line.toml"
    line.write_text(STATION + endpoint)
    plant = Plant(service, line)
    plant.start()
    server = plant._opcua
    waits(lambda: server.problem is None)
    thread = server._thread
    Plc(loop, server).close()
    line.write_text(STATION + endpoint + user)
    plant.reload()
    waits(lambda: server.problem is None)
    Plc(loop, server, _username="plc", _password="secret").close()
    with pytest.raises(ua.UaStatusCodeError):
        Plc(loop, server)
    line.write_text(STATION[: STATION.index("[[station.output")])
    plant.reload()
    waits(lambda: not thread.is_alive())
    plant.close()
