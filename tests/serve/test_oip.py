"""The Open Inference Protocol, spoken to by Triton's own client and by plain JSON."""

import base64
import json

import numpy as np
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from invad import runtime
from invad.serve.records import Refused
from invad.serve.web.tensors import array, read_request, texts, write_answer


@pytest.fixture(scope="module")
def exported(bundle):
    return runtime.load(bundle, threads=1)


@pytest.fixture
def triton(service):
    with InferenceServerClient(service.url.removeprefix("http://")) as client:
        yield client


@pytest.fixture
def key(service):
    return {"Authorization": f"Bearer {service.key}"}


def tensor(values, datatype):
    made = InferInput("image", list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=True)
    return made


def test_the_client_finds_server_and_model(triton, key, bundle, exported):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    for version in ("", exported.content_hash):
        assert triton.is_model_ready(bundle.name, version)
        found = triton.get_model_metadata(bundle.name, version, headers=key)
        assert found["versions"] == [exported.content_hash]
        assert [one["name"] for one in found["inputs"]] == ["image", "category"]
    assert not triton.is_model_ready(bundle.name, "2")
    assert not triton.is_model_ready("other")


def test_one_part_has_one_score_however_it_comes(triton, key, bundle, exported, draw, http, tmp_path):
    pixels = draw(800, defect=True)
    deep = pixels.astype(np.uint16) * 257 + 5
    expected = {"u8": exported.predict(pixels), "u16": exported.predict(deep)}
    floats = (pixels / 255).astype(np.float32)
    expected["f32"] = exported.predict(floats)
    sent = {"u8": tensor(pixels[None], "UINT8"), "u16": tensor(deep[None], "UINT16")}
    sent["f32"] = tensor(floats[None], "FP32")
    for name, given in sent.items():
        found = triton.infer(bundle.name, [given], headers=key, request_id="7")
        assert found.as_numpy("score").tolist() == [np.float32(expected[name].score)], name
        assert found.as_numpy("p_value").tolist() == [np.float32(expected[name].p_value)]
        assert found.as_numpy("decision_name").tolist() == [expected[name].decision.encode()]
        assert found.as_numpy("decision").tolist() == [
            ["good", "review", "bad"].index(expected[name].decision)
        ]
        assert found.get_response()["id"] == "7"
        assert found.as_numpy("anomaly_map") is None
        kept = http.get(f"/api/v1/results/{found.as_numpy('result_id')[0].decode()}").json()
        assert (kept["score"], kept["source"]) == (expected[name].score, "oip")


def test_encoded_images_in_a_batch_with_maps(triton, key, bundle, exported, pictures):
    bodies = [pictures[0][0], pictures[1][0]]
    expected = [exported.predict(body) for body in bodies]
    given = tensor(np.array(bodies, dtype=object), "BYTES")
    outputs = [InferRequestedOutput("anomaly_map", binary_data=True), InferRequestedOutput("score", False)]
    found = triton.infer(bundle.name, [given], outputs=outputs, headers=key)
    assert found.as_numpy("score").tolist() == [np.float32(one.score) for one in expected]
    for one, map_hw in zip(expected, found.as_numpy("anomaly_map"), strict=True):
        assert np.abs(map_hw - one.anomaly_map).max() <= np.ptp(one.anomaly_map) / 65535
    assert found.as_numpy("p_value") is None


def test_categories_and_words_of_a_part(triton, key, bundle, exported, pictures, http):
    given = tensor(np.array([pictures[0][1]], dtype=object), "BYTES")
    name = next(filter(None, exported.calibrations))
    category = InferInput("category", [1], "BYTES")
    category.set_data_from_numpy(np.array([name.encode()], dtype=object))
    words = {"part_id": "P", "lot": "L", "request_id": "oip-1"}
    once, twice = (
        triton.infer(bundle.name, [given, category], headers=key, parameters=words) for _ in range(2)
    )
    assert once.as_numpy("result_id") == twice.as_numpy("result_id")
    kept = http.get(f"/api/v1/results/{once.as_numpy('result_id')[0].decode()}").json()
    assert (kept["part_id"], kept["lot"], kept["category"]) == ("P", "L", name)
    number = InferInput("category", [1], "INT64")
    number.set_data_from_numpy(np.array([list(exported.calibrations).index(name)]))
    assert triton.infer(bundle.name, [given, number], headers=key).as_numpy("score") == once.as_numpy("score")


