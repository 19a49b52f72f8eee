"""The level of the largest values that hold together over an area."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label

from invad.errors import ConfigError
from invad.scoring.sizes import Smallest, level_of


def holds(map_HW, level, area):
    """Whether a part at or above the level has the area, by scipy."""
    parts, _ = label(map_HW >= level, structure=np.ones((3, 3)))
    return bool((np.bincount(parts.ravel())[1:] >= area).any())


@given(st.integers(0, 10_000), st.integers(1, 80))
def test_it_is_the_highest_level_that_holds_together(seed, area):
    rng = np.random.default_rng(seed)
    map_HW = rng.integers(0, 30, (9, 12)).astype(np.float32)
    level = level_of(map_HW, area)
    assert holds(map_HW, level, area)
    higher = map_HW[map_HW > level]
    assert not higher.size or not holds(map_HW, higher.min(), area)


def test_small_parts_are_passed_over():
    map_HW = np.zeros((20, 20), np.float32)
    map_HW[2:4, 2:4], map_HW[10:14, 10:14] = 9, 5
    assert [level_of(map_HW, area) for area in (1, 4, 5, 16, 17, 400)] == [9, 9, 5, 5, 0, 0]
    map_HW[4, 4] = 8  # touches the small one at a corner
    assert level_of(map_HW, 5) == 8


def test_a_map_that_is_no_number_has_no_level():
    assert np.isnan(level_of(np.array([[1, np.nan]], np.float32), 1))


def test_an_area_is_that_of_cells():
    smallest = Smallest(area=300, frame=(160, 80))
    assert smallest.cells((8, 16)) == pytest.approx(3)
    assert smallest.pixels((160, 320)) == pytest.approx(1200)
    smallest.require_known((8, 16))
    for area in (99, 160 * 80, float("nan")):
        with pytest.raises(ConfigError, match="a cell of the model covers 100 of the 160 x 80 pixels"):
            Smallest(area=area, frame=(160, 80)).require_known((8, 16))
