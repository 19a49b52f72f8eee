"""From the bytes of a known format to pixels, without losing grey levels."""

import io
import re
import sys
from collections.abc import Callable
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from invad.data import dicom
from invad.data.formats import DICOM, HEAD_BYTES, Reader, format_of
from invad.data.limits import check_size, pillow_limit_lifted
from invad.data.pages import chosen_page, numbered_page, page_of, the_picture
from invad.data.pixels import fit_uint16, to_rgb
from invad.errors import DataError

SIGNED = 2
"""SampleFormat of a TIFF whose samples have a sign."""

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


def from_stream(stream: IO[bytes], name: str, max_pixels: int, number: int | None = None) -> NDArray[Any]:
    """Pixels of the one picture in a file, or of the page or frame `number`."""
    head = stream.read(HEAD_BYTES)
    stream.seek(0)
    if not head:
        raise DataError(f"{name}: is empty; copy the file again")
    known = format_of(head, name)
    opened = known.reader(name)
    if known is DICOM:
        return to_rgb(dicom.picture(stream, name, max_pixels, number), name)
    if number is not None and known.name != "TIFF":
        raise DataError(f"{name}: pages are read of TIFF and DICOM, and this is {known.name}")
    try:
        image = opened(stream)
    except Exception:
        if known.name != "TIFF":
            raise
        return _from_tiff(stream, name, max_pixels, number)  # a kind of TIFF that Pillow does not know
    index = chosen_page(image, stream, known.name, name) if number is None else page_of(stream, number, name)
    if index is None:
        return _from_tiff(stream, name, max_pixels, number)

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
        check_size(*image.size, name, max_pixels)
        return to_rgb(_colour16(reader, stream, raw_mode), name)
    if raw_mode.startswith(("RGBa", "La")) and not is_planar:
        # Pillow divides the colours by alpha; they are wanted as stored.
        check_size(*image.size, name, max_pixels)
        return to_rgb(_decoded_as(reader, stream, raw_mode.replace("a", "A")), name)
    if tags.get(277, 1) > 1 and max(tags.get(258, (1,))) > 8:
        return _from_tiff(stream, name, max_pixels, number)
    deep = _deep(image, known.name, stream, name, max_pixels)
    if deep is not None:
        return deep
    return from_pillow(image, name, max_pixels)


def _deep(
    image: ImageFile.ImageFile, known: str, stream: IO[bytes], name: str, max_pixels: int
) -> NDArray[Any] | None:
    """Pixels where Pillow would keep 8 bits of more, or move signed levels; None elsewhere.

    Raises DataError where there is no way to the lost bits.
    """
    if known == "PNM" and image.mode == "RGB":
        args = image.tile[0][3]
        if isinstance(args, tuple) and args[1] > 255:
            check_size(*image.size, name, max_pixels)
            return to_rgb(_colour_pnm(image, stream, args[1]), name)
    if known == "SGI" and image.tile[0][0] == "SGI16":
        raise DataError(f"{name}: of 16 bits of an SGI image 8 would be left; save it as PNG or TIFF")
    if known == "JPEG 2000":
        depths = _depths_of_jpeg2000(stream)
        most = 8 if image.mode in ("RGB", "RGBA", "LA") else 16
        if max(bits for bits, _ in depths) > most:
            raise DataError(
                f"{name}: of {max(depths)[0]} bits of a JPEG 2000 image {most} would be left; save it as PNG "
                "or TIFF"
            )
        if any(is_signed for _, is_signed in depths):
            check_size(*image.size, name, max_pixels)
            return to_rgb(_signed_jpeg2000(image, name), name)
    return None


def _colour_pnm(image: ImageFile.ImageFile, stream: IO[bytes], most: int) -> NDArray[Any]:
    # Pillow keeps all levels of grey, so the same numbers are read as a grey image three times as wide.
    from PIL.PpmImagePlugin import PpmImageFile

    stream.seek(0)
    magic = {b"P3": b"P2", b"P6": b"P5"}[stream.read(2)]
    stream.seek(image.tile[0][2])
    width, height = image.size
    head = b"%s %d %d %d\n" % (magic, 3 * width, height, most)
    grey = PpmImageFile(io.BytesIO(head + stream.read()))
    with pillow_limit_lifted(3 * width * height):
        grey.load()
    return np.asarray(grey).astype(np.uint16).reshape(height, width, 3)


