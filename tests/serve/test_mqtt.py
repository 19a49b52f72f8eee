"""Results as messages: a real broker that is there, away, silent, or does not want us."""

import json
import socket
import subprocess
import threading
from contextlib import suppress
from datetime import datetime, timedelta, timezone

import pytest

from greys import Greys, png
from invad.errors import ConfigError
from invad.serve import Options, Service
from invad.serve.payload import schema
from invad.serve.plant import making
from invad.serve.plant.lineup import Station
from invad.serve.plant.outputs import MqttOutput
from waiting import waits

pytest.importorskip("paho.mqtt", reason="needs invad[line]")
STATION = "press-1"
refused_handshake = pytest.mark.filterwarnings(  # paho leaves the socket to the garbage collector
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def service(tmp_path):
    with Service({STATION: Greys()}, tmp_path / "line", options=Options(reserve=0)) as service:
        yield service


def told(service, url, **keys):
    """The service tells a broker from now on; returns a function that gives the state of that."""
    output = MqttOutput(kind="mqtt", url=url, **keys)
    station = Station(name=STATION, model="m", output=(output,))
    sink = making.made_sink(STATION, output, service)
    service.deliveries.add(making.route(station, output), sink)
    return lambda: service.deliveries.states(STATION)[f"{STATION}/mqtt"]


def inspect(service, *names, level=5):
    return [service.inspect(png(level), station=STATION, part_id=name) for name in names]


def parts(subscriber):
    """Of the messages, in their order, each named once."""
    return list(dict.fromkeys(json.loads(one)["part_id"] for one in subscriber.at("/result")))


def test_a_result_is_a_message_by_the_published_schema(service, broker, subscriber):
    validate = pytest.importorskip("jsonschema").validate
    running = broker()
    reader = subscriber(running.port)
    state = told(service, running.url, site="hall-2", address="https://line.example/")
    (record,) = inspect(service, "one", level=255)
    waits(lambda: reader.at("invad/hall-2/press-1/result"))
    (body,) = (json.loads(one) for one in reader.at("/result"))
    validate(body, schema())
    assert body.pop("image_url") == f"https://line.example/api/v1/results/{record.id}/image"
    assert body == record.plain()
    assert set(schema()["properties"]) == {*body, "image_url"}
    assert [retained for topic, _, retained in reader.seen if topic.endswith("/result")] == [False]
    waits(lambda: state().delivered == 1)
    assert state().place == f"{running.url} invad/hall-2/press-1"


def test_the_schema_refuses_what_is_no_result():
    jsonschema = pytest.importorskip("jsonschema")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema": 1, "id": "x"}, schema())


def test_what_is_retained_says_how_the_station_fares(service, broker, subscriber):
    running = broker()
    telling = told(service, running.url)
    inspect(service, "one")
    waits(lambda: telling().delivered == 1)
    reader = subscriber(running.port)  # comes later, and learns it all the same
    waits(lambda: reader.at("/state") and reader.at("/drift") and reader.at("/online"))
    assert {topic.rpartition("/")[2] for topic, _, retained in reader.seen if retained} == {
        "state",
        "drift",
        "online",
    }
    state = json.loads(reader.at("/state")[-1])
    assert (state["station"], state["model_version"], state["source"]) == (STATION, "0" * 64, None)
    assert state["calibrations"][0] == {"category": None, "revision": 1}
    assert state["outputs"][f"{STATION}/mqtt"]["problem"] is None
    assert json.loads(reader.at("/drift")[-1])["drift"][0]["phase"] == "commissioning"
    assert reader.at("/online") == [b"online"]
    before = len(reader.at("/state"))
    service.deliveries.add(making.Route(name="other", station=STATION), Nothing())
    waits(lambda: len(reader.at("/state")) > before)
    assert "other" in json.loads(reader.at("/state")[-1])["outputs"]
    service.deliveries.close()
    waits(lambda: reader.at("/online")[-1] == b"offline")


class Nothing(making.Sink):
    kind, place = "nothing", "nowhere"

    def deliver(self, results):
        yield from (one.id for one in results)


def test_a_service_that_leaves_its_turn_to_another_does_not_say_offline(broker, subscriber):
    running = broker()
    reader = subscriber(running.port)
    output = MqttOutput(kind="mqtt", url=running.url)
    first, second = (making.made_sink(STATION, output) for _ in range(2))
    first.idle()
    first.rest()
    second.idle()
    waits(lambda: len(reader.at("/online")) == 2)
    first.close()
    second.idle()  # its connection is still there
    assert reader.at("/online") == [b"online", b"online"]
    second.close()
    waits(lambda: reader.at("/online")[-1] == b"offline")


def test_a_lost_connection_is_told_by_the_broker(service, broker, subscriber):
    running = broker()
    reader = subscriber(running.port)
    state = told(service, running.url)
    waits(lambda: reader.at("/online") == [b"online"])
    sink = service.deliveries._running[f"{STATION}/mqtt"].sink
    sink._open._client.socket().shutdown(socket.SHUT_RDWR)
    waits(lambda: b"offline" in reader.at("/online"))
    waits(lambda: reader.at("/online")[-1] == b"online")  # it is back by itself
    waits(lambda: state().problem is None)


def test_a_broker_that_is_down_at_the_start_and_killed_under_load_gets_all_in_order(
    service, broker, subscriber
):
    running = broker()
    reader = subscriber(running.port)
    running.kill()
    state = told(service, running.url)
    inspect(service, "0", "1")
    waits(lambda: state().problem is not None)
    assert state().problem == (
        f"{running.url}: Connection refused; check the address, and whether the broker runs"
    )
    assert state().waiting == 2
    running.start()
    waits(lambda: parts(reader) == ["0", "1"])
    done = []

    def load():
        for number in range(2, 60):
            done.append(inspect(service, str(number))[0].part_id)

    loading = threading.Thread(target=load)
    loading.start()
    waits(lambda: len(done) > 15)
    running.kill()
    waits(lambda: state().problem is not None)
    running.start()
    loading.join()
    waits(lambda: state().waiting == 0)
    waits(lambda: len(parts(reader)) == 60)
    assert parts(reader) == [str(number) for number in range(60)]
    assert reader.at("/online")[-1] == b"online"


class Silent:
    """Accepts connections. acknowledges: says yes to the first packet of each, and nothing after."""

    def __init__(self, acknowledges):
        self.acknowledges, self.taken = acknowledges, []
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                one, _ = self.listening.accept()
            except OSError:
                return
            self.taken.append(one)
            if self.acknowledges:
                with suppress(OSError):
                    one.recv(4096)
                    one.sendall(b"\x20\x03\x00\x00\x00")

    def close(self):
        self.listening.close()
        for one in self.taken:
            one.close()


@pytest.mark.parametrize("acknowledges", [False, True])
def test_a_broker_that_acknowledges_nothing_is_named(service, monkeypatch, acknowledges):
    monkeypatch.setattr("invad.serve.plant.sinks.mqtt.SECONDS", 0.3)
    silent = Silent(acknowledges)
    state = told(service, f"mqtt://127.0.0.1:{silent.port}")
    inspect(service, "one")
    waits(lambda: state().problem is not None)
    assert state().problem == (
        f"mqtt://127.0.0.1:{silent.port}: is there and acknowledges nothing for 0.3 s; restart the broker"
    )
    assert (state().waiting, state().delivered) == (1, 0)
    service.deliveries.close()
    silent.close()


@pytest.fixture
def passwords(tmp_path):
    """The setting of a broker that lets in invad with the password right alone."""
    path = tmp_path / "passwords"
    program = pytest.importorskip("shutil").which("mosquitto_passwd")
    if program is None:
        pytest.skip("needs mosquitto_passwd")
    subprocess.run([program, "-b", "-c", path, "invad", "right"], check=True, capture_output=True)
    path.chmod(0o644)
    return f"password_file {path}"


def test_a_wrong_password_is_one_line(service, broker, passwords, subscriber, monkeypatch):
    running = broker(passwords)
    monkeypatch.setenv("THE_PASSWORD", "wrong")
    keys = {"user": "invad", "password_variable": "THE_PASSWORD"}
    state = told(service, running.url, **keys)
    waits(lambda: state().problem is not None)
    assert state().problem == (
        f"{running.url}: Not authorized; check user invad and THE_PASSWORD, and what the broker allows there"
    )
    output = MqttOutput(kind="mqtt", url=running.url, **keys)
    assert list(making.made_sink(STATION, output).problems()) == [state().problem]
    monkeypatch.setenv("THE_PASSWORD", "right")
    assert list(making.made_sink(STATION, output).problems()) == []


def test_a_message_that_the_broker_acknowledges_and_refuses_is_not_delivered(service, broker, tmp_path):
    rules = tmp_path / "rules"
    rules.write_text("topic write invad/plant/press-1/state\n")
    rules.chmod(0o644)
    running = broker(f"acl_file {rules}")
    state = told(service, running.url)
    inspect(service, "one")
    waits(lambda: state().problem is not None)
    assert state().problem == (
        f"{running.url}: does not take invad/plant/press-1/result: Not authorized; check user, and what the "
        "broker allows there"
    )
    assert (state().waiting, state().delivered) == (1, 0)


def test_a_message_that_is_too_large_holds_up_no_other(service, broker, subscriber):
    running = broker("max_packet_size 2000")
    reader = subscriber(running.port)
    state = told(service, running.url, address="https://line.example/" + 900 * "x")
    inspect(service, 200 * "p", "b")
    waits(lambda: state().waiting == 1)
    waits(lambda: parts(reader) == ["b"])
    assert state().problem is None


def certificates(folder, *, days):
    """(authority, certificate, key) of 127.0.0.1, good until in so many days."""
    pytest.importorskip("cryptography")
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    def name(text):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(timezone.utc)
    signing, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def made(subject, key, end, extension):
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=end))
            .add_extension(extension, critical=False)
            .sign(signing, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )

    files = {
        "authority": made("authority", signing, 30, x509.BasicConstraints(ca=True, path_length=None)),
        "certificate": made(
            "127.0.0.1", own, days, x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        ),
        "key": own.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    }
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)
        (folder / file).chmod(0o644)
    return [folder / file for file in files]


