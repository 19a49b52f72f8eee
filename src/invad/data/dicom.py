"""DICOM: the picture of a file or of one of its frames with every grey level, and the mm of a pixel.

Grey values are those of the modality, by the rescale slope and intercept or the table of the file, as whole
numbers of 16 bits by one rule for every file: as they are where the header allows none below zero, and moved
up by 32768 where it does (Hounsfield units, signed pixels). Nothing is stretched by picture, and the display
window of a file is not applied, because it differs from picture to picture. MONOCHROME1 becomes its inverse.
Padding becomes as dark as the darkest of the other pixels. Only the elements named here are read; none of
them tells who a patient is.
"""

import math
import os
import warnings
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from invad.data.codestream import jpeg2000_shape, jpeg_shape, require_rle_length
from invad.data.formats import DICOM, HEAD_BYTES
from invad.data.limits import check_size, pillow_limit_lifted
from invad.data.pages import MANY, refuse_several
from invad.errors import DataError, reason

SIGNED_ZERO = 32768
"""The level of the value 0 where the header allows values below it."""

_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422")
_COLOUR_OF_JPEG2000 = ("YBR_ICT", "YBR_RCT")
_PALETTE = "PALETTE COLOR"

_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_JPEG_12_BIT = "1.2.840.10008.1.2.4.51"
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")

_At = tuple[int, int]  # number of a frame, how many there are
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_PIXELS = (0x7FE00008, 0x7FE00009, _PIXEL_DATA)
_TAGS: tuple[int, ...] = (
    *(0x00181164, 0x00182010, 0x00280030, 0x00280A02),  # spacings
    *(0x00280002, 0x00280004, 0x00280006, 0x00280008, 0x00280010, 0x00280011),
    *(0x00280100, 0x00280101, 0x00280103, 0x00280120, 0x00280121),
    *(0x00281052, 0x00281053, 0x00283000),  # to values of the modality
    *(tag for row in (0x00281100, 0x00281200, 0x00281220) for tag in range(row + 1, row + 4)),  # palette
    *(0x52009229, 0x52009230),  # functional groups: where enhanced kinds keep the above
)


