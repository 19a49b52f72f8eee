"""What was accepted is stored: when the process is killed, told to end, or asked for too much."""

import hashlib
import hmac
import io
import json
import random
import re
import shutil
import signal
import socket
import sqlite3
import threading
import time
import zipfile
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from bundles import altered, zipped
from greys import Greys, png
from invad.errors import DataError
from invad.serve import Options, Service
from invad.serve.listening import Address, open_port
from invad.serve.store.backup import check
from invad.serve.store.database import FILE
from waiting import waits

INSPECT = "/api/v1/stations/default/inspect"


class Load(threading.Thread):
    """Sends parts under names of their own until told to end; `accepted` has the answers by name."""

    def __init__(self, service, pictures, number):
        super().__init__(daemon=True)
        self.service, self.pictures, self.number = service, pictures, number
        self.accepted, self.refused, self.lost, self.slowest = {}, [], [], 0.0
        self.ending = threading.Event()

    def run(self):
        with self.service.http() as client:
            count = 0
            while not self.ending.is_set() and self.send(client, count):
                count += 1

    def send(self, client, count):
        """Whether there was an answer."""
        name = f"{self.number}-{count}"
        started = time.monotonic()
        try:
            answer = client.post(
                INSPECT,
                content=self.pictures[count % len(self.pictures)],
                params={"request_id": name},
                headers={"Content-Type": "image/png"},
            )
        except httpx.TransportError:
            self.lost.append((name, count))
            return False
        self.slowest = max(self.slowest, time.monotonic() - started)
        if answer.status_code == 200:
            self.accepted[name] = answer.json()
        else:
            assert answer.status_code == 503, answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]
            self.refused.append((name, count))
        return True


def load(service, pictures, threads, name=""):
    running = [Load(service, pictures, f"{name}{i}") for i in range(threads)]
    for one in running:
        one.start()
    return running


def history(service):
    with service.http() as http:
        found, cursor = [], {}
        while True:
            page = http.get("/api/v1/results", params={"limit": 1000, **cursor}).json()
            found += page["results"]
            if page["next"] is None:
                return found
            cursor = {"cursor": page["next"]}


