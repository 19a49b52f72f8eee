"""Pixels from anything that holds an image, without losing grey levels."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad.data.decoding import from_pillow, from_stream, orientation, upright
from invad.data.formats import DICOM, HEAD_BYTES, format_of
from invad.data.limits import LIMIT_VARIABLE
from invad.data.pages import Page
from invad.data.pixels import to_rgb
from invad.errors import ConfigError, DataError, reason
from invad.records import Hw
from invad.system.files import is_folder, is_there

if TYPE_CHECKING:
    import torch

ImageSource: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    bytes,
    bytearray,
    memoryview,
    IO[bytes],
    Image.Image,
    NDArray[Any],
    "torch.Tensor",
    Page,
]
"""Path, encoded bytes or binary file, Pillow image, H x W (x 1, 2, 3, 4) array, (C x) H x W tensor, or a page
of a file of several."""

MAX_PIXELS = 200_000_000
STANDARD_INPUT = "-"


def read_image(source: ImageSource, *, max_pixels: int | None = None) -> NDArray[Any]:
    """Upright RGB pixels, H x W x 3, C-contiguous: uint8, uint16, or float32 in [0, 1].

    source: path ("-" is standard input; pipes are read whole), encoded bytes or an open binary file of one
        of `formats.FORMATS`, Pillow image, array H x W (x C) or tensor (C x) H x W with C in 1, 2, 3, 4;
        arrays are bool, uint8, uint16 or float in [0, 1]. A `Page` is one of several of a TIFF or DICOM.
    max_pixels: limit on H * W of encoded images, checked in the header before anything is decoded; by
        default the environment variable INVAD_MAX_PIXELS, else 200 million.

    Grey becomes three equal channels. Palettes and CMYK become RGB. Alpha is ignored: the colours
    under transparent pixels are returned as stored. EXIF orientation is applied. Every grey level
    of a 16-bit file survives; 32-bit integers are accepted when all lie in 0..65535, float files
    when all lie in [0, 1]; what the values of DICOM become is said in `data/dicom.py`. A file of several
    pages or frames is refused, reductions of its one picture aside. A given array may be returned itself, so
    do not write into the result. A Pillow image is taken as Pillow holds it, and Pillow keeps 8 bits of
    16-bit colour files: give the path instead.

    Raises DataError, naming the source, when there is no such file, when it is empty, truncated,
    corrupt, too large or of another format, and when an array has another shape, dtype or range.
    """
    max_pixels = pixel_limit() if max_pixels is None else max_pixels
    if isinstance(source, Page):
        name, number = str(source), source.number
        with _opened(source.path) as stream:
            return _decode(lambda: from_stream(_seekable(stream, name), name, max_pixels, number), name)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        with _opened(Path(source)) as stream:
            return _decode(lambda: from_stream(_seekable(stream, name), name, max_pixels), name)
    if is_bytes_like(source):
        with io.BytesIO(memoryview(cast("bytes", source)).tobytes()) as stream:
            return _decode(lambda: from_stream(stream, "<bytes>", max_pixels), "<bytes>")
    if hasattr(source, "read"):
        given, name = cast("IO[bytes]", source), str(getattr(source, "name", "<file>"))
        if isinstance(source, io.TextIOBase):
            raise DataError(f"{name}: is opened as text; open it as binary, mode 'rb'")
        return _decode(lambda: from_stream(_seekable(given, name), name, max_pixels), name)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "<array>")
        return _decode(lambda: from_pillow(source, name, max_pixels), name)
    if isinstance(source, np.ndarray):
        return to_rgb(source, "<array>")
    torch = sys.modules.get("torch")  # who holds a tensor has imported torch already
    if torch is not None and isinstance(source, torch.Tensor):
        return to_rgb(_tensor_array(source), "<array>")
    raise DataError(
        f"{type(source).__name__} is not an image: give a path, bytes, file, Pillow image, array or tensor"
    )


def read_alpha(path: str | Path) -> NDArray[np.uint8] | None:
    """Alpha of an image file, H x W and upright as `read_image` gives its colours; None without levels."""
    with _opened(Path(path)) as stream:
        known = format_of(stream.read(HEAD_BYTES), str(path))
        if known is DICOM:
            return None
        stream.seek(0)
        try:
            image = known.reader(str(path))(stream)
            if not image.has_transparency_data:
                return None
            image.load()
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        except (OSError, SyntaxError, ValueError):  # a kind that Pillow does not know, read without alpha
            return None
        return None if alpha.min() == alpha.max() else upright(alpha, orientation(image))


def turned(path: str | Path) -> int:
    """The orientation, 1 to 8, by which `read_image` turns the pixels of a file; 1 where none is known."""
    try:
        with _opened(Path(path)) as stream:
            known = format_of(stream.read(HEAD_BYTES), str(path))
            if known is DICOM:
                return 1
            stream.seek(0)
            return orientation(known.reader(str(path))(stream))
    except Exception:  # whoever reads the pixels says what is wrong with them
        return 1


def image_size(path: str | Path) -> Hw:
    """Height and width of an image file as `read_image` gives it, from its header where that says them.

    Raises DataError when it cannot be read.
    """
    with _opened(Path(path)) as stream:
        known = format_of(stream.read(HEAD_BYTES), str(path))
        if known is not DICOM:
            stream.seek(0)
            with suppress(OSError, SyntaxError, ValueError):  # a kind that Pillow does not know
                image = known.reader(str(path))(stream)
                height, width = image.height, image.width
                return (width, height) if orientation(image) > 4 else (height, width)
    pixels = read_image(path)
    return pixels.shape[0], pixels.shape[1]


def is_bytes_like(source: Any) -> bool:
    """Whether it holds encoded bytes: of what has a buffer, all but pixels and open files."""
    if isinstance(source, np.ndarray | np.generic | Image.Image) or hasattr(source, "read"):
        return False
    try:
        memoryview(source)
    except TypeError:
        return False
    return True


def pixel_limit(usual: int | None = None) -> int:
    """The limit on H * W of an encoded image: that of the environment, else `usual`, else MAX_PIXELS.

    Raises ConfigError for a setting that is no number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if text and not (text.isdecimal() and int(text)):
        raise ConfigError(f"{LIMIT_VARIABLE} = {text!r}: give a number of pixels, such as {MAX_PIXELS}")
    if text:
        return int(text)
    return MAX_PIXELS if usual is None else usual


