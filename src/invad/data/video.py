"""From the frames that PyAV decodes to pixels, without losing grey levels."""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from invad.data.decoding import upright

if TYPE_CHECKING:
    from av import VideoFrame

_EXACT = 0x2 | 0x2000 | 0x40000
"""Of libswscale: bilinear where chroma is coarser, chroma for each pixel, exact rounding."""

_ORIENTATION_OF_SIGNS = {
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
"""Signs of a display matrix, a b c d with x' = a x + c y and y' = b x + d y -> EXIF orientation."""

_ORIENTATION_OF_TURN = {180: 3, -180: 3, -90: 6, 90: 8}
"""Degrees against the clock -> EXIF orientation."""


def frame_pixels(frame: "VideoFrame") -> NDArray[Any]:
    """Upright pixels of a decoded frame: grey H x W or colour H x W x 3 (RGB), uint8, or uint16 of deep ones.

    Eight bits stay as they are. More of them, such as those of yuv420p10 or gray12, are spread over 0..65535,
    so every level survives; gray16 and 16-bit RGB come out bit for bit. YUV becomes RGB of full range by the
    colour space and the range that the frame states. Alpha is ignored. The display matrix is applied where it
    turns by right angles or mirrors; where PyAV cannot hand it out, what it knows of its rotation is.
    """
    parts = frame.format.components
    colours = [part for part in parts if not part.is_alpha]
    is_grey = len(colours) == 1 and not (frame.format.has_palette or frame.format.is_rgb)
    # The three of a Bayer mosaic share the bits of one pixel.
    bits = sum(part.bits for part in parts) if frame.format.is_bayer else max(part.bits for part in parts)
    shallow, deep = ("gray", "gray16le") if is_grey else ("rgb24", "rgb48le")
    converted = frame.reformat(format=shallow if bits <= 8 else deep, interpolation=_EXACT)
    return upright(np.asarray(converted.to_ndarray()), _orientation(frame))


def _orientation(frame: "VideoFrame") -> int:
    """How a frame is to be turned, as EXIF says it, 1 to 8."""
    try:
        matrix = np.frombuffer(cast("Any", frame).side_data["DISPLAYMATRIX"], np.int32)
    except KeyError:
        return 1
    except ValueError:  # PyAV does not know another kind of data beside it and gives none at all
        return _ORIENTATION_OF_TURN.get(frame.rotation, 1)
    a, b, _, c, d = (int(np.sign(value)) for value in matrix[:5])
    return _ORIENTATION_OF_SIGNS.get((a, b, c, d), 1)
