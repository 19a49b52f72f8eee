"""Services as real processes, reached over real HTTP, with SQLite and with a PostgreSQL server of our own."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

NEEDED = ("fastapi", "uvicorn", "python_multipart", "sqlalchemy", "alembic", "prometheus_client", "httpx")
if any(find_spec(name) is None for name in NEEDED):  # the service is an extra, invad[serve]
    collect_ignore_glob = ["test_*.py"]
else:
    import httpx
    from sqlalchemy import create_engine, text

SRC = Path(__file__).resolve().parents[2] / "src"


class Running:
    """A service that was started. key: None without keys."""

    def __init__(self, command, environment, log, **options):
        self.log = log
        out = log.with_suffix(".out")
        with log.open("wb") as errors, out.open("wb") as output:
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=errors, **options)
        until = time.monotonic() + 240  # on a busy machine
        while "Listening" not in (said := out.read_text()):
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                pytest.fail(said + self.words())
            time.sleep(0.05)
        self.said = said
        self.url = re.search(r"https?://[\w.\[\]:]+\w", said)[0]
        key = re.search(r"inv_\w+", said)
        self.key = key and key[0]

    def words(self):
        return self.log.read_text()

    def http(self, key=None, **options):
        key = key or self.key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def launch():
    """launch(command, environment, log): a service by any command; whoever launches it ends it."""
    return Running


@pytest.fixture(scope="session")
def start(bundle, tmp_path_factory):
    """start(folder, "--option", ...): a service on a free port; all are ended with the tests."""
    started = []
    home = tmp_path_factory.mktemp("home")

    def go(data, *options, model=bundle, **variables):
        command = [sys.executable, "-m", "invad", "serve", model, "--data", data, "--port", "0"]
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        own = {"HOME": str(home), "PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
        settings = [*command, "--threads", "1", "--reserve", "0", *options]
        log = home / f"log-{len(started)}"
        started.append(Running([str(word) for word in settings], {**kept, **own, **variables}, log))
        return started[-1]

    yield go
    for one in started:
        with suppress(OSError):
            one.kill()


@pytest.fixture(scope="module")
def service(start, tmp_path_factory):
    """One service with keys, for tests that do not end it."""
    return start(tmp_path_factory.mktemp("service") / "line")


@pytest.fixture(scope="module")
def http(service):
    with service.http() as client:
        yield client


@contextmanager
def on_a_port(service, **address):
    """The address of a service of this process, on a real port."""
    from invad.serve.running import Address, server_of

    server = server_of(service, Address(**address))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(30)
    listening.close()


@pytest.fixture(scope="session")
def served():
    """served(service, without_keys=...): a context manager that gives its address."""
    return on_a_port


@pytest.fixture(scope="session")
def pictures(write_parts, tmp_path_factory):
    """(good, bad): the bytes of PNG files that no training has seen."""
    folder = tmp_path_factory.mktemp("pictures")
    good = write_parts(folder / "good", 6, first=500)
    bad = write_parts(folder / "bad", 2, first=600, defect=True)
    return [one.path.read_bytes() for one in good], [one.path.read_bytes() for one in bad]


def _programs():
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders and (folders[-1] / "initdb").exists() else None


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The address of a server of our own, without a database name; skipped where none is installed."""
    pytest.importorskip("psycopg", reason="needs invad[postgres]")
    programs = _programs()
    if programs is None:
        pytest.skip("needs a PostgreSQL server, such as Debian's postgresql")
    folder = tmp_path_factory.mktemp("postgres")
    user = {}
    if os.getuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres")
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for parent in folder.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    quiet = {"stdout": subprocess.DEVNULL, "cwd": folder, **user}
    make = [programs / "initdb", "-D", data, "-A", "trust", "-U", "invad", "-E", "UTF8", "--no-sync"]
    subprocess.run(make, check=True, stderr=subprocess.DEVNULL, **quiet)
    # The computer of a test does not lose its power.
    quick = ["-c", "fsync=off", "-c", "full_page_writes=off"]
    where = [*quick, "-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-k", str(folder)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([programs / "postgres", "-D", data, *where], stderr=log, **quiet)
    address = f"postgresql+psycopg://invad@127.0.0.1:{port}"
    engine = create_engine(f"{address}/postgres")
    for _ in range(200):
        try:
            engine.connect().close()
            break
        except Exception:
            time.sleep(0.1)
    engine.dispose()
    yield address
    server.send_signal(signal.SIGINT)
    server.wait(30)


@pytest.fixture
def new_database(postgres):
    """The address of a new, empty PostgreSQL database."""
    return _made_database(postgres)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request):
    """None for SQLite, or the address of a new PostgreSQL database."""
    return None if request.param == "sqlite" else _made_database(request.getfixturevalue("postgres"))


def _made_database(address):
    name = f"test_{time.time_ns()}"
    engine = create_engine(f"{address}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{address}/{name}"


class Broker:
    """A mosquitto of our own on a free port, which may be ended and begun again. lines: of its settings."""

    PROGRAM = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

    def __init__(self, folder, *lines):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder
        folder.mkdir()
        settings = [
            *(f"listener {self.port} 127.0.0.1", "persistence true", f"persistence_location {folder}/"),
            *("autosave_on_changes true", "autosave_interval 1", "max_queued_messages 100000", *lines),
        ]
        if os.getuid() == 0:  # it would become another user, who may not read the files of the tests
            settings.append("user root")
        if not any(line.startswith("password_file") for line in lines):
            settings.append("allow_anonymous true")
        (folder / "conf").write_text("\n".join(settings) + "\n")
        self.start()

    @property
    def url(self):
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self):
        with (self.folder / "log").open("a") as log:
            command = [self.PROGRAM, "-c", str(self.folder / "conf")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)

    def kill(self):
        self.process.kill()
        self.process.wait()


class Subscriber:
    """Writes down (topic, content, retained) of all messages, also of those while its broker was away."""

    def __init__(self, port, topic="#"):
        from paho.mqtt import client as paho
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        self.seen, self.ready = [], threading.Event()
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id="subscriber", protocol=paho.MQTTv5
        )
        self.client.on_connect = lambda client, *rest: client.subscribe(topic, 1)
        self.client.on_subscribe = lambda *rest: self.ready.set()
        self.client.on_message = lambda client, data, one: self.seen.append(
            (one.topic, one.payload, one.retain)
        )
        self.client.reconnect_delay_set(1, 1)
        kept = Properties(PacketTypes.CONNECT)
        kept.SessionExpiryInterval = 3600
        self.client.connect("127.0.0.1", port, clean_start=False, properties=kept)
        self.client.loop_start()
        assert self.ready.wait(60)

    def at(self, end):
        """Contents of messages whose topic ends so."""
        return [content for topic, content, _ in self.seen if topic.endswith(end)]

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path):
    """broker(*lines of its settings): a Broker; skipped where there is none."""
    pytest.importorskip("paho.mqtt", reason="needs invad[line]")
    if Broker.PROGRAM is None:
        pytest.skip("needs a broker, Debian's mosquitto")
    started = []

    def make(*lines):
        started.append(Broker(tmp_path / f"broker-{len(started)}", *lines))
        return started[-1]

    yield make
    for one in started:
        one.kill()


@pytest.fixture
def subscriber():
    """subscriber(port): a Subscriber."""
    started = []

    def make(port, topic="#"):
        started.append(Subscriber(port, topic))
        return started[-1]

    yield make
    for one in started:
        one.close()
