"""What a region of interest leaves of the defects of a labelled test set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from invad.data.labelled import Labelled
from invad.data.preprocess import resize_mask
from invad.detector.opening import Trained
from invad.records import Hw

NAMED = 3
"""Images that a line names."""


@dataclass(frozen=True, slots=True)
class Left:
    """The defective pixels of an image that count, H x W bool in the model's input frame; None where unknown.

    ignored: defects of its mask of which no pixel counts. counts: whether the image does; not where it is
    defective and all its defects are ignored.
    """

    mask: NDArray[np.bool_] | None
    ignored: int = 0
    counts: bool = True


def left_of(one: Labelled[Any], inside_HW: NDArray[np.bool_] | None, input_hw: Hw) -> Left:
    """What a region leaves of an image. inside_HW: pixels that count, in its frame; None where all do."""
    if inside_HW is None or one.mask_codes is None:
        return Left(one.mask(input_hw))
    codes, least = one.mask_codes
    defective = codes >= least
    parts, count = label(defective, structure=np.ones((3, 3), dtype=np.int8))
    seen = len(np.unique(parts[inside_HW & defective]))
    mask = resize_mask(defective & inside_HW, input_hw)
    return Left(mask, ignored=count - seen, counts=seen > 0 or count == 0)


def counted(detector: Trained, category: str | None) -> NDArray[np.bool_] | None:
    """The pixels of a category's images that count, in the one frame that maps and masks then have; None for
    all."""
    if (inside_HW := detector.inside_for(category)) is None:
        return None
    height, width = inside_HW.shape
    return resize_mask(inside_HW, detector.frame_for((height, width)))


def ignored_in_words(ignored: int, without: Sequence[Path]) -> str:
    """`the region of interest ignores 7 defects; ...`, or nothing of none."""
    if not ignored:
        return ""
    said = f"the region of interest ignores {ignored} defect{'' if ignored == 1 else 's'} of the masks"
    if not without:
        return said
    names = ", ".join(map(str, without[:NAMED])) + (", ..." if len(without) > NAMED else "")
    one = len(without) == 1
    return (
        f"{said}; {len(without)} defective image{' shows' if one else 's show'} no other and "
        f"{'is' if one else 'are'} not counted: {names}"
    )
