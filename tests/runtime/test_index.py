"""Models by name: from a folder and from a real server, whole and as the index says, or not at all."""

import functools
import http.server
import json
import threading

import pytest
from typer.testing import CliRunner

from invad import runtime
from invad.cli.app import app
from invad.errors import ArtifactError, ConfigError, DataError
from invad.runtime.index import pull, read_index, write_index

pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")


@pytest.fixture
def shelf(own_bundle, tmp_path):
    """A folder with one bundle, of a name that an address must quote, and its index."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    own_bundle.rename(folder / "gasket ä")
    write_index({"gasket": folder / "gasket ä"}, folder / "index.json")
    return folder


@pytest.fixture
def address(shelf, monkeypatch):
    """Of the folder, on a server of its own."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(shelf)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.mark.parametrize("way", ["folder", "file", "address", "address of the file"])
def test_a_model_comes_whole_and_runs(way, shelf, address, tmp_path, draw):
    index = {
        "folder": str(shelf),
        "file": str(shelf / "index.json"),
        "address": address,
        "address of the file": f"{address}index.json",
    }[way]
    listed = run("models", "list", index)
    assert listed.exit_code == 0, listed.stderr
    assert listed.stdout.startswith("gasket  ")
    output = tmp_path / "new" / "pulled"
    done = run("models", "pull", index, "gasket", "--output", output)
    assert done.exit_code == 0, done.stderr
    assert names(output) == names(shelf / "gasket ä")
    assert list(output.parent.iterdir()) == [output]
    made, pulled = runtime.load(shelf / "gasket ä"), runtime.load(output)
    assert pulled.content_hash == made.content_hash
    assert pulled.predict(draw(1)).score == made.predict(draw(1)).score


def test_an_index_may_lie_apart_from_the_models(shelf, address, tmp_path):
    plain = json.loads((shelf / "index.json").read_text())
    plain["models"]["gasket"]["url"] = f"{address}gasket%20%C3%A4"
    (tmp_path / "own.json").write_text(json.dumps(plain))
    pull(read_index(str(tmp_path / "own.json")), "gasket", tmp_path / "pulled")
    assert names(tmp_path / "pulled") == names(shelf / "gasket ä")


@pytest.mark.parametrize("change", ["byte", "shorter", "longer", "missing", "hash", "list"])
@pytest.mark.parametrize("way", ["folder", "address"])
def test_what_differs_from_the_index_is_not_kept(change, way, shelf, address, tmp_path):
    graph = shelf / "gasket ä" / "model.onnx"
    content = graph.read_bytes()
    changed = {
        "byte": content[:-1] + bytes([content[-1] ^ 1]),
        "shorter": content[:-1],
        "longer": content * 2,
    }
    if change in changed:
        graph.write_bytes(changed[change])
    elif change == "missing":
        graph.unlink()
    else:
        plain = json.loads((shelf / "index.json").read_text())
        if change == "hash":
            plain["models"]["gasket"]["content_hash"] = "0" * 64
        else:
            del plain["models"]["gasket"]["files"]["model.onnx"]
        (shelf / "index.json").write_text(json.dumps(plain))
    index = read_index(address if way == "address" else str(shelf))
    with pytest.raises((ArtifactError, DataError)) as caught:
        pull(index, "gasket", tmp_path / "pulled")
    words = {
        "byte": "has another SHA-256, against the index",
        "shorter": f"has other than {len(content)} bytes",
        "longer": f"has other than {len(content)} bytes",
        "missing": "404" if way == "address" else "No such file",
        "hash": "the index says 0000",
        "list": "the index lacks its file model.onnx",
    }
    assert words[change] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shelf"]


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a/../../escape", "c:escape"])
def test_no_file_lands_outside(name, shelf, tmp_path):
    plain = json.loads((shelf / "index.json").read_text())
    files = plain["models"]["gasket"]["files"]
    files[name] = files["bundle.json"]
    (shelf / "index.json").write_text(json.dumps(plain))
    with pytest.raises(ArtifactError, match="which lies outside"):
        pull(read_index(str(shelf)), "gasket", tmp_path / "pulled")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shelf"]


def test_what_cannot_be_is_one_line(shelf, address, tmp_path):
    index = read_index(str(shelf))
    with pytest.raises(ConfigError, match=r"has no model 'bolt'; its models are: gasket$"):
        pull(index, "bolt", tmp_path / "pulled")
    with pytest.raises(DataError, match="is not empty"):
        pull(index, "gasket", shelf)
    with pytest.raises(DataError, match="answers 404 File not found; check the address"):
        read_index(f"{address}none.json")
    with pytest.raises(DataError, match=r"cannot be fetched \(Connection refused"):
        read_index("http://127.0.0.1:9/index.json")
    with pytest.raises(DataError, match="No such file"):
        read_index(str(tmp_path / "none.json"))
    with pytest.raises(DataError, match=r"^hf://plant/gasket: is read under http and https; of a Hugging"):
        read_index("hf://plant/gasket")
    (tmp_path / "odd.json").write_text('{"format": 2, "models": {}, "more": 1}')
    with pytest.raises(DataError, match="format 2 is newer"):
        read_index(str(tmp_path / "odd.json"))
    (tmp_path / "odd.json").write_text('{"format": 1, "models": {"a": {"url": "a"}}}')
    with pytest.raises(DataError, match=r"key 'models.a.files' is missing"):
        read_index(str(tmp_path / "odd.json"))
    plain = json.loads((shelf / "index.json").read_text())
    plain["models"]["gasket"]["url"] = "ftp://host/gasket"
    (shelf / "index.json").write_text(json.dumps(plain))
    with pytest.raises(DataError, match="has the scheme 'ftp'"):
        pull(read_index(str(shelf)), "gasket", tmp_path / "pulled")
    done = run("models", "index", tmp_path, "--output", tmp_path / "i.json")
    assert done.exit_code == 1
    assert "so it is no model" in done.stderr


def test_the_command_line_writes_an_index_that_it_reads(shelf, tmp_path):
    done = run("models", "index", shelf / "gasket ä", "--output", tmp_path / "i.json")
    assert done.exit_code == 0, done.stderr
    listed = run("models", "list", tmp_path / "i.json", "--json", "-")
    (entry,) = json.loads(listed.stdout)["models"].values()
    assert entry["url"] == "shelf/gasket%20%C3%A4/"
    assert entry["content_hash"] == runtime.load(shelf / "gasket ä").content_hash
