"""What people marked in another tool, as masks and a list that `load_dataset` reads."""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from invad.data.images import image_size
from invad.data.layouts.base import GOOD_NAMES, category_name
from invad.data.layouts.manifest import write_samples
from invad.data.listing import list_images, stem
from invad.data.lists import composed
from invad.data.png import encode_png
from invad.errors import DataError
from invad.records import GOOD, Hw, Sample
from invad.system.files import is_folder, is_there, make_folder, write_atomically

DEFECT = "defect"
"""The kind of a defect that nobody named."""

LIST, MASKS = "manifest.csv", "masks"

_UPLOADED = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was uploaded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Annotation:
    """What somebody said of one image.

    name: of the image in the other tool, a path with slashes. size_hw: its size there, upright, where the
    tool says it. kind: GOOD or the kind of defect. mask_HW: bool, True where it is defective; None where
    nothing is drawn.
    """

    name: str
    size_hw: Hw | None = None
    kind: str = GOOD
    mask_HW: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Numbers of images and masks. left_out: what is not in the set, and why, one line each."""

    good: int
    bad: int
    masks: int
    left_out: tuple[str, ...]


def write_annotations(
    annotations: Iterable[Annotation | DataError], images: Path, output: Path, category: str | None = None
) -> Written:
    """Write masks and `manifest.csv` into a new or empty folder; the images stay where they are.

    The list does not say what is for training: readers keep a fifth of the good images for testing. images:
    the folder below which the images lie. category: of all of them, by default the name of that folder. An
    annotation that comes as an error, has no image below the folder or is of another size is left out and
    named. Raises DataError when nothing is left, for two annotations of one image, and for a folder that is
    not empty or cannot be written.
    """
    if is_there(output) and (not is_folder(output) or any(output.iterdir())):
        raise DataError(f"{output}: is not empty; write into a new folder")
    files = Files(images)
    samples: list[Sample] = []
    left_out: list[str] = []
    owners: dict[Path, str] = {}
    masks = 0
    for said in annotations:
        if isinstance(said, DataError):
            left_out.append(str(said))
            continue
        try:
            path = files.find(said.name)
            _require_size(said, path)
        except DataError as error:
            left_out.append(str(error))
            continue
        if path in owners:
            raise DataError(f"{path}: is meant by {owners[path]} and by {said.name}; keep one of them")
        owners[path] = said.name
        mask: Path | None = None
        if said.kind != GOOD and said.mask_HW is not None and said.mask_HW.any():
            below = path.relative_to(images)
            mask = output / MASKS / below.with_name(f"{stem(below)}_mask.png")
            if is_there(mask):
                mask = mask.with_name(f"{below.name}_mask.png")
            make_folder(mask.parent)
            write_atomically(mask, encode_png(said.mask_HW.astype(np.uint8) * 255))
            masks += 1
        name = category or category_name(images)
        samples.append(Sample(path=path, category=name, defect=said.kind, mask_path=mask))
    if not samples:
        why = f": {left_out[0]}" if left_out else ""
        raise DataError(f"{images}: no annotation fits an image{why}")
    make_folder(output)
    write_samples(samples, output / LIST)
    good = sum(not sample.is_anomalous for sample in samples)
    return Written(good=good, bad=len(samples) - good, masks=masks, left_out=tuple(left_out))


class Files:
    """The images below a folder, found by what another tool calls them."""

    def __init__(self, folder: Path):
        """Raises DataError when there is no such folder, or no image in it."""
        self.folder = folder
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for path in list_images(folder):
            self._by_name[composed(path.name)].append(path)
        if not self._by_name:
            raise DataError(f"{folder}: no images in it; give the folder of the images")

    def find(self, name: str) -> Path:
        """The image that `name` ends as: a path below the folder, or an address.

        Folders that only the other machine has may come first. Raises DataError when no image is meant, or
        more than one may be.
        """
        *folders, last = PurePosixPath(composed(name.replace("\\", "/"))).parts or ("",)
        found = self._by_name.get(last) or self._by_name.get(_UPLOADED.sub("", last, count=1)) or []
        alike = [_alike(Path(os.path.abspath(path)), folders) for path in found]  # noqa: PTH100
        best = [path for path, count in zip(found, alike, strict=True) if count == max(alike)]
        is_address = "://" in name or name.startswith("/")
        if not best or (folders and not max(alike) and not is_address):
            raise DataError(f"{name}: no such image below {self.folder}")
        if len(best) > 1:
            raise DataError(f"{name}: may be {best[0]} or {best[1]}; give the folder of one of them")
        return best[0]


def _alike(path: Path, folders: Sequence[str]) -> int:
    """How many folders above the name are the same."""
    above = zip(reversed(path.parent.parts), reversed(folders), strict=False)
    return next((i for i, (own, said) in enumerate(above) if composed(own) != said), len(folders))


def _require_size(said: Annotation, path: Path) -> None:
    if said.size_hw is None:
        return
    size_hw = image_size(path)
    if size_hw != said.size_hw:
        raise DataError(
            f"{path}: is {size_hw[1]} x {size_hw[0]} pixels, its annotation {said.size_hw[1]} x "
            f"{said.size_hw[0]}; give the image that was annotated"
        )


def polygon_mask(size_hw: Hw, corners_V2: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside a polygon, by the even-odd rule, bool H x W.

    corners: x and y in pixels from the outer corner of the first. Raises DataError for corners that are no
    numbers or fewer than three.
    """
    if len(corners_V2) < 3 or not np.isfinite(corners_V2).all():
        raise DataError("a polygon needs three corners or more, in finite numbers")
    height, width = size_hw
    # Going along a row, every side that is crossed leads in or out.
    crossed = np.zeros((height, width + 1), bool)
    for (x0, y0), (x1, y1) in zip(corners_V2, (*corners_V2[1:], corners_V2[0]), strict=True):
        low, high = sorted((y0, y1))
        rows = np.arange(max(0, math.ceil(low - 0.5)), max(0, min(height, math.ceil(high - 0.5))))
        if len(rows):
            at = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            crossed[rows, np.clip(np.ceil(at - 0.5), 0, width).astype(int)] ^= True
    inside: NDArray[np.bool_] = np.logical_xor.accumulate(crossed, axis=1)[:, :-1]
    return inside


