"""Pixels as a PNG file, quickly and without losing a level."""

import struct
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError

_MAGIC = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR = 0, 2
NO_TEXT: Mapping[str, str] = MappingProxyType({})
_LEFT, _UP = 1, 2
"""The filters of PNG that take each byte as its difference from that of the pixel to the left, or above."""


def encode_png(pixels: NDArray[Any], *, is_smooth: bool = False, text: Mapping[str, str] = NO_TEXT) -> bytes:
    """A PNG of H x W (grey) or H x W x 3 (RGB) pixels of uint8 or uint16, from which `read_image` gives the
    same levels.

    is_smooth: they were interpolated, as a map is, so differences repeat; it changes the size and the time
    alone. text: notes by keyword, in Latin-1.

    Pillow writes no colours of 16 bits, takes five times as long for 8, and keeps other threads waiting
    meanwhile. Raises DataError for another shape or type.
    """
    require_png(pixels)
    height, width = pixels.shape[:2]
    # PNG stores the high byte first.
    rows = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    if is_smooth:
        pixel = rows.shape[1] // width
        filtered[:, 0] = _LEFT
        filtered[:, 1 : 1 + pixel] = rows[:, :pixel]
        np.subtract(rows[:, pixel:], rows[:, :-pixel], out=filtered[:, 1 + pixel :])
    else:
        filtered[:, 0] = _UP
        filtered[0, 1:] = rows[0]
        np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    # Pixels of a camera are noisy: what is repeated are runs of zeros, and a search for more only takes time.
    packer = zlib.compressobj(1, strategy=zlib.Z_DEFAULT_STRATEGY if is_smooth else zlib.Z_RLE)
    packed = packer.compress(filtered.data) + packer.flush()
    kind = _COLOUR if pixels.ndim == 3 else _GREY
    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, kind, 0, 0, 0)
    notes = b"".join(_chunk(b"tEXt", f"{name}\0{said}".encode("latin-1")) for name, said in text.items())
    return _MAGIC + _chunk(b"IHDR", head) + notes + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def require_png(pixels: NDArray[Any]) -> None:
    """Raises DataError for pixels that `encode_png` does not take."""
    is_shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    is_typed = pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2
    if not (is_shaped and is_typed and pixels.size):
        shape = " x ".join(map(str, pixels.shape)) or "a scalar"
        raise DataError(f"{shape} of {pixels.dtype}: give H x W or H x W x 3 pixels of uint8 or uint16")


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(name))
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
