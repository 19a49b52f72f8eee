"""Pixels from anything that holds an image, without losing grey levels."""

import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from invad.data.formats import HEAD_BYTES, Reader, format_of
from invad.data.pages import chosen_page, the_picture
from invad.errors import ConfigError, DataError, reason
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
]
"""Path, encoded bytes or binary file, Pillow image, H x W (x 1, 2, 3, 4) array, (C x) H x W tensor."""

MAX_PIXELS = 200_000_000
LIMIT_VARIABLE = "INVAD_MAX_PIXELS"
STANDARD_INPUT = "-"
SIGNED = 2
"""SampleFormat of a TIFF whose samples have a sign."""

_FLOAT_SLACK = 1e-4  # float images that were resized elsewhere overshoot [0, 1] by rounding
_ORIENTATION_TAG = 274
_COLOUR16 = re.compile(r"RGB[AXa]?;16[LBN]|LA;16B")

_TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""EXIF orientation -> how to turn the stored pixels upright."""


def read_image(source: ImageSource, *, max_pixels: int | None = None) -> NDArray[Any]:
    """Upright RGB pixels, H x W x 3, C-contiguous: uint8, uint16, or float32 in [0, 1].

    source: path ("-" is standard input; pipes are read whole), encoded bytes or an open binary file of one
        of `formats.FORMATS`, Pillow image, array H x W (x C) or tensor (C x) H x W with C in 1, 2, 3, 4;
        arrays are bool, uint8, uint16 or float in [0, 1].
    max_pixels: limit on H * W of encoded images, checked in the header before anything is decoded; by
        default the environment variable INVAD_MAX_PIXELS, else 200 million.

    Grey becomes three equal channels. Palettes and CMYK become RGB. Alpha is ignored: the colours
    under transparent pixels are returned as stored. EXIF orientation is applied. Every grey level
    of a 16-bit file survives; 32-bit integers are accepted when all lie in 0..65535, float files
    when all lie in [0, 1]. A file of several pages or frames is refused, reductions of its one picture
    aside. A given array may be
    returned itself, so do not write into the result. A Pillow image is taken as Pillow holds it,
    and Pillow keeps 8 bits of 16-bit colour files: give the path instead.

    Raises DataError, naming the source, when there is no such file, when it is empty, truncated,
    corrupt, too large or of another format, and when an array has another shape, dtype or range.
    """
    max_pixels = pixel_limit() if max_pixels is None else max_pixels
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        with _opened(Path(source)) as stream:
            return _decode(lambda: _from_stream(_seekable(stream, name), name, max_pixels), name)
    if isinstance(source, bytes | bytearray | memoryview):
        with io.BytesIO(source) as stream:
            return _decode(lambda: _from_stream(stream, "<bytes>", max_pixels), "<bytes>")
    if hasattr(source, "read"):
        given, name = cast("IO[bytes]", source), str(getattr(source, "name", "<file>"))
        if isinstance(source, io.TextIOBase):
            raise DataError(f"{name}: is opened as text; open it as binary, mode 'rb'")
        return _decode(lambda: _from_stream(_seekable(given, name), name, max_pixels), name)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "<array>")
        return _decode(lambda: _from_pillow(source, name, max_pixels), name)
    if isinstance(source, np.ndarray):
        return _to_rgb(source, "<array>")
    torch = sys.modules.get("torch")  # who holds a tensor has imported torch already
    if torch is not None and isinstance(source, torch.Tensor):
        return _to_rgb(_tensor_array(source), "<array>")
    raise DataError(
        f"{type(source).__name__} is not an image: give a path, bytes, file, Pillow image, array or tensor"
    )


def read_alpha(path: str | Path) -> NDArray[np.uint8] | None:
    """Alpha of an image file, H x W and upright as `read_image` gives its colours; None without levels."""
    with _opened(Path(path)) as stream:
        known = format_of(stream.read(HEAD_BYTES), str(path))
        stream.seek(0)
        try:
            image = known.reader(str(path))(stream)
            if not image.has_transparency_data:
                return None
            image.load()
            alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        except (OSError, SyntaxError, ValueError):  # a kind that Pillow does not know, read without alpha
            return None
        return None if alpha.min() == alpha.max() else _upright(alpha, _orientation(image))


def pixel_limit() -> int:
    """The limit on H * W of an encoded image. Raises ConfigError for a setting that is no number."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if text and not (text.isdecimal() and int(text)):
        raise ConfigError(f"{LIMIT_VARIABLE} = {text!r}: give a number of pixels, such as {MAX_PIXELS}")
    return int(text) if text else MAX_PIXELS


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