def picture(stream: IO[bytes], name: str, max_pixels: int, frame: int | None = None) -> NDArray[Any]:
    """Pixels of a DICOM file, H x W or H x W x 3, uint8 or uint16; what they mean is said above.

    frame: number, from 0, of one of several. Raises DataError, for the image `name`, for a file without
    pixels, of several frames of which none is asked for, of more than
    max_pixels, cut off, compressed in an unknown way or in one whose package is not installed, and for values
    of which 16 bits would lose some. A damaged file may raise anything.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options

    header, syntax = _header(stream, name)
    if header.get("Rows") is None or header.get("Columns") is None:
        raise DataError(f"{name}: is DICOM without a picture; give files that hold one")
    check_size(int(header.Columns), int(header.Rows), name, max_pixels)
    count = int(header.get("NumberOfFrames") or 1)
    if frame is None:
        refuse_several(count, "frames", name)
    else:
        _keep_frame(header, frame, count, name)
    _require_known_pixels(header, syntax, name)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise DataError(
            f"{name}: its transfer syntax {syntax.name} is unknown; save it uncompressed"
        ) from None
    _require_decoder(decoder, header, syntax, name)
    options = as_pixel_options(header, pixel_keyword="PixelData")
    coded, options["pixel_vr"] = _pixel_data(stream, header, syntax, name, (frame or 0, count))
    with pillow_limit_lifted(int(header.Rows) * int(header.Columns)):
        array, _ = decoder.as_array(coded, index=0, **options)
    if header.PhotometricInterpretation == _PALETTE:
        return _of_palette(array, header, name)
    if header.SamplesPerPixel == 3:
        return array.astype(_container(header), copy=False)
    return _grey(array, header, name)


def count_frames(stream: IO[bytes], name: str) -> int:
    """Frames that the header of a file names. Raises DataError where it names too many to be true."""
    count = int(_header(stream, name)[0].get("NumberOfFrames") or 1)
    if not 0 < count <= MANY:
        raise DataError(f"{name}: names {count} frames, 1 to {MANY} are read; the header is damaged")
    return count


def _keep_frame(header: Any, frame: int, count: int, name: str) -> None:
    """Let the header speak of this frame alone."""
    if not 0 <= frame < count:
        raise DataError(f"{name}: has no frame {frame + 1}, only {count}; copy the file again")
    header.NumberOfFrames = 1
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if groups:
        header.PerFrameFunctionalGroupsSequence = groups[frame : frame + 1]


def spacing(path: str | Path) -> tuple[float, float, str] | None:
    """(mm between rows, mm between columns, element that says so); None where the file is no DICOM or silent.

    The element is PixelSpacing, which holds in the object; ImagerPixelSpacing, at the detector, where the
    object is magnified; or NominalScannedPixelSpacing, on a film. A PixelSpacing that only repeats that of
    the detector, and says of no calibration, counts as the latter. Raises DataError when the file cannot be
    read, pydicom is not there, or a distance is not above 0.
    """
    name = os.fspath(path)
    try:
        with Path(path).open("rb") as stream:
            if not DICOM.magic.match(stream.read(HEAD_BYTES)):
                return None
            DICOM.reader(name)
            stream.seek(0)
            header, _ = _header(stream, name)
            found = {keyword: _distances(header, keyword) for keyword in _SPACINGS}
    except OSError as error:
        raise DataError(f"{name}: {reason(error, writing=False)}") from error
    except (DataError, MemoryError):
        raise
    except Exception as error:  # parsers of damaged bytes raise whatever comes to hand
        raise DataError(f"{name}: its header is damaged; copy the file again") from error
    if found["PixelSpacing"] == found["ImagerPixelSpacing"] and not header.get("PixelSpacingCalibrationType"):
        del found["PixelSpacing"]
    for keyword, distances in found.items():
        if distances is not None:
            if not all(math.isfinite(mm) and mm > 0 for mm in distances):
                raise DataError(f"{name}: {keyword} is {distances[0]:g} x {distances[1]:g} mm; correct it")
            return (*distances, keyword)
    return None


_SPACINGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def _distances(header: Any, keyword: str) -> tuple[float, float] | None:
    value = _group(header, "PixelMeasuresSequence", keyword).get(keyword)
    if not value:
        return None
    rows, columns = value
    return float(rows), float(columns)


def _header(stream: IO[bytes], name: str) -> tuple[Any, Any]:
    """The elements of _TAGS and the transfer syntax; the stream then stands at the pixels or at its end."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset, read_preamble
    from pydicom.uid import UID

    # What it warns of is decided here, and a line that names no file helps nobody.
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    stream.seek(0)
    read_preamble(stream, force=False)  # type: ignore[arg-type]
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)  # type: ignore[arg-type]
    syntax = UID(str(meta.get("TransferSyntaxUID") or ""))
    if not syntax:
        raise DataError(f"{name}: is DICOM that names no transfer syntax, or cut off; copy the file again")
    if syntax == _DEFLATED:  # unpacked as a whole before anything in it is known
        raise DataError(f"{name}: its transfer syntax {syntax.name} is not read; save it uncompressed")
    if not syntax.is_transfer_syntax:
        raise DataError(f"{name}: its transfer syntax {syntax} is unknown; save it uncompressed")
    header = read_dataset(
        stream,  # type: ignore[arg-type]
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=lambda tag, vr, length: tag in _PIXELS,
        specific_tags=list(_TAGS),
    )
    header.file_meta = FileMetaDataset(meta)
    return header, syntax


def _group(header: Any, sequence: str, keyword: str) -> Any:
    """Where an element lies: in the header, or in a functional group of it or of its one frame."""
    if keyword not in header:
        for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            for outer in (header.get(groups) or [])[:1]:
                for inner in (outer.get(sequence) or [])[:1]:
                    if keyword in inner:
                        return inner
    return header


def _require_known_pixels(header: Any, syntax: Any, name: str) -> None:
    space = str(header.get("PhotometricInterpretation") or "")
    colours = (*_COLOUR, *(_COLOUR_OF_JPEG2000 if syntax in (*_JPEG2000, *_HTJ2K) else ()))
    samples, bits = int(header.get("SamplesPerPixel") or 1), int(header.get("BitsAllocated") or 0)
    stored = int(header.get("BitsStored") or bits)
    if space not in (*colours, "MONOCHROME1", "MONOCHROME2", _PALETTE):
        raise DataError(
            f"{name}: its colour space {space or 'is not said and'} is not read; save it as RGB or grey"
        )
    if samples != (3 if space in colours else 1):
        raise DataError(f"{name}: {samples} samples a pixel do not go with {space}; the header is damaged")
    if bits not in (1, 8, 16, 32) or not 0 < stored <= bits:
        raise DataError(f"{name}: {stored} of {bits} bits are stored; the header is damaged")
    if stored > 16:
        raise DataError(f"{name}: of {stored} bits 16 would be left; save it with 16")
    if samples == 3 and (header.get("PixelRepresentation") or bits not in (8, 16)):
        raise DataError(f"{name}: colours with a sign or of {bits} bits are not read; save it as RGB")
    header.SamplesPerPixel, header.BitsStored = samples, stored