def box_mask(size_hw: Hw, x: float, y: float, width: float, height: float) -> NDArray[np.bool_]:
    """Pixels inside a box, bool H x W; its sides in pixels, rounded to the nearest border of pixels."""
    mask = np.zeros(size_hw, dtype=bool)
    if all(map(math.isfinite, (x, y, width, height))):
        left, top = max(0, round(x)), max(0, round(y))
        mask[top : max(0, round(y + height)), left : max(0, round(x + width))] = True
    return mask


def relative_name(path: str, images: Path | None) -> str:
    """What another tool shall call an image: its path below `images`, with slashes; as it is without.

    Raises DataError for one that lies elsewhere.
    """
    if images is None:
        return path.replace(os.sep, "/")
    whole, base = Path(os.path.abspath(path)), Path(os.path.abspath(images))  # noqa: PTH100 - links stay
    if not whole.is_relative_to(base):
        raise DataError(f"{path}: does not lie below {images}; give the folder of the images")
    return whole.relative_to(base).as_posix()


def largest_kind(areas: Iterable[tuple[str, int]]) -> str:
    """The kind of defect that covers most of an image; DEFECT where none is named.

    areas: kind and pixels of each region. Raises DataError for a region that is called good.
    """
    total: dict[str, int] = defaultdict(int)
    for kind, area in areas:
        if kind.strip().casefold() in GOOD_NAMES:
            raise DataError(f"a region is called {kind!r}; what is marked is a defect, rename that label")
        total[kind.strip() or DEFECT] += area
    return max(total, key=lambda kind: total[kind]) if total else DEFECT
