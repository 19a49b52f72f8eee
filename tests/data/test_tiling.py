"""Where tiles lie, what their cells count, and that nothing of a picture is left out or padded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invad.data import tiling
from invad.data.region import Region, cells_of
from invad.data.tiling import OVERVIEW, TILE, Blend, Tiling, origins, overview, tile_for, tiles_at_once
from invad.errors import ConfigError, DataError
from invad.system.plain import from_plain

TILING = Tiling(tile_px=64, overlap=0.25)


@given(st.integers(1, 400), st.integers(4, 40), st.integers(1, 30))
def test_tiles_cover_a_length_evenly_and_none_reaches_beyond_it(length, tile, stride):
    stride = min(stride, tile)
    starts = origins(length, tile, stride)
    gaps = np.diff(starts)
    assert starts[0] == 0
    if length <= tile:
        assert starts == (0,)
        return
    assert starts[-1] == length - tile
    assert gaps.min() >= 1
    assert gaps.max() <= stride  # so that neighbours share at least the overlap
    assert gaps.max() - gaps.min() <= 1


@given(st.integers(64, 700), st.integers(64, 700), st.integers(0, 4))
def test_every_pixel_is_in_a_tile_of_the_one_size_and_every_cell_counts(height, width, border):
    cut = replace(TILING, overlap=0.375, border=border).cut((height, width), (16, 16))
    seen, blend = np.zeros((height, width), bool), Blend(cut)
    sizes = set()
    for tile in cut.tiles():
        part = tile.of(seen)
        sizes.add(part.shape)
        part[:] = True
        blend.add(tile, np.full((16, 16), 3.0, np.float32))
    assert seen.all()
    assert len(sizes) == 1
    low = np.full((16, 16), -1.0, np.float32)
    np.testing.assert_allclose(blend.map(low), 3.0, rtol=1e-6)


@pytest.mark.parametrize("size_hw", [(3000, 4096), (460, 1130), (64, 64), (100, 65)])
def test_the_pixels_of_a_tile_are_those_of_its_cells(size_hw):
    cut = Tiling(tile_px=min(64, *size_hw)).cut(size_hw, (16, 16))
    rows, columns = cut.cells_hw
    for tile in cut.tiles():
        top = cut.down.origins[tile.row] * size_hw[0] / rows
        left = cut.along.origins[tile.column] * size_hw[1] / columns
        assert abs(tile.top - top) <= 1
        assert abs(tile.left - left) <= 1
        assert -0.25 <= tile.height - 16 * size_hw[0] / rows < 0.75


def test_how_far_tiles_lie_from_their_cells():
    assert Tiling(tile_px=64).cut((128, 160), (16, 16)).off == 0
    # 2048 pixels are 102 cells of 20.08; the tile in the middle begins at the 31st, which is at 622.4.
    off = Tiling(tile_px=800, overlap=9 / 40, cells=40).cut((2048, 2048), (40, 40)).off
    assert off == pytest.approx((31 * 2048 / 102 - 622) / (2048 / 102))


def test_the_border_of_a_tile_counts_nothing_where_another_tile_sees_it_from_within():
    cut = TILING.cut((64, 160), (16, 16))
    assert cut.rows_columns == (1, 3)
    for column, border in ((0, -1), (1, 0), (1, -1), (2, 0)):
        wrong = np.zeros((16, 16), np.float32)
        wrong[:, border] = 1e6
        blend = Blend(cut)
        for tile in cut.tiles():
            blend.add(tile, wrong if tile.column == column else np.zeros((16, 16), np.float32))
        assert blend.map(np.zeros((16, 16), np.float32)).max() == 0
    wrong = np.zeros((16, 16), np.float32)
    wrong[:, 0] = 1.0  # at the border of the picture nobody else sees it
    blend = Blend(cut)
    for tile in cut.tiles():
        blend.add(tile, wrong if tile.column == 0 else np.zeros((16, 16), np.float32))
    np.testing.assert_array_equal(blend.map(np.zeros((16, 16), np.float32))[:, 0], 1)


def test_further_cells_along_a_border_count_nothing_as_far_as_tiles_overlap():
    tiling = Tiling(tile_px=240, border=3)
    cut = tiling.cut((240, 400), (24, 24))
    wrong = np.ones((24, 24), np.float32)
    wrong[:, 4:-4] = 0
    blend, low = Blend(cut), np.full((24, 24), -1.0, np.float32)
    for tile in cut.tiles():
        blend.add(tile, wrong)
    told = blend.map(low)
    np.testing.assert_array_equal(told[:, 4:-4], 0)
    np.testing.assert_array_equal(told[:, [0, 3, -4, -1]], 1)  # at the border of the picture
    short = Tiling(tile_px=64, overlap=0.25, border=3).cut((64, 160), (16, 16)).along
    assert (short.overlap, short.border) == (4, 1)


def test_a_tiling_that_was_written_without_a_border_is_read_as_it_was_made():
    plain = {"tile_px": 64, "overlap": 0.25, "positions": "shared", "picture_hw": None, "region": None}
    assert from_plain(Tiling, plain, "config.json") == Tiling(tile_px=64, overlap=0.25, border=0)


def test_a_map_that_tiles_were_cut_from_comes_back():
    cut = TILING.cut((200, 300), (16, 16))
    whole = np.random.default_rng(0).normal(size=cut.cells_hw).astype(np.float32)
    blend = Blend(cut)
    for tile in cut.tiles():
        top, left = cut.down.origins[tile.row], cut.along.origins[tile.column]
        blend.add(tile, whole[top : top + 16, left : left + 16])
    np.testing.assert_allclose(blend.map(np.full((16, 16), -9, np.float32)), whole, rtol=1e-5)


def test_places():
    shared = TILING.cut((100, 150), (16, 16))
    assert set(shared.places()) == {TILE, OVERVIEW}
    each = Tiling(tile_px=64, positions="each", picture_hw=(100, 150)).cut((100, 150), (16, 16))
    assert each.places()[:2] == ("r00c00", "r00c01")
    assert len(set(each.places())) == len(each) + 1


def test_a_picture_that_cannot_be_cut_is_refused_in_one_line():
    with pytest.raises(DataError, match="1130 x 40 pixels, smaller than a tile of 64"):
        TILING.cut((40, 1130), (16, 16))
    each = Tiling(tile_px=64, positions="each", picture_hw=(100, 150))
    with pytest.raises(DataError, match=r"101 x 150 pixels.* of 150 x 100 alone"):
        each.cut((150, 101), (16, 16))
    wrong_positions = {"positions": "each"}, {"positions": "both"}
    for wrong in ({"tile_px": 8}, {"overlap": 0.6}, {"border": -1}, *wrong_positions):
        with pytest.raises(ConfigError):
            Tiling(**{"tile_px": 64, **wrong})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_overview_keeps_the_mean_and_the_type(dtype):
    rng = np.random.default_rng(0)
    pixels = (rng.random((1100, 1501, 3)) * (1 if dtype == np.float32 else 250)).astype(dtype)
    small = overview(pixels)
    assert small.dtype == dtype
    assert small.shape == (550, 751, 3)
    expected = pixels[:2, :2].mean(axis=(0, 1), dtype=np.float64)
    np.testing.assert_allclose(small[0, 0], expected, atol=0.51 if dtype != np.float32 else 1e-6)
    # The last column has no second one to be averaged with.
    last = pixels[:2, 1500].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(small[0, -1], last, atol=0.51 if dtype != np.float32 else 1e-6)
    assert overview(pixels[:1000]) is not None
    assert overview(pixels[:1000]).shape == (1000, 1501, 3)


def test_the_tile_in_which_a_defect_is_one_cell():
    assert tile_for(32, (256, 256), (16, 16)) == 512
    assert tile_for(5, (256, 256), (16, 16)) == 256  # nothing lies between the pixels of a picture


def test_where_a_region_lies_on_the_cells_is_worked_out_once(monkeypatch):
    region = Region(frame=(640, 480), ignore=(((0, 0), (200, 0), (200, 100), (0, 100)),))
    asked = []
    monkeypatch.setattr(tiling, "cells_of", lambda *given: asked.append(given) or cells_of(*given))
    for one in (region, replace(region, min_cover=0.9)):
        made = Tiling(tile_px=96, region=one)
        first = made.cut((480, 640), (12, 12))
        assert replace(made).cut((480, 640), (12, 12)) is first
        assert made.cut((480, 640), (12, 12), "side") is not first
    assert len(asked) == 4


def test_the_larger_tiles_are_the_fewer_pass_a_network_together():
    assert [tiles_at_once((side, side), 8, 1152) for side in (4, 12, 24, 48)] == [8, 8, 2, 1]