def _seekable(stream: IO[bytes], name: str) -> IO[bytes]:
    """The stream at its start; of a pipe, which can be read only once, all of its bytes."""
    if getattr(stream, "seekable", lambda: True)():
        stream.seek(0)
        return stream
    head = stream.read(HEAD_BYTES)
    if head:
        format_of(head, name)  # so that an endless stream of something else is not read to its end
    return io.BytesIO(head + stream.read())


def _opened(path: Path) -> IO[bytes]:
    if str(path) == STANDARD_INPUT and not is_there(path):
        if sys.stdin is None:
            raise DataError(f"{path}: standard input is closed; give an image file or pipe one in")
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    if is_folder(path):
        raise DataError(f"{path}: is a folder; give an image file")
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        why = reason(error, writing=False) if isinstance(error, OSError) else _one_line(error)
        raise DataError(f"{path}: cannot be opened: {why}") from error


def _decode(read: Callable[[], NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return read()
    except DataError:
        raise
    except Exception as error:  # parsers of damaged bytes raise whatever comes to hand
        if isinstance(error, OSError) and error.errno:  # of the disk; Pillow's own have no number
            raise DataError(f"{name}: {reason(error, writing=False)}") from error
        raise DataError(
            f"{name}: cannot be decoded ({_one_line(error)}); the file is damaged or of an unusual kind:"
            " copy it again or save it as PNG"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _tensor_array(tensor: "torch.Tensor") -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array
