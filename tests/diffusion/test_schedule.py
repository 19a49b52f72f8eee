import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invad.diffusion.schedule import SPACINGS, NoiseSchedule, linear_schedule, timesteps
from invad.errors import ConfigError

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "inversion.json").read_text())


def test_linear_schedule_equals_published_values():
    schedule = linear_schedule()
    assert schedule.T == 1000
    for t, abar in GOLDEN["alphas_cumprod"].items():
        assert schedule.abar(int(t)) == pytest.approx(abar, rel=1e-12)


def test_linear_schedule_equals_product_of_alphas():
    expected, product = [], 1.0
    for i in range(7):
        product *= 1 - (0.1 + 0.05 * i)
        expected.append(product)
    assert linear_schedule(7, 0.1, 0.4).alphas_cumprod == pytest.approx(tuple(expected), rel=1e-14)


def test_schedule_is_plain_and_frozen():
    schedule = linear_schedule()
    assert schedule == linear_schedule()
    assert hash(schedule) == hash(linear_schedule())
    with pytest.raises(AttributeError):
        schedule.alphas_cumprod = (1.0,)


@pytest.mark.parametrize("t", [-1, 3])
def test_abar_outside_the_schedule_is_refused(t):
    with pytest.raises(ConfigError, match=rf"level {t} is outside 0\.\.2"):
        NoiseSchedule((0.9, 0.5, 0.1)).abar(t)


@pytest.mark.parametrize("betas", [(0.0, 0.1), (0.2, 0.1), (0.1, 1.0)])
def test_betas_without_meaning_are_refused(betas):
    with pytest.raises(ConfigError, match="beta_start"):
        linear_schedule(10, *betas)


def test_no_training_level_is_refused():
    with pytest.raises(ConfigError, match="steps = 0"):
        linear_schedule(0)


def test_reference_timesteps_equal_published_ones():
    for steps, case in GOLDEN["cases"].items():
        assert timesteps("reference", int(steps)) == tuple(case["timesteps"])
    assert timesteps("reference", 1) == (0,)
    assert timesteps("reference", 1000) == tuple(range(1000))


def test_paper_timesteps_end_at_the_noisiest_level():
    assert timesteps("paper", 3) == (333, 666, 999)
    assert timesteps("paper", 1) == (999,)
    assert timesteps("paper", 999) == tuple(range(1, 1000))


@given(name=st.sampled_from(sorted(SPACINGS)), steps=st.integers(1, 999))
def test_named_timesteps_are_valid_lists(name, steps):
    chosen = timesteps(name, steps)
    assert len(chosen) == steps
    assert timesteps(chosen) == timesteps(list(chosen), steps) == chosen


@pytest.mark.parametrize(
    ("levels", "steps", "said"),
    [
        ("papier", 3, r"timesteps = 'papier' is unknown; choose one of .*'paper', 'quadratic', 'reference'"),
        ("paper", None, "steps = None"),
        ("paper", 0, "steps = 0: the 'paper' timesteps need an integer in 1..1000"),
        ("paper", True, "steps = True"),
        ("paper", 1000, "choose at most 999"),
        ("reference", 10**12, "need an integer"),
        ([], None, "is empty"),
        ([0, 1.5], None, "write integers only"),
        ([False, 1], None, "write integers only"),
        ([0, 1000], None, r"keep every level in 0\.\.999"),
        ([-1, 5], None, r"keep every level in 0\.\.999"),
        ([5, 5], None, "sort the levels"),
        ([9, 5], None, "sort the levels"),
        ([1, 2], 3, "steps = 3 but timesteps lists 2 levels"),
    ],
)
def test_unusable_timesteps_are_refused(levels, steps, said):
    with pytest.raises(ConfigError, match=said):
        timesteps(levels, steps)


@pytest.mark.parametrize(
    ("name", "three"),
    [
        ("uniform", (0, 500, 999)),
        ("quadratic", (0, 250, 999)),
        ("cubic", (0, 125, 999)),
        ("exponential", (0, 31, 999)),
    ],
)
def test_named_schedules_rise_from_the_clean_end_to_the_noise(name, three):
    assert timesteps(name, 3) == three
    for steps in (2, 10, 50, 400, 1000):
        levels = timesteps(name, steps)
        assert len(levels) == steps
        assert (levels[0], levels[-1]) == (0, 999)
        assert all(b > a for a, b in pairwise(levels))
