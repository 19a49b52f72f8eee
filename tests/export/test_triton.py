"""A folder of Triton's model repository, read by its definition, run by ONNX Runtime, served by Triton."""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
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
from waiting import waits

onnx = pytest.importorskip("onnx", reason="exporting needs invad[onnx]")
ort = pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")

APART = Path(sys.prefix) / "apart"
"""Where .ci/run puts nvidia-pytriton, which holds a server; it asks for an old numpy, so it is apart."""

IN_PLACE_OF_ONNX_RUNTIME = """
import sys, time
sys.path[:0] = PLACES
import numpy as np
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    def initialize(self, arguments):
        place = f"{arguments['model_repository']}/{arguments['model_version']}/model.onnx"
        self.session = onnxruntime.InferenceSession(place, providers=["CPUExecutionProvider"])
        self.outputs = [one.name for one in self.session.get_outputs()]

    def execute(self, requests):
        time.sleep(0.1)  # more come meanwhile
        given = {
            name: np.concatenate(
                [np.from_dlpack(triton.get_input_tensor_by_name(one, name)) for one in requests]
            )
            for name in ("image", "category")
        }
        found = self.session.run(self.outputs, given)
        # Kept until the next run: the tensors of the answers lie where they are.
        self.parts = [[one[i : i + 1].copy() for one in found] for i in range(len(requests))]
        return [
            triton.InferenceResponse(list(map(triton.Tensor.from_dlpack, self.outputs, part)))
            for part in self.parts
        ]
"""
"""The package has no other backend than that of Python."""


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


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    """The address of a Triton server with both models."""
    parts, python = APART / "pytriton" / "tritonserver", sysconfig.get_config_var("LIBDIR")
    stub = parts / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub"
    if not stub.exists() or not (Path(python) / sysconfig.get_config_var("INSTSONAME")).exists():
        pytest.skip(f"needs pip install --no-deps --target {APART} nvidia-pytriton, and a shared libpython")
    pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    place = tmp_path_factory.mktemp("triton")
    shutil.copytree(parts / "backends" / "python", place / "backends" / "python")
    shutil.copy(stub, place / "backends" / "python")
    for name in ("eight", "sixteen"):
        made = place / "models" / name
        shutil.copytree(repository / name, made)
        config = (made / "config.pbtxt").read_text()
        (made / "config.pbtxt").write_text(config.replace('backend: "onnxruntime"', 'backend: "python"'))
        program = IN_PLACE_OF_ONNX_RUNTIME.replace("PLACES", repr([one for one in sys.path if one]))
        (made / "1" / "model.py").write_text(program)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [parts / "bin" / "tritonserver", "--model-repository", place / "models"]
    words += ["--backend-directory", place / "backends", "--http-address", "127.0.0.1", "--http-port", port]
    words += ["--allow-grpc", "false", "--allow-metrics", "false", "--exit-timeout-secs", "5"]
    libraries = {"LD_LIBRARY_PATH": f"{APART / 'nvidia_pytriton.libs'}:{python}"}
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            list(map(str, words)), env={**os.environ, **libraries}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        waits(lambda: process.poll() is not None or is_ready(port), 60)
        assert process.poll() is None, (place / "log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def is_ready(port):
    from tritonclient.http import InferenceServerClient

    try:
        return InferenceServerClient(f"127.0.0.1:{port}").is_server_ready()
    except OSError:
        return False


def asked(server, name, image, category):
    """What Triton answers to one image."""
    from tritonclient.http import InferenceServerClient, InferInput

    given = {"image": image[None], "category": np.array([[category]])}
    inputs = []
    for key, value in given.items():
        inputs.append(InferInput(key, value.shape, str(value.dtype).upper()))
        inputs[-1].set_data_from_numpy(value)
    with InferenceServerClient(server, network_timeout=60) as client:
        found = client.infer(name, inputs)
    return {one["name"]: found.as_numpy(one["name"]) for one in found.get_response()["outputs"]}


@pytest.mark.parametrize(("name", "times"), [("eight", 1), ("sixteen", 257)])
def test_a_triton_server_takes_the_configuration_and_gathers_images(name, times, server, repository, draw):
    from tritonclient.http import InferenceServerClient

    session = ort.InferenceSession(repository / name / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    dtype = np.uint8 if times == 1 else np.uint16
    sizes = [(90, 60), (90, 60), (64, 64)] if name == "eight" else [(90, 60)]
    images = [draw(i, size=sizes[i % len(sizes)]).astype(dtype) * times for i in range(9)]
    with ThreadPoolExecutor(len(images)) as several:
        answers = list(several.map(lambda i: asked(server, name, images[i], i % 2), range(len(images))))
    for i, (image, answer) in enumerate(zip(images, answers, strict=True)):
        alone = session.run(None, {"image": image[None], "category": np.array([i % 2])})
        for output, expected in zip(session.get_outputs(), alone, strict=True):
            shape = expected.shape if expected.ndim > 1 else (1, 1)
            assert answer[output.name].shape == shape
            assert answer[output.name].ravel() == pytest.approx(expected.ravel(), rel=1e-4, abs=1e-5)
    with InferenceServerClient(server) as client:
        (told,) = client.get_inference_statistics(name)["model_stats"]
    runs = [one["batch_size"] for one in told["batch_stats"]]
    assert told["inference_count"] == len(images)
    assert 1 < max(runs) <= 4


@pytest.mark.parametrize("name", ["eight", "sixteen"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_each_engine_verifies_it(repository, engine, name):
    pytest.importorskip(engine)
    asked = ["verify", str(repository / name), "--threads", "1", "--engine", engine]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output


def test_it_has_a_certificate_and_can_be_used(repository, draw, tmp_path):
    for name, probes in (("eight", 5), ("sixteen", 7)):
        told = json.loads((repository / name / "certificate.json").read_text())
        assert (told["passed"], told["changed_decisions"]) == (True, 0)
        assert len({row["probe"] for row in told["rows"]}) == probes
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
    write_parts(tmp_path / "normal", 6, first=100)  # scores of what was learned are near zero, and all noise
    words = ["export", tmp_path / "model", "--layout", "triton", "--output", tmp_path / "models" / "part"]
    words += ["--precision", "int8", "--calibration", tmp_path / "normal", "--size", "64x64", "--batch", "2"]
    words += ["--max-changed", "0.5"]
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
