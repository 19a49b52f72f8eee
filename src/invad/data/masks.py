"""Defect masks: which pixels of a picture are marked, by one rule for all who read them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.images import read_alpha, read_image
from invad.errors import DataError
from invad.records import Hw

FEW_LEVELS = 8
NEARLY_ALL = 0.9
"""A mask that marks this share of its picture is hardly meant so."""


def read_mask(path: str | Path, *, size_hw: Hw | None = None, above: int | None = None) -> NDArray[np.bool_]:
    """Defect mask, bool H x W, upright as its EXIF says; True is defective.

    size_hw: size of the image the mask belongs to; a mask of another size is an error.
    above: the level above which a pixel is defective, where the layout of the set says so.

    The level of a pixel is the largest of its colour channels, or its alpha where the colours have one level
    and alpha has several. Without `above`, see
    `mask_split`. Raises DataError when the file cannot be read or its size differs from size_hw.
    """
    levels = read_mask_levels(path, size_hw=size_hw)
    mask: NDArray[np.bool_] = levels > (mask_split(levels, path) if above is None else above)
    return mask


def read_mask_codes(
    path: str | Path, *, size_hw: Hw | None = None, above: int | None = None
) -> tuple[NDArray[np.uint8], int]:
    """Codes H x W of a mask, 1 above level 0, 2 above half of full scale, and the least code of a defect.

    For other rules of splitting a mask than that of `read_mask`; same errors. above: stands for that half.
    """
    levels = read_mask_levels(path, size_hw=size_hw)
    split = mask_split(levels, path) if above is None else above
    return (levels > 0).astype(np.uint8) + (levels > (split or _half_scale(levels))), 2 if split else 1


def read_mask_levels(path: str | Path, *, size_hw: Hw | None = None) -> NDArray[Any]:
    """Levels of a mask, H x W, before they are split into defective and not; see `read_mask`."""
    levels: NDArray[Any] = read_image(path).max(axis=2)
    if levels.min() == levels.max() and (alpha := read_alpha(path)) is not None:
        levels = alpha  # a brush layer: one colour everywhere, the shape in its transparency
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


def doubt(mask: NDArray[np.bool_]) -> str | None:
    """Why a mask, bool H x W, can hardly be meant so.

    It marks nothing though there is a defect, nearly all, or most and the whole border.
    """
    if not mask.any():
        return "marks no pixel, so no defect is there for the figures of pixels; draw it or remove the mask"
    share = float(mask.mean())
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    if share < NEARLY_ALL and not (share > 0.5 and border >= 0.95):
        return None
    return f"marks {share:.0%} of the whole picture; is it inverted or drawn in its alpha? draw it again"