def _require_decoder(decoder: Any, header: Any, syntax: Any, name: str) -> None:
    """Raises DataError that names the package to install for pixels that nothing here decodes."""
    if not syntax.is_encapsulated:
        return
    plugins = set(decoder.available_plugins)
    if header.BitsStored > 8 and (syntax == _JPEG_12_BIT or header.SamplesPerPixel == 3):
        plugins -= {"pillow"}  # which decodes 8 bits of these
    if header.BitsStored > 8 and syntax == _JPEG_12_BIT:
        plugins -= {"gdcm"}
    if plugins:
        return
    package = "pylibjpeg-libjpeg" if syntax == _JPEG_12_BIT else "python-gdcm"
    if syntax in _JPEG_LS:
        package = "pyjpegls"
    elif syntax in (*_JPEG2000, *_HTJ2K):
        package = "pylibjpeg-openjpeg"
    also = "pylibjpeg " if package.startswith("pylibjpeg") else ""
    raise DataError(
        f"{name}: {syntax.name} needs the package {package}: pip install {also}{package};"
        " or save it uncompressed"
    )


def _pixel_data(stream: IO[bytes], header: Any, syntax: Any, name: str, at: _At) -> tuple[bytes, str]:
    """The stored pixels of one frame, of a size that was checked, and the kind of their element."""
    from pydicom.encaps import encapsulate, get_frame, parse_basic_offsets

    is_implicit, is_little = header.original_encoding  # some files do not keep to their transfer syntax
    order: Literal["little", "big"] = "little" if is_little else "big"
    wide = 8 if is_implicit else 12
    head = stream.read(wide)
    if len(head) < wide:
        raise DataError(f"{name}: is DICOM without pixels, or cut off before them; copy the file again")
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    if tag != _PIXEL_DATA:
        raise DataError(f"{name}: holds pixels as floating-point numbers; save them as whole numbers")
    kind = "OW" if is_implicit else head[4:6].decode("ascii")
    length = int.from_bytes(head[-4:], order)
    if not syntax.is_encapsulated:
        return _native(stream, header, length, name, at), kind
    start = stream.tell()
    _require_whole(stream, length, name)
    stream.seek(start)
    if at[1] == 1:
        refuse_several(len(parse_basic_offsets(stream)), "frames", name)
    stream.seek(start)
    coded = get_frame(stream, at[0], number_of_frames=at[1])
    _require_size(coded, header, syntax, name)
    return encapsulate([coded], has_bot=False), kind


def _require_whole(stream: IO[bytes], length: int, name: str) -> None:
    """Raises DataError unless the items of compressed pixels are there to their end.

    Some decoders fill what is missing with grey and say nothing.
    """
    at = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    end = at + length
    while length == _UNDEFINED or at < end:
        stream.seek(at)
        head = stream.read(8)
        at += 8 + int.from_bytes(head[4:], "little")
        if len(head) < 8 or at > size:
            raise DataError(f"{name}: is cut off in its compressed pixels; copy the file again")
        if head[:4] == b"\xfe\xff\xdd\xe0":
            return


