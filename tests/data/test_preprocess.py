import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from invad.data.preprocess import (
    Preprocess,
    choose_input_hw,
    choose_window,
    group_aspects,
    resize_map,
    resize_mask,
)
from invad.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
SIDES = st.integers(1, 40)
INPUT_SIDES = st.integers(2, 40)


def triangle_matrix(before, after):
    """Antialiased linear resampling: row i holds triangle weights about the centre of pixel i."""
    scale = max(before / after, 1.0)
    centres = (np.arange(after)[:, None] + 0.5) * before / after
    distance = np.abs(np.arange(before)[None] + 0.5 - centres) / scale
    weights = np.maximum(0.0, 1.0 - distance)
    return weights / weights.sum(1, keepdims=True)


def bilinear_matrix(before, after):
    """Plain linear interpolation between the two nearest pixel centres, edges repeated."""
    position = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    left = np.floor(position).astype(int)
    matrix = np.zeros((after, before))
    matrix[np.arange(after), left] += 1 - (position - left)
    matrix[np.arange(after), np.minimum(left + 1, before - 1)] += position - left
    return matrix


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, INPUT_SIDES, INPUT_SIDES)
def test_resize_is_two_constant_matrices(height, width, to_height, to_width):
    pixels = np.random.default_rng(height).random((height, width, 3)).astype(np.float32)
    expected = np.einsum(
        "ih,hwc,jw->cij", triangle_matrix(height, to_height), pixels, triangle_matrix(width, to_width)
    )
    result = Preprocess((to_height, to_width))(pixels)
    assert result.shape == (3, to_height, to_width)
    assert result.dtype == torch.float32
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-5)


def test_resize_agrees_with_pillow():
    pixels = RNG.random((57, 91, 3)).astype(np.float32)
    result = Preprocess((32, 64))(pixels).numpy()
    for channel in range(3):
        expected = Image.fromarray(pixels[..., channel]).resize((64, 32), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(result[channel], np.array(expected), atol=1e-5)


def test_values_are_scaled_by_full_range():
    levels8 = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    levels16 = np.arange(65536, dtype=np.uint16).reshape(256, 256, 1).repeat(3, 2)
    result8 = Preprocess((16, 16), window=(0.2, 0.3))(levels8)
    np.testing.assert_allclose(result8[1].numpy().ravel(), np.arange(256) / 255, atol=1e-7)
    result16 = Preprocess((256, 256))(levels16)
    np.testing.assert_allclose(result16[1].numpy().ravel(), np.arange(65536) / 65535, atol=1e-7)
    assert len(torch.unique(result16)) == 65536
    same = (levels8 / 255).astype(np.float32)
    np.testing.assert_allclose(Preprocess((16, 16), window=(0.2, 0.3))(same), result8, atol=1e-7)


def test_window_stretches_and_clamps_16_bit_only():
    pixels = (
        np.array([0, 6553, 13107, 32768, 52428, 65535], np.uint16).reshape(1, 6, 1).repeat(3, 2).repeat(2, 0)
    )
    result = Preprocess((2, 6), window=(0.2, 0.8))(pixels)
    expected = np.clip((pixels[0, :, 0] / 65535 - 0.2) / 0.6, 0, 1)
    np.testing.assert_allclose(result[2, 0].numpy(), expected, atol=1e-6)
    assert result.min() == 0
    assert result.max() == 1


def test_clamp_comes_before_the_resize():
    pixels = np.zeros((4, 4, 3), np.uint16)
    pixels[::2] = 65535  # ten times over the window: clamped afterwards, neighbours would be 1 as well
    result = Preprocess((2, 4), window=(0.0, 0.1))(pixels)
    np.testing.assert_allclose(result[0, :, 0].numpy(), triangle_matrix(4, 2) @ [1, 0, 1, 0], atol=1e-6)
    assert result.max() < 0.9


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16]), st.tuples(SIDES, SIDES, st.just(3))),
    st.tuples(INPUT_SIDES, INPUT_SIDES),
)
def test_output_stays_in_range_and_constants_stay_constant(pixels, size_hw):
    result = Preprocess(size_hw)(pixels)
    assert result.min() >= 0
    assert result.max() <= 1
    flat = np.full_like(pixels, pixels.flat[0])
    full = np.iinfo(pixels.dtype).max
    np.testing.assert_allclose(Preprocess(size_hw)(flat), pixels.flat[0] / full, atol=1e-6)


