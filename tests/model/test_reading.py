from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from invad.backbones.base import Part, pool_to_grid
from invad.backbones.beside import Each
from invad.backbones.registry import load_backbone
from invad.data.preprocess import Preprocess
from invad.diffusion.ddim import invert
from invad.diffusion.denoiser import DenoiserConfig, build_denoiser
from invad.diffusion.empirical import EmpiricalConfig, EmpiricalDenoiser, draw_cells
from invad.diffusion.readings import norms
from invad.diffusion.schedule import SCHEDULE
from invad.model.reading import Bank, FeatureExtractor, Model
from invad.model.settings import preset_named
from invad.model.space import FeatureSpace, SpaceConfig, Standardiser

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
    return Model(extract, FeatureSpace(standardiser), net, (), tiny_preset)


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
    white = model.space.standardiser(z)
    levels = model.settings.reading.timesteps
    with torch.inference_mode():
        expected = [norms(model.denoiser.predict_noise(white, torch.tensor([t])))[0] for t in levels]
    torch.testing.assert_close(maps, torch.stack(expected))
    assert maps.device.type == "cpu"


def test_inversion_keeps_the_whole_walk(model, draw):
    z = model.extract(draw(1))
    walk = model.invert(z, (0, 500, 999))
    with torch.inference_mode():
        expected = invert(model.denoiser.predict_noise, model.space(z), SCHEDULE, (0, 500, 999))
    torch.testing.assert_close(walk.latent, expected.latent)
    assert len(walk.latents) == 4


def test_nothing_is_left_to_differentiate(model, draw):
    assert not model.read(model.extract(draw(0))).requires_grad


def test_every_scale_adds_its_maps(extract, draw):
    pixels = draw(2, size=(96, 64))
    both = replace(extract, scales=(1.0, 0.5))
    z = both(pixels)
    assert z.shape == (1, 72, 4, 6)
    assert both.channels == 72
    torch.testing.assert_close(z[:, :36], extract(pixels))
    half = F.interpolate(extract.preprocess(pixels)[None], (32, 48), mode="bilinear", antialias=True)
    torch.testing.assert_close(z[:, 36:], pool_to_grid(extract.backbone(half), (4, 6)), rtol=1e-4, atol=1e-5)


def test_a_small_scale_keeps_a_whole_number_of_the_backbones_steps(extract, draw):
    sides = []

    def spy(x):
        sides.append(tuple(x.shape[2:]))
        return extract.backbone(x)

    wanted = replace(extract, scales=(1.0, 0.7, 0.1), backbone=Spy(extract.backbone, spy))
    wanted(draw(3))
    assert sides == [(64, 96), (44, 68), (16, 16)]


class Spy:
    def __init__(self, backbone, call):
        self.call, self.size_multiple, self.mean = call, backbone.size_multiple, backbone.mean
        self.channels, self.apart = backbone.channels, (Part(self),)

    def __call__(self, x):
        return self.call(x)


def test_the_empirical_predictor_is_read_beside_the_network(extract, draw, tiny_preset):
    z = np.concatenate([extract(draw(i)).numpy() for i in range(6)])
    space = FeatureSpace.fit(SpaceConfig(contrast=0.5, components=8), z, np.arange(6))
    settings = replace(tiny_preset, empirical=EmpiricalConfig(cells=50, timesteps=(20, 100)))
    settings = replace(settings, top_fractions=None, second_space=None)
    x = space(torch.from_numpy(z))
    empirical = EmpiricalDenoiser(8, 50)
    empirical.set_bank(draw_cells(x.numpy(), np.arange(len(x)), 50, seed=0), seed=0)
    net = build_denoiser(tiny_preset.denoiser, 8, (4, 6)).eval()
    bank = Bank(settings.banks[0], space, empirical)
    maps = Model(extract, space, net, (bank,), settings).read(torch.from_numpy(z[:1]))
    assert maps.shape == (5, 4, 6)
    for t, found in zip((20, 100), maps[3:], strict=True):
        torch.testing.assert_close(found, norms(empirical.predict_noise(x[:1], torch.tensor([t])))[0])
    alone = Model(extract, space, net, (), replace(settings, empirical=None, fine=None))
    assert torch.equal(alone.read(torch.from_numpy(z[:1])), maps[:3])


