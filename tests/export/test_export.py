"""Exports of every preset, proved on the engines; what is refused, and that nothing is left behind then."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from invad import runtime
from invad.detector.detector import Detector
from invad.errors import ArtifactError, ConfigError, DataError
from invad.export import ExportConfig, export
from invad.export.formats import traced, write_onnx
from invad.runtime.certificate import certify, stored_certificate
from invad.system.plain import from_plain

onnx = pytest.importorskip("onnx", reason="exporting needs invad[onnx]")
numpy_helper = pytest.importorskip("onnx.numpy_helper", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
RUNTIME = Path(__file__).resolve().parents[2] / "runtime"
OTHER_PRESETS = ("fast", "dit", "paper")


def test_the_standard_preset_verifies_on_openvino(bundle):
    pytest.importorskip("openvino", reason="needs invad[openvino]")
    found = certify(runtime.load(bundle, "openvino", threads=1), bundle)
    assert (found.engine, found.problems) == ("openvino", [])


@pytest.mark.parametrize("preset", OTHER_PRESETS)
def test_the_other_presets_verify_on_both_engines(preset, tiny_detectors, tmp_path):
    pytest.importorskip("openvino", reason="needs invad[openvino]")
    _, certificate = export(tiny_detectors[preset], tmp_path / "b", ExportConfig())
    assert (certificate.engine, certificate.problems) == ("onnxruntime", [])
    assert len(certificate.rows) >= 7
    weights = {tensor.name for tensor in onnx.load(tmp_path / "b" / "model.onnx").graph.initializer}
    level_alone = [
        name for name in weights if "adaLN" in name or "modulation" in name or "t_embedder" in name
    ]
    assert level_alone == []
    other = certify(runtime.load(tmp_path / "b", "openvino", threads=1), tmp_path / "b")
    assert (other.engine, other.problems) == ("openvino", [])


def test_waiting_threads_of_onnx_runtime_sleep(bundle):
    options = runtime.load(bundle, "onnxruntime").engine.session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_bundle_says_what_the_detector_says(bundle, two_categories, draw, tmp_path):
    Image.fromarray(draw(3, defect=True, size=(90, 60))).save(tmp_path / "a.png")
    loaded = runtime.load(bundle, threads=1)
    for category in (None, "wide"):
        found = loaded.predict(tmp_path / "a.png", category=category)
        expected = two_categories.predict(tmp_path / "a.png", category=category)
        assert (found.path, found.category, found.decision) == (
            expected.path,
            category,
            expected.decision,
        )
        assert found.score == pytest.approx(expected.score, abs=1e-3)
        assert found.p_value == pytest.approx(expected.p_value, abs=1e-12)
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=0.02)
    assert [p.decision for p in loaded.predict_many([draw(0), draw(1, size=(70, 50))])] == [
        p.decision for p in two_categories.predict([draw(0), draw(1, size=(70, 50))])
    ]


def test_a_fixed_size_batch(detector, draw, tmp_path):
    export(detector, tmp_path / "b", ExportConfig(size_hw=(60, 90), batch=4))
    loaded = runtime.load(tmp_path / "b", threads=1)
    images = [draw(i, size=(90, 60)) for i in range(6)]
    for found, image in zip(loaded.predict_many(images), images, strict=True):
        assert found.score == pytest.approx(detector.predict(image).score, abs=2e-3)
    with pytest.raises(DataError, match="64 x 64 pixels, the bundle takes 90 x 60 alone"):
        loaded.predict(draw(0))
    with pytest.raises(ConfigError, match="batch = 3: this bundle runs 4"):
        loaded.predict_many(images, batch=3)


LARGEST_WEIGHT = 64
"""255 * 2 * 64 is the largest even multiple that 16 bits hold; see test_int8.py."""


def integer_weights(path):
    """Arrays of 8-bit weights in an exported graph."""
    if path.suffix == ".xml":
        import openvino as ov

        constants = [op for op in ov.Core().read_model(path).get_ops() if op.get_type_name() == "Constant"]
        return [op.data for op in constants if op.get_element_type() == ov.Type.i8 and op.data.ndim > 1]
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return [tensor for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim > 1]


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_int8_is_fitted_to_normals_and_proved_on_them(form, two_categories, write_parts, draw, tmp_path):
    pytest.importorskip("openvino", reason="needs invad[openvino]")
    write_parts(tmp_path / "normal", 12)
    config = ExportConfig(format=form, precision="int8", calibration=tmp_path / "normal")
    _, certificate = export(two_categories, tmp_path / "b", config)
    rows = {row.probe: row for row in certificate.rows}
    assert [name for name in rows if name.startswith("normal")] == [f"normal {i}" for i in range(12)]
    assert {rows[f"normal {i}"].decision_found for i in range(12)} == {"good"}
    assert certificate.problems == []
    differences = [abs(row.score - row.score_found) for row in rows.values()]
    assert max(differences) > 0
    loaded = runtime.load(tmp_path / "b", threads=1)
    assert (loaded.info.precision, loaded.engine.name) == ("int8", {"onnx": "onnxruntime"}.get(form, form))
    weights = integer_weights(tmp_path / "b" / loaded.info.graph)
    assert len(weights) > 5
    assert max(int(np.abs(weight.astype(int)).max()) for weight in weights) == LARGEST_WEIGHT
    assert max(row.score_found for row in rows.values() if row.probe.startswith("normal")) < min(
        loaded.predict(draw(i, defect=True)).score for i in range(3)
    )


def test_a_program_for_pytorch_with_any_number_of_images(detector, draw, tmp_path):
    export(detector, tmp_path / "b", ExportConfig(format="torch", batch=None))
    loaded = runtime.load(tmp_path / "b")
    assert loaded.engine.name == "torch"
    images = [draw(i) for i in range(3)]
    for found, image in zip(loaded.predict_many(images), images, strict=True):
        assert found.score == pytest.approx(detector.predict(image).score, abs=2e-3)


def test_large_weights_lie_beside_the_graph(detector, tmp_path):
    import onnxruntime

    program = traced(detector.compile().engine.graph, None, 1)
    write_onnx(program, tmp_path / "m.onnx", in_one_file=1000)
    assert (tmp_path / "m.onnx.data").stat().st_size > 10 * 1000
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    feed = {"image": np.zeros((1, 8, 9, 3), np.float32), "range": np.array([0, 255], np.float32)}
    score, *_ = session.run(None, {**feed, "category": np.zeros(1, np.int64)})
    black = detector.predict(np.zeros((8, 9, 3), np.uint8))
    assert float(score[0]) == pytest.approx(black.score, abs=1e-3 * (1 + abs(black.score)))


def test_the_graph_tells_nothing_of_where_it_was_made(bundle):
    text = (bundle / "model.onnx").read_bytes()
    assert str(RUNTIME.parent).encode() not in text
    assert b"stack_trace" not in text


def test_a_graph_that_differs_fails_and_leaves_nothing(detector, tmp_path, monkeypatch):
    right = Detector.predict

    def wrong(self, x, *, category=None):
        from dataclasses import replace

        prediction = right(self, x, category=category)
        return replace(prediction, score=prediction.score * 1.01 + 0.01)

    monkeypatch.setattr(Detector, "predict", wrong)
    with pytest.raises(ArtifactError, match=r"differs from PyTorch on torch .*: probe wide\.png: score"):
        export(detector, tmp_path / "b", ExportConfig(format="torch"))
    assert list(tmp_path.iterdir()) == []


def test_the_certificate_is_in_the_bundle(bundle):
    told = json.loads((bundle / "certificate.json").read_text())
    assert told["passed"] is True
    assert told["changed_decisions"] == 0
    assert {row["probe"] for row in told["rows"]} >= {"tiny.png", "deep.tif", "tall_grey.png", "large.png"}
    assert {row["category"] for row in told["rows"]} == {"", "part", "wide"}
    assert stored_certificate(bundle).tolerance.score == 1e-3


def test_verify_sees_a_changed_expectation(own_bundle):
    expected = own_bundle / "probes" / "expected.json"
    told = json.loads(expected.read_text())
    told["probes"][1]["score"] += 0.5
    expected.write_text(json.dumps(told))
    with pytest.raises(ArtifactError, match=r"expected\.json: altered or truncated"):
        runtime.load(own_bundle)
    found = certify(_unchecked(own_bundle), own_bundle)
    assert found.problems[0].startswith("probe tall_grey.png: score")
    assert not found.to_plain()["passed"]


def _unchecked(folder):
    """The detector of a bundle whose files were changed after writing."""
    from invad.runtime.bundle import ExportInfo
    from invad.runtime.engines import Options, open_engine

    plain = json.loads((folder / "bundle.json").read_text())
    del plain["files"], plain["content_hash"], plain["format_version"]
    info = from_plain(ExportInfo, plain, "bundle.json")
    return runtime.ExportedDetector(info, open_engine("auto", "onnx", folder / info.graph, Options()))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda b: (b / "model.onnx").write_bytes((b / "model.onnx").read_bytes()[:5000]), "model.onnx: alt"),
        (lambda b: (b / "model.onnx").unlink(), "model.onnx: is missing"),
        (lambda b: (b / "bundle.json").unlink(), "bundle.json is missing"),
        (lambda b: (b / "bundle.json").write_text("{"), "bundle.json: unreadable"),
        (
            lambda b: (b / "bundle.json").write_text(
                (b / "bundle.json").read_text().replace('"format_version": 1', '"format_version": 9')
            ),
            "bundle format 9",
        ),
        (
            lambda b: (b / "bundle.json").write_text((b / "bundle.json").read_text().replace("0.01", "0.02")),
            "bundle.json: altered",
        ),
    ],
)
def test_a_damaged_bundle_is_refused(own_bundle, spoil, words):
    spoil(own_bundle)
    with pytest.raises(ArtifactError) as caught:
        runtime.load(own_bundle)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_engines_that_cannot_run_it(bundle, monkeypatch):
    with pytest.raises(ConfigError, match="engine 'abacus' is unknown; choose one of auto, onnxruntime"):
        runtime.load(bundle, "abacus")
    with pytest.raises(ConfigError, match="engine torch does not run the onnx bundle"):
        runtime.load(bundle, "torch")
    with pytest.raises(ConfigError, match=r"device 'tpu': this ONNX Runtime has .*cpu"):
        runtime.load(bundle, "onnxruntime", device="tpu")
    with pytest.raises(ConfigError, match="threads = -1"):
        runtime.load(bundle, threads=-1)
    monkeypatch.setattr("invad.runtime.engines.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"openvino is not installed; pip install 'invad\[openvino\]'"):
        runtime.load(bundle, "openvino")
    with pytest.raises(ConfigError, match="no engine for an onnx bundle is installed"):
        runtime.load(bundle)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "coreml"}, "format 'coreml' is unknown"),
        ({"precision": "fp64"}, "precision 'fp64' is unknown"),
        ({"batch": 0}, "batch = 0"),
        ({"size_hw": (0, 5)}, "size = "),
        ({"precision": "int8"}, "int8 needs normal images"),
        ({"precision": "int8", "format": "torch", "calibration": Path("x")}, "int8 is for onnx and openvino"),
    ],
)
def test_impossible_exports(options, words, detector, tmp_path):
    with pytest.raises(ConfigError, match=words):
        export(detector, tmp_path / "b", ExportConfig(**options))
    assert list(tmp_path.iterdir()) == []


def test_int8_with_a_size_wants_normals_of_that_size(detector, write_parts, tmp_path):
    write_parts(tmp_path / "normal", 1)
    config = ExportConfig(precision="int8", size_hw=(8, 9), calibration=tmp_path / "normal")
    with pytest.raises(DataError, match=r"height x width is \d+x\d+, not the 8x9 of --size"):
        export(detector, tmp_path / "b", config)


def test_bf16_is_refused_where_onnx_runtime_has_the_cpu_alone(detector, tmp_path):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has a GPU")
    with pytest.raises(ConfigError, match=r"bf16: .* choose format openvino or torch"):
        export(detector, tmp_path / "b", ExportConfig(precision="bf16"))


def test_a_folder_in_use_is_not_overwritten(detector, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="not empty"):
        export(detector, tmp_path, ExportConfig())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        blocked = {"torch", "timm", "scipy", "torchvision", "safetensors", "jinja2"}
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from invad.cli import main
sys.argv[0] = "invad"
main()
"""


