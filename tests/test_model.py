import numpy as np
import pytest
import torch
import torch.nn.functional as F

from invad.data.preprocess import Preprocess
from invad.diffusion.ddim import invert
from invad.diffusion.denoiser import DenoiserConfig, build_denoiser
from invad.diffusion.readings import norms
from invad.model import SCHEDULE, FeatureExtractor, Model
from invad.training import Standardiser

HW = (64, 96)


@pytest.fixture
def extract(make_backbone):
    return FeatureExtractor(Preprocess(HW), make_backbone(), (4, 6))


@pytest.fixture
def model(extract, tiny_preset):
    torch.manual_seed(0)
    net = build_denoiser(DenoiserConfig(kind="mlp", width=16, depth=1), 36, (4, 6)).eval()
    torch.nn.init.normal_(net.output.weight)
    standardiser = Standardiser(torch.linspace(-1, 1, 36), torch.linspace(0.5, 2, 36))
    return Model(extract, standardiser, net, tiny_preset)


def test_features_are_the_backbones_averaged_over_each_cell(extract, draw):
    pixels = draw(0, size=(96, 64))
    z = extract(pixels)
    assert (z.shape, z.dtype) == ((1, 36, 4, 6), torch.float32)
    maps = extract.backbone(torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None])
    expected = torch.cat([F.avg_pool2d(m, m.shape[-1] // 6) for m in maps], dim=1)
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-5)


def test_the_papers_pooling_is_bilinear(extract, draw):
    bilinear = FeatureExtractor(extract.preprocess, extract.backbone, (4, 6), "bilinear")(draw(0))
    area = extract(draw(0))
    assert bilinear.shape == area.shape
    torch.testing.assert_close(bilinear[:, -16:], area[:, -16:])  # the tap that has the grid's size already
    assert not torch.allclose(bilinear[:, :8], area[:, :8], rtol=1e-3)


def test_reading_is_norms_of_the_noise_on_standardised_features(model, draw):
    z = model.extract(draw(1))
    maps = model.read(z)
    white = (z - model.standardiser.mean_C.view(1, -1, 1, 1)) / model.standardiser.std_C.view(1, -1, 1, 1)
    levels = model.settings.reading.timesteps
    with torch.inference_mode():
        expected = [norms(model.denoiser.predict_noise(white, torch.tensor([t])))[0] for t in levels]
    torch.testing.assert_close(maps, torch.stack(expected))
    assert maps.device.type == "cpu"


def test_inversion_keeps_the_whole_walk(model, draw):
    z = model.extract(draw(1))
    walk = model.invert(z, (0, 500, 999))
    with torch.inference_mode():
        expected = invert(model.denoiser.predict_noise, model.standardiser(z), SCHEDULE, (0, 500, 999))
    torch.testing.assert_close(walk.latent, expected.latent)
    assert len(walk.latents) == 4


def test_nothing_is_left_to_differentiate(model, draw):
    assert not model.read(model.extract(draw(0))).requires_grad
