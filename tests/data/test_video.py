"""Frames of videos against the pixels that were written."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from invad.data.images import read_image
from invad.data.video import frame_pixels

av = pytest.importorskip("av", reason="PyAV is not installed")

LEVELS8 = np.arange(256, dtype=np.uint8).reshape(16, 16)
LEVELS16 = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def colours(dtype: type, most: int) -> NDArray[Any]:
    """15 x 17 so that no row is a multiple of what swscale likes."""
    return np.random.default_rng(0).integers(0, most + 1, (15, 17, 3)).astype(dtype)


RGB8, RGB16 = colours(np.uint8, 255), colours(np.uint16, 65535)


@pytest.mark.parametrize("layout", ["rgb24", "bgr24", "gbrp", "bgr0", "rgba"])
def test_colours_of_eight_bits_stay_as_they_are(layout: str) -> None:
    frame = av.VideoFrame.from_ndarray(RGB8, "rgb24").reformat(format=layout)
    found = frame_pixels(frame)
    assert (found.dtype, found.tolist()) == (np.uint8, RGB8.tolist())


@pytest.mark.parametrize("layout", ["rgb48le", "rgb48be", "gbrp16le", "rgba64le"])
def test_colours_of_sixteen_bits_stay_as_they_are(layout: str) -> None:
    frame = av.VideoFrame.from_ndarray(RGB16, "rgb48le").reformat(format=layout)
    found = frame_pixels(frame)
    assert (found.dtype, found.tolist()) == (np.uint16, RGB16.tolist())


@pytest.mark.parametrize(("layout", "levels"), [("gray", LEVELS8), ("gray16le", LEVELS16)])
def test_grey_levels_stay_as_they_are(layout: str, levels: NDArray[Any]) -> None:
    found = frame_pixels(av.VideoFrame.from_ndarray(levels, layout))
    assert (found.dtype, found.tolist()) == (levels.dtype, levels.tolist())


def test_alpha_does_not_touch_the_colours() -> None:
    clear = np.dstack([RGB8, np.zeros_like(RGB8[..., :1])])
    assert (frame_pixels(av.VideoFrame.from_ndarray(clear, "rgba")) == RGB8).all()


def plane_frame(layout: str, luma: NDArray[np.uint16], chroma: int) -> Any:
    """A frame of 16-bit samples whose chroma, where it has any, is `chroma` everywhere."""
    height, width = luma.shape
    frame = av.VideoFrame(width, height, layout)
    for i, plane in enumerate(frame.planes):
        rows = np.zeros((plane.height, plane.line_size // 2), np.uint16)
        rows[:, : plane.width] = chroma if i else luma
        plane.update(rows.tobytes())
    return frame


def test_ten_and_twelve_bits_keep_every_level() -> None:
    for bits in (10, 12):
        luma = np.arange(2**bits, dtype=np.uint16).reshape(32, -1)
        found = frame_pixels(plane_frame(f"gray{bits}le", luma, 0))
        assert (found == (luma << (16 - bits) | luma >> (2 * bits - 16))).all()
    luma = np.arange(64, 940, dtype=np.uint16).reshape(12, 73).repeat(2, axis=1)
    found = frame_pixels(plane_frame("yuv420p10le", luma, 512))
    assert found.dtype == np.uint16
    assert (found == found[..., :1]).all()
    assert len(np.unique(found)) == 876


def rgb_of(y: Any, u: Any, v: Any, red: float, blue: float, full: bool) -> NDArray[np.float64]:
    """BT.601 and BT.709 by their definition, from the weights of red and blue in the luma."""
    luma, scale = (y / 255, 255) if full else ((y - 16) / 219, 224)
    blues, reds = 2 * (1 - blue) * (u - 128) / scale, 2 * (1 - red) * (v - 128) / scale
    greens = -(red * reds + blue * blues) / (1 - red - blue)
    return np.clip(255 * np.dstack([luma + reds, luma + greens, luma + blues]), 0, 255)


@pytest.mark.parametrize(("space", "red", "blue"), [(2, 0.299, 0.114), (1, 0.2126, 0.0722)])
@pytest.mark.parametrize("full", [False, True])
def test_colours_follow_the_space_and_range_that_are_stated(
    space: int, red: float, blue: float, full: bool
) -> None:
    yuv = np.random.default_rng(1).integers(16, 236, (3, 16, 16)).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(yuv, "yuv444p")
    frame.colorspace, frame.color_range = space, 2 if full else 1
    wanted = rgb_of(*yuv.astype(float), red, blue, full)
    assert np.abs(frame_pixels(frame) - wanted).max() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_frame_comes_upright(orientation: int) -> None:
    """As `read_image` turns the same JPEG; a mirrored one, too, where PyAV hands out the display matrix."""
    corner = np.zeros((16, 32, 3), np.uint8)
    corner[:8, :8] = 255
    exif = Image.Exif()
    exif[274] = orientation
    content = io.BytesIO()
    Image.fromarray(corner).save(content, "JPEG", exif=exif, quality=95)
    with av.open(io.BytesIO(content.getvalue())) as file:
        frame = next(file.decode(video=0))
        try:
            frame.side_data["DISPLAYMATRIX"]
        except KeyError:
            assert orientation == 1
        except ValueError:
            if orientation in (2, 4, 5, 7):
                pytest.skip("this PyAV does not hand out the display matrix beside EXIF")
        found = frame_pixels(frame)
    wanted = read_image(content.getvalue())
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() < 12