@refused_handshake
@pytest.mark.parametrize(("days", "problem"), [(30, None), (-1, "certificate has expired")])
def test_an_encrypted_broker_and_one_whose_certificate_expired(service, broker, tmp_path, days, problem):
    authority, certificate, key = certificates(tmp_path / "tls", days=days)
    running = broker(f"certfile {certificate}", f"keyfile {key}")
    url = f"mqtts://127.0.0.1:{running.port}"
    state = told(service, url, ca_file=str(authority))
    inspect(service, "one")
    if problem is None:
        waits(lambda: state().delivered == 1)
        return
    waits(lambda: state().problem is not None)
    assert state().problem == (
        f"{url}: its certificate is not accepted ({problem}); renew it, or check ca_file"
    )
    assert state().waiting == 1


@refused_handshake
def test_a_broker_that_asks_for_a_certificate_gets_ours(service, broker, tmp_path):
    authority, certificate, key = certificates(tmp_path / "tls", days=30)
    _, expired, its_key = certificates(tmp_path / "old", days=-1)
    running = broker(
        f"certfile {certificate}", f"keyfile {key}", f"cafile {authority}", "require_certificate true"
    )
    url = f"mqtts://127.0.0.1:{running.port}"
    state = told(service, url, ca_file=str(authority), certificate=str(certificate), private_key=str(key))
    inspect(service, "one")
    waits(lambda: state().delivered == 1)

    def said(**keys):
        output = MqttOutput(kind="mqtt", url=url, ca_file=str(authority), **keys)
        (line,) = making.made_sink(STATION, output).problems()
        return line

    assert said().startswith(f"{url}: the connection was ")
    assert said().endswith("does it ask for a certificate, or for another one?")
    assert f"{expired}: the certificate expired at " in said(
        certificate=str(expired), private_key=str(its_key)
    )
    assert f"{its_key}: is not the key of {certificate}" in said(
        certificate=str(certificate), private_key=str(its_key)
    )
    none = str(tmp_path / "none")
    assert said(certificate=none, private_key=none) == f"{none}: No such file or directory; check the path"


