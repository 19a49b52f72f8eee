"""PNG files of pixels."""

import numpy as np
import pytest

from invad.data.images import read_image
from invad.data.png import encode_png
from invad.errors import DataError


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 9, 3), (33, 21, 3)])
def test_a_png_has_every_level(shape, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=np.uint16)
    pixels = pixels.astype(dtype)
    for one in (pixels, pixels[::-1], np.asfortranarray(pixels)):  # however it lies in memory
        read = read_image(encode_png(one))
        assert read.dtype == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(read, np.repeat(one[..., None], 3, 2) if one.ndim == 2 else one)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4), np.float32),
        np.zeros((4, 4), np.int16),
        np.zeros((4, 4), bool),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.uint8(3),
    ],
)
def test_what_is_no_picture_of_a_camera_is_refused(pixels):
    with pytest.raises(DataError, match="give H x W or H x W x 3 pixels of uint8 or uint16"):
        encode_png(pixels)