@pytest.fixture(scope="module")
def runtime_package(tmp_path_factory):
    """A folder with the files that the wheel of invad-runtime is made of, and no others."""
    place = tmp_path_factory.mktemp("runtime")
    listed = re.findall(r'^"(.+?)" = "(invad/.+)"$', (RUNTIME / "pyproject.toml").read_text(), re.MULTILINE)
    for source, target in listed:
        to = place / target
        to.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (RUNTIME / source).is_dir() else shutil.copy2)(RUNTIME / source, to)
    return place


@pytest.fixture
def without_torch(tmp_path, runtime_package):
    """Run the command line of invad-runtime in a process in which the heavy libraries cannot be imported."""

    def call(*arguments):
        return subprocess.run(
            [sys.executable, "-c", BLOCKED, *map(str, arguments)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(runtime_package), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return call


def test_bundles_are_used_without_torch(without_torch, bundle, two_categories, draw, tmp_path):
    Image.fromarray(draw(3, defect=True)).save(tmp_path / "a.png")
    rows = tmp_path / "p.json"
    options = ("--threads", 1, "--output", tmp_path / "seen", "--json", rows, "--csv", tmp_path / "p.csv")
    done = without_torch("predict", bundle, tmp_path / "a.png", *options)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(rows.read_text())["images"]
    assert row["decision"] == two_categories.predict(tmp_path / "a.png").decision
    assert len(list((tmp_path / "seen").iterdir())) == 1
    done = without_torch("info", bundle)
    assert (done.returncode, "onnx, fp32" in done.stdout) == (0, True), done.stderr
    done = without_torch("verify", bundle)
    assert (done.returncode, "the same as PyTorch" in done.stdout) == (0, True), done.stderr
    done = without_torch("predict", tmp_path, tmp_path / "a.png")
    assert done.returncode == 1
    assert "which is not installed; 'pip install invad' brings all of it" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_example_in_cpp(bundle, two_categories, draw, tmp_path):
    """It reads the ONNX file with the headers that the openvino wheel brings."""
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler, g++")
    pytest.importorskip("openvino", reason="needs invad[openvino], for headers and libraries")
    program, picture = tmp_path / "predict", tmp_path / "a.ppm"
    build = Path(__file__).resolve().parents[2] / "examples" / "cpp" / "build"
    subprocess.run([build, program], env={**os.environ, "PYTHON": sys.executable}, check=True)
    Image.fromarray(draw(3, defect=True, size=(90, 60))).save(picture)
    expected = two_categories.predict(draw(3, defect=True, size=(90, 60)))
    done = subprocess.run(
        [program, bundle / "model.onnx", picture], capture_output=True, text=True, check=True
    )
    decision, _, p_value, _, score = done.stdout.split()
    assert decision == expected.decision
    assert float(p_value) == pytest.approx(expected.p_value, rel=1e-4)
    assert float(score) == pytest.approx(expected.score, rel=1e-3)
    done = subprocess.run([program, bundle / "model.onnx", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
