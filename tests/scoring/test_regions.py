import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from invad.scoring.regions import Region, regions


def test_boxes_areas_and_peaks():
    map_HW = np.zeros((6, 8), np.float32)
    map_HW[1:3, 2:5] = 2
    map_HW[3, 5] = 4  # touches the block at a corner
    map_HW[5, 0] = 9
    assert regions(map_HW, 1.0) == (
        Region(x=0, y=5, width=1, height=1, area=1, peak=9.0),
        Region(x=2, y=1, width=4, height=3, area=7, peak=4.0),
    )


def test_nothing_above_the_limit():
    assert regions(np.ones((3, 3), np.float32), 1.0) == ()


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 1, 2])
    )
)
def test_the_areas_add_up_and_the_first_has_the_largest_value(map_HW):
    found = regions(map_HW, 0.5)
    assert sum(region.area for region in found) == int((map_HW > 0.5).sum())
    if found:
        assert found[0].peak == map_HW.max()
