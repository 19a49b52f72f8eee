"""Sizes of defects in pixels and on the part, against what was drawn."""

import json

import numpy as np
import pytest

from invad.errors import ConfigError, DataError
from invad.scoring.defects import IN_MM, defects
from invad.scoring.scale import Scale

GRID = (10, 20)


@pytest.fixture
def square():
    """A map of 100 x 200 pixels with a square of 20 x 20 from (40, 30) on."""
    map_HW = np.zeros((100, 200), np.float32)
    map_HW[30:50, 40:60] = 3
    map_HW[40, 50] = 6
    return map_HW


def test_in_pixels(square):
    (one,) = defects(square, 2.0, GRID)
    assert (one.defect, one.x, one.y, one.width, one.height, one.area_px) == (1, 40, 30, 20, 20, 400)
    assert (one.centroid_x, one.centroid_y, one.length_px, one.width_px) == (50, 40, np.hypot(20, 20), 20)
    assert (one.peak, one.share_of_limit, one.cell_px, one.length_uncertainty_px) == (6, 3, 10, 10)
    # Half a cell more all around makes a square of 30 with round corners of radius 5.
    assert one.area_uncertainty_px == pytest.approx(4 * 20 * 5 + np.pi * 25)
    assert {getattr(one, name) for name in IN_MM} == {None}
    assert defects(square, 6.0, GRID) == ()


def test_a_cell_is_as_long_as_its_longer_side(square):
    assert defects(square, 2.0, (20, 5))[0].cell_px == 40


def test_with_a_scale_for_each_axis(square):
    (one,) = defects(square, 2.0, GRID, Scale.parse("50 um, 0.1mm"))
    assert (one.area_mm2, one.length_mm, one.width_mm) == pytest.approx((2.0, np.hypot(1, 2), 1))
    assert (one.centroid_x_mm, one.centroid_y_mm) == pytest.approx((2.5, 4.0))
    assert (one.cell_mm, one.length_uncertainty_mm) == pytest.approx((1.0, 1.0))


POINTS = {"pixels": [[10, 20], [180, 5], [190, 90], [5, 95]], "mm": [[0, 0], [10, 0], [10, 5], [0, 5]]}


def test_a_plane_seen_at_an_angle(square, tmp_path):
    path = tmp_path / "plane.json"
    path.write_text(json.dumps(POINTS))
    scale = Scale.read(path)
    assert scale(np.array(POINTS["pixels"], float)) == pytest.approx(np.array(POINTS["mm"], float), abs=1e-9)
    (one,) = defects(square, 2.0, GRID, scale)
    # The square becomes a quadrangle; area and centroid are sums over small pieces of it.
    x, y = np.meshgrid(np.arange(40, 60, 0.1) + 0.05, np.arange(30, 50, 0.1) + 0.05)
    middle = np.stack([x.ravel(), y.ravel()], axis=1)
    along, down = (
        (scale(middle + step) - scale(middle - step)) / 2e-3 * 0.1
        for step in (np.array([1e-3, 0]), np.array([0, 1e-3]))
    )
    areas = np.abs(along[:, 0] * down[:, 1] - along[:, 1] * down[:, 0])
    assert one.area_mm2 == pytest.approx(areas.sum(), rel=1e-4)
    centroid = (scale(middle) * areas[:, None]).sum(axis=0) / areas.sum()
    assert (one.centroid_x_mm, one.centroid_y_mm) == pytest.approx(tuple(centroid), rel=1e-4)
    corners = scale(np.array([[40, 30], [60, 30], [60, 50], [40, 50]], float))
    assert one.length_mm == pytest.approx(max(np.hypot(*(a - b)) for a in corners for b in corners))
    matrix = tmp_path / "matrix.json"
    matrix.write_text(json.dumps({"matrix": scale.matrix}))
    assert Scale.read(matrix) == scale


def test_more_points_than_four_are_fitted():
    truth = Scale(((0.05, 0.002, 3), (-0.001, 0.06, 4), (1e-4, 2e-5, 1)))
    points = np.random.default_rng(0).uniform(0, 2000, (12, 2))
    found = Scale.of_points(points, truth(points))
    assert found(points) == pytest.approx(truth(points))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0mm", "has to be above 0"),
        ("-0.05mm", "has to be above 0"),
        ("0.05mm,0mm", "has to be above 0"),
        ("0.05", "the unit is missing"),
        ("0.05mm,0.06", "the unit is missing"),
        ("0.05px", "unit px is unknown"),
        ("fine", "give the length of a pixel"),
        ("1mm,1mm,1mm", "give the length of a pixel"),
        ("", "give the length of a pixel"),
    ],
)
def test_a_scale_that_is_none(text, words):
    with pytest.raises(ConfigError, match=words):
        Scale.parse(text)


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        ({**POINTS, "pixels": [[0, 0], [1, 1], [2, 2], [5, 9]]}, "singular"),
        ({**POINTS, "pixels": [[0, 0], [0, 0], [2, 2], [5, 9]]}, "singular"),
        ({**POINTS, "pixels": [[3, 3]] * 4}, "singular"),
        ({"matrix": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "singular"),
        ({"matrix": [[0] * 3] * 3}, "singular"),
        ({"matrix": [[1, 2], [3, 4]]}, "3 rows of 3"),
        ({"matrix": [["a", 0, 0], [0, 1, 0], [0, 0, 1]]}, "numbers"),
        ({"pixels": POINTS["pixels"][:3], "mm": POINTS["mm"][:3]}, "at least four points"),
        ({"pixels": [[1]], "mm": None}, "at least four points"),
        ({"points": []}, "holds neither"),
    ],
)
def test_a_homography_that_is_none(plain, words, tmp_path):
    path = tmp_path / "plane.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(DataError, match=rf"plane\.json: .*{words}") as raised:
        Scale.read(path)
    assert "\n" not in str(raised.value)


def test_a_homography_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        Scale.read(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="an object was expected"):
        Scale.read(tmp_path / "text.json")


def test_an_image_at_the_horizon(square):
    with pytest.raises(DataError, match="reaches the horizon"):
        defects(square, 2.0, GRID, Scale(((1, 0, 0), (0, 1, 0), (-0.01, 0, 1))))


@pytest.mark.parametrize("bad", [None, np.zeros((0, 3), np.float32), np.zeros((2, 2, 2), np.float32)])
def test_an_image_without_a_map(bad):
    with pytest.raises(DataError, match="no anomaly map"):
        defects(bad, 1.0, GRID)


def test_a_map_that_is_not_of_numbers():
    with pytest.raises(DataError, match="finite"):
        defects(np.array([[0, np.nan]], np.float32), 1.0, GRID)