def test_the_fine_grid_is_packed_into_the_grid(extract, draw):
    """Its cells are the backbone's maps averaged over smaller cells, whatever order they come in."""
    pixels = draw(4, size=(96, 64))
    both = replace(extract, scales=(1.0, 0.5), fine=2)
    z = both(pixels)
    assert z.shape == (1, 36 * (2 + 4), 4, 6)
    assert both.channels == 36 * 6
    coarse, fine = both.split(z)
    assert torch.equal(coarse, replace(both, fine=None)(pixels))
    maps = extract.backbone(torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None])
    finer = pool_to_grid(maps, (8, 12))
    for block, (dy, dx) in zip(fine.split(4, dim=2), [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        torch.testing.assert_close(block, finer[:, :, dy::2, dx::2], rtol=1e-4, atol=1e-5)
    as_array = both.split(z.numpy())
    assert all(np.shares_memory(part, z.numpy()) for part in as_array)
    np.testing.assert_array_equal(as_array[1], fine.numpy())


def test_the_fine_map_is_the_noise_in_all_the_fine_cells_of_a_cell(extract, draw, tiny_preset):
    """In the order of the banks: the grid in both spaces, then the fine grid in both."""
    extract = replace(extract, fine=2)
    z = np.concatenate([extract(draw(i)).numpy() for i in range(6)])
    coarse, fine = extract.split(z)
    settings = replace(
        tiny_preset,
        space=SpaceConfig(contrast=0.5, components=8),
        second_space=SpaceConfig(contrast=1.0, components=8),
        empirical=EmpiricalConfig(cells=20),
    )
    banks = []
    for config in settings.banks:
        part = fine if config.fine else coarse
        space = FeatureSpace.fit(config.space, part, np.arange(6))
        known = EmpiricalDenoiser(8, 20)
        drawn = draw_cells(space(torch.from_numpy(part)).numpy(), np.arange(len(part)), 20, seed=0)
        known.set_bank(drawn, seed=0)
        banks.append(Bank(config, space, known))
    net = build_denoiser(tiny_preset.denoiser, 8, (4, 6)).eval()
    model = Model(extract, banks[0].space, net, tuple(banks), settings)
    maps = model.read(torch.from_numpy(z[:1]))
    assert maps.shape == (7, 4, 6)
    for bank, found in zip(banks[:2], maps[3:5], strict=True):
        noise = bank.empirical.predict_noise(bank.space(torch.from_numpy(coarse[:1])), torch.tensor([20]))
        torch.testing.assert_close(found, norms(noise)[0])
    for bank, found in zip(banks[2:], maps[5:], strict=True):
        noise = bank.empirical.predict_noise(bank.space(torch.from_numpy(fine[:1])), torch.tensor([20]))
        whole = noise.view(1, 8, 4, 4, 6).permute(0, 2, 1, 3, 4).reshape(1, 32, 4, 6)
        torch.testing.assert_close(found, norms(whole)[0])
    assert not torch.allclose(maps[3], maps[4], rtol=0.01)


def test_each_of_several_backbones_has_channels_of_its_own_on_both_grids(extract, draw):
    """The one that is at its best on a smaller image sees it smaller; cells are the same for both."""
    names = ("invad-s", "efficientnet-lite2")
    parts = [load_backbone(name, pretrained=False) for name in names]
    both = replace(extract, backbone=Each(parts).freeze(), scales=(1.0, 0.5), fine=2)
    settings = replace(preset_named("standard"), backbone=",".join(names))
    z = torch.from_numpy(both(draw(4, size=(96, 64))).numpy())
    widths = [part.channels for part in parts]
    assert [part.share for part in both.backbone.apart] == [256 / 384, 1.0]
    assert (both.channels, z.shape[1]) == (6 * sum(widths), 6 * sum(widths))
    x = both.preprocess(draw(4, size=(96, 64)))[None]
    smaller = F.interpolate(x, (44, 64), mode="bilinear", antialias=True)
    spans = {bank.name: both.span(bank) for bank in settings.banks}
    a, b = widths
    assert spans == {
        "": (0, 2 * a),
        "second.": (0, 2 * a),
        "fine.": (0, a),
        "fine.second.": (0, a),
        "part1.": (2 * a, 2 * (a + b)),
        "part1.fine.": (a, a + b),
    }
    for bank in settings.banks:
        seen = parts[bank.part](x if bank.part else smaller)
        times = 2 if bank.fine else 1
        h, w = both.cells_hw(both.backbone.apart[bank.part])
        pooled = F.interpolate(
            pool_to_grid(seen, (times * h, times * w)), (4 * times, 6 * times), mode="bilinear"
        )
        found = both.known(z, bank)[:, : parts[bank.part].channels]
        if bank.fine:
            pooled = torch.cat([pooled[:, :, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)], dim=2)
        torch.testing.assert_close(found, pooled, rtol=1e-3, atol=1e-3)
    assert both.learned(z).shape[1] == 2 * a
