"""The one list of formats: by which endings files are taken, by which bytes pictures are opened.

Pillow's plugins are called directly, and only these and pydicom: no other parser sees foreign bytes, none of
them runs another program, and Pillow's own size limit does not come between the header and ours.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, TypeAlias, cast

from invad.errors import DataError
from invad.system.packages import importing

if TYPE_CHECKING:
    from PIL import ImageFile

Reader: TypeAlias = "Callable[[IO[bytes]], ImageFile.ImageFile]"
HEAD_BYTES = 132


@dataclass(frozen=True, slots=True)
class Format:
    """suffixes: lower-case endings. magic: matches the first bytes. plugin: module and class that opens it.

    package, extra: what brings the plugin, where that is not Pillow.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: re.Pattern[bytes]
    plugin: tuple[str, str]
    package: str | None = None
    extra: str | None = None

    def reader(self, name: str) -> Reader:
        """What opens a stream of this format. Raises DataError, for the image `name`, when it is missing."""
        module, plugin = self.plugin
        if self.package is not None:
            with importing((self.package,), self.extra, f"{name}: {self.name}", DataError):
                return cast("Reader", getattr(importlib.import_module(module), plugin))
        try:
            reader: Reader = getattr(importlib.import_module(module), plugin)
        except (ImportError, AttributeError):
            needed = "a newer Pillow: pip install --upgrade pillow; or convert it to PNG"
            raise DataError(f"{name}: {self.name} needs {needed}") from None
        return reader


def _pillow(name: str, suffixes: str, magic: bytes, plugin: str, image: str) -> Format:
    pattern = re.compile(magic, re.DOTALL)
    return Format(name, tuple(suffixes.split()), pattern, (f"PIL.{plugin}ImagePlugin", f"{image}ImageFile"))


DICOM = Format(
    "DICOM",
    (".dicom", ".dcm"),
    re.compile(rb".{128}DICM", re.DOTALL),
    ("pydicom", "dcmread"),
    "pydicom",
    "dicom",
)
"""Read by `data/dicom.py`, not by Pillow."""

FORMATS = (
    # Before the others: its first 128 bytes may be anything, the mark of another format too.
    DICOM,
    _pillow("PNG", ".apng .png", rb"\x89PNG\r\n\x1a\n", "Png", "Png"),
    _pillow("JPEG", ".jfif .jpe .jpeg .jpg .mpo", rb"\xff\xd8\xff", "Jpeg", "Jpeg"),
    _pillow("BMP", ".bmp", rb"BM", "Bmp", "Bmp"),
    _pillow("TIFF", ".tif .tiff", rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]", "Tiff", "Tiff"),
    _pillow("WebP", ".webp", rb"RIFF....WEBP", "WebP", "WebP"),
    _pillow("GIF", ".gif", rb"GIF8[79]a", "Gif", "Gif"),
    _pillow(
        "JPEG 2000",
        ".j2c .j2k .jp2 .jpc .jpf .jpx",
        rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n",
        "Jpeg2K",
        "Jpeg2K",
    ),
    _pillow("AVIF", ".avif .avifs", rb"....ftypavi[fs]", "Avif", "Avif"),
    _pillow("PNM", ".pbm .pfm .pgm .pnm .ppm", rb"P[1-6f][\s#]", "Ppm", "Ppm"),
    _pillow("PCX", ".pcx", rb"\x0a[\x00\x02\x03\x05]\x01", "Pcx", "Pcx"),
    _pillow("SGI", ".sgi", rb"\x01\xda[\x00\x01][\x01\x02]", "Sgi", "Sgi"),
    _pillow("QOI", ".qoi", rb"qoif", "Qoi", "Qoi"),
    Format(
        "HEIC",
        (".heic", ".heif", ".hif"),
        re.compile(rb"....ftyp(hei[cfmsx]|hevc|hevx|mif1|msf1)", re.DOTALL),
        ("pillow_heif", "HeifImageFile"),
        "pillow-heif",
        "heif",
    ),
    # Its first bytes are no mark but numbers that have few values; so it comes last.
    _pillow(
        "TGA",
        ".tga",
        rb".(\x00[\x02\x03\x0a\x0b]|\x01[\x01\x09])....[\x00\x0f\x10\x18\x20].{8}[\x01\x08\x10\x18\x20]",
        "Tga",
        "Tga",
    ),
)

IMAGE_SUFFIXES = tuple(sorted(suffix for known in FORMATS for suffix in known.suffixes))
"""Lower-case endings of the files that `list_images` finds and `read_image` decodes."""

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf"),
    *(".ogv", ".ts", ".webm", ".wmv", ".y4m"),
)
"""Lower-case endings of the files that `data/video.py` reads, frame by frame."""

NAMES = ", ".join(known.name for known in (*FORMATS[1:], DICOM))


def format_of(head: bytes, name: str) -> Format:
    """The format that a file's first bytes show. Raises DataError, for the image `name`, when it is none."""
    for known in FORMATS:
        if known.magic.match(head):
            return known
    raise DataError(f"{name}: none of the formats {NAMES}; convert it to one of these")
