"""The clients: Python's, and the verbs of the command line."""

import json
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from invad import runtime
from invad.cli.app import app
from invad.errors import ConfigError, DataError
from invad.serve import Client, Refused

INSPECT = "/api/v1/stations/default/inspect"


@pytest.fixture(scope="module")
def run():
    def call(*arguments, **variables):
        return CliRunner().invoke(app, [str(word) for word in arguments], env=variables)

    return call


@pytest.fixture
def client(service):
    with Client(service.url, key=service.key) as client:
        yield client


def test_it_says_what_the_service_says(client, http, pictures, tmp_path):
    path = tmp_path / "part.png"
    path.write_bytes(pictures[1][0])
    found = client.inspect(path, part_id="7")
    assert found.plain() == http.get(f"/api/v1/results/{found.id}").json()
    assert client.result(found.id) == found
    assert client.file(found.id, "image") == pictures[1][0]
    pixels = np.asarray(Image.open(path))
    assert client.inspect(pixels).score == found.score
    made = [client.inspect(body, lot="pages").id for body in pictures[0][:5]]
    assert [one.id for one in client.results(lot="pages", limit=2)] == made[::-1]
    assert client.is_ready()
    assert [one["name"] for one in client.stations()] == ["default"]
    with pytest.raises(Refused) as caught:
        client.result("none")
    assert caught.value.status == 404
    with pytest.raises(Refused, match="none of the formats"):
        client.inspect(b"no picture")


def test_its_key_comes_from_the_environment(service, pictures, monkeypatch):
    monkeypatch.setenv("INVAD_KEY", service.key)
    with Client(service.url) as client:
        assert client.inspect(pictures[0][0]).decision
    monkeypatch.delenv("INVAD_KEY")
    with Client(service.url) as client, pytest.raises(Refused) as caught:
        client.inspect(pictures[0][0])
    assert caught.value.status == 401


class Trouble(BaseHTTPRequestHandler):
    """Full at first, then cuts the connection, then hands the request on to a service."""

    def do_POST(self):
        self.server.seen.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(self.server.seen) == 1:
            content, status = b'{"error": "3 parts wait already; send it again"}', 503
        elif len(self.server.seen) == 2:
            return
        else:
            kind = {"Content-Type": self.headers["Content-Type"]}
            answer = self.server.http.post(self.path, content=body, headers=kind)
            content, status = answer.content, answer.status_code
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def trouble(http):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Trouble)
    server.seen, server.http = [], http
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_it_sends_again_under_one_name_what_was_refused_or_lost(trouble, http, pictures):
    with Client(f"http://127.0.0.1:{trouble.server_port}", key="") as client:
        found = client.inspect(pictures[0][0])
    assert len(trouble.seen) == 3
    assert len(set(trouble.seen)) == 1
    assert found.request_id
    assert found.request_id in trouble.seen[0]
    trouble.seen.clear()
    address = f"http://127.0.0.1:{trouble.server_port}"
    with Client(address, key="", patience=0) as client, pytest.raises(Refused, match="wait already"):
        client.inspect(pictures[0][0])


def test_a_service_that_is_not_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with Client(address, patience=0.1) as client:
        assert not client.is_ready()
        with pytest.raises(DataError, match="is the service started") as caught:
            client.inspect(b"x")
    assert "\n" not in str(caught.value)
    for address in ("http://127.0.0.1:1:2", "localhost:8000", "station"):
        with pytest.raises(ConfigError, match="is no address"):
            Client(address)


# ---------------------------------------------------------------------- invad predict --server


def test_predict_by_a_service_says_what_predict_says(service, run, bundle, pictures, tmp_path):
    folder = tmp_path / "incoming"
    folder.mkdir()
    for number, body in enumerate([*pictures[0][:2], *pictures[1], b"no picture"]):
        (folder / f"{number}.png").write_bytes(body)
    options = ("--json", tmp_path / "rows.json", "--csv", tmp_path / "rows.csv", "--fail-on", "bad")
    done = run("predict", "--server", service.url, folder, *options, INVAD_KEY=service.key)
    assert done.exit_code == 3, done.output
    told = json.loads((tmp_path / "rows.json").read_text())
    assert (told["server"], told["station"]) == (service.url, "default")
    detector = runtime.load(bundle, threads=1)
    *judged, unread = told["images"]
    for row in judged:
        alone = detector.predict(row["path"])
        assert (row["score"], row["p_value"], row["decision"]) == (alone.score, alone.p_value, alone.decision)
    assert unread["decision"] is None
    assert unread["error"].startswith(f"{folder / '4.png'}: none of the formats")
    assert "5 images: " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "key", "status", "words"),
    [
        (["--server", "URL", "IMAGE"], "", 1, "send a key"),
        (["--server", "URL", "IMAGE", "--station", "none"], None, 1, "no station 'none'"),
        (["--server", "URL", "IMAGE", "--category", "none"], None, 1, "no category 'none'"),
        (["--server", "URL", "IMAGE", "--batch", "2"], None, 2, "do not go with --server"),
        (["MODEL"], None, 2, "give images or folders after MODEL"),
    ],
)
def test_predict_by_a_service_that_does_not(arguments, key, status, words, service, run, pictures, tmp_path):
    (tmp_path / "a.png").write_bytes(pictures[0][0])
    names = {"URL": service.url, "IMAGE": tmp_path / "a.png", "MODEL": tmp_path}
    given = [names.get(word, word) for word in arguments]
    done = run("predict", *given, INVAD_KEY=service.key if key is None else key)
    assert (done.exit_code, words in " ".join(done.stderr.split())) == (status, True), done.output
    assert "Traceback" not in done.stderr


