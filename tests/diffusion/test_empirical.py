"""The predictor that knows its cells by heart, against its closed form and the nearest neighbour."""

import math

import numpy as np
import pytest
import torch

from invad.diffusion.ddim import q_sample
from invad.diffusion.empirical import (
    CANDIDATES,
    LATEST,
    NEAREST,
    EmpiricalConfig,
    EmpiricalDenoiser,
    draw_cells,
    greedy_coreset,
    largest,
)
from invad.diffusion.schedule import linear_schedule
from invad.errors import ConfigError
from oracles import posterior_noise

SCHEDULE = linear_schedule()


def cells(n, channels=4, seed=0):
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed))


def filled(bank, size=None):
    net = EmpiricalDenoiser(bank.shape[1], size or len(bank))
    net.set_bank(bank, seed=0)
    return net


@pytest.mark.parametrize("t", [20, 300, 999])
def test_it_is_the_posterior_mean_of_the_noise(t):
    bank = cells(NEAREST)
    x = q_sample(
        cells(12, seed=1).T.reshape(1, 4, 3, 4), cells(12, seed=2).T.reshape(1, 4, 3, 4), t, SCHEDULE
    )
    made = filled(bank).predict_noise(x, torch.tensor([t]))
    for i in range(3):
        for j in range(4):
            noise = posterior_noise(SCHEDULE, x[0, :, i, j], bank, t)
            torch.testing.assert_close(made[0, :, i, j].double(), noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [20, LATEST])
def test_cells_beyond_the_nearest_have_no_weight(t):
    """Points in the middle of two cells, which share the weight; float64, to see no rounding."""
    bank = cells(500, 64).double()
    points = math.sqrt(SCHEDULE.abar(t)) * (bank[:100] + bank[100:200]) / 2
    made = filled(bank).double().predict_noise(points.T.reshape(1, 64, 10, 10), torch.tensor([t]))
    found = made.flatten(2)[0].T.norm(dim=1)
    exact = torch.stack([posterior_noise(SCHEDULE, point, bank, t).norm() for point in points])
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=0)
    alone = torch.cdist(points, math.sqrt(SCHEDULE.abar(t)) * bank).amin(1) / math.sqrt(1 - SCHEDULE.abar(t))
    assert ((alone - exact).abs() > 0.05 * exact).any(), "one cell must not be enough, or nothing was tested"


@pytest.mark.parametrize("size", [4, 7, 64, 200, 331, 2000, 3464])
def test_the_largest_are_found(size):
    """Whether the size divides into a table or not, and wherever they lie."""
    values = torch.randn(2, 50, size, generator=torch.Generator().manual_seed(size))
    values[0, 0] = torch.arange(size)
    values[0, 1] = -torch.arange(size)
    found = largest(values, 4)
    assert torch.equal(found.sort().values, values.topk(4).indices.sort().values)


def test_at_an_early_level_its_length_is_the_distance_to_the_nearest_cell():
    bank, a = cells(50, 8), SCHEDULE.abar(20)
    x = 2 * cells(6, 8, seed=1)
    made = filled(bank).predict_noise(x.T.reshape(1, 8, 2, 3), torch.tensor([20])).norm(dim=1).flatten()
    nearest = torch.cdist(x, math.sqrt(a) * bank).amin(dim=1) / math.sqrt(1 - a)
    torch.testing.assert_close(made, nearest, rtol=1e-3, atol=1e-3)


def test_images_of_a_batch_and_their_levels_do_not_mix():
    net, x = filled(cells(9)), torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(3))
    both = net.predict_noise(x, torch.tensor([20, 400]))
    for i, t in enumerate((20, 400)):
        torch.testing.assert_close(both[i : i + 1], net.predict_noise(x[i : i + 1], torch.tensor([t])))


def test_a_small_set_is_kept_whole_and_a_large_one_thinned():
    few = cells(5)
    assert torch.equal(filled(few, 10).bank, few)
    many = cells(30 * CANDIDATES + 500, 2)
    first, again = filled(many, 30).bank, filled(many, 30).bank
    assert first.shape == (30, 2)
    assert torch.equal(first, again)


def test_the_coreset_covers_better_than_chance():
    """Every cell is nearer to a chosen one: the largest gap is smaller than with a random choice."""
    points = cells(2000, 3)
    generator = torch.Generator().manual_seed(0)
    chosen = points[greedy_coreset(points, 100, generator)]
    random = points[torch.randperm(2000, generator=generator)[:100]]

    def gap(bank):
        return float(torch.cdist(points, bank).amin(dim=1).max())

    assert gap(chosen) < 0.7 * gap(random)


def test_the_coreset_takes_no_cell_twice():
    """Of copies either, once all that differ are taken, although rounding may leave them apart."""
    points = 100 + cells(6, 40).repeat(5, 1)
    chosen = greedy_coreset(points, 20, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == 20


def test_it_is_saved_with_its_bank():
    net = filled(cells(6))
    other = EmpiricalDenoiser(4, 6)
    other.load_state_dict(net.state_dict())
    x = torch.ones(1, 4, 2, 2)
    assert torch.equal(net(x, torch.tensor([20])), other(x, torch.tensor([20])))


def test_every_image_gives_as_many_cells():
    x = np.arange(3, dtype=np.float32)[:, None, None, None] + np.zeros((3, 2, 160, 160), np.float32)
    drawn = draw_cells(x, np.arange(len(x)), 1000, seed=0)
    counts = [int((drawn[:, 0] == i).sum()) for i in range(3)]
    assert counts[0] == counts[1] == counts[2] == round(2000 * CANDIDATES / 3)
    assert drawn.shape[1] == 2


def test_a_few_cells_are_all_drawn():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    drawn = draw_cells(x, np.arange(len(x)), 2, seed=0).numpy()
    cells = x.transpose(0, 2, 3, 1).reshape(-1, 3)
    np.testing.assert_array_equal(np.sort(drawn[:, 0]), np.sort(cells[:, 0]))
    assert {tuple(c) for c in drawn} == {tuple(c) for c in cells}


def test_a_bank_grows_with_the_root_of_the_categories():
    assert [EmpiricalConfig(cells=100).cells_for(n) for n in (1, 4, 15)] == [100, 200, 387]


@pytest.mark.parametrize(
    ("option", "value"),
    [("cells", 0), ("timesteps", (20, 10)), ("timesteps", ()), ("timesteps", (20, 300))],
)
def test_values_out_of_range_are_named(option, value):
    with pytest.raises(ConfigError, match=option):
        EmpiricalConfig(**{option: value})
