import numpy as np
import pytest
import torch

from invad.errors import ConfigError
from invad.model.space import FeatureSpace, SpaceConfig, Standardiser


def features(n=12, channels=6, seed=0):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(channels, channels)) @ np.diag(np.linspace(0.2, 2, channels))
    z = np.einsum("ck,nkhw->nchw", mixed, rng.normal(size=(n, channels, 3, 5)))
    return (z + np.linspace(-3, 3, channels)[:, None, None]).astype(np.float32)


def fitted(z, **options):
    return FeatureSpace.fit(SpaceConfig(**options), z, np.arange(len(z)))


# Standardiser


def test_standardiser_against_numpy():
    scales = np.float32(10) ** np.array([0, 1, 2, -2, 0, 1], np.float32)
    z, index = features() * scales[:, None, None], np.array([0, 3, 5])
    found = Standardiser.fit(z, index)
    chosen = z[index].astype(np.float64)
    np.testing.assert_allclose(found.mean_C, chosen.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.std_C, chosen.std(axis=(0, 2, 3)), rtol=1e-5)
    whitened = found(torch.from_numpy(z[index]))
    np.testing.assert_allclose(whitened.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(whitened.std((0, 2, 3), unbiased=False), 1, rtol=1e-4)


def test_a_dead_channel_is_not_blown_up():
    z = features()
    z[:, 1] = 5.0
    whitened = Standardiser.fit(z, np.arange(len(z)))(torch.from_numpy(z))
    assert torch.isfinite(whitened).all()
    assert whitened[:, 1].abs().max() < 0.1


def test_identity_changes_nothing():
    z = torch.from_numpy(features())
    assert torch.equal(Standardiser.identity(6)(z), z)


# FeatureSpace


def test_plain_it_is_the_standardiser_alone():
    z = features()
    expected = Standardiser.fit(z, np.arange(len(z)))(torch.from_numpy(z))
    assert torch.equal(fitted(z)(torch.from_numpy(z)), expected)
    raw = fitted(z, standardise=False)
    assert torch.equal(raw(torch.from_numpy(z)), torch.from_numpy(z))


def test_full_contrast_keeps_the_direction_alone():
    """Twice the strength of a cell, in standard deviations, changes nothing; half of it goes at 0.5."""
    z, mean = torch.from_numpy(features()), None
    for contrast, factor in ((0.0, 2.0), (0.5, 2**0.5), (1.0, 1.0)):
        space = fitted(z.numpy(), contrast=contrast)
        mean = space.standardiser.mean_C.view(1, -1, 1, 1)
        twice = mean + 2 * (z - mean)
        torch.testing.assert_close(space(twice), factor * space(z), rtol=1e-4, atol=1e-5)


def test_a_cell_without_contrast_is_not_blown_up():
    z = features()
    space = fitted(z, contrast=1.0)
    flat = space.standardiser.mean_C.view(1, -1, 1, 1).expand(1, -1, 2, 2)
    assert space(flat + 1e-6).abs().max() < 1e-3


def test_components_are_the_principal_directions_at_a_mean_variance_of_one():
    z = features(n=200)
    space = fitted(z, components=3)
    mean, covariance = space.covariance(z, np.arange(len(z)))
    assert (space.channels, mean.shape) == (3, (3,))
    torch.testing.assert_close(mean, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-5)
    assert float(covariance.diagonal().mean()) == pytest.approx(1, abs=1e-4)
    off = covariance - torch.diag(covariance.diagonal())
    assert off.abs().max() < 1e-4
    _, plain = fitted(z).covariance(z, np.arange(len(z)))
    kept = torch.linalg.eigvalsh(plain).flip(0)[:3]
    torch.testing.assert_close(covariance.diagonal(), kept / kept.mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whitening", [0.5, 1.0])
def test_whitening_evens_out_the_directions(whitening):
    z = features(n=200)
    plain, white = fitted(z, components=4), fitted(z, components=4, whitening=whitening)
    before, after = (space.covariance(z, np.arange(len(z)))[1].diagonal() for space in (plain, white))
    expected = before ** (1 - whitening)
    torch.testing.assert_close(after, expected / expected.mean(), rtol=1e-3, atol=1e-4)


def test_a_direction_without_variance_is_not_blown_up():
    z = features(n=50, channels=6)
    z[:, 5] = z[:, 4]
    space = fitted(z, components=6, whitening=1.0)
    assert space.basis_CK.abs().max() < 200
    assert torch.isfinite(space(torch.from_numpy(z))).all()


def test_no_more_components_than_channels():
    z = features()
    space = fitted(z, components=99)
    assert space.channels == 6
    assert space(torch.from_numpy(z)).shape == (12, 6, 3, 5)


def test_only_the_images_asked_for_count():
    z = features()
    index = np.arange(6)
    spoilt = z.copy()
    spoilt[6:] += 100
    for found, expected in zip(
        FeatureSpace.fit(SpaceConfig(contrast=0.5, components=4), spoilt, index).tensors().values(),
        FeatureSpace.fit(SpaceConfig(contrast=0.5, components=4), z, index).tensors().values(),
        strict=True,
    ):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("options", [{}, {"contrast": 0.5}, {"contrast": 1.0, "components": 3}])
def test_it_comes_back_from_its_tensors(options):
    z = features()
    space = fitted(z, **options)
    again = FeatureSpace.from_tensors(SpaceConfig(**options), space.tensors())
    assert torch.equal(again(torch.from_numpy(z)), space(torch.from_numpy(z)))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("contrast", -0.1),
        ("contrast", 1.1),
        ("components", 0),
        ("whitening", -0.1),
        ("whitening", 1.5),
        ("whitening", 0.5),
    ],
)
def test_values_out_of_range_are_named(key, value):
    with pytest.raises(ConfigError, match=f"^{key} = "):
        SpaceConfig(**{key: value})