def test_plain_json(http, bundle, exported, draw, pictures):
    pixels = draw(801)
    image = {"name": "image", "shape": [1, 64, 64, 3], "datatype": "UINT8", "data": pixels.ravel().tolist()}
    found = http.post(f"/v2/models/{bundle.name}/infer", json={"id": "a", "inputs": [image]}).json()
    assert (found["id"], found["model_version"]) == ("a", exported.content_hash)
    outputs = {one["name"]: one["data"] for one in found["outputs"]}
    assert outputs["score"] == [exported.predict(pixels).score]
    coded = base64.b64encode(pictures[1][0]).decode()
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [coded]}
    found = http.post(f"/v2/models/{bundle.name}/infer", json={"inputs": [image]}).json()
    assert {one["name"]: one["data"] for one in found["outputs"]}["decision_name"] == ["bad"]
    assert http.get("/v2/health/ready").json() == {"ready": True}
    assert http.get("/v2/").json()["name"] == http.get("/v2").json()["name"] == "invad"


def test_refusals_by_the_client(triton, key, bundle):
    given = tensor(np.zeros((1, 8, 8, 3), np.uint8), "UINT8")
    flat = tensor(np.zeros((1, 8, 8), np.uint8), "UINT8")
    cases = [
        (("other", [given]), {"headers": key}, "no model 'other'"),
        ((bundle.name, [given]), {"headers": key, "model_version": "1"}, "version '1' is not active"),
        ((bundle.name, [given]), {}, "send a key"),
        ((bundle.name, [flat]), {"headers": key}, r"expected \[N, H, W, 3\]"),
        ((bundle.name, [given]), {"headers": key, "outputs": [InferRequestedOutput("x")]}, "no output 'x'"),
        ((bundle.name, [given]), {"headers": key, "request_compression_algorithm": "gzip"}, "compressed"),
    ]
    for arguments, options, words in cases:
        with pytest.raises(InferenceServerException, match=words):
            triton.infer(*arguments, **options)


IMAGE = {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["x"]}


@pytest.mark.parametrize(
    ("body", "header", "words"),
    [
        (b"{", None, "is no JSON"),
        (b"[" * 100_000, None, "is no JSON"),
        (b"[]", None, "the request: expected an object"),
        (b"{}", None, "inputs: expected a list"),
        ({"inputs": [IMAGE], "id": 3}, None, "id: expected a text"),
        ({"inputs": [{**IMAGE, "datatype": "FP8"}]}, None, "datatype 'FP8'"),
        ({"inputs": [{**IMAGE, "shape": [-1]}]}, None, "shape"),
        ({"inputs": [{**IMAGE, "shape": [2**40, 2**40]}]}, None, "shape"),
        ({"inputs": [{**IMAGE, "shape": [2]}]}, None, "give 2 texts"),
        ({"inputs": [{**IMAGE, "datatype": "UINT8", "data": [256]}]}, None, "is no UINT8"),
        ({"inputs": [{**IMAGE, "datatype": "UINT8", "data": [0.5]}]}, None, "is no UINT8"),
        ({"inputs": [{**IMAGE, "datatype": "UINT8", "data": [[1], [2, 3]]}]}, None, "is no UINT8"),
        ({"inputs": [{**IMAGE, "datatype": "FP16", "data": [1]}]}, None, "FP16"),
        ({"inputs": [{**IMAGE, "parameters": {"binary_data_size": 9}}]}, None, "0 bytes are left"),
        (b"{}", "-1", "Inference-Header-Content-Length"),
        (b"{}", "3", "the body has 2 bytes"),
        (b'{"inputs": []}xx', "14", "2 bytes follow"),
    ],
)
def test_requests_that_are_none(body, header, words):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(Refused, match=words) as caught:
        read_request(content, header)
    assert caught.value.status == 400


@pytest.mark.parametrize("content", [b"\xff\xff\xff\xff", b"\1\0\0\0", b"\1\0\0\0ab", b""])
def test_binary_texts_that_are_none(content):
    head = json.dumps({"inputs": [{**IMAGE, "parameters": {"binary_data_size": len(content)}}]}).encode()
    with pytest.raises(Refused):
        read_request(head + content, str(len(head)))


def test_an_answer_reads_as_it_was_written():
    numbers, words = array("a", "INT64", [[1, 2], [3, 4]]), texts("b", ["ä", ""])
    body, headers = write_answer({"model_name": "m"}, [(numbers, True), (words, True)])
    plain = json.loads(body[: int(headers["Inference-Header-Content-Length"])])
    request = json.dumps({"inputs": plain["outputs"]}).encode()
    binary = body[int(headers["Inference-Header-Content-Length"]) :]
    found = read_request(request + binary, str(len(request))).inputs
    assert found["a"].data.tolist() == [[1, 2], [3, 4]]
    assert found["b"].data == ["ä".encode(), b""]
    body, headers = write_answer({"model_name": "m"}, [(numbers, False), (words, False)])
    assert headers == {"Content-Type": "application/json"}
    assert [one["data"] for one in json.loads(body)["outputs"]] == [[1, 2, 3, 4], ["ä", ""]]
