import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invad.diffusion.ddim import ddim_step, invert, q_sample, sample
from invad.diffusion.schedule import linear_schedule, timesteps
from invad.errors import ConfigError
from oracles import gaussian_noise, toy_noise

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "inversion.json").read_text())
SCHEDULE = linear_schedule()


def rounded_as_published(predict_noise):
    """The noise after the float32 detour of the published code: to the clean estimate and back.

    At abar = 0.9999 it divides rounding errors by sqrt(1 - abar) = 0.01, as the golden numbers show.
    """

    def predict(x, t_B):
        abar = SCHEDULE.abar(int(t_B[0]))
        scale, share = (torch.tensor(math.sqrt(v), dtype=torch.float32) for v in (1 / abar, 1 / abar - 1))
        clean = scale * x - share * predict_noise(x, t_B)
        return (scale * x - clean) / share

    return predict


def close(actual, expected):
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def theta(abar):
    return math.acos(math.sqrt(abar))


# Golden numbers of the published code


@pytest.mark.parametrize("steps", GOLDEN["cases"])
def test_inversion_equals_published_trajectory(steps):
    case = GOLDEN["cases"][steps]
    predict = rounded_as_published(toy_noise)
    walk = invert(predict, torch.tensor(GOLDEN["x0"]), SCHEDULE, timesteps("reference", int(steps)))
    assert len(walk.latents) == int(steps) + 1
    for latent, expected in zip(walk.latents[1:], case["trajectory"], strict=True):
        close(latent, expected)
    close(walk.latent, case["latent"])
    norm_map = walk.latent.norm(dim=1)
    close(norm_map, case["norm_map"])
    close(norm_map.amax((1, 2)) - norm_map.amin((1, 2)), case["range"])
    close((0.5 * (walk.latent**2 + math.log(2 * math.pi))).sum((1, 2, 3)), case["nll"])


@pytest.mark.parametrize("steps", GOLDEN["cases"])
def test_inversion_without_the_detour_is_exact_to_float32(steps):
    x, tau = torch.tensor(GOLDEN["x0"]), timesteps("reference", int(steps))
    walk, exact = (invert(toy_noise, start, SCHEDULE, tau) for start in (x, x.double()))
    for i, (latent, true) in enumerate(zip(walk.latents[1:], exact.latents[1:], strict=True)):
        published = torch.tensor(GOLDEN["cases"][steps]["trajectory"][i])
        size = true.abs().max()
        assert (latent - true).abs().max() < 1e-6 * size
        assert (published - true).abs().max() < 1e-4 * size


def test_forward_noising_equals_published_values():
    x0, noise = torch.tensor(GOLDEN["x0"]), torch.tensor(GOLDEN["noise"])
    for t, expected in GOLDEN["q_sample"].items():
        close(q_sample(x0, noise, int(t), SCHEDULE), expected)
        close(q_sample(x0, noise, torch.tensor([int(t)] * 2), SCHEDULE), expected)


def test_forward_noising_takes_a_level_per_image():
    x0, noise = torch.tensor(GOLDEN["x0"]), torch.tensor(GOLDEN["noise"])
    mixed = q_sample(x0, noise, torch.tensor([0, 999]), SCHEDULE)
    close(mixed[0], GOLDEN["q_sample"]["0"][0])
    close(mixed[1], GOLDEN["q_sample"]["999"][1])


def test_reconstruction_equals_published_values():
    golden = GOLDEN["reconstruction"]
    x0, noise = torch.tensor(GOLDEN["x0"]), torch.tensor(GOLDEN["noise"])
    levels, start = golden["timesteps"], golden["start_index"]
    # Noised to one level, the published code walks back from the level below.
    noised = q_sample(x0, noise, levels[start], SCHEDULE)
    walk = sample(toy_noise, noised, SCHEDULE, levels[:start][::-1])
    close(walk.latents[0], golden["noised"])
    close(walk.latent, golden["reconstruction"])
    assert walk.timesteps == (222, 111, 0)


# Closed forms


@given(
    t_from=st.integers(0, 999),
    t_to=st.integers(0, 999),
    x=st.floats(-5, 5, allow_nan=False),
    end=st.booleans(),
)
def test_step_on_unit_gaussian_multiplies_by_cosine(t_from, t_to, x, end):
    abar_from, abar_to = SCHEDULE.abar(t_from), 0.0 if end else SCHEDULE.abar(t_to)
    x = torch.tensor([x], dtype=torch.float64)
    stepped = ddim_step(x, math.sqrt(1 - abar_from) * x, abar_from, abar_to)
    expected = math.cos(theta(abar_to) - theta(abar_from)) * x
    torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-12)


