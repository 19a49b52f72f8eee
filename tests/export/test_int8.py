"""8-bit products, summed as a processor without VNNI sums them; no training, graphs of a few weights."""

import numpy as np
import pytest

from invad.export.int8 import heavy_nodes, quantise_onnx

onnx = pytest.importorskip("onnx", reason="exporting needs invad[onnx]")
helper = pytest.importorskip("onnx.helper")
numpy_helper = pytest.importorskip("onnx.numpy_helper")
pytest.importorskip("onnxruntime", reason="exporting needs invad[onnx]")
FLOAT = onnx.TensorProto.FLOAT
SCOPE = {"pkg.torch.onnx.name_scopes": "['', 'reader.network', 'reader.network.input']"}
COUNT, CHANNELS = 64, 4


def graph_of(nodes, weights):
    """An ONNX model from `image` (1 x COUNT) to `score`."""
    inputs = [helper.make_tensor_value_info("image", FLOAT, [1, COUNT])]
    outputs = [helper.make_tensor_value_info("score", FLOAT, None)]
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    made = [helper.make_node(kind, given, [name], name=name) for kind, given, name in nodes]
    for node in made:
        helper.set_metadata_props(node, SCOPE)
    graph = helper.make_graph(made, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def vpmaddubsw(activations, weights):
    """Sums of neighbouring products, cut off at 16 bits: what AVX2 has for unsigned times signed bytes."""
    products = activations.astype(int) * weights.astype(int)
    return np.clip(products[..., ::2] + products[..., 1::2], -32768, 32767)


@pytest.fixture
def worst(tmp_path):
    """A quantised product of the largest weights, of both signs, with activations of 0 to 1."""
    weights = np.ones((COUNT, CHANNELS))
    weights[:, 1] = -1
    weights[::2, 2] = 0.5
    weights[:, 3] = np.linspace(-1, 1, COUNT)
    onnx.save(graph_of([("MatMul", ["image", "w"], "score")], {"w": weights}), tmp_path / "a.onnx")
    data = iter([{"image": np.full((1, COUNT), value, np.float32)} for value in (0, 1)])
    quantise_onnx(tmp_path / "a.onnx", tmp_path / "b.onnx", data)
    return tmp_path / "b.onnx", weights


def test_no_sum_of_two_products_is_cut_off(worst):
    path, _ = worst
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    (integers,) = (tensor for tensor in tensors if tensor.dtype == np.int8 and tensor.ndim == 2)
    for column in integers.T:
        # An engine may pair any two weights of a column: the largest two are the worst.
        for ordered in (np.sort(column), column):
            for activations in (np.full(COUNT, 255), 255 * (ordered > 0), 255 * (ordered < 0)):
                exact = (activations.astype(int) * ordered).sum()
                assert vpmaddubsw(activations, ordered).sum() == exact


def test_the_emulated_sum_is_cut_off_for_eight_bits():
    """That the comparison above can fail."""
    weights = np.full(COUNT, 127, np.int8)
    assert vpmaddubsw(np.full(COUNT, 255), weights).sum() < 255 * 127 * COUNT


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_largest_activations_come_out_right(engine, worst):
    """On the processor at hand."""
    path, weights = worst
    image = np.ones((1, COUNT), np.float32)
    found = run(engine, path, image)
    assert found == pytest.approx((image @ weights)[0], abs=0.01 * COUNT)


def run(engine, path, image):
    if engine == "openvino":
        ov = pytest.importorskip("openvino", reason="needs invad[openvino]")
        return ov.Core().compile_model(path, "CPU")([image])[0][0]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0][0]


def test_what_is_quantised_is_a_product_of_the_image_with_weights():
    weights = {"w": np.ones((COUNT, COUNT)), "level": np.ones((1, COUNT))}
    nodes = [
        ("MatMul", ["level", "w"], "of_the_level"),
        ("MatMul", ["image", "w"], "by_weights"),
        ("Transpose", ["by_weights"], "turned"),
        ("MatMul", ["turned", "by_weights"], "attention"),
        ("MatMul", ["image", "of_the_level"], "by_no_weights"),
        ("Add", ["attention", "by_no_weights"], "score"),
    ]
    assert heavy_nodes(graph_of(nodes, weights)) == ["by_weights"]


def test_a_convolution_of_few_channels_stays_float32():
    """One that sees the picture, and one of each channel by itself: quantised, they made a good part score
    3.1 instead of 0.8."""
    weights = {"first": np.ones((8, 3, 3, 3)), "own": np.ones((8, 1, 3, 3)), "mixing": np.ones((8, 8, 1, 1))}
    nodes = [
        ("Conv", ["image", "first"], "of_the_picture"),
        ("Conv", ["of_the_picture", "own"], "of_each_channel"),
        ("Conv", ["of_each_channel", "mixing"], "score"),
    ]
    assert heavy_nodes(graph_of(nodes, weights)) == ["score"]
