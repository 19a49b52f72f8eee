"""A folder of Triton's model repository, read by Triton's own definition and run by ONNX Runtime."""

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from invad import runtime
from invad.cli.app import app
from invad.errors import ArtifactError, ConfigError, DataError
from invad.export import ExportConfig, export
from invad.runtime.detector import DECISIONS

onnx = pytest.importorskip("onnx", reason="exporting needs invad[onnx]")
ort = pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")


@pytest.fixture(scope="module")
def repository(short_detector, tmp_path_factory):
    """A repository with the models `eight`, for any size, and `sixteen`, for 90 x 60 pixels."""
    folder = tmp_path_factory.mktemp("repository")
    export(short_detector, folder / "eight", ExportConfig(layout="triton", batch=4))
    export(
        short_detector, folder / "sixteen", ExportConfig(layout="triton", batch=4, bits=16, size_hw=(60, 90))
    )
    return folder


def read_config(path):
    pytest.importorskip("google.protobuf", reason="needs tritonclient[grpc]")
    if find_spec("tritonclient.grpc") is None:
        pytest.skip("needs tritonclient[grpc]")
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return text_format.Parse(path.read_text(), ModelConfig())


def in_graph(value):
    """(name, type of Triton, dims with -1 for those that are open) of an input or output of a graph."""
    tensor = value.type.tensor_type
    names = {onnx.TensorProto.FLOAT: "FP32", onnx.TensorProto.INT64: "INT64"}
    names |= {onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.UINT16: "UINT16"}
    dims = [-1 if dim.dim_param else dim.dim_value for dim in tensor.shape.dim]
    return value.name, f"TYPE_{names[tensor.elem_type]}", dims


def in_config(one, data_type):
    """The same of the configuration, as the graph sees it: behind the number of images."""
    dims = one.reshape.shape if one.HasField("reshape") else one.dims
    return one.name, data_type.Name(one.data_type), [-1, *dims]


@pytest.mark.parametrize(
    ("name", "pixels", "size"), [("eight", "UINT8", [-1, -1]), ("sixteen", "UINT16", [60, 90])]
)
def test_the_configuration_says_what_the_graph_takes_and_gives(name, pixels, size, repository):
    config = read_config(repository / name / "config.pbtxt")
    graph = onnx.load(repository / name / "1" / "model.onnx").graph
    kinds = SimpleNamespace(Name=config.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number)
    kinds.Name = {number: value.name for number, value in kinds.Name.items()}.get
    assert [in_config(one, kinds) for one in config.input] == [in_graph(value) for value in graph.input]
    assert [in_config(one, kinds) for one in config.output] == [in_graph(value) for value in graph.output]
    assert all(in_graph(value)[2][0] == -1 for value in (*graph.input, *graph.output))
    assert in_graph(graph.input[0]) == ("image", f"TYPE_{pixels}", [-1, *size, 3])
    assert [list(one.dims) for one in config.output][:2] == [[1], [1]]
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 4)
    assert config.HasField("dynamic_batching")
    assert config.name == ""


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("name", "times"), [("eight", 1), ("sixteen", 257)])
def test_a_batch_has_the_scores_of_the_detector(name, times, count, repository, short_detector, draw):
    session = ort.InferenceSession(repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    dtype = np.uint8 if times == 1 else np.uint16
    images = np.stack([draw(i, defect=i == 1, size=(90, 60)).astype(dtype) * times for i in range(count)])
    categories = np.arange(count) % 2
    found = session.run(None, {"image": images, "category": categories})
    names = list(runtime.load(repository / name, threads=1).calibrations)
    assert names == ["", "part"]
    expected = [
        short_detector.predict(image, category=names[category] or None)
        for image, category in zip(images, categories, strict=True)
    ]
    peak = max(float(one.anomaly_map.max()) for one in expected)
    assert found[0].tolist() == pytest.approx([one.score for one in expected], rel=1e-3)
    assert found[1].tolist() == pytest.approx([one.p_value for one in expected], abs=1e-6)
    assert [DECISIONS[int(one)] for one in found[2]] == [one.decision for one in expected]
    assert np.abs(found[3] - [one.anomaly_map for one in expected]).max() <= 2e-3 * (1 + peak)
    assert found[3].shape == (count, 60, 90)
    assert found[4].shape == (count, *short_detector.info.grid_hw)


def test_it_has_a_certificate_and_can_be_verified_and_used(repository, draw, tmp_path):
    for name, probes in (("eight", 5), ("sixteen", 7)):
        told = json.loads((repository / name / "certificate.json").read_text())
        assert (told["passed"], told["changed_decisions"]) == (True, 0)
        assert len({row["probe"] for row in told["rows"]}) == probes
        done = CliRunner().invoke(app, ["verify", str(repository / name), "--threads", "1"])
        assert done.exit_code == 0, done.output
    loaded = runtime.load(repository / "eight", threads=1)
    image = draw(5)
    assert len(list(loaded.predict_many([image] * 3, batch=3))) == 3
    with pytest.raises(DataError, match="uint16 pixels, this graph takes uint8 alone; export it with other"):
        loaded.predict(image.astype(np.uint16))
    config = repository / "eight" / "config.pbtxt"
    config.write_text(f"# tuned\n{config.read_text()}")
    runtime.load(repository / "eight", threads=1)
    with (repository / "sixteen" / "1" / "model.onnx").open("ab") as graph:
        graph.write(b"\0")
    with pytest.raises(ArtifactError, match="altered"):
        runtime.load(repository / "sixteen")


def test_int8_and_one_size_by_the_command(short_detector, write_parts, tmp_path):
    short_detector.save(tmp_path / "model")
    write_parts(tmp_path / "normal", 6)
    words = ["export", tmp_path / "model", "--layout", "triton", "--output", tmp_path / "models" / "part"]
    words += ["--precision", "int8", "--calibration", tmp_path / "normal", "--size", "64x64", "--batch", "2"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert f"Model repository: {tmp_path / 'models'}" in done.stdout
    text = (tmp_path / "models" / "part" / "config.pbtxt").read_text()
    assert "max_batch_size: 2\n" in text
    assert 'input { name: "image" data_type: TYPE_UINT8 dims: [ 64, 64, 3 ] }' in text
    weights = onnx.load(tmp_path / "models" / "part" / "1" / "model.onnx").graph.initializer
    assert sum(tensor.data_type == onnx.TensorProto.INT8 for tensor in weights) > 5


def test_normals_of_other_pixels_are_refused(short_detector, tmp_path):
    (tmp_path / "normal").mkdir()
    Image.fromarray(np.full((64, 64), 300, np.uint16)).save(tmp_path / "normal" / "deep.png")
    config = ExportConfig(layout="triton", precision="int8", calibration=tmp_path / "normal")
    with pytest.raises(DataError, match=r"deep\.png: uint16 pixels, the graph takes uint8"):
        export(short_detector, tmp_path / "models" / "part", config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "seldon"}, "layout 'seldon' is unknown; choose one of bundle, triton"),
        ({"layout": "triton", "format": "openvino"}, "layout triton holds an ONNX graph, not openvino"),
        ({"layout": "triton", "batch": None}, "give --batch the number of images"),
        ({"layout": "triton", "bits": 12}, "bits = 12: give 8 or 16"),
        ({"bits": 8}, "bits = 8: give 8 or 16, for the layout triton"),
    ],
)
def test_impossible_layouts(options, words):
    with pytest.raises(ConfigError, match=words):
        ExportConfig(**options)
