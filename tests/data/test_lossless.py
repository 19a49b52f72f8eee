"""Files of decoded pixels."""

import numpy as np
import pytest

from invad.data.images import read_image
from invad.data.lossless import keep_pixels
from invad.errors import DataError


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 3), (3, 4, 3)])
def test_a_file_has_every_level(shape, dtype, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.random(shape) * (1 if dtype is np.float32 else np.iinfo(dtype).max)
    pixels = pixels.astype(dtype)
    for one in (pixels, np.full_like(pixels, pixels.max())):
        path = keep_pixels(one, tmp_path)
        read = read_image(path)
        assert read.dtype == one.dtype
        assert np.array_equal(read, one)
        assert keep_pixels(one.copy(), tmp_path) == path


def test_other_pixels_have_another_file(tmp_path):
    blank = np.zeros((4, 4, 3), np.uint8)
    spot = blank.copy()
    spot[0, 0] = 1
    paths = {keep_pixels(one, tmp_path) for one in (blank, blank + np.uint8(1), blank[:2], spot, spot[::-1])}
    assert len(paths) == 5


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file.*cannot be written"):
        keep_pixels(np.zeros((4, 4, 3), np.uint8), tmp_path / "file")
