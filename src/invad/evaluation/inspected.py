"""What a region of interest leaves of the defects of a labelled test set."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    defective and all its defects are ignored. vanished: whether the mask has pixels that count, and none in
    the frame, because they are smaller than one of its pixels.
    """

    mask: NDArray[np.bool_] | None
    ignored: int = 0
    counts: bool = True
    vanished: bool = False


def left_of(one: Labelled[Any], inside_HW: NDArray[np.bool_] | None, input_hw: Hw) -> Left:
    """What a region leaves of an image. inside_HW: pixels that count, in its frame; None where all do."""
    if one.mask_codes is None:
        return Left(one.mask(input_hw))
    codes, least = one.mask_codes
    defective = codes >= least
    if inside_HW is None:
        mask = resize_mask(defective, input_hw)
        return Left(mask, vanished=bool(defective.any() and not mask.any()))
    parts, count = label(defective, structure=np.ones((3, 3), dtype=np.int8))
    seen = len(np.unique(parts[inside_HW & defective]))
    mask = resize_mask(defective & inside_HW, input_hw)
    vanished = seen > 0 and not mask.any()
    return Left(mask, ignored=count - seen, counts=seen > 0 or count == 0, vanished=vanished)


def counted(detector: Trained, category: str | None) -> NDArray[np.bool_] | None:
    """The pixels of a category's images that count, in the one frame that maps and masks then have; None for
    all."""
    if (inside_HW := detector.inside_for(category)) is None:
        return None
    height, width = inside_HW.shape
    return resize_mask(inside_HW, detector.frame_for((height, width)))


def unmarked_in_words(
    counts: Iterable[tuple[str, Mapping[str, Any]]], vanished: Sequence[Path]
) -> Iterator[str]:
    """What figures of pixels leave out. counts: category and its n_anomalous and n_masked. vanished: images
    whose mask has no pixel left in the model's input frame."""
    for category, row in counts:
        if 0 < row["n_masked"] < row["n_anomalous"]:
            yield (
                f"{category}: figures of pixels are of {row['n_masked']} of {row['n_anomalous']} defective "
                "images; the others have no mask that could be read"
            )
    if vanished:
        number = "1 image has" if len(vanished) == 1 else f"{len(vanished)} images have"
        yield (
            f"{number} no marked pixel left at the size of the model's input, so what is marked there "
            f"counts in no figure of pixels; the first is {vanished[0]}"
        )


def one_class_in_words(counts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Which categories have no figures of images, because they lack good or defective ones, and over how many
    the means are. counts: n_normal and n_anomalous by category."""
    lacking = {
        "good": [name for name, row in counts.items() if not row["n_normal"]],
        "defective": [name for name, row in counts.items() if not row["n_anomalous"]],
    }
    left = len(counts) - len({name for names in lacking.values() for name in names})
    means = f"; the means are over {left} of {len(counts)} categories" if len(counts) > 1 else ""
    for kind, names in lacking.items():
        if names:
            yield f"{', '.join(names)}: no {kind} test images, so no AUROC, AP and F1-max of images{means}"


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