def _from_stream(stream: IO[bytes], name: str, max_pixels: int) -> NDArray[Any]:
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    if not head:
        raise DataError(f"{name}: is empty; copy the file again")
    known = format_of(head, name)
    opened = known.reader(name)
    try:
        image = opened(stream)
    except Exception:
        if known.name != "TIFF":
            raise
        return _from_tiff(stream, name, max_pixels)  # a kind of TIFF that Pillow does not know
    index = chosen_page(image, stream, known.name, name)
    if index is None:
        return _from_tiff(stream, name, max_pixels)

    def reader(stream: IO[bytes]) -> ImageFile.ImageFile:
        again = opened(stream)
        if index:
            again.seek(index)
        return again

    if index:
        image.seek(index)
    raw_mode = _raw_mode(image)
    tags = getattr(image, "tag_v2", {})
    is_planar = tags.get(284) == 2
    if _COLOUR16.fullmatch(raw_mode) and not is_planar:
        _check_size(*image.size, name, max_pixels)
        return _to_rgb(_colour16(reader, stream, raw_mode), name)
    if raw_mode.startswith(("RGBa", "La")) and not is_planar:
        # Pillow divides the colours by alpha; they are wanted as stored.
        _check_size(*image.size, name, max_pixels)
        return _to_rgb(_decoded_as(reader, stream, raw_mode.replace("a", "A")), name)
    if tags.get(277, 1) > 1 and max(tags.get(258, (1,))) > 8:
        return _from_tiff(stream, name, max_pixels)
    if known.name in ("PNM", "JPEG 2000") and image.mode.startswith("RGB"):
        _refuse_lost_levels(image, head, stream, name)
    return _from_pillow(image, name, max_pixels)


def _refuse_lost_levels(image: ImageFile.ImageFile, head: bytes, stream: IO[bytes], name: str) -> None:
    """Of more than 8 bits of colour in these formats Pillow would keep 8."""
    if head.startswith(b"P"):
        args = image.tile[0][3]
        levels = args[1] if isinstance(args, tuple) and len(args) > 1 else 255
    else:
        place = stream.tell()
        stream.seek(0)
        start = stream.read(1 << 20)
        stream.seek(place)
        at = start.find(b"\xff\x4f\xff\x51")
        levels = (2 << (start[at + 40] & 0x7F)) - 1 if 0 <= at < len(start) - 40 else 255
    if levels > 255:
        raise DataError(f"{name}: colours of {levels + 1} levels lose some when read; save it as PNG or TIFF")


def _from_pillow(image: Image.Image, name: str, max_pixels: int) -> NDArray[Any]:
    _check_size(*image.size, name, max_pixels)
    with _pillow_limit_lifted(image.width * image.height):
        image.load()
    tags = getattr(image, "tag_v2", {})
    white_is_zero = tags.get(262) == 0
    orientation = _orientation(image)  # after load: Pillow turns TIFFs by itself and drops the tag
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        array = 65535 - pixels if white_is_zero else pixels
    elif image.mode == "I":
        array = _fit_uint16(np.asarray(image), name)
        array = 65535 - array if white_is_zero else array
    elif image.mode == "F":
        array = 1 - np.asarray(image) if white_is_zero else np.asarray(image)
    elif image.mode == "L" and SIGNED in tags.get(339, ()):
        array = np.asarray(image)
        _fit_uint16((255 - array if white_is_zero else array).view(np.int8), name)
    else:
        if image.mode == "P" and "transparency" in image.info:
            image = image.copy()
            del image.info["transparency"]  # Pillow warns that it drops it
        array = np.array(image.convert("RGB"))
    return _upright(_to_rgb(array, name), orientation)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata must not cost the user the pixels
        image.load()  # but damaged pixels must not hide behind it
        return 1


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width <= 0 or height <= 0:
        raise DataError(f"{name}: has no pixels ({width} x {height}); give an image of at least 1 x 1")
    if width * height > max_pixels:
        raise DataError(
            f"{name}: {width} x {height} pixels is over the limit of {max_pixels};"
            f" make the image smaller or set the environment variable {LIMIT_VARIABLE}={width * height}"
        )


_LIMIT_LOCK = threading.Lock()


@contextmanager
def _pillow_limit_lifted(pixels: int) -> Iterator[None]:
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