def test_walk_on_unit_gaussian_multiplies_by_product_of_cosines():
    x = torch.linspace(-3, 3, 24, dtype=torch.float64).view(2, 3, 2, 2)
    tau = timesteps("reference", 7)
    angles = [theta(SCHEDULE.abar(t)) for t in tau] + [math.pi / 2]
    walk = invert(gaussian_noise(SCHEDULE, 1.0), x, SCHEDULE, tau)
    factor = math.prod(math.cos(b - a) for a, b in pairwise(angles))
    torch.testing.assert_close(walk.latent, factor * x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_inversion_converges_to_exact_flow_with_order_one(sigma):
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    first, last = (SCHEDULE.abar(t) * (sigma**2 - 1) + 1 for t in (0, 999))
    exact = math.sqrt(last / first)

    def error(steps):
        tau = timesteps("reference", steps)
        return abs(
            invert(gaussian_noise(SCHEDULE, sigma), x, SCHEDULE, tau, terminal=False).latent.item() - exact
        )

    orders = [math.log2(error(steps) / error(2 * steps)) for steps in (40, 80)]
    assert orders == pytest.approx([1.0, 1.0], abs=0.1)


@settings(deadline=None, max_examples=30)
@given(sigma=st.floats(0.2, 4.0), steps=st.integers(3, 20))
def test_round_trip_error_falls_as_steps_grow(sigma, steps):
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)

    def error(steps):
        tau = timesteps("reference", steps)
        noise = invert(gaussian_noise(SCHEDULE, sigma), x, SCHEDULE, tau, terminal=False).latent
        # The way back passes the level where x lies before it ends at clean features.
        return (
            (sample(gaussian_noise(SCHEDULE, sigma), noise, SCHEDULE, tau[::-1]).latents[-2] - x).abs().item()
        )

    assert error(2 * steps) < error(steps)


def test_step_back_undoes_step_for_the_same_noise():
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, generator=generator)
    there = ddim_step(x, eps, 0.8, 0.1)
    torch.testing.assert_close(ddim_step(there, eps, 0.1, 0.8), x, rtol=0, atol=1e-12)


def test_sampling_ends_at_the_clean_estimate():
    x = torch.tensor(GOLDEN["noise"])
    walk = sample(toy_noise, x, SCHEDULE, [500])
    eps, abar = toy_noise(x, torch.tensor([500, 500])), SCHEDULE.abar(500)
    torch.testing.assert_close(walk.latent, (x - math.sqrt(1 - abar) * eps) / math.sqrt(abar))


# What a trajectory holds


def test_terminal_latent_is_the_last_noise_exactly():
    walk = invert(toy_noise, torch.tensor(GOLDEN["x0"]), SCHEDULE, (100, 400, 999))
    assert torch.equal(walk.latent, walk.noises[-1])
    assert len(walk.noises) == 3


def test_noises_belong_to_the_latents_and_levels_they_stand_at():
    x = torch.tensor(GOLDEN["x0"])
    walk = invert(toy_noise, x, SCHEDULE, (100, 400, 999))
    assert torch.equal(walk.latents[0], x)
    for t, latent, noise in zip(walk.timesteps, walk.latents, walk.noises, strict=False):
        assert torch.equal(noise, toy_noise(latent, torch.full((2,), t)))


def test_without_terminal_the_walk_stops_at_the_last_level():
    x = torch.tensor(GOLDEN["x0"])
    full = invert(toy_noise, x, SCHEDULE, (100, 400, 999))
    short = invert(toy_noise, x, SCHEDULE, (100, 400, 999), terminal=False)
    assert (len(short.latents), len(short.noises)) == (3, 2)
    assert torch.equal(short.latent, full.latents[2])


def test_predictor_receives_one_int64_level_per_image():
    seen = []

    def predict(x, t_B):
        seen.append((t_B.dtype, t_B.tolist()))
        return torch.zeros_like(x)

    invert(predict, torch.zeros(3, 1, 2, 2), SCHEDULE, (5, 10))
    assert seen == [(torch.int64, [5, 5, 5]), (torch.int64, [10, 10, 10])]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_tensors_keep_their_dtype_and_large_values(dtype):
    x = torch.full((1, 1, 1, 1), 50.0, dtype=dtype)
    walk = invert(lambda x, t: torch.zeros_like(x), x, SCHEDULE, (0, 1))
    assert {latent.dtype for latent in walk.latents} == {dtype}
    assert walk.latents[1].item() == pytest.approx(50, rel=1e-3)
    assert q_sample(x, x, torch.tensor([3]), SCHEDULE).dtype is dtype


# Refusals


@pytest.mark.parametrize("levels", [(5, 5), (9, 5)])
def test_inversion_refuses_levels_that_do_not_increase(levels):
    with pytest.raises(ConfigError, match="strictly increase"):
        invert(toy_noise, torch.zeros(1, 1, 1, 1), SCHEDULE, levels)


def test_sampling_refuses_levels_that_do_not_decrease():
    with pytest.raises(ConfigError, match="strictly decrease"):
        sample(toy_noise, torch.zeros(1, 1, 1, 1), SCHEDULE, (5, 9))


@pytest.mark.parametrize("levels", [(-1, 5), (0, 1000)])
def test_levels_outside_the_schedule_are_refused(levels):
    with pytest.raises(ConfigError, match="outside 0"):
        invert(toy_noise, torch.zeros(1, 1, 1, 1), SCHEDULE, levels)


@pytest.mark.parametrize(("abar_from", "abar_to"), [(0.0, 0.5), (1.1, 0.5), (0.5, -0.1)])
def test_step_refuses_impossible_levels(abar_from, abar_to):
    with pytest.raises(ValueError, match="abar_from"):
        ddim_step(torch.zeros(1), torch.zeros(1), abar_from, abar_to)
