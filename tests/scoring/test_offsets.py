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
    torch.testing.assert_close(means, means[-1:].expand_as(means), atol=1e-3, rtol=0)
    torch.testing.assert_close(means[-1], maps[80:].mean(dim=0), atol=1e-3, rtol=0)
    assert made.std(dim=0).max() < 1.5 < maps.std(dim=0).min()


def test_new_images_exceed_a_limit_as_often_as_was_asked():
    """The 96th of 100 in their order, of five models as unlike as images are; new ones of the kept model."""
    above = {"as they are": [], "as the last": []}
    for seed in range(200):
        torch.manual_seed(seed)
        offsets, readers = torch.randn(5, 1, 1, 1), [k for k in range(5) for _ in range(20)]
        maps = torch.randn(100, 1, 1, 1) + offsets[readers]
        new = torch.randn(200) + offsets[4].item()
        made = {"as they are": maps, "as the last": as_the_last_reads(maps, readers, ["a"] * 100, range(100))}
        for name, own in made.items():
            above[name].append((new > own.flatten().sort().values[95]).float().mean().item())
    rates, spread = (
        {name: fold(torch.tensor(own)).item() for name, own in above.items()}
        for fold in (torch.mean, torch.std)
    )
    assert rates["as the last"] == pytest.approx(0.05, abs=0.01)
    assert spread["as the last"] < 0.7 * spread["as they are"]


def test_images_of_one_group_are_one():
    """Three pictures of one part and one of another: the mean is that of two parts."""
    maps = torch.tensor([0.0, 0.0, 0.0, 8.0, 100.0, 108.0]).reshape(6, 1, 1, 1)
    made = as_the_last_reads(maps, [0] * 4 + [1] * 2, ["a"] * 6, [0, 0, 0, 1, 2, 3]).flatten()
    assert made.tolist() == [100, 100, 100, 108, 100, 108]


def test_categories_are_levelled_each_by_itself():
    maps = torch.tensor([1.0, 3.0, 21.0, 23.0, 5.0, 7.0, 41.0, 43.0]).reshape(8, 1, 1, 1)
    kinds = ["a", "a", "b", "b"] * 2
    made = as_the_last_reads(maps, [0] * 4 + [1] * 4, kinds, range(8)).flatten()
    assert made[:2].mean() == made[4:6].mean() == 6
    assert made[2:4].mean() == made[6:].mean() == 42


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