def test_input_is_neither_changed_nor_shared():
    for pixels in (RNG.random((4, 4, 3)).astype(np.float32), np.ones((4, 4, 3), np.uint8)):
        before = pixels.copy()
        pixels.setflags(write=False)
        Preprocess((4, 4))(pixels).zero_()
        np.testing.assert_array_equal(pixels, before)


def test_strided_views():
    pixels = RNG.integers(0, 256, (9, 8, 3), dtype=np.uint8)
    flipped = Preprocess((5, 5))(pixels[::-1, ::2])
    np.testing.assert_array_equal(flipped, Preprocess((5, 5))(pixels[::-1, ::2].copy()))


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_wrong_shapes(pixels):
    with pytest.raises(DataError, match="H x W x 3"):
        Preprocess((8, 8))(pixels)


def test_wrong_dtype():
    with pytest.raises(DataError, match="float64"):
        Preprocess((8, 8))(np.zeros((4, 4, 3)))


@pytest.mark.parametrize("input_hw", [(0, 32), (32, 1), (32, -1), (32,)])
def test_wrong_input_hw(input_hw):
    with pytest.raises(ConfigError, match="input_hw"):
        Preprocess(input_hw)


@pytest.mark.parametrize(
    "window", [(0.5, 0.5), (0.6, 0.5), (-0.1, 1), (0, 1.1), (math.nan, 1), (0, math.nan)]
)
def test_wrong_window(window):
    with pytest.raises(ConfigError, match="window"):
        Preprocess((32, 32), window)


# the choice of the input size


@pytest.mark.parametrize(
    ("sizes_hw", "expected"),
    [
        ([(900, 900)], (256, 256)),
        ([(500, 200)], (416, 160)),
        ([(200, 500)], (160, 416)),
        ([(100, 5000)], (128, 512)),
        ([(5000, 100)], (512, 128)),
        ([(100, 100), (100, 100), (100, 900)], (256, 256)),
        ([(100, 200), (200, 100)], (256, 256)),
    ],
)
def test_choose_input_hw(sizes_hw, expected):
    assert choose_input_hw(sizes_hw) == expected
    assert choose_input_hw(sizes_hw, square=True) == (256, 256)


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((64, 64), (32, 32)),
        ((10, 10_000), (16, 64)),
        ((300, 100), (64, 16)),
        ((90, 160), (32, 32)),
        ((80, 170), (16, 64)),
        ((200, 100), (32, 32)),  # half way in logarithms: the first
    ],
)
def test_an_image_takes_the_size_of_the_nearest_aspect(size_hw, expected):
    preprocess = Preprocess((32, 32), other_hw=((16, 64), (64, 16)))
    assert preprocess.size_for(size_hw) == expected
    assert preprocess(np.zeros((*size_hw, 3), np.uint8)).shape == (3, *expected)


def test_aspects_are_grouped_within_a_factor():
    aspects = [math.log(a) for a in (1.0, 2.5, 1.4, 0.9, 1.36, 2.0)]
    assert group_aspects(aspects, 1.5) == [[3, 0], [4, 2, 5], [1]]
    assert group_aspects([0.3], 1.5) == [[0]]


def test_choose_input_hw_options():
    assert choose_input_hw([(100, 100)], area_side=224, multiple=14) == (224, 224)
    assert choose_input_hw([(100, 100)], area_side=4, multiple=32) == (32, 32)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9999), st.integers(1, 9999)), min_size=1, max_size=9),
    st.integers(64, 1024),
    st.sampled_from([8, 14, 32]),
)
def test_choose_input_hw_properties(sizes_hw, area_side, multiple):
    height, width = choose_input_hw(sizes_hw, area_side, multiple)
    assert height % multiple == width % multiple == 0
    assert min(height, width) >= multiple
    assert abs(math.sqrt(height * width) - area_side) <= 2 * multiple
    turned = choose_input_hw([(w, h) for h, w in sizes_hw], area_side, multiple)
    assert turned == (width, height)
    assert choose_input_hw(sizes_hw[::-1], area_side, multiple) == (height, width)


