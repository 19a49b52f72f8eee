"""How many pixels an image may have: checked in its header, before anything is decoded."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from invad.errors import DataError

LIMIT_VARIABLE = "INVAD_MAX_PIXELS"


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raises DataError, for the image `name`, when it has no pixels or too many to decode."""
    if width <= 0 or height <= 0:
        raise DataError(f"{name}: has no pixels ({width} x {height}); give an image of at least 1 x 1")
    if width * height > max_pixels:
        raise DataError(
            f"{name}: {width} x {height} pixels is over the limit of {max_pixels};"
            f" make the image smaller or set the environment variable {LIMIT_VARIABLE}={width * height}"
        )


_LIMIT_LOCK = threading.Lock()


@contextmanager
def pillow_limit_lifted(pixels: int) -> Iterator[None]:
    # Some plugins check Pillow's process-wide limit again while they decode. max_pixels has been
    # checked by then, so the limit is set aside, for the rare image above it only.
    if Image.MAX_IMAGE_PIXELS is None or pixels <= Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _LIMIT_LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
