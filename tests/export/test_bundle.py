"""Exports of every preset, proved on the engines; what is refused, and that nothing is left behind then."""

import json
from dataclasses import replace
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


def test_a_program_for_pytorch_with_any_number_of_images(short_detector, draw, tmp_path):
    export(short_detector, tmp_path / "b", ExportConfig(format="torch", batch=None))
    loaded = runtime.load(tmp_path / "b")
    assert loaded.engine.name == "torch"
    images = [draw(i) for i in range(3)]
    for found, image in zip(loaded.predict_many(images), images, strict=True):
        assert found.score == pytest.approx(short_detector.predict(image).score, abs=2e-3)


def test_large_weights_lie_beside_the_graph(short_detector, tmp_path):
    import onnxruntime

    program = traced(short_detector.compile().engine.graph, None, 1)
    write_onnx(program, tmp_path / "m.onnx", in_one_file=1000)
    assert (tmp_path / "m.onnx.data").stat().st_size > 10 * 1000
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    feed = {"image": np.zeros((1, 8, 9, 3), np.float32), "range": np.array([0, 255], np.float32)}
    score, *_ = session.run(None, {**feed, "category": np.zeros(1, np.int64)})
    black = short_detector.predict(np.zeros((8, 9, 3), np.uint8))
    assert float(score[0]) == pytest.approx(black.score, abs=1e-3 * (1 + abs(black.score)))


def test_the_graph_tells_nothing_of_where_it_was_made(bundle):
    text = (bundle / "model.onnx").read_bytes()
    assert str(RUNTIME.parent).encode() not in text
    assert b"stack_trace" not in text


def test_a_graph_that_differs_fails_and_leaves_nothing(short_detector, tmp_path, monkeypatch):
    right = Detector.predict

    def wrong(self, x, *, category=None):
        prediction = right(self, x, category=category)
        return replace(prediction, score=prediction.score * 1.01 + 0.01)

    monkeypatch.setattr(Detector, "predict", wrong)
    with pytest.raises(ArtifactError, match=r"differs from PyTorch on torch .*: probe wide\.png: score"):
        export(short_detector, tmp_path / "b", ExportConfig(format="torch"))
    assert list(tmp_path.iterdir()) == []


def test_the_certificate_is_in_the_bundle(bundle):
    told = json.loads((bundle / "certificate.json").read_text())
    assert told["passed"] is True
    assert told["changed_decisions"] == 0
    assert {row["probe"] for row in told["rows"]} >= {"tiny.png", "deep.tif", "tall_grey.png", "large.png"}
    assert {row["category"] for row in told["rows"]} == {"", "part", "wide"}
    assert stored_certificate(bundle).tolerance.score == 1e-3


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
