"""Bundles that are opened a second time, from a compiled graph, and on another processor."""

import json
import shutil

import pytest

from invad import runtime
from invad.errors import ArtifactError
from invad.runtime.bundle import BUNDLE, CERTIFICATE, read_bundle, write_bundle
from invad.runtime.cache import kept
from invad.runtime.processor import processor

pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")


@pytest.fixture
def caches(tmp_path, monkeypatch):
    """The user's cache folder of invad, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "invad"


@pytest.fixture
def elsewhere(monkeypatch):
    """This processor with fewer instructions, which is another one."""
    here = processor()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    processor.cache_clear()
    yield here
    monkeypatch.undo()
    processor.cache_clear()


def rewritten(bundle, folder, **certificate):
    """The bundle with another certificate, its files and hashes as an export writes them."""
    info, _ = read_bundle(bundle)

    def fill(staging):
        shutil.copytree(bundle, staging, dirs_exist_ok=True)
        (staging / BUNDLE).unlink()
        plain = json.loads((staging / CERTIFICATE).read_text())
        (staging / CERTIFICATE).write_text(json.dumps({**plain, **certificate}))

    write_bundle(folder, info, fill)
    return folder


def zero_pages(whole):
    first, last = len(whole) // 2, len(whole) * 3 // 4  # weights: OpenVINO itself sees nothing wrong
    return whole[:first] + bytes(last - first) + whole[last:]


@pytest.mark.parametrize("damage", [zero_pages, lambda whole: whole[: len(whole) // 2], lambda whole: b""])
def test_a_damaged_compiled_graph_is_made_again(damage, bundle, draw, caches):
    pytest.importorskip("openvino", reason="needs invad[openvino]")
    expected = runtime.load(bundle, "openvino", threads=1).predict(draw(3))
    (blob,) = (caches / "openvino").iterdir()
    blob.write_bytes(damage(blob.read_bytes()))
    found = runtime.load(bundle, "openvino", threads=1).predict(draw(3))
    assert (found.score, found.decision) == (expected.score, expected.decision)
    assert kept(blob) is not None


def test_a_compiled_graph_serves_its_version_and_settings_alone(bundle, draw, caches, monkeypatch):
    ov = pytest.importorskip("openvino", reason="needs invad[openvino]")
    first = runtime.load(bundle, "openvino", threads=1).predict(draw(3))
    (blob,) = (caches / "openvino").iterdir()
    written = blob.stat().st_mtime_ns
    again = runtime.load(bundle, "openvino", threads=1).predict(draw(3))
    assert (again.score, blob.stat().st_mtime_ns) == (first.score, written)
    monkeypatch.setattr(ov, "__version__", "2099.1")
    runtime.load(bundle, "openvino", threads=1)
    assert len(list((caches / "openvino").iterdir())) == 2
    runtime.load(bundle, "openvino", threads=2)
    assert len(list((caches / "openvino").iterdir())) == 3


def test_a_bundle_runs_where_no_cache_can_be_written(bundle, draw, tmp_path, monkeypatch, elsewhere):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for engine in ("openvino", "onnxruntime"):
        pytest.importorskip(engine)
        assert runtime.load(bundle, engine, threads=1).predict(draw(3)).decision


def test_at_home_no_proof_is_repeated(bundle, caches):
    runtime.load(bundle, threads=1)
    assert not (caches / "proofs").exists()


def test_another_processor_proves_a_bundle_once(bundle, caches, elsewhere, monkeypatch):
    assert json.loads((bundle / CERTIFICATE).read_text())["processor"] == elsewhere != processor()
    runtime.load(bundle, threads=1)
    (proof,) = (caches / "proofs").iterdir()
    asked = []
    monkeypatch.setattr("invad.runtime.loading.short_proof", lambda *given: asked.append(given))
    runtime.load(bundle, threads=1)
    assert asked == []
    proof.write_bytes(b"")
    runtime.load(bundle, threads=1)
    assert len(asked) == 1


def test_another_decision_than_the_certificates_is_refused(bundle, tmp_path, caches, elsewhere):
    rows = json.loads((bundle / CERTIFICATE).read_text())["rows"]
    before = rows[2]["decision_found"]
    rows[2]["decision_found"] = "good" if before == "bad" else "bad"
    own = rewritten(bundle, tmp_path / "own", rows=rows)
    for _ in range(2):
        with pytest.raises(ArtifactError, match=f"differs here .* probe deep.tif: {before} for ") as caught:
            runtime.load(own, threads=1)
        assert "\n" not in str(caught.value)
    assert runtime.load(own, threads=1, prove=False)
    assert not list((caches / "proofs").iterdir())


def test_a_certificate_of_an_older_invad_is_proved_once(bundle, tmp_path, caches):
    own = rewritten(bundle, tmp_path / "own", processor=None)
    runtime.load(own, threads=1)
    assert len(list((caches / "proofs").iterdir())) == 1