def test_the_example_of_a_station_moves_each_picture_by_its_decision(service, pictures, bundle, tmp_path):
    for number, body in enumerate([*pictures[0][:2], pictures[1][0], b"no picture"]):
        (tmp_path / f"{number}.png").write_bytes(body)
    script = Path(__file__).resolve().parents[2] / "examples" / "python" / "station.py"
    done = subprocess.run(
        [sys.executable, script, tmp_path, "--server", service.url, "--once"],
        env={"INVAD_KEY": service.key},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    detector = runtime.load(bundle, threads=1)
    moved = {path.name: path.parent.name for path in tmp_path.glob("*/*.png")}
    bodies = [*pictures[0][:2], pictures[1][0]]
    expected = {f"{number}.png": detector.predict(body).decision for number, body in enumerate(bodies)}
    assert moved == {**expected, "3.png": "unreadable"}
    assert done.stdout.splitlines()[-1].startswith("3.png unreadable the image: none of the formats")


# ---------------------------------------------------------------------- invad serve


def test_backup_check_and_restore_by_the_command_line(start, run, pictures, tmp_path):
    service = start(tmp_path / "line")
    with Client(service.url, key=service.key) as client:
        found = [client.inspect(body) for body in pictures[0][:3]]
        done = run("serve", "backup", "--data", tmp_path / "line", "--output", tmp_path / "copy")
        assert (done.exit_code, "3 results, 6 files" in done.stdout) == (0, True), done.output
        client.inspect(pictures[1][0])
        made = run("serve", "key", "--data", tmp_path / "line", "--scopes", "read", "--json", "-")
        with Client(service.url, key=json.loads(made.stdout)["key"]) as reader:
            assert len(list(reader.results())) == 4
        done = run("serve", "check", "--data", tmp_path / "line")
        assert (done.exit_code, "another service is writing here" in done.stderr) == (1, True)
    assert service.stop() == 0
    done = run("serve", "restore", tmp_path / "copy", "--data", tmp_path / "again")
    assert done.exit_code == 0, done.output
    done = run("serve", "check", "--data", tmp_path / "again", "--json", "-")
    assert json.loads(done.stdout)["results"] == 3
    again = start(tmp_path / "again")
    assert again.key is None  # the keys came back, too
    with Client(again.url, key=service.key) as client:
        assert list(client.results()) == found[::-1]
        assert client.file(found[0].id, "image") == pictures[0][0]
    again.stop()
    next((tmp_path / "again" / "files" / "image").glob("*/*")).unlink()
    done = run("serve", "check", "--data", tmp_path / "again")
    assert (done.exit_code, "is lost" in done.stdout, "1 lost" in done.stderr) == (1, True, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--no-auth", "--host", "0.0.0.0"], "listens on 127.0.0.1 alone"),
        (["--tls-certificate", "x"], "TLS needs two files"),
        (["--prefix", "x/"], "begin with a slash"),
        (["--webhook", "ftp://x"], "begins with https://"),
        (["--keep-good", "9", "--keep-rows", "8"], "keep rows at least as long"),
        (["--database", "mysql://x/y"], "postgresql+psycopg://USER@HOST/NAME"),
    ],
)
def test_impossible_options_are_one_line(options, words, run, bundle, tmp_path):
    done = run("serve", bundle, "--data", tmp_path / "line", *options)
    assert (done.exit_code, words in done.stderr) == (2, True), done.output
    assert done.stderr.count("\n") == 1


def test_folders_that_are_no_model_or_no_data(run, bundle, tmp_path):
    done = run("serve", tmp_path, "--data", tmp_path / "line")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    (tmp_path / "file").write_text("")
    done = run("serve", bundle, "--data", tmp_path / "file")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1), done.output
    done = run("serve", "backup", "--data", tmp_path, "--output", tmp_path / "copy")
    assert "holds no invad.db" in done.stderr


def test_a_model_folder_serves_as_its_bundle_does(start, two_categories, draw, tmp_path):
    """With torch, for trials: what was trained needs no export."""
    two_categories.save(tmp_path / "model")
    service = start(tmp_path / "line", model=tmp_path / "model")
    Image.fromarray(draw(900, defect=True)).save(tmp_path / "a.png")
    with Client(service.url, key=service.key) as client:
        found = client.inspect(tmp_path / "a.png", category="part")
    expected = two_categories.predict(tmp_path / "a.png", category="part")
    assert (found.score, found.p_value, found.decision) == (
        pytest.approx(expected.score, rel=1e-5),
        expected.p_value,
        expected.decision,
    )
    assert service.stop() == 0


def test_https_and_a_path_of_a_proxy(start, pictures, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, to make a certificate")
    words = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    )
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    tls = ("--tls-certificate", certificate, "--tls-key", key)
    service = start(tmp_path / "line", *tls, "--prefix", "/line-1")
    assert service.url.startswith("https://")
    with service.http(verify=ssl.create_default_context(cafile=certificate)) as http:
        # a proxy may take its prefix away, or pass it on
        for prefix in ("", "/line-1"):
            answer = http.post(f"{prefix}{INSPECT}?map=url", files={"image": pictures[0][0]})
            assert answer.json()["map"].startswith("/line-1/api/v1/results/")
        assert 'href="/line-1/static/reference.css?' in http.get("/docs").text
