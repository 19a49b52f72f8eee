"""Norm maps that several models read, as the one that is kept would have read them."""

import pytest
import torch

from invad.scoring.offsets import as_the_last_reads


def read_by_five(offsets, per_reader=20, seed=0):
    """Maps N x 1 x 4 x 4 of like images; each of five models reads some, higher by its own offsets."""
    torch.manual_seed(seed)
    readers = [k for k in range(5) for _ in range(per_reader)]
    maps = 100 + torch.randn(5 * per_reader, 1, 4, 4)
    return maps + torch.stack([offsets[k] for k in readers]), readers


def own_offsets(size):
    torch.manual_seed(1)
    return [size * torch.randn(1, 4, 4) for _ in range(5)]


def test_what_models_differ_in_goes_and_the_kept_one_stays_at_its_level():
    offsets = own_offsets(10.0)
    maps, readers = read_by_five(offsets)
    made = as_the_last_reads(maps, readers, ["a"] * 100, range(100))
    means = torch.stack([made[20 * k : 20 * k + 20].mean(dim=0) for k in range(5)])
    torch.testing.assert_close(means, means[-1:].expand_as(means), atol=0.05, rtol=0)
    torch.testing.assert_close(means[-1], maps[80:].mean(dim=0), atol=1e-3, rtol=0)
    assert made.std(dim=0).max() < 1.5 < maps.std(dim=0).min()


def realised(unlike, per_reader):
    """Shares of new images above the limit for 5 %, for 200 trainings: with maps as they are, and levelled.

    Five models, which differ by `unlike` of what images differ by; new images are read by the last.
    """
    n, above = 5 * per_reader, {"as they are": [], "as the last": []}
    readers = [k for k in range(5) for _ in range(per_reader)]
    for seed in range(200):
        torch.manual_seed(seed)
        offsets = unlike * torch.randn(5, 1, 4, 4)
        maps = torch.randn(n, 1, 4, 4) + offsets[readers]
        new = torch.randn(200, 4, 4) + offsets[4, 0]
        made = {"as they are": maps, "as the last": as_the_last_reads(maps, readers, ["a"] * n, range(n))}
        for name, own in made.items():
            limits = own[:, 0].sort(dim=0).values[round(0.95 * (n + 1)) - 1]
            above[name].append((new > limits).float().mean().item())
    return {name: torch.tensor(own) for name, own in above.items()}


def test_of_unlike_models_limits_vary_less():
    rates = realised(unlike=1.0, per_reader=20)
    assert rates["as the last"].mean().item() == pytest.approx(0.05, abs=0.01)
    assert rates["as the last"].std() < 0.7 * rates["as they are"].std()


def test_of_models_that_are_alike_few_images_set_limits_that_hold():
    """Four images have a mean that lies nearer to them than to a new one: moved by all of it, 8 % exceed."""
    rates = realised(unlike=0.0, per_reader=4)
    assert rates["as the last"].mean().item() == pytest.approx(0.05, abs=0.007)


def test_images_of_one_group_are_one():
    """Three pictures of one part and one of another: mean and variance are those of two parts."""
    maps = torch.tensor([0.0, 0.0, 0.0, 8.0, 100.0, 108.0]).reshape(6, 1, 1, 1)
    made = as_the_last_reads(maps, [0] * 4 + [1] * 2, ["a"] * 6, [0, 0, 0, 1, 2, 3]).flatten()
    step = 100 * (1 - (32 / 2) / (100**2 / 2))
    assert made.tolist() == pytest.approx([step, step, step, 8 + step, 100, 108])


def test_categories_are_levelled_each_by_itself():
    maps = torch.tensor([1.0, 3.0, 21.0, 23.0, 5.0, 7.0, 41.0, 43.0]).reshape(8, 1, 1, 1)
    kinds = ["a", "a", "b", "b"] * 2
    made = as_the_last_reads(maps, [0] * 4 + [1] * 4, kinds, range(8)).flatten()
    for own, first, last in ((made[:2], 2, 6), (made[2:4], 22, 42)):
        share = 1 - (2 / 2) / ((last - first) ** 2 / 2)
        assert own.mean().item() == pytest.approx(first + share * (last - first))
    assert torch.equal(made[4:], maps[4:].flatten())


def test_models_that_differ_by_no_more_than_their_images_stay_as_they_are():
    maps = torch.tensor([0.0, 8.0, 1.0, 9.0]).reshape(4, 1, 1, 1)
    assert torch.equal(as_the_last_reads(maps, [0, 0, 1, 1], ["a"] * 4, range(4)), maps)
    alike = torch.zeros(4, 1, 2, 2)
    assert torch.equal(as_the_last_reads(alike, [0, 0, 1, 1], ["a"] * 4, range(4)), alike)


@pytest.mark.parametrize("readers", [[0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
def test_a_category_that_a_model_hardly_read_stays_as_it_is(readers):
    maps = torch.randn(4, 2, 3, 3)
    assert torch.equal(as_the_last_reads(maps, readers, ["a"] * 4, range(4)), maps)


def test_a_category_that_the_kept_model_did_not_read_stays_as_it_is():
    maps = torch.randn(8, 1, 2, 2)
    made = as_the_last_reads(maps, [0, 0, 1, 1, 2, 2, 2, 2], ["a"] * 4 + ["b"] * 4, range(8))
    assert torch.equal(made[:4], maps[:4])


def test_maps_that_were_given_are_not_changed():
    maps, readers = read_by_five(own_offsets(3.0))
    before = maps.clone()
    as_the_last_reads(maps, readers, ["a"] * 100, range(100))
    assert torch.equal(maps, before)
