"""Drawn defects have the size that they say."""

import numpy as np
import pytest

from invad.data.drawn import Drawing, cover, draw_size, drawn_on, reduced
from invad.scoring.shapes import extents, parts_above


@pytest.mark.parametrize("is_round", [True, False])
@pytest.mark.parametrize("angle", [0.0, 0.7, 2.5])
def test_a_drawing_covers_its_area_and_its_extents(is_round, angle):
    one = Drawing(round=is_round, length=60, width=25, x=80, y=70, angle=angle, contrast=0.2)
    covered = cover(one, (140, 160))
    assert covered.sum() == pytest.approx(one.area, rel=0.02)
    (part,) = parts_above(covered.astype(np.float32), np.float32(0.5))
    assert extents(part.hull()) == pytest.approx(one.feret, abs=2.0)
    assert part.centroid() == pytest.approx((80, 70), abs=0.6)


def test_sizes_that_are_drawn_lie_inside_the_picture():
    rng = np.random.default_rng(0)
    for size_hw, cell in (((256, 256), 16.0), ((64, 300), 16.0), ((20, 20), 16.0)):
        for _ in range(50):
            one = draw_size(rng, size_hw, cell)
            assert one.width <= one.length <= max(8 * cell, 4)
            assert 0 < one.x < size_hw[1]
            assert 0 < one.y < size_hw[0]
            if min(size_hw) > 60:
                covered = cover(one, size_hw)
                assert covered.sum() == pytest.approx(one.area, rel=0.1, abs=8)


@pytest.mark.parametrize(
    ("kind", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)], ids=["8", "16", "float"]
)
def test_a_defect_that_would_be_lost_in_white_is_drawn_darker(kind, white):
    one = Drawing(round=True, length=10, width=10, x=16, y=16, angle=0, contrast=0.25)
    for level, step in ((0.5, 0.25), (0.95, -0.25)):
        ground = np.full((32, 32, 3), level * white, kind)
        made = drawn_on(ground, one, (0.0, float(white)))
        assert made.dtype == kind
        assert made[16, 16, 0] / white == pytest.approx(level + step, abs=0.01)
        assert (made[0] == ground[0]).all()


def test_large_pictures_are_averaged_down():
    picture = np.random.default_rng(0).integers(0, 256, (900, 2100, 3)).astype(np.uint8)
    small = reduced(picture)
    assert (small.shape, small.dtype) == ((300, 700, 3), np.uint8)
    assert small[3, 5] == pytest.approx(picture[9:12, 15:18].mean(axis=(0, 1)), abs=0.51)
    assert reduced(small) is small
