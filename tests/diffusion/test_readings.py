import math

import numpy as np
import pytest
import torch

from invad.diffusion.ddim import invert
from invad.diffusion.readings import READINGS, ReadingConfig, norms, read
from invad.diffusion.schedule import linear_schedule, timesteps
from invad.errors import ConfigError
from oracles import gaussian_noise, toy_noise

SCHEDULE = linear_schedule()


@pytest.fixture
def z():
    return torch.randn(3, 5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_norms_are_euclidean_over_channels(z):
    np.testing.assert_allclose(norms(z), np.sqrt((z.numpy() ** 2).sum(axis=1)), rtol=1e-12)


def test_early_on_unit_gaussian_data_is_a_closed_form(z):
    """eps* = sqrt(1 - abar_t) x, hence each norm is sqrt(1 - abar_t) ||x||."""
    config = ReadingConfig(timesteps=(0, 200, 999))
    maps = read(config, gaussian_noise(SCHEDULE, 1.0), z, SCHEDULE)
    expected = torch.stack([math.sqrt(1 - SCHEDULE.abar(t)) * norms(z) for t in (0, 200, 999)], dim=1)
    torch.testing.assert_close(maps, expected, rtol=1e-12, atol=0)


def test_inversion_on_unit_gaussian_data_is_a_closed_form(z):
    """Each step multiplies x by cos(theta' - theta), cos theta = sqrt(abar); the noise is sin theta x."""
    levels = timesteps("reference", 4)
    maps = read(ReadingConfig(kind="inversion", timesteps=levels), gaussian_noise(SCHEDULE, 1.0), z, SCHEDULE)
    theta = [math.acos(math.sqrt(SCHEDULE.abar(t))) for t in levels]
    scale, expected = 1.0, []
    for i, angle in enumerate(theta):
        expected.append(math.sin(angle) * scale * norms(z))
        scale *= math.cos((theta[i + 1] if i + 1 < len(theta) else math.pi / 2) - angle)
    torch.testing.assert_close(maps, torch.stack(expected, dim=1), rtol=1e-9, atol=0)


def test_the_last_map_of_inversion_is_the_norm_of_the_terminal_latent(z):
    levels = timesteps("reference", 3)
    maps = read(ReadingConfig(kind="inversion", timesteps=levels), toy_noise, z, SCHEDULE)
    latent = invert(toy_noise, z, SCHEDULE, levels).latent
    torch.testing.assert_close(maps[:, -1], norms(latent), rtol=1e-12, atol=0)


@pytest.mark.parametrize("t", [0, 250, 999])
def test_for_one_level_both_readings_are_the_last_noise(z, t):
    noise = toy_noise(z, torch.full((3,), t))
    for kind in READINGS:
        maps = read(ReadingConfig(kind=kind, timesteps=(t,)), toy_noise, z, SCHEDULE)
        assert maps.shape == (3, 1, 4, 6)
        torch.testing.assert_close(maps[:, 0], norms(noise), rtol=1e-12, atol=0)


def test_early_feeds_the_clean_features_to_every_level(z):
    maps = read(ReadingConfig(timesteps=(100, 700)), toy_noise, z, SCHEDULE)
    for level, t in enumerate((100, 700)):
        torch.testing.assert_close(maps[:, level], norms(toy_noise(z, torch.full((3,), t))))


@pytest.mark.parametrize("kind", READINGS)
def test_a_reading_does_not_depend_on_batch_mates(z, kind):
    config = ReadingConfig(kind=kind, timesteps=(200, 300))
    together = read(config, toy_noise, z, SCHEDULE)
    for i in range(len(z)):
        torch.testing.assert_close(together[i], read(config, toy_noise, z[i : i + 1], SCHEDULE)[0])


def test_unknown_kinds_and_levels_are_refused():
    with pytest.raises(ConfigError, match=r"reading.kind = 'late' is unknown"):
        ReadingConfig(kind="late")
    with pytest.raises(ConfigError, match="timesteps"):
        ReadingConfig(timesteps=(300, 200))
    with pytest.raises(ConfigError, match="timesteps"):
        ReadingConfig(timesteps=())
