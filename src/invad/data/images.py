"""Pixels from anything that holds an image, without losing grey levels; masks."""

import io
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from invad.errors import DataError

if TYPE_CHECKING:
    import torch

ImageSource: TypeAlias = Union[str, Path, bytes, Image.Image, NDArray[Any], "torch.Tensor"]
"""Path, encoded bytes, Pillow image, H x W (x 1, 2, 3 or 4) array, or (C x) H x W tensor."""

MAX_PIXELS = 200_000_000
FEW_LEVELS = 8
_FLOAT_SLACK = 1e-4  # float images that were resized elsewhere overshoot [0, 1] by rounding
_ORIENTATION_TAG = 274
_COLOUR16 = re.compile(r"RGB[AXa]?;16[LBN]|LA;16B")

_Reader: TypeAlias = Callable[[IO[bytes]], ImageFile.ImageFile]

# The plugins are called directly: only these parsers see foreign bytes, and Pillow's own size
# limit, a warning at a fixed number of pixels, does not come between the header and ours.
_READERS: tuple[tuple[re.Pattern[bytes], _Reader], ...] = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImageFile),
    (re.compile(rb"\xff\xd8\xff"), JpegImageFile),
    (re.compile(rb"BM"), BmpImageFile),
    (re.compile(rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]"), TiffImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImageFile),
)

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


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Upright RGB pixels, H x W x 3, C-contiguous: uint8, uint16, or float32 in [0, 1].

    source: path or encoded bytes (PNG, JPEG, BMP, TIFF, WebP), Pillow image, array H x W (x C) or
        tensor (C x) H x W with C in 1, 2, 3, 4; arrays are bool, uint8, uint16 or float in [0, 1].
    max_pixels: limit on H * W of encoded images, checked in the header before anything is decoded.

    Grey becomes three equal channels. Palettes and CMYK become RGB. Alpha is ignored: the colours
    under transparent pixels are returned as stored. EXIF orientation is applied. Every grey level
    of a 16-bit file survives; 32-bit integers are accepted when all lie in 0..65535, float files
    when all lie in [0, 1]. Of several pages or frames the first is read. A given array may be
    returned itself, so do not write into the result. A Pillow image is taken as Pillow holds it,
    and Pillow keeps 8 bits of 16-bit colour files: give the path instead.

    Raises DataError, naming the source, when there is no such file, when it is empty, truncated,
    corrupt, too large or of another format, and when an array has another shape, dtype or range.
    """
    if isinstance(source, str | Path):
        with _opened(Path(source)) as stream:
            return _decode(lambda: _from_stream(stream, str(source), max_pixels), str(source))
    if isinstance(source, bytes):
        with io.BytesIO(source) as stream:
            return _decode(lambda: _from_stream(stream, "<bytes>", max_pixels), "<bytes>")
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "<array>")
        return _decode(lambda: _from_pillow(source, name, max_pixels), name)
    if isinstance(source, np.ndarray):
        return _to_rgb(source, "<array>")
    torch = sys.modules.get("torch")  # who holds a tensor has imported torch already
    if torch is not None and isinstance(source, torch.Tensor):
        return _to_rgb(_tensor_array(source), "<array>")
    raise DataError(
        f"{type(source).__name__} is not an image: give a path, bytes, Pillow image, array or tensor"
    )


def read_mask(
    path: str | Path, *, size_hw: tuple[int, int] | None = None, above: int | None = None
) -> NDArray[np.bool_]:
    """Defect mask, bool H x W, upright as its EXIF says; True is defective.

    size_hw: size of the image the mask belongs to; a mask of another size is an error.
    above: the level above which a pixel is defective, where the layout of the set says so.

    The level of a pixel is the largest of its colour channels, alpha ignored. Without `above`, see
    `mask_split`. Raises DataError when the file cannot be read or its size differs from size_hw.
    """
    levels = read_mask_levels(path, size_hw=size_hw)
    mask: NDArray[np.bool_] = levels > (mask_split(levels, path) if above is None else above)
    return mask


def read_mask_codes(
    path: str | Path, *, size_hw: tuple[int, int] | None = None, above: int | None = None
) -> tuple[NDArray[np.uint8], int]:
    """Codes H x W of a mask, 1 above level 0, 2 above half of full scale, and the least code of a defect.

    For other rules of splitting a mask than that of `read_mask`; same errors. above: stands for that half.
    """
    levels = read_mask_levels(path, size_hw=size_hw)
    split = mask_split(levels, path) if above is None else above
    return (levels > 0).astype(np.uint8) + (levels > (split or _half_scale(levels))), 2 if split else 1


def read_mask_levels(path: str | Path, *, size_hw: tuple[int, int] | None = None) -> NDArray[Any]:
    """Levels of a mask, H x W, before they are split into defective and not; see `read_mask`."""
    levels: NDArray[Any] = read_image(path).max(axis=2)
    height, width = levels.shape
    if size_hw is not None and (height, width) != tuple(size_hw):
        raise DataError(
            f"{path}: mask is {width} x {height} pixels, its image {size_hw[1]} x {size_hw[0]};"
            " give a mask drawn on this very image"
        )
    return levels


def mask_split(levels: NDArray[Any], path: str | Path) -> float:
    """The level above which the pixels of a mask are defective when nothing is known of it.

    Half of full scale (127; 32767 when a 16-bit mask exceeds 255; 0.5 for float) when some level
    exceeds that half and the mask is a JPEG or holds more than 8 distinct levels: then the levels
    between are interpolation or compression. Otherwise levels are labels and the answer is 0.
    """
    half = _half_scale(levels)
    soft = Path(path).suffix.lower() in (".jpg", ".jpeg") or _count_levels(levels) > FEW_LEVELS
    return half if soft and levels.max() > half else 0


def _half_scale(levels: NDArray[Any]) -> float:
    if levels.dtype == np.float32:
        return 0.5
    return 127 if levels.max() <= 255 else 32767


def _count_levels(levels: NDArray[Any]) -> int:
    if levels.dtype == np.float32:
        return len(np.unique(levels))
    return int(np.count_nonzero(np.bincount(levels.ravel())))


def _opened(path: Path) -> IO[bytes]:
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give an image file")
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be opened ({_one_line(error)}); check path and permissions"
        ) from error


def _decode(read: Callable[[], NDArray[Any]], name: str) -> NDArray[Any]:
    try:
        return read()
    except DataError:
        raise
    except Exception as error:  # parsers of damaged bytes raise whatever comes to hand
        raise DataError(
            f"{name}: cannot be decoded ({_one_line(error)}); the file is damaged or of an unusual kind:"
            " copy it again or save it as PNG"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _from_stream(stream: IO[bytes], name: str, max_pixels: int) -> NDArray[Any]:
    head = stream.read(16)
    stream.seek(0)
    if not head:
        raise DataError(f"{name}: is empty; copy the file again")
    reader = next((reader for magic, reader in _READERS if magic.match(head)), None)
    if reader is None:
        raise DataError(f"{name}: not a PNG, JPEG, BMP, TIFF or WebP image; convert it to one of these")
    try:
        image = reader(stream)
    except Exception:
        if reader is not TiffImageFile:
            raise
        return _from_tiff(stream, name, max_pixels)  # a kind of TIFF that Pillow does not know
    raw_mode = _raw_mode(image)
    tags = getattr(image, "tag_v2", {})
    is_planar = tags.get(284) == 2
    if _COLOUR16.fullmatch(raw_mode) and not is_planar:
        _check_size(*image.size, name, max_pixels)
        return _to_rgb(_colour16(reader, stream, raw_mode), name)
    if tags.get(277, 1) > 1 and max(tags.get(258, (1,))) > 8:
        return _from_tiff(stream, name, max_pixels)
    return _from_pillow(image, name, max_pixels)


def _from_pillow(image: Image.Image, name: str, max_pixels: int) -> NDArray[Any]:
    _check_size(*image.size, name, max_pixels)
    with _pillow_limit_lifted(image.width * image.height):
        image.load()
    orientation = _orientation(image)  # after load: Pillow turns TIFFs by itself and drops the tag
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        tags = getattr(image, "tag_v2", {})
        array = 65535 - pixels if tags.get(262) == 0 else pixels  # 0: white is stored as zero
    elif image.mode == "I":
        array = _fit_uint16(np.asarray(image), name)
    elif image.mode == "F":
        array = np.asarray(image)
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
            " make the image smaller or raise max_pixels"
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


def _colour16(reader: _Reader, stream: IO[bytes], raw_mode: str) -> NDArray[np.uint16]:
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


def _decoded_as(reader: _Reader, stream: IO[bytes], raw_mode: str) -> NDArray[np.uint8]:
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
    from tifffile import PHOTOMETRIC, PLANARCONFIG, TiffFile, TiffPage

    stream.seek(0)
    with TiffFile(stream) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, TiffPage)
        _check_size(page.imagewidth, page.imagelength, name, max_pixels)
        if page.photometric not in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB):
            raise DataError(f"{name}: more than 8 bits in an unusual colour space; save it as RGB or grey")
        is_planar = page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        if page.samplesperpixel > 4:
            raise DataError(f"{name}: {page.samplesperpixel} channels; save it as RGB or grey")
        array = page.asarray()
        orientation = page.tags.valueof(_ORIENTATION_TAG, 1)
    array = np.moveaxis(array, 0, -1) if is_planar else array
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1:
        array = _fit_uint16(array, name)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        array = (np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1) - array
    return _upright(_to_rgb(array, name), orientation)


def _fit_uint16(array: NDArray[Any], name: str) -> NDArray[np.uint16]:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 65535:
        raise DataError(f"{name}: values {low} to {high} do not fit 16 bits; rescale the image to 0..65535")
    return array.astype(np.uint16)


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