def _tensor_array(tensor: "torch.Tensor") -> NDArray[Any]:
    tensor = tensor.detach().cpu()
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Pillow's name of the stored layout, such as "RGB;16B"; "" when the parts of the file differ in it."""
    names = {tile[3][0] if isinstance(tile[3], tuple) else tile[3] for tile in image.tile}
    return str(names.pop()) if len(names) == 1 else ""


def _colour16(reader: Reader, stream: IO[bytes], raw_mode: str) -> NDArray[np.uint16]:
    # Pillow keeps the high byte of each 16-bit colour sample. Decoding twice, the second time in the
    # name of the other byte order, gives both bytes, for every compression that Pillow knows.
    if raw_mode == "LA;16B":
        stored = _decoded_as(reader, stream, "RGBA")  # grey high, grey low, alpha high, alpha low
        high, low = stored[..., 0], stored[..., 1]
    else:
        layout = raw_mode[:-1].replace("a", "A")  # colours as stored, not divided by alpha
        order = raw_mode[-1] if raw_mode[-1] != "N" else "L" if sys.byteorder == "little" else "B"
        high = _decoded_as(reader, stream, layout + order)
        low = _decoded_as(reader, stream, layout + ("B" if order == "L" else "L"))
    return high.astype(np.uint16) * np.uint16(256) + low


def _decoded_as(reader: Reader, stream: IO[bytes], raw_mode: str) -> NDArray[np.uint8]:
    stream.seek(0)
    image = reader(stream)
    tiles: list[Any] = []
    for tile in image.tile:
        layout = (raw_mode, *tile[3][1:]) if isinstance(tile[3], tuple) else raw_mode
        tiles.append(tile._replace(args=layout) if hasattr(tile, "_replace") else (*tile[:3], layout))
    image.tile = tiles
    with _pillow_limit_lifted(image.width * image.height):
        image.load()
    return _upright(np.asarray(image), _orientation(image))


def _from_tiff(stream: IO[bytes], name: str, max_pixels: int) -> NDArray[Any]:
    from tifffile import PHOTOMETRIC, PLANARCONFIG, TiffFile

    stream.seek(0)
    with TiffFile(stream) as tiff:
        page = the_picture(tiff, name)
        _check_size(page.imagewidth, page.imagelength, name, max_pixels)
        if page.photometric not in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB):
            space = getattr(page.photometric, "name", str(page.photometric))
            raise DataError(
                f"{name}: {page.bitspersample} bits in the colour space {space}; save it as RGB or grey"
            )
        is_planar = page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        if page.samplesperpixel > 4:
            raise DataError(f"{name}: {page.samplesperpixel} channels; save it as RGB or grey")
        array = page.asarray()
        orientation = page.tags.valueof(_ORIENTATION_TAG, 1)
    array = np.moveaxis(array, 0, -1) if is_planar else array
    if array.dtype.kind == "i" or (array.dtype.kind == "u" and array.dtype.itemsize > 1):
        array = _fit_uint16(array, name)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        array = (np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1) - array
    return _upright(_to_rgb(array, name), orientation)


def _fit_uint16(array: NDArray[Any], name: str) -> NDArray[Any]:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: values {low} to {high} do not fit 16 bits; rescale the image to 0..65535")
    return array.astype(np.uint8 if array.dtype.itemsize == 1 else np.uint16)


def _to_rgb(array: NDArray[Any], name: str) -> NDArray[Any]:
    channels = 1 if array.ndim == 2 else array.shape[-1] if array.ndim == 3 else 0
    if channels not in (1, 2, 3, 4):
        shape = " x ".join(map(str, array.shape)) or "a scalar"
        raise DataError(
            f"{name}: shape {shape} is no image; give H x W or H x W x 1, 2, 3, 4 (tensors: C x H x W)"
        )
    if array.size == 0:
        raise DataError(f"{name}: has no pixels; give an image of at least 1 x 1")
    array = array.reshape(*array.shape[:2], channels)
    array = array[..., :3] if channels > 2 else np.repeat(array[..., :1], 3, axis=2)
    return np.ascontiguousarray(_pixel_values(array, name))


def _pixel_values(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind != "f":
        raise DataError(
            f"{name}: dtype {array.dtype} is ambiguous; convert to uint8, uint16 or float in [0, 1]"
        )
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{name}: holds values that are not finite; replace NaN and infinity")
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise DataError(f"{name}: float values {low:g} to {high:g} leave [0, 1]; divide by full scale")
    return np.clip(array.astype(np.float32, copy=False), 0, 1)
