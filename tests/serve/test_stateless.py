"""A runtime that keeps nothing: Triton's client against a real process, and what a start refuses."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from greys import Greys, png
from invad import runtime
from invad.cli.app import app
from invad.errors import ConfigError
from invad.serve.listening import Address, server_for
from invad.serve.models import Loaded
from invad.serve.options import Options
from invad.serve.records import Refused
from invad.serve.stateless import Runtime, application
from invad.serve.web.keyfile import KeyFile

SRC = Path(__file__).resolve().parents[2] / "src"
KEY, OTHER = "k" * 20, "another key of the cluster"


def tensor(values, datatype, name="image"):
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=True)
    return made


def texts(*items):
    return np.array(items, dtype=object)


def files_below(*folders):
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@pytest.fixture
def process(bundle, tmp_path):
    """process("--option", ...): (address, the process, folders it could write to, what systemd heard)."""
    started = []
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(tmp_path / "notify"))
    notify.settimeout(60)

    def go(*options):
        folders = [tmp_path / name for name in ("home", "here", "tmp")]
        for folder in folders:
            folder.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(folders[0]), "TMPDIR": str(folders[2])}
        environment |= {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        command = [sys.executable, "-m", "invad", "serve", str(bundle), "--stateless", "--port", "0"]
        one = subprocess.Popen(
            [*command, "--threads", "1", *options],
            env=environment,
            cwd=folders[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(one)
        said = one.stdout.readline()
        assert said.startswith("Listening on http://127.0.0.1:"), said
        return said.split("//")[1].split("/")[0], one, folders, notify

    yield go
    for one in started:
        one.kill()
        one.wait()
        one.stdout.close()
    notify.close()


def test_a_process_judges_as_predict_and_writes_no_file(process, bundle, draw, pictures):
    before = files_below(bundle)
    exported = runtime.load(bundle, threads=1)
    address, one, folders, notify = process("--model-name", "tiles")
    assert notify.recv(4096) == f"READY=1\nMAINPID={one.pid}".encode()
    with InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiles")
        assert client.is_model_ready("tiles", exported.content_hash)
        assert not client.is_model_ready(bundle.name)
        told = client.get_model_metadata("tiles")
        assert [one["name"] for one in told["outputs"]] == [
            *("score", "p_value", "decision", "decision_name", "anomaly_map")
        ]
        pixels = draw(800, defect=True)
        deep = pixels.astype(np.uint16) * 257 + 5
        floats = (pixels / 255).astype(np.float32)
        named = [InferRequestedOutput(name) for name in ("score", "p_value", "decision_name", "anomaly_map")]
        for given, datatype in ((pixels, "UINT8"), (deep, "UINT16"), (floats, "FP32")):
            expected = exported.predict(given)
            found = client.infer("tiles", [tensor(given[None], datatype)], outputs=named)
            assert found.as_numpy("score").tolist() == [np.float32(expected.score)]
            assert found.as_numpy("p_value").tolist() == [np.float32(expected.p_value)]
            assert found.as_numpy("decision_name").tolist() == [expected.decision.encode()]
            assert np.array_equal(found.as_numpy("anomaly_map")[0], expected.anomaly_map)
        category = next(filter(None, exported.calibrations))
        several = [pictures[0][0], pictures[1][0]]
        given = [tensor(texts(*several), "BYTES"), tensor(texts(category.encode()), "BYTES", "category")]
        found = client.infer("tiles", given)
        expected = [exported.predict(body, category=category).score for body in several]
        assert found.as_numpy("score").tolist() == [np.float32(score) for score in expected]
        assert found.get_response()["model_version"] == exported.content_hash
        assert found.as_numpy("anomaly_map") is None
    with httpx.Client(base_url=f"http://{address}", trust_env=False) as http:
        assert http.get("/readyz").json() == {"ready": True}
        figures = http.get("/metrics").text
        assert "invad_review_pending" not in figures
        assert sum(float(line.split()[-1]) for line in figures.splitlines() if "parts_total{" in line) == 5
        assert http.get("/", headers={"Accept": "text/html"}).status_code == 404
        assert http.get("/api/v1/results").status_code == 404
        assert http.get("/healthz", headers={"Host": "evil.example"}).status_code == 403
    assert notify.recv(4096) == b"WATCHDOG=1"
    assert files_below(*folders) == {}
    one.send_signal(signal.SIGTERM)
    assert one.wait(60) == 0
    assert files_below(*folders) == {}
    assert files_below(bundle) == before
    heard = b""
    while heard != b"STOPPING=1":
        heard = notify.recv(4096)


def start(*words):
    """(exit status, the one line that is said) of a start that is refused."""
    done = CliRunner().invoke(app, ["serve", *map(str, words)])
    return done.exit_code, done.stderr


@pytest.fixture
def lineup(tmp_path):
    path = tmp_path / "line.toml"
    path.write_text('[[station]]\nname = "a"\nmodel = "model"\n')
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["BUNDLE"], "give --data DIR, where results are kept, or --stateless to keep none"),
        (["BUNDLE", "--data", "d", "--model-name", "m"], "--model-name is for --stateless"),
        (
            ["BUNDLE", "--stateless", "--data", "d", "--keep-good", "7"],
            "--stateless keeps nothing; leave --data, --keep-good away",
        ),
        (["LINEUP", "--stateless"], "line.toml: stations need a service that keeps"),
        (["BUNDLE", "--stateless", "--host", "0.0.0.0"], "give --key-file FILE, or --no-auth to answer"),
        (["BUNDLE", "--stateless", "--no-auth", "--key-file", "KEYS"], "exclude each other"),
        (["BUNDLE", "--stateless", "--key-file", "KEYS"], "keys: holds no key"),
        (["BUNDLE", "--stateless", "--key-file", "nowhere"], "nowhere: No such file"),
        (["BUNDLE", "--stateless", "--model-name", "a/b"], "give one without a slash"),
        (["nowhere", "--stateless"], "nowhere: "),
    ],
)
def test_a_start_that_cannot_be_is_refused_in_one_line(words, said, bundle, lineup, tmp_path):
    (tmp_path / "keys").write_text("# none yet\n")
    known = {"BUNDLE": bundle, "LINEUP": lineup, "KEYS": tmp_path / "keys"}
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so it ends even where it is not refused
        port = taken.getsockname()[1]
        status, told = start(*(known.get(word, word) for word in words), "--port", port)
    assert status in (1, 2)
    assert said in told
    assert told.count("\n") == 1


def test_a_damaged_bundle_and_a_taken_port_are_refused_in_one_line(own_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, told = start(own_bundle, "--stateless", "--port", port)
        assert (status, told.count("\n")) == (1, 1)
        assert f"127.0.0.1:{port}: " in told
        assert "is the port taken" in told
    graph = own_bundle / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    status, told = start(own_bundle, "--stateless", "--port", 0)
    assert (status, told.count("\n")) == (1, 1)
    assert "model.onnx: altered or truncated" in told


@contextmanager
def answering(detector=None, keys=None, **options):
    """(client of Triton, runtime) of a runtime of this process, on a real port."""
    made = Runtime(
        Loaded(hash="0" * 64, name="greys", detector=detector or Greys(), batch=1), Options(**options)
    )
    server = server_for(application(made, keys=keys, only_loopback=keys is None), Address(), 10)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    with InferenceServerClient(f"127.0.0.1:{listening.getsockname()[1]}", concurrency=4) as client:
        yield client, made
    server.should_exit = True
    thread.join(30)
    made.close()
    listening.close()


def flat(*levels, size=(3, 4)):
    return tensor(np.stack([np.full((*size, 3), level, np.uint8) for level in levels]), "UINT8")


def test_bounds_are_those_of_the_service(monkeypatch):
    monkeypatch.setenv("INVAD_MAX_PIXELS", "50")
    with answering(max_body=4000) as (client, made):
        assert client.infer("greys", [flat(7)]).as_numpy("score").tolist() == [7]
        with pytest.raises(InferenceServerException, match="limit of 4000 bytes"):
            client.infer("greys", [flat(7, size=(40, 40))])
        with pytest.raises(InferenceServerException, match="50"):
            client.infer("greys", [tensor(texts(png(7, size=(10, 6))), "BYTES")])
        for words in ({"part_id": "A"}, {"station": "press-1"}):
            with pytest.raises(InferenceServerException, match="nothing is kept here"):
                client.infer("greys", [flat(7)], parameters=words)
        with pytest.raises(InferenceServerException, match="no category 'x'"):
            client.infer("greys", [flat(7), tensor(texts(b"x"), "BYTES", "category")])
        with pytest.raises(InferenceServerException, match="no output 'result_id'"):
            client.infer("greys", [flat(7)], outputs=[InferRequestedOutput("result_id")])
        figures = made.metrics.text().decode()
        assert 'invad_rejected_total{reason="large"} 1.0' in figures
        assert 'invad_rejected_total{reason="image"} 1.0' in figures


def test_a_full_runtime_says_so_and_its_end_waits_for_what_is_under_way():
    detector = Greys()
    detector.gate.clear()
    with answering(detector, queue=2) as (client, made), ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.infer, "greys", [flat(1, 2)])
        until = time.monotonic() + 30
        while not detector.entered and time.monotonic() < until:
            time.sleep(0.01)
        with pytest.raises(InferenceServerException, match="2 images wait already"):
            client.infer("greys", [flat(3)])
        assert not made.close(0.01)
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException, match="is stopping"):
            client.infer("greys", [flat(3)])
        detector.gate.set()
        assert first.result(30).as_numpy("score").tolist() == [1, 2]
        assert made.close(30)


def test_images_of_one_request_do_not_take_each_other_with_them_silently():
    with answering(Greys(fails=5.0)) as (client, made):
        with pytest.raises(InferenceServerException, match="the engine failed"):
            client.infer("greys", [flat(4, 5)])
        assert client.infer("greys", [flat(4)]).as_numpy("score").tolist() == [4]
        assert 'invad_errors_total{kind="engine"} 1.0' in made.metrics.text().decode()


def test_keys_of_a_file_and_a_change_of_them(tmp_path, caplog):
    path = tmp_path / "keys"
    path.write_text(f"# of the gateway\n\n{KEY}\n")
    bearer = {"Authorization": f"Bearer {KEY}"}
    with answering(keys=KeyFile(path)) as (client, _):
        assert client.is_server_ready()
        assert client.is_model_ready("greys")
        for headers, words in (({}, "send a key"), ({"X-API-Key": OTHER}, "this key is not known")):
            with pytest.raises(InferenceServerException, match=words):
                client.infer("greys", [flat(7)], headers=headers)
            with pytest.raises(InferenceServerException, match=words):
                client.get_model_metadata("greys", headers=headers)
        assert client.infer("greys", [flat(7)], headers=bearer).as_numpy("score") == [7]
        path.write_text(f"{OTHER}\n")
        assert client.infer("greys", [flat(7)], headers={"X-API-Key": OTHER}).as_numpy("score") == [7]
        with pytest.raises(InferenceServerException, match="this key is not known"):
            client.infer("greys", [flat(7)], headers=bearer)
        path.unlink()
        assert client.infer("greys", [flat(7)], headers={"X-API-Key": OTHER}).as_numpy("score") == [7]
        assert caplog.text.count("the keys of before stay good") == 1
    path.write_text("short\n")
    with pytest.raises(ConfigError, match="line 1: a key has at least 16 characters"):
        KeyFile(path)


def test_a_request_that_is_alone_may_have_more_images_than_the_queue():
    made = Runtime(Loaded(hash="0" * 64, name="greys", detector=Greys(), batch=1), Options(queue=2))
    answers = made.submit([png(level) for level in range(5)], None)
    assert [one.result(30).score for one in answers] == [0, 1, 2, 3, 4]
    made.close()
    with pytest.raises(Refused, match="stopping"):
        made.submit([png(1)], None)


def test_what_triton_cannot_cut_the_protocol_of_triton_takes_whole(tiled_detector, draw_cloth):
    picture = draw_cloth(300, spot=(40, 100))
    expected = tiled_detector.predict(picture)
    with answering(tiled_detector) as (client, _):
        named = [InferRequestedOutput(name) for name in ("score", "decision_name", "anomaly_map")]
        found = client.infer("greys", [tensor(picture[None], "UINT8")], outputs=named)
        assert found.as_numpy("score").tolist() == [np.float32(expected.score)]
        assert found.as_numpy("decision_name").tolist() == [b"bad"]
        assert np.array_equal(found.as_numpy("anomaly_map")[0], expected.anomaly_map)