def _native(stream: IO[bytes], header: Any, length: int, name: str, at: _At) -> bytes:
    frame, count = at
    bits = int(header.Rows) * int(header.Columns) * header.SamplesPerPixel * int(header.BitsAllocated)
    if count > 1 and bits % 8:
        raise DataError(f"{name}: frames of single bits are not read; save them with 8")
    expected = -(-bits // 8)
    if header.PhotometricInterpretation == "YBR_FULL_422":
        expected = expected // 3 * 2
    start = stream.tell()
    there = min(length, stream.seek(0, os.SEEK_END) - start)
    if there < count * expected:
        said = f"{there} of {count * expected} bytes of pixels are there"
        raise DataError(f"{name}: is cut off, {said}; copy the file again")
    if there > count * expected + 1:
        refuse_several(there // expected, "frames", name)
    stream.seek(start + frame * expected)
    return stream.read(there)


def _require_size(coded: bytes, header: Any, syntax: Any, name: str) -> None:
    """Compressed pixels decode to the size that they say themselves, so the header must say the same."""
    rows, columns = int(header.Rows), int(header.Columns)
    if syntax == _RLE:
        require_rle_length(coded, rows * columns)
        return
    shape = (jpeg2000_shape if syntax in (*_JPEG2000, *_HTJ2K) else jpeg_shape)(coded)
    if shape != (rows, columns, header.SamplesPerPixel):
        height, width, channels = shape
        raise DataError(
            f"{name}: its header says {columns} x {rows} x {header.SamplesPerPixel}, its compressed pixels"
            f" {width} x {height} x {channels}; the file is damaged, copy it again"
        )


def _container(header: Any) -> Any:
    # By the header, so that one picture is the same whichever way it is compressed.
    return np.uint8 if int(header.BitsAllocated) <= 8 else np.uint16


def _of_palette(array: NDArray[Any], header: Any, name: str) -> NDArray[Any]:
    from pydicom.pixels.processing import apply_color_lut

    count, _, depth = header.RedPaletteColorLookupTableDescriptor
    if "RedPaletteColorLookupTableData" in header:
        depth = 8 * len(header.RedPaletteColorLookupTableData) // (count or 65536)
    if depth == 8 and not 0 < count <= 256:  # its places would be counted in 8 bits
        raise DataError(
            f"{name}: a palette of {count or 65536} colours of 8 bits is not read; save it as RGB"
        )
    colours = apply_color_lut(array, header)[..., :3]
    return np.ascontiguousarray(colours)


def _grey(array: NDArray[Any], header: Any, name: str) -> NDArray[Any]:
    """Levels of a grey picture, uint8 or uint16, from its stored pixels H x W."""
    is_signed = int(header.get("PixelRepresentation") or 0) == 1
    lowest = -(1 << (header.BitsStored - 1)) if is_signed else 0
    stored = np.arange(lowest, lowest + (1 << header.BitsStored), dtype=np.int32)
    levels, dtype = _levels(stored, header, name)
    padding = _padding(array, header, is_signed)
    if padding is not None and padding.all():
        raise DataError(f"{name}: every pixel is padding; give a picture")
    seen = array if padding is None else array[~padding]
    used = levels[int(seen.min()) - lowest : int(seen.max()) - lowest + 1]
    zero = SIGNED_ZERO if levels.min() < 0 else 0
    low, high = int(used.min()), int(used.max())
    if low + zero < 0 or high + zero > 65535:
        raise DataError(f"{name}: values {low} to {high} do not fit 16 bits; rescale the picture")
    table = (levels + zero).clip(0, 65535).astype(dtype)
    pixels: NDArray[Any] = table[array.astype(np.int32) - lowest if is_signed else array]
    if padding is not None and padding.any():
        pixels[padding] = pixels[~padding].min()
    return pixels


def _levels(stored: NDArray[np.int32], header: Any, name: str) -> tuple[NDArray[np.int64], Any]:
    """The modality's whole number for each stored one, int64, inverted for MONOCHROME1; their type as pixels.

    Raises DataError where steps would become less than one level.
    """
    from pydicom.pixels.processing import apply_modality_lut

    is_inverted = header.PhotometricInterpretation == "MONOCHROME1"
    if header.get("ModalityLUTSequence"):
        table = apply_modality_lut(stored, header).astype(np.int64)
        most = (1 << int(header.ModalityLUTSequence[0].LUTDescriptor[2])) - 1
        return most - table if is_inverted else table, np.uint8 if most == 255 else np.uint16
    values = stored[::-1] if is_inverted else stored
    where = _group(header, "PixelValueTransformationSequence", "RescaleSlope")
    slope, intercept = float(where.get("RescaleSlope", 1)), float(where.get("RescaleIntercept", 0))
    if (slope, intercept) == (1, 0):
        return values.astype(np.int64), _container(header) if stored[0] >= 0 else np.uint16
    if not (math.isfinite(slope) and math.isfinite(intercept)) or abs(slope) < 1:
        raise DataError(
            f"{name}: its rescale slope {slope:g} would make one level of several; save it as a 16-bit TIFF"
            " with the levels that are to be compared"
        )
    return np.rint(values * slope + intercept).astype(np.int64), np.uint16


def _padding(array: NDArray[Any], header: Any, is_signed: bool) -> NDArray[np.bool_] | None:
    """Which pixels H x W are padding; None where the header names no such value."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return None
    limit = header.get("PixelPaddingRangeLimit")
    first, last = sorted(
        _wrapped(int(v), header.BitsStored, is_signed) for v in (value, value if limit is None else limit)
    )
    return (array >= first) & (array <= last)


def _wrapped(value: int, bits: int, is_signed: bool) -> int:
    """The value as pixels of so many bits hold it: some writers give it as one of the other sign."""
    value %= 1 << bits
    return value - (1 << bits) if is_signed and value >= 1 << (bits - 1) else value
