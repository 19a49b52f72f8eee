import numpy as np
import pytest

from invad.scoring.likeness import near_copies


def drawn(n, k=12, seed=0):
    return np.random.default_rng(seed).normal(size=(n, k))


@pytest.mark.parametrize("n", [2, 30, 300])
def test_unrelated_items_are_no_copies(n):
    assert near_copies(drawn(n), 2**0.5) == {}


def test_frames_of_one_scene_are_copies_of_the_first():
    scenes = np.repeat(drawn(4), 5, axis=0) + 0.05 * drawn(20, seed=1)
    assert near_copies(scenes, 2**0.5) == {i: 5 * (i // 5) for i in range(20) if i % 5}
    assert near_copies(scenes[:5], 2**0.5) == dict.fromkeys(range(1, 5), 0)


def test_a_few_may_be_near_by_chance():
    items = drawn(20)
    items[10] = items[3] + 0.01
    assert near_copies(items, 2**0.5) == {}
    items[10:17] = items[3] + 0.01
    assert near_copies(items, 2**0.5) == dict.fromkeys(range(10, 17), 3)