def _depths_of_jpeg2000(stream: IO[bytes]) -> list[tuple[int, bool]]:
    """(bits, whether they have a sign) of each channel, as the header says."""
    place = stream.tell()
    stream.seek(0)
    content = stream.read()
    stream.seek(place)
    at = content.find(b"\xff\x4f\xff\x51")
    count = int.from_bytes(content[at + 40 : at + 42], "big")
    depths = content[at + 42 : at + 42 + 3 * count : 3]
    if at < 0 or not depths:
        raise ValueError("no header of a codestream")
    return [((depth & 0x7F) + 1, depth >= 0x80) for depth in depths]


def _signed_jpeg2000(image: ImageFile.ImageFile, name: str) -> NDArray[Any]:
    # Pillow moves them up by half of full scale.
    with pillow_limit_lifted(image.width * image.height):
        image.load()
    moved = np.asarray(image)
    if moved.dtype == np.uint8:
        return fit_uint16((moved ^ np.uint8(0x80)).view(np.int8), name)
    return fit_uint16(moved.astype(np.int32) - 0x8000, name)


def from_pillow(image: Image.Image, name: str, max_pixels: int) -> NDArray[Any]:
    check_size(*image.size, name, max_pixels)
    with pillow_limit_lifted(image.width * image.height):
        image.load()
    tags = getattr(image, "tag_v2", {})
    white_is_zero = tags.get(262) == 0
    turned = orientation(image)  # after load: Pillow turns TIFFs by itself and drops the tag
    if image.mode.startswith("I;16"):
        pixels = np.asarray(image)
        array = 65535 - pixels if white_is_zero else pixels
    elif image.mode == "I":
        array = fit_uint16(np.asarray(image), name)
        array = 65535 - array if white_is_zero else array
    elif image.mode == "F":
        array = 1 - np.asarray(image) if white_is_zero else np.asarray(image)
    elif image.mode == "L" and SIGNED in tags.get(339, ()):
        array = np.asarray(image)
        fit_uint16((255 - array if white_is_zero else array).view(np.int8), name)
    else:
        if image.mode == "P" and "transparency" in image.info:
            image = image.copy()
            del image.info["transparency"]  # Pillow warns that it drops it
        array = np.array(image.convert("RGB"))
    return upright(to_rgb(array, name), turned)


def orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged metadata must not cost the user the pixels
        image.load()  # but damaged pixels must not hide behind it
        return 1


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


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
    with pillow_limit_lifted(image.width * image.height):
        image.load()
    return upright(np.asarray(image), orientation(image))


def _from_tiff(stream: IO[bytes], name: str, max_pixels: int, number: int | None) -> NDArray[Any]:
    from tifffile import PHOTOMETRIC, PLANARCONFIG, TiffFile

    stream.seek(0)
    with TiffFile(stream) as tiff:
        plane = the_picture(tiff, name) if number is None else numbered_page(tiff, number, name)
        page = plane.keyframe
        check_size(page.imagewidth, page.imagelength, name, max_pixels)
        if page.photometric not in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB):
            space = getattr(page.photometric, "name", str(page.photometric))
            raise DataError(
                f"{name}: {page.bitspersample} bits in the colour space {space}; save it as RGB or grey"
            )
        is_planar = page.planarconfig == PLANARCONFIG.SEPARATE and page.samplesperpixel > 1
        if page.samplesperpixel > 4:
            raise DataError(f"{name}: {page.samplesperpixel} channels; save it as RGB or grey")
        array = plane.asarray()
        orientation = page.tags.valueof(_ORIENTATION_TAG, 1)
    array = np.moveaxis(array, 0, -1) if is_planar else array
    if array.dtype.kind == "i" or (array.dtype.kind == "u" and array.dtype.itemsize > 1):
        array = fit_uint16(array, name)
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        array = (np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1) - array
    return upright(to_rgb(array, name), orientation)
