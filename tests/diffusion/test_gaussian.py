"""The Gaussian part against its closed form, and the network that learns what it leaves over."""

import math
from itertools import pairwise

import pytest
import torch

from invad.diffusion.ddim import invert, q_sample
from invad.diffusion.denoiser import DenoiserConfig, build_denoiser
from invad.diffusion.gaussian import SMALLEST_VARIANCE, GaussianPreconditioned
from invad.diffusion.schedule import linear_schedule, timesteps

SCHEDULE = linear_schedule()
CONFIG = DenoiserConfig(kind="mlp", width=32, depth=1, mlp_ratio=2.0, gaussian=True)


def preconditioned(mean, variance):
    torch.manual_seed(0)
    net = build_denoiser(CONFIG, len(mean), (2, 3))
    assert isinstance(net, GaussianPreconditioned)
    net.set_gaussian(mean, variance)
    return net


def some_gaussian():
    mean = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return mean, torch.tensor([3.0, 1.0, 0.4, 0.05, 0.02], dtype=torch.float64)


@pytest.mark.parametrize("t", [0, 200, 999])
def test_untrained_it_is_the_posterior_mean_of_the_noise(t):
    mean, variance = some_gaussian()
    x = torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(2))
    a = SCHEDULE.abar(t)
    centred = x.double() - math.sqrt(a) * mean.view(1, -1, 1, 1)
    total = a * variance + 1 - a
    wanted = math.sqrt(1 - a) * centred / total.view(1, -1, 1, 1)
    made = preconditioned(mean, variance).predict_noise(x, torch.full((2,), t))
    torch.testing.assert_close(made.double(), wanted, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_cells_and_rows_may_have_levels_of_their_own():
    net = preconditioned(*some_gaussian())
    torch.nn.init.normal_(net.net.output.weight)
    x, levels = torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(5)), torch.tensor([30, 900])
    noise = [net.predict_noise(x, t.expand(2)) for t in levels]
    torch.testing.assert_close(net(x, levels[:, None, None].expand(2, 2, 3)), net(x, levels))
    by_row = net(x, levels[None, :, None].expand(2, 2, 1))
    by_cell = net(x, levels[None, :, None].expand(2, 2, 3))
    for made in (by_row, by_cell):
        torch.testing.assert_close(made, torch.stack([noise[0][:, :, 0], noise[1][:, :, 1]], dim=2))


def test_inversion_of_unit_gaussian_data_turns_by_the_angles_of_the_schedule():
    net = preconditioned(torch.zeros(4), torch.ones(4))
    x = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(3))
    levels = timesteps("reference", 4)
    angles = [math.acos(math.sqrt(SCHEDULE.abar(t))) for t in levels] + [math.pi / 2]
    factor = math.prod(math.cos(b - a) for a, b in pairwise(angles))
    with torch.no_grad():
        latent = invert(net.predict_noise, x, SCHEDULE, levels).latent
    torch.testing.assert_close(latent, factor * x, rtol=1e-4, atol=1e-6)


def test_far_from_the_data_the_norm_keeps_growing():
    net = preconditioned(*some_gaussian())
    torch.nn.init.normal_(net.net.output.weight)  # a network that says anything
    direction = torch.ones(1, 5, 2, 3)
    with torch.no_grad():
        norms = [net.predict_noise(s * direction, torch.tensor([200])).norm().item() for s in (1e2, 1e3, 1e4)]
    assert norms[1] > 5 * norms[0]
    assert norms[2] > 9 * norms[1]


def test_training_learns_what_a_gaussian_cannot():
    generator = torch.Generator().manual_seed(4)
    signs = torch.randint(0, 2, (4096, 1, 1, 1), generator=generator) * 2.0 - 1
    z = signs * torch.ones(1, 5, 1, 1) + 0.1 * torch.randn(4096, 5, 1, 1, generator=generator)
    cells = z.flatten(1)
    net = preconditioned(cells.mean(0), cells.var(0))
    t = torch.full((4096,), 300)
    noise = torch.randn(z.shape, generator=generator)
    x = q_sample(z, noise, t, SCHEDULE)

    def loss():
        return (net(x, t) - noise).square().mean()

    before = loss().item()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        made = loss()
        made.backward()
        optimizer.step()
    assert loss().item() < 0.8 * before


def test_the_gaussian_is_saved_with_the_weights_and_not_trained():
    net = preconditioned(*some_gaussian())
    other = build_denoiser(CONFIG, 5, (2, 3))
    other.load_state_dict(net.state_dict())
    x, t = torch.randn(1, 5, 2, 3), torch.tensor([100])
    assert torch.equal(net(x, t), other(x, t))
    assert {n.split(".")[0] for n, _ in net.named_parameters()} == {"net"}


def test_a_dead_channel_keeps_a_variance():
    net = preconditioned(torch.zeros(2), torch.tensor([1.0, 0.0]))
    assert net.variance.tolist() == pytest.approx([1.0, SMALLEST_VARIANCE])
