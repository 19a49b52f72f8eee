"""Which page of a file is the picture: one, or the file is refused. Nobody judges one page of several.

Where the pages are pictures of one part, each is asked for by its number.
"""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from PIL import ImageFile

from invad.errors import DataError

REDUCED, MASK = 1, 4
"""Bits of NewSubfileType: a smaller version of another page, its transparency."""

MANY = 10_000

COLOUR_AND_PLACE = "YXS"
"""Axes of one picture, as tifffile names them."""

MEMBERS = "CQI"
"""Axes along which a file holds pictures of one thing: channels, and pages of which no more is said."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a TIFF or a frame of a DICOM file as an image. number: from 0."""

    path: Path
    number: int

    def __str__(self) -> str:
        return f"{self.path} page {self.number + 1}"


def count_pages(stream: IO[bytes], name: str, axes: str = "") -> int:
    """Pictures in a TIFF, reductions and masks aside.

    axes: those beside MEMBERS that may tell the pictures apart, Z (depth) or T (time). Raises DataError for
    pictures of several sizes or kinds, and for others of these axes.
    """
    from tifffile import TiffFile

    stream.seek(0)
    with TiffFile(stream) as tiff:
        series = _stack(tiff, name)
        own = [axis for axis in series.axes if axis not in COLOUR_AND_PLACE]
        for axis in own:
            if axis not in MEMBERS + axes:
                said = {"Z": "depth", "T": "time"}.get(axis, f"axis {axis}")
                raise DataError(
                    f"{name}: its pages differ in {said}; give --parts pages:{axes}{axis} to take them as "
                    "pictures of one part"
                )
        return len(series)


def page_of(stream: IO[bytes], number: int, name: str) -> int | None:
    """Which of the pages that Pillow counts the picture `number` of a TIFF is; None: none of them."""
    from tifffile import TiffFile

    stream.seek(0)
    with TiffFile(stream) as tiff:
        page = numbered_page(tiff, number, name)
        is_counted = isinstance(page.index, int) and getattr(page, "offset", None) is not None
        return int(page.index) if is_counted else None


def numbered_page(tiff: Any, number: int, name: str) -> Any:
    """The page or frame of a `tifffile.TiffFile` that is the picture `number`."""
    series = _stack(tiff, name)
    if number >= len(series):
        raise DataError(f"{name}: has no page {number + 1}, only {len(series)}; copy the file again")
    return series[number]


def _stack(tiff: Any, name: str) -> Any:
    whole = [series for series in tiff.series if not series.keyframe.subfiletype & (REDUCED | MASK)]
    if len(whole) != 1:
        kinds = Counter(
            f"{one.keyframe.imagewidth} x {one.keyframe.imagelength} {one.dtype}"
            for one in whole
            for _ in range(len(one))
        )
        said = ", ".join(f"{count} of {kind}" for kind, count in kinds.items()) or "none"
        raise DataError(f"{name}: its pages are not pictures of one size and kind ({said}); save them apart")
    return whole[0]


def chosen_page(image: ImageFile.ImageFile, stream: IO[bytes], kind: str, name: str) -> int | None:
    """Number of the page that is the picture; None: it is none of the pages that Pillow counts.

    Raises DataError for a file of several pages, frames or pictures.
    """
    if kind == "TIFF":
        return _tiff_page(image, name)
    if kind == "JPEG":
        refuse_several(_jpeg_pictures(image), "pictures", name)
    else:
        refuse_several(int(getattr(image, "n_frames", 1)), "frames", name)
    return 0


def the_picture(tiff: Any, name: str) -> Any:
    """The page of a `tifffile.TiffFile` that is the picture, pages inside pages included."""
    pages = [tiff.pages[i] for i in range(min(len(tiff.pages), MANY))]
    whole = [page for page in pages if not page.tags.valueof(254, 0) & (REDUCED | MASK)]
    if not whole:
        inner = [sub for page in pages for sub in page.pages or ()]
        whole = [page for page in inner if not page.tags.valueof(254, 0) & (REDUCED | MASK)]
    refuse_several(len(whole), "pages", name)
    return (whole or pages)[0]


def _tiff_page(image: Any, name: str) -> int | None:
    first, index, whole, has_inner = image.tag_v2, 0, [], False
    while index < MANY:
        tags = image.tag_v2
        has_inner = has_inner or 330 in tags
        if not tags.get(254, 0) & (REDUCED | MASK):
            whole.append(index)
        if not tags.next:
            break
        index += 1
        try:
            image.seek(index)
        except EOFError:
            break
    if image.tell():
        image.seek(0)
    refuse_several(max(len(whole), _planes(first)), "pages", name)
    if not whole and has_inner:
        return None
    return whole[0] if whole else 0


def _planes(tags: Any) -> int:
    """Pictures that ImageJ keeps behind one page."""
    said = str(tags.get(270, ""))
    if not said.startswith("ImageJ="):
        return 1
    counts = [line.partition("=")[2] for line in said.splitlines() if line.startswith("images=")]
    return int(counts[0]) if counts and counts[0].isdecimal() else 1


def _jpeg_pictures(image: Any) -> int:
    """Pictures of the first one's size: smaller ones beside it are previews and maps of its brightness."""
    if "mp" not in image.info and "mpoffset" not in image.info:
        return 1
    from PIL.MpoImagePlugin import MpoImageFile

    image.fp.seek(0)
    several = MpoImageFile(io.BytesIO(image.fp.read()))
    size, count = several.size, 0
    for number in range(several.n_frames):
        several.seek(number)
        count += several.size[0] * several.size[1] >= size[0] * size[1]
    return count


def refuse_several(count: int, what: str, name: str) -> None:
    """Raises DataError, for the file `name`, when it has more than one of `what`."""
    if count > 1:
        also = ", or judge them as pictures of one part, see docs/parts.md" if what != "pictures" else ""
        raise DataError(f"{name}: has {count} {what}; save each as a file of its own{also}")
