"""PNG files of pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from invad.data.images import read_image
from invad.data.png import encode_png
from invad.errors import DataError


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 9, 3), (33, 21, 3)])
def test_a_png_has_every_level(shape, dtype):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, endpoint=True, dtype=np.uint16)
    pixels = pixels.astype(dtype)
    for one in (pixels, pixels[::-1], np.asfortranarray(pixels)):  # however it lies in memory
        for is_smooth in (False, True):
            read = read_image(encode_png(one, is_smooth=is_smooth))
            assert read.dtype == np.dtype(dtype).newbyteorder("=")
            assert np.array_equal(read, np.repeat(one[..., None], 3, 2) if one.ndim == 2 else one)


def test_notes_are_read_by_others_and_smooth_pixels_take_less_room():
    ramp = np.add.outer(np.arange(200) * 31, np.arange(300) * 17).astype(np.uint16)
    smooth = encode_png(ramp, is_smooth=True, text={"by": "a test", "of": "\xb5m"})
    with Image.open(io.BytesIO(smooth)) as image:
        assert image.info == {"by": "a test", "of": "\xb5m"}
    assert len(smooth) < len(encode_png(ramp)) / 5


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
