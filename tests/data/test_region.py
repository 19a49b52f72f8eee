"""Regions of interest: what is read, what is refused, which pixels and cells they take."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.ImageDraw import Draw

from invad.data.preprocess import Preprocess
from invad.data.region import Region, cells_of, cover, cut, inside_of, of_mask, read_region, untouched
from invad.errors import DataError

SQUARE = ((10.0, 5.0), (20.0, 5.0), (20.0, 15.0), (10.0, 15.0))


def region(**parts):
    return Region(**{"frame": (40, 30), **parts})


def test_a_pixel_belongs_to_the_polygon_that_holds_its_centre():
    inside = inside_of(region(include=(SQUARE,)))
    expected = np.zeros((30, 40), bool)
    expected[5:15, 10:20] = True
    assert (inside == expected).all()
    half = ((10.4, 5.4), (20.4, 5.4), (20.4, 15.4), (10.4, 15.4))
    assert (inside_of(region(include=(half,))) == expected).all()


def test_slanted_polygons_are_those_of_pillow_up_to_the_border():
    corners = ((3.0, 2.0), (37.0, 9.0), (25.0, 28.0), (6.0, 21.0))
    picture = Image.new("1", (40, 30))
    Draw(picture).polygon(corners, fill=1)
    ours, theirs = inside_of(region(include=(corners,))), np.asarray(picture)
    differing = ours != theirs  # Pillow rounds corners to pixels and paints the border, too
    assert differing.sum() < 80
    assert ours.sum() > 400


def test_a_polygon_that_crosses_itself_has_a_hole():
    ring = (*SQUARE, SQUARE[0], (13.0, 8.0), (13.0, 12.0), (17.0, 12.0), (17.0, 8.0), (13.0, 8.0), SQUARE[0])
    inside = inside_of(region(include=(ring,)))
    assert inside.sum() == 100 - 16
    assert not inside[8:12, 13:17].any()


def test_polygons_unite_and_ignored_ones_are_taken_away():
    other = ((15.0, 10.0), (30.0, 10.0), (30.0, 20.0), (15.0, 20.0))
    inside = inside_of(region(include=(SQUARE, other)))
    assert inside.sum() == 100 + 150 - 25
    without = inside_of(region(include=(SQUARE,), ignore=(other,)))
    assert without.sum() == 100 - 25
    assert inside_of(region(ignore=(other,))).sum() == 40 * 30 - 150


def test_a_mask_picture_is_the_same_region(tmp_path):
    rng = np.random.default_rng(0)
    mask = np.zeros((30, 40), bool)
    mask[4:22, 7:31] = rng.random((18, 24)) > 0.3
    Image.fromarray((255 * mask).astype(np.uint8)).save(tmp_path / "mask.png")
    assert (inside_of(read_region(tmp_path / "mask.png")) == mask).all()
    rows = of_mask(np.arange(30)[:, None] + np.zeros(40) < 20)
    assert rows.include == (((0, 0), (40, 0), (40, 20), (0, 20)),)


def test_a_cell_counts_by_its_share_of_the_area():
    shares = cover(region(include=(((0.0, 0.0), (25.0, 0.0), (25.0, 30.0), (0.0, 30.0)),)), (3, 4))
    np.testing.assert_allclose(shares, [[1, 1, 0.5, 0]] * 3, atol=1e-6)
    half = region(include=(((0.0, 0.0), (25.0, 0.0), (25.0, 30.0), (0.0, 30.0)),))
    assert cells_of(half, (3, 4)).sum() == 9
    more = region(include=half.include, min_cover=0.6)
    assert cells_of(more, (3, 4)).sum() == 6


@pytest.mark.parametrize("input_hw", [(24, 32), (13, 17), (60, 80)])
def test_no_ignored_pixel_reaches_what_the_backbone_sees(input_hw):
    seen = region(ignore=(SQUARE,))
    keep, inside = untouched(seen, input_hw), inside_of(seen)
    rng = np.random.default_rng(1)
    one = rng.integers(0, 256, (30, 40, 3), np.uint8)
    other = np.where(inside[..., None], one, rng.integers(0, 256, (30, 40, 3), np.uint8))
    preprocess = Preprocess(input_hw)
    a, b = (preprocess(picture).numpy()[:, keep] for picture in (one, other))
    assert (a == b).all()
    assert 0 < keep.mean() < 1


def test_a_map_is_cut():
    inside = inside_of(region(include=(SQUARE,)))
    found = cut(np.full((30, 40), 3, np.float32), inside)
    assert found.dtype == np.float32
    assert found.sum() == 300


def test_a_file_is_read_as_it_is_written(tmp_path):
    plain = {"frame": [40, 30], "include": [[[0, 0], [40, 0], [20, 30]]], "min_cover": 0.25}
    (tmp_path / "region.json").write_text(json.dumps(plain))
    read = read_region(tmp_path / "region.json")
    assert (read.size_hw, read.ignore, read.min_cover) == ((30, 40), (), 0.25)


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (
            {"frame": [40, 30], "ignore": [[[35, 5], [45, 5], [45, 9]]]},
            r"ignore\[0\] has .* \[45, 5\]",
        ),
        ({"frame": [40, 30], "ignore": [[[0, 0], [40, 0], [40, 30], [0, 30]]]}, "leaves no pixel"),
        ({}, "key 'frame' is missing, width and height of the pictures; 'invad roi draw"),
        ({"frame": [40, 30]}, "ignores no pixel"),
        ({"frame": [40, 30], "include": [[[0, 0], [40, 0], [40, 30], [0, 30]]]}, "ignores no pixel"),
        ({"frame": [40, 30], "ignore": [[[1, 1], [5, 5]]]}, "at least 3"),
        ({"frame": [40, 30], "ignore": [[[1, 1], [5, 5], [5, 1]]], "min_cover": 0}, "min_cover = 0"),
        ({"frame": [0, 30], "ignore": [[[0, 1], [0, 5], [0, 1]]]}, r"frame = \[0, 30\]"),
        ({"frame": [40, 30], "ignored": []}, "unknown key 'ignored'"),
        ({"frame": [40, 30], "ignore": [[["a", 1], [5, 5], [5, 1]]]}, "expected a finite number"),
    ],
)
def test_what_is_no_region_is_refused_in_one_line(tmp_path, plain, said):
    path = tmp_path / "region.json"
    path.write_text(json.dumps(plain))
    with pytest.raises(DataError, match=said) as refused:
        read_region(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_files_that_are_no_regions_are_refused(tmp_path):
    Image.new("L", (40, 30)).save(tmp_path / "black.png")
    Image.new("L", (40, 30), 255).save(tmp_path / "white.png")
    slope = np.tile(np.linspace(0, 255, 40).astype(np.uint8), (30, 1))
    Image.fromarray(slope).save(tmp_path / "photograph.png")
    (tmp_path / "broken.json").write_text('{"frame": [40')
    for name, said in {
        "black.png": "black everywhere",
        "white.png": "ignores no pixel",
        "photograph.png": "8[0-9]% of its pixels are grey, as of a photograph; a mask is white where",
        "broken.json": "unreadable",
        "missing.json": "No such file|no such file|missing",
    }.items():
        with pytest.raises(DataError, match=said) as refused:
            read_region(tmp_path / name)
        assert name in str(refused.value)


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path):
    text = json.dumps({"frame": [40, 30], "ignore": [[[0, 0], [5, 0], [5, 5]]]})
    (tmp_path / "region.json").write_text(text, encoding="utf-8-sig")
    assert read_region(tmp_path / "region.json").frame == (40, 30)


def test_a_mask_may_have_smooth_borders_and_levels_of_labels(tmp_path):
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 10:70] = 255
    soft = Image.fromarray(mask).resize((160, 120), Image.Resampling.BICUBIC)
    soft.save(tmp_path / "soft.png")
    soft.save(tmp_path / "soft.jpg", quality=75)
    Image.fromarray(mask // 255 * np.uint8(100)).save(tmp_path / "labels.png")
    for name in ("soft.png", "soft.jpg", "labels.png"):
        assert inside_of(read_region(tmp_path / name)).mean() == pytest.approx(0.5, abs=0.01)


def test_noise_is_too_ragged():
    with pytest.raises(DataError, match="too ragged"):
        of_mask(np.random.default_rng(0).random((600, 900)) > 0.5)