@refused_handshake
def test_a_certificate_that_nobody_vouches_for_and_a_file_that_is_none(service, broker, tmp_path):
    _, certificate, key = certificates(tmp_path / "tls", days=30)
    running = broker(f"certfile {certificate}", f"keyfile {key}")
    url = f"mqtts://127.0.0.1:{running.port}"

    def said(**keys):
        output = MqttOutput(kind="mqtt", url=url, **keys)
        (line,) = making.made_sink(STATION, output).problems()
        return line

    assert "its certificate is not accepted (unable to get local issuer certificate)" in said()
    assert said(ca_file=str(key)).endswith("key: holds no certificate in PEM form; check ca_file")
    assert said(ca_file=str(tmp_path / "none")).endswith("none: No such file or directory; check the path")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "broker"}, "address 'broker': give one that begins with mqtt:// or mqtts://"),
        ({"url": "mqtt://a:99999"}, "give one that begins with mqtt://"),
        ({"url": "mqtt://me:secret@a"}, "^url: give user and password_variable"),
        ({"url": "mqtt://a/topic"}, "give mqtt://HOST:PORT alone"),
        ({"url": "mqtt://a", "ca_file": "ca.pem"}, "is not encrypted; give mqtts://"),
        (
            {"url": "mqtt://a", "certificate": "a", "private_key": "b"},
            "certificate: mqtt://a is not encrypted",
        ),
        ({"url": "mqtts://a", "private_key": "b"}, "give both certificate and private_key"),
        ({"url": "mqtt://a", "password_variable": "X"}, "give a user, too"),
        ({"url": "mqtt://a", "site": "a/b"}, "site = 'a/b'"),
        ({"url": "mqtt://a", "prefix": "a/#"}, "prefix = 'a/#'"),
        ({"url": "mqtt://a", "address": "line"}, "address 'line': give one that begins with http"),
    ],
)
def test_what_an_output_cannot_say_is_named(keys, words):
    with pytest.raises(ConfigError, match=words):
        MqttOutput(kind="mqtt", **keys)


def test_the_ports_are_those_of_the_protocol():
    assert [MqttOutput(kind="mqtt", url=url).port for url in ("mqtt://a", "mqtts://a", "mqtt://a:7")] == [
        1883,
        8883,
        7,
    ]