def test_choose_input_hw_errors():
    for sizes_hw in ([], [(0, 5)]):
        with pytest.raises(DataError, match="at least one image"):
            choose_input_hw(sizes_hw)
    for options in ({"area_side": 0}, {"multiple": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            choose_input_hw([(5, 5)], **options)


# the choice of the window


def grey16(*levels):
    return np.array(levels, np.uint16).reshape(1, -1, 1).repeat(3, 2)


def test_choose_window():
    assert choose_window([]) == (0.0, 1.0)
    assert choose_window([np.zeros((2, 2, 3), np.uint8)]) == (0.0, 1.0)
    assert choose_window([grey16(77)]) == (0.0, 1.0)
    low, high = choose_window(iter([grey16(1000, 2000), np.zeros((2, 2, 3), np.uint8), grey16(1500, 3000)]))
    assert low * 65535 == pytest.approx(900)
    assert high * 65535 == pytest.approx(3100)
    assert choose_window([grey16(0, 65535)]) == (0.0, 1.0)
    assert choose_window([grey16(20, 65000)]) == (0.0, 1.0)
    twelve_bit = choose_window([grey16(0, 4095)])
    assert twelve_bit == (0.0, pytest.approx(4095 * 1.05 / 65535))


def test_choose_window_reads_at_most_64_images():
    images = iter([grey16(100, 200)] * 64 + [grey16(0, 60000)])
    assert choose_window(images)[1] * 65535 == pytest.approx(205)
    assert next(images).max() == 60000


@settings(max_examples=50, deadline=None)
@given(st.lists(hnp.arrays(np.uint16, (2, 3, 3)), max_size=5))
def test_a_chosen_window_is_valid_and_loses_nothing(images):
    window = choose_window(images)
    transform = Preprocess((2, 3), window)
    for image in images:
        assert len(torch.unique(transform(image))) == len(np.unique(image))


# maps and masks back


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_resize_map_is_bilinear(height, width, to_height, to_width):
    grid = np.random.default_rng(height).normal(size=(height, width)).astype(np.float32)
    expected = bilinear_matrix(height, to_height) @ grid @ bilinear_matrix(width, to_width).T
    result = resize_map(grid, (to_height, to_width))
    assert result.dtype == np.float32
    assert result.shape == (to_height, to_width)
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_resize_map_to_its_own_size_is_a_copy():
    grid = RNG.normal(size=(5, 7)).astype(np.float32)
    result = resize_map(grid, (5, 7))
    np.testing.assert_array_equal(result, grid)
    assert not np.shares_memory(result, grid)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES)
def test_resize_mask_takes_the_nearest_centre(height, width, to_height, to_width):
    mask = np.random.default_rng(height).random((height, width)) < 0.5
    rows = ((2 * np.arange(to_height) + 1) * height) // (2 * to_height)
    columns = ((2 * np.arange(to_width) + 1) * width) // (2 * to_width)
    result = resize_mask(mask, (to_height, to_width))
    assert result.dtype == np.bool_
    np.testing.assert_array_equal(result, mask[np.ix_(rows, columns)])


def test_image_and_mask_stay_aligned():
    """A defect at one place of the image is at that place of input, map and mask, when stretched."""
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[12:24, 60:75] = 255
    mask = pixels[..., 0] > 0
    seen = Preprocess((32, 64))(pixels)[0].numpy()
    overlap = resize_mask(mask, (32, 64)) == (seen > 0.5)
    assert overlap.mean() > 0.98
    back = resize_map(seen, (60, 90)) > 0.5
    assert (back & mask).sum() / (back | mask).sum() > 0.85
