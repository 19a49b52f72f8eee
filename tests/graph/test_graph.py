"""The folded graph in PyTorch against the detector it was made from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invad.data.preprocess import Preprocess, resize_map
from invad.detector.detector import Detector
from invad.diffusion.denoiser import DenoiserConfig, build_denoiser
from invad.diffusion.dit import DiT
from invad.diffusion.gaussian import GaussianPreconditioned
from invad.diffusion.readings import ReadingConfig, read
from invad.diffusion.schedule import SCHEDULE
from invad.graph.graph import NoiseNorms, _below
from invad.graph.resample import (
    Resize,
    antialias_weights,
    area_weights,
    bilinear_weights,
    centres,
    near_weights,
)
from invad.scoring.rates import POOLED

SIDES = st.integers(1, 60)


@settings(max_examples=40, deadline=None)
@given(SIDES, SIDES, st.integers(2, 40), st.integers(2, 40))
def test_the_matrices_resize_as_torch_does(height, width, to_height, to_width):
    pixels = np.random.default_rng(height).random((height, width, 3)).astype(np.float32)
    rows, columns = antialias_weights(centres(height), to_height), antialias_weights(centres(width), to_width)
    found = torch.einsum("ih,hwc,jw->cij", rows, torch.from_numpy(pixels), columns)
    torch.testing.assert_close(found, Preprocess((to_height, to_width))(pixels), atol=2e-5, rtol=0)
    grid = pixels[..., 0]
    up = bilinear_weights(centres(to_height), height) @ torch.from_numpy(grid)
    up = up @ bilinear_weights(centres(to_width), width).T
    np.testing.assert_allclose(up.numpy(), resize_map(grid, (to_height, to_width)), atol=2e-5)
    pooled = area_weights(to_height, 2) @ torch.rand(to_height, 3, generator=torch.Generator().manual_seed(0))
    given_rows = torch.rand(to_height, 3, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.adaptive_avg_pool2d(given_rows[None], (2, 3))[0]
    torch.testing.assert_close(pooled, wanted, atol=1e-6, rtol=0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(2, 400))
def test_what_is_left_of_a_matrix_of_resizing_is_all_that_counts(length, after):
    places, weights = near_weights(length, after)
    rows = weights.flatten(0, 1)
    dense = torch.zeros(after, length).scatter_add_(
        1, places.repeat_interleave(weights.shape[1], dim=0), rows
    )
    torch.testing.assert_close(dense, antialias_weights(centres(length), after), atol=1e-6, rtol=0)


def test_a_large_matrix_of_resizing_has_hardly_any_zeros_left():
    _, weights = near_weights(4096, 192)
    assert weights.numel() < 0.1 * 4096 * 192


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("size_hw", [(1, 1), (5, 300), (96, 128), (700, 500)])
def test_the_graph_resizes_as_the_detector_does(size_hw, fixed):
    pixels = np.random.default_rng(0).integers(0, 65536, (*size_hw, 3)).astype(np.uint16)
    window, input_hw = (0.2, 0.7), (96, 128)
    levels = torch.tensor([65535 * window[0], 65535 * window[1]])
    resize = Resize(input_hw, size_hw if fixed else None)
    found = resize(torch.from_numpy(pixels.astype(np.float32))[None], levels)[0]
    torch.testing.assert_close(found, Preprocess(input_hw, window)(pixels), atol=2e-5, rtol=0)


def pictures(draw):
    eight = draw(3, defect=True, size=(90, 60))
    return [eight, eight.astype(np.uint16) * 200, (eight / 255).astype(np.float32), eight[:5, :3], draw(4)]


def assert_same(found, expected):
    assert found.score == pytest.approx(expected.score, abs=2e-4 * (1 + abs(expected.score)))
    assert found.p_value == pytest.approx(expected.p_value, abs=1e-12)
    assert (found.decision, found.category, found.path) == (
        expected.decision,
        expected.category,
        expected.path,
    )
    peak = 1 + np.abs(expected.anomaly_map).max()
    np.testing.assert_allclose(found.anomaly_map, expected.anomaly_map, atol=2e-3 * peak)
    assert found.anomaly_map.dtype == np.float32


def test_a_compiled_detector_predicts_the_same(detector, draw):
    compiled = detector.compile()
    for pixels in pictures(draw):
        assert_same(compiled.predict(pixels), detector.predict(pixels))
    assert compiled.calibrations == detector.calibrations


def test_a_size_of_its_own_is_constant_and_required(detector, draw):
    pixels = draw(5, size=(90, 60))
    assert_same(detector.compile(size_hw=(60, 90)).predict(pixels), detector.predict(pixels))
    same = draw(6)
    assert_same(detector.compile(size_hw=(64, 64)).predict(same), detector.predict(same))


def test_each_category_has_its_numbers(two_categories, draw):
    compiled = two_categories.compile()
    pixels = draw(7, size=(80, 60))
    found = {c: compiled.predict(pixels, category=c) for c in (None, "part", "wide")}
    for category, prediction in found.items():
        assert_same(prediction, two_categories.predict(pixels, category=category))
    assert found["part"].score != found["wide"].score


def test_compiling_changes_nothing_in_the_detector(detector, draw):
    before = detector.predict(draw(8))
    detector.compile(low=torch.bfloat16).predict(draw(8))
    assert detector.predict(draw(8)).score == before.score


def test_many_images_in_batches_keep_their_order(detector, draw):
    compiled = detector.compile()
    images = [draw(i, size=(64, 64) if i % 5 else (70, 50)) for i in range(12)]
    for found, image in zip(compiled.predict_many(iter(images), batch=4), images, strict=True):
        assert_same(found, detector.predict(image))


@given(st.floats(-1e6, 1e6))
def test_a_limit_in_float32_splits_the_float32s_alike(limit):
    below = np.float32(_below(limit))
    for score in (below, np.nextafter(below, np.float32(np.inf)), np.nextafter(below, np.float32(-np.inf))):
        assert (float(score) > limit) == (score > below)


def test_what_is_not_a_number_is_bad(detector):
    from invad.graph.graph import Judge

    judge = Judge(detector.model, detector.stats, detector.calibrations)
    _, level, height, width = 1, *detector.stats[POOLED].median_Lhw.shape
    _, p_value, decision, _ = judge(torch.full((1, level, height, width), torch.nan), torch.tensor([0]))
    assert (int(decision), detector.calibrations[POOLED].decide(float("nan"))) == (2, "bad")
    assert float(p_value) == pytest.approx(detector.calibrations[POOLED].p_value(float("nan")))


def test_other_presets_compile(tiny_detectors, draw):
    for detector in tiny_detectors.values():
        assert isinstance(detector, Detector)
        for pixels in pictures(draw)[:2]:
            assert_same(detector.compile().predict(pixels), detector.predict(pixels))


CHANNELS, GRID = 10, (4, 6)
KINDS = {
    "mlp": DenoiserConfig(kind="mlp", width=16, depth=2, gaussian=True),
    "mlp without places": DenoiserConfig(kind="mlp", width=16, depth=1, positional=False),
    "dit": DenoiserConfig(kind="dit", width=16, depth=1, heads=4, gaussian=True),
    "dit patch": DenoiserConfig(kind="dit", width=16, depth=1, heads=4, patch=2),
}


def drawn(kind):
    """A network with weights as after a training: none zero."""
    if kind == "stored places":
        network = DiT(CHANNELS, width=16, depth=1, heads=4, stored_grid_hw=(4, 6))
    else:
        network = build_denoiser(KINDS[kind], CHANNELS, GRID)
    generator = torch.Generator().manual_seed(1)
    for tensor in network.parameters():
        spread = 0.3 if tensor.ndim < 2 else tensor[0].numel() ** -0.5
        tensor.data.copy_(torch.randn(tensor.shape, generator=generator) * spread)
    if isinstance(network, GaussianPreconditioned):
        network.set_gaussian(torch.linspace(-1, 1, CHANNELS), torch.linspace(0.2, 2, CHANNELS))
    return network.eval()


@pytest.mark.parametrize("reading", ["early", "inversion"])
@pytest.mark.parametrize("kind", [*KINDS, "stored places"])
@pytest.mark.parametrize(("low", "tolerance"), [(None, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)])
def test_a_predictor_reads_as_the_model_does(kind, reading, low, tolerance):
    """In half precision the level keeps its digits: 1 - abar of an early one would be lost."""
    network, x = drawn(kind), torch.randn(2, CHANNELS, *GRID, generator=torch.Generator().manual_seed(2))
    levels = {"early": (20, 300), "inversion": (1, 250, 600)}[reading]
    config = ReadingConfig(kind=reading, timesteps=levels)
    other = ReadingConfig(kind=reading, timesteps=tuple(t + 40 for t in levels))
    with torch.no_grad():
        expected = read(config, network.predict_noise, x, SCHEDULE)
        found = NoiseNorms(network, config, low)(x)
        wrong = NoiseNorms(network, other, low)(x)
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < tolerance
    assert float((wrong - expected).norm() / expected.norm()) > tolerance
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