@contextmanager
def nothing_can_be_stored(data, database_url):
    """Until the end of the block writes wait, as behind another program's; nothing times out so soon."""
    if database_url:
        engine = create_engine(database_url)
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE result IN EXCLUSIVE MODE"))
            yield
        engine.dispose()
        return
    connection = sqlite3.connect(data / FILE, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.close()


def test_nothing_accepted_is_lost_when_the_process_is_killed(start, pictures, tmp_path, database_url):
    """Once at any moment, once while parts wait to be stored: an answer that came before would be seen."""
    data, accepted = tmp_path / "line", {}
    options = ["--database", database_url] if database_url else []
    key = None
    chance = random.Random(0)
    for round in range(2):
        service = start(data, *options)
        key = service.key = service.key or key
        running = load(service, pictures[0], 4, f"{round}-")
        waits(lambda running=running: sum(len(one.accepted) for one in running) >= 5)
        time.sleep(chance.random())
        with nothing_can_be_stored(data, database_url) if round else nullcontext():
            if round:
                time.sleep(1.5)
            service.kill()
        for one in running:
            one.join(60)
            accepted |= one.accepted
    service = start(data, *options)
    service.key = key
    found = history(service)
    stored = {one["request_id"]: one for one in found}
    assert len(accepted) > 8
    assert {name: stored.get(name) for name in accepted} == accepted
    waited = {name for one in running for name, _ in one.lost}
    assert len(waited) == len(running)
    assert not waited & set(stored)
    assert len(stored) == len(found)
    assert len({one["id"] for one in found}) == len(found)
    # what was lost on the way is sent again, and is there once
    with service.http() as http:
        for name, count in [lost for one in running for lost in one.lost]:
            answer = http.post(
                INSPECT,
                content=pictures[0][count % len(pictures[0])],
                params={"request_id": name},
                headers={"Content-Type": "image/png"},
            ).json()
            assert answer["id"] == stored.get(name, answer)["id"]
    assert service.stop() == 0
    seen = check(data, database_url)
    assert (seen.damaged, seen.lost) == ((), ())


def test_what_was_activated_judges_after_a_kill(start, bundle, pictures, tmp_path):
    data = tmp_path / "line"
    service = start(data)
    with service.http() as http:
        path = f"/api/v1/models/{bundle.name}/versions"
        content = zipped(altered(bundle, tmp_path / "next"))
        made = http.post(path, content=content, headers={"Content-Type": "application/zip"}).json()
        there = f"{path}/{made['hash']}"
        assert http.post(f"{there}:activate", json={"reason": "a trial"}).json()["state"] == "active"
    service.kill()
    again = start(data)
    again.key = service.key
    with again.http() as http:
        answer = http.post(INSPECT, files={"image": pictures[0][0]}).json()
        assert answer["model_version"] == made["hash"]
        back = http.post("/api/v1/stations/default/version:rollback", json={}).json()
        assert http.post(INSPECT, files={"image": pictures[0][0]}).json()["model_version"] == back["hash"]


def test_sigterm_answers_what_was_taken_and_ends_in_time(start, pictures, tmp_path):
    service = start(tmp_path / "line")
    running = load(service, pictures[0], 6)
    waits(lambda: any(one.accepted for one in running))
    started = time.monotonic()
    assert service.stop() == 0
    assert time.monotonic() - started < 20
    accepted = {}
    for one in running:
        one.join(60)
        accepted |= one.accepted
    again = start(tmp_path / "line")
    again.key = service.key
    stored = {one["request_id"]: one for one in history(again)}
    assert accepted
    assert stored == accepted  # and nothing was stored whose answer did not come
    lines = [json.loads(line) for line in service.words().splitlines()]
    assert not [line for line in lines if line["level"] == "error"]


def test_a_full_line_tells_everybody_and_stores_what_it_took(start, pictures, tmp_path):
    service = start(tmp_path / "line", "--queue", "1")
    running = load(service, pictures[0], 6)
    waits(lambda: all(any(getattr(one, seen) for one in running) for seen in ("accepted", "refused")))
    for one in running:
        one.ending.set()
    for one in running:
        one.join(60)
    accepted = {name for one in running for name in one.accepted}
    assert accepted
    assert [name for one in running for name, _ in one.refused]
    assert not [one.lost for one in running if one.lost]
    assert {one["request_id"] for one in history(service)} == accepted
    with service.http() as http:
        assert 'invad_rejected_total{reason="full"}' in http.get("/metrics").text


@contextmanager
def ending_after(seconds):
    """What begins to serve in this thread, and should not, fails its test and no other."""

    def end(*signalled):
        raise AssertionError("it began to serve")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_two_services_share_neither_folder_nor_port(bundle, tmp_path):
    from typer.testing import CliRunner

    from invad.cli.app import app

    with (
        Service(Greys(), tmp_path / "line", options=Options(reserve=0)) as service,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        for data, port, words in (
            ("line", 0, "another service is writing here"),
            ("b", taken.getsockname()[1], "choose another with --port"),
        ):
            command = ["serve", bundle, "--data", tmp_path / data, "--port", port, "--no-auth"]
            with ending_after(120):
                done = CliRunner().invoke(app, [str(word) for word in command])
            assert done.exit_code == 1
            assert words in done.output.splitlines()[-1]
            assert "Traceback" not in done.output
        assert service.inspect(png(5)).score == 5
    elsewhere = "192.0.2.1"  # of a net for documentation, which no machine has
    with pytest.raises(DataError, match=f"{elsewhere} is no address of this machine: give one of its own"):
        open_port(Address(host=elsewhere, port=0))


def test_it_runs_from_the_runtime_alone_without_torch(start, pictures, tmp_path):
    """From the files that the wheel of invad-runtime is made of, where torch and timm cannot be imported."""
    root = Path(__file__).resolve().parents[2] / "runtime"
    listed = re.findall(r'^"(.+?)" = "(invad/.+)"$', (root / "pyproject.toml").read_text(), re.MULTILINE)
    for source, target in listed:
        to = tmp_path / "wheel" / target
        to.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (root / source).is_dir() else shutil.copy2)(root / source, to)
    for blocked in ("torch", "torchvision", "timm", "safetensors"):
        (tmp_path / "wheel" / f"{blocked}.py").write_text(f"raise ImportError('{blocked} is blocked')")
    service = start(tmp_path / "line", PYTHONPATH=str(tmp_path / "wheel"))
    with service.http() as http:
        answer = http.post(INSPECT, files={"image": pictures[1][0]}).json()
        assert answer["decision"] == "bad"
        assert http.get(f"/api/v1/results/{answer['id']}/overlay").status_code == 200
        for page in ("/docs", "/", f"/parts/{answer['id']}", "/static/vendor/hashes.json"):
            assert http.get(page, headers={"Accept": "text/html"}).status_code == 200
        trained = io.BytesIO()
        with zipfile.ZipFile(trained, "w") as archive:
            archive.writestr("config.json", '{"files": {}}')
        refused = http.post("/api/v1/models/trained/versions", content=trained.getvalue())
        assert (refused.status_code, "needs PyTorch" in refused.json()["error"]) == (400, True)
    with open(f"/proc/{service.process.pid}/status") as status:  # noqa: PTH123
        resident_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    assert resident_kb < 350 * 1024


class Receiver(BaseHTTPRequestHandler):
    """A webhook; fails the first two deliveries."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((dict(self.headers), body))
        self.send_response(500 if len(self.server.seen) <= 2 else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.seen = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_every_result_is_delivered_at_least_once_also_after_a_kill(start, pictures, tmp_path, receiver):
    address = f"http://127.0.0.1:{receiver.server_port}/results"
    options = ("--webhook", "http://127.0.0.1:1/nobody")
    service = start(tmp_path / "line", *options, INVAD_WEBHOOK_SECRET="shared")
    sent = []
    with service.http() as http:
        for picture in pictures[0][:3]:
            sent.append(http.post(INSPECT, files={"image": picture}).json())
        assert "invad_outbox_pending" in http.get("/metrics").text
    service.kill()
    again = start(tmp_path / "line", "--webhook", address, INVAD_WEBHOOK_SECRET="shared")
    until = time.monotonic() + 120
    while len({headers["X-Invad-Id"] for headers, _ in receiver.seen[2:]}) < 3:
        assert time.monotonic() < until, (receiver.seen, again.words())
        time.sleep(0.1)
    taken = {headers["X-Invad-Id"]: (headers, body) for headers, body in receiver.seen[2:]}
    assert [json.loads(taken[one["id"]][1]) for one in sent] == sent
    headers, body = taken[sent[0]["id"]]
    seconds, digest = (part.partition("=")[2] for part in headers["X-Invad-Signature"].split(","))
    assert abs(int(seconds) - time.time()) < 60
    assert hmac.new(b"shared", seconds.encode() + b"." + body, hashlib.sha256).hexdigest() == digest


def test_a_signal_that_comes_at_once_is_answered_as_any_other(start, tmp_path):
    service = start(tmp_path / "line")
    assert service.stop() == 0  # the address was said, so whoever waited for it may end it
