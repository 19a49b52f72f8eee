import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from invad.scoring.regions import regions
from oracles import regions_8


def test_boxes_areas_and_peaks():
    map_HW = np.zeros((6, 8), np.float32)
    map_HW[1:3, 2:5] = 2
    map_HW[3, 5] = 4  # touches the block at a corner
    map_HW[5, 0] = 9
    found = regions(map_HW, 1.0)
    assert [(one.x, one.y, one.width, one.height, one.area, one.peak) for one in found] == [
        (0, 5, 1, 1, 1, 9.0),
        (2, 1, 4, 3, 7, 4.0),
    ]
    assert regions(map_HW, 1.0, most=1) == found[:1]


def test_lengths_go_from_corner_to_corner():
    map_HW = np.zeros((9, 40), np.float32)
    map_HW[2:5, 3:33] = 1
    (bar,) = regions(map_HW, 0.5)
    assert (bar.length_px, bar.width_px) == (np.hypot(30, 3), 3)
    assert (bar.centroid_x, bar.centroid_y, bar.mean) == (18.0, 3.5, 1.0)


def test_nothing_above_the_limit():
    assert regions(np.ones((3, 3), np.float32), 1.0) == ()


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(
        np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2])
    )
)
def test_regions_are_those_of_a_search_pixel_by_pixel(map_HW):
    found = regions(map_HW, 0.5)
    searched = regions_8(map_HW > 0.5)
    assert sorted(one.area for one in found) == sorted(map(len, searched))
    if found:
        assert found[0].peak == map_HW.max()
    by_box = {(one.x, one.y, one.width, one.height): one for one in found}
    for pixels in searched:
        rows, columns = np.array(sorted(pixels)).T
        box = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        if sum((one.x, one.y, one.width, one.height) == box for one in found) > 1:
            continue  # one lies inside the box of the other
        one = by_box[box]
        corners = np.array([(x + i, y + j) for y, x in pixels for i in (0, 1) for j in (0, 1)], float)
        gaps = corners[:, None] - corners
        assert abs(one.length_px - np.hypot(gaps[..., 0], gaps[..., 1]).max()) < 1e-9
        angles = np.linspace(0, np.pi, 720, endpoint=False)
        spreads = np.ptp(corners @ np.stack([np.cos(angles), np.sin(angles)]), axis=0)
        assert spreads.min() - one.length_px * np.pi / 720 <= one.width_px <= spreads.min() + 1e-9
        assert np.allclose([one.centroid_x, one.centroid_y], [columns.mean() + 0.5, rows.mean() + 0.5])
