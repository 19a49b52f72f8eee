"""Decoded pixels as files, for what takes images by their paths."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from invad.data.content import BLANK, pixel_digest
from invad.data.png import encode_png
from invad.errors import DataError
from invad.system.files import replacing, writing


def keep_pixels(pixels: NDArray[Any], folder: Path) -> Path:
    """A file in `folder` from which `read_image` gives these pixels again, to the bit; returns its path.

    pixels: H x W x 3 of uint8, uint16 or float32, as `read_image` returns them. Its name tells its content,
    so that the same pixels have one file and the same path each time. Raises DataError when it cannot be
    written.
    """
    whole = pixels.dtype.kind == "u"
    name = pixel_digest(pixels)
    if name == BLANK:
        shape = "x".join(map(str, pixels.shape[:2]))
        name = f"blank-{shape}-{pixels.dtype}-" + "-".join(f"{level:g}" for level in pixels[0, 0])
    path = folder / f"{name}{'.png' if whole else '.tiff'}"
    if path.exists():
        return path
    with writing(path, DataError), replacing(path) as partial:
        if whole:
            partial.write_bytes(encode_png(pixels))
        else:
            tifffile.imwrite(partial, np.ascontiguousarray(pixels), photometric="rgb")
    return path
