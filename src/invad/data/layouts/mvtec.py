"""MVTec AD and its kin: train/good, test/<defect>, ground_truth/<defect> in each category.

MVTec AD, MPDD, BTAD and VisA as prepared for PyTorch differ in names only.
"""

from pathlib import Path

from invad.data.layouts.base import (
    GOOD_NAMES,
    Split,
    category_name,
    child,
    defects,
    folders,
    in_order,
    joined,
    normal_samples,
    refuse_clashes,
    refuse_stray_images,
)
from invad.data.listing import list_images
from invad.errors import DataError
from invad.records import GOOD, Sample

MPDD = frozenset({"bracket_black", "bracket_brown", "bracket_white", "connector", "metal_plate", "tubes"})
BTAD = frozenset({"01", "02", "03"})
BTAD_FOLDERS = ("btech_dataset_transformed",)


def mvtec(root: Path, split: str | None = None) -> Split:
    """One category folder or a folder of them.

    A category holds `train/good`, and may hold `test/good`, `test/<defect>` and masks in
    `ground_truth/<defect>`. Images lie directly in these folders. `good` may be called `ok` or `normal`. A
    mask is named after its image with or without `_mask`, with any suffix. Other folders, such as `valid`,
    are not read.
    """
    return categories(root)


def btad(root: Path, split: str | None = None) -> Split:
    """The folder of 01, 02 and 03, or the one around it."""
    return categories(child(root, BTAD_FOLDERS) or root)


def is_mvtec(root: Path) -> bool:
    return bool(_parts(root))


def is_mpdd(root: Path) -> bool:
    return named(root, MPDD)


def is_btad(root: Path) -> bool:
    return named(child(root, BTAD_FOLDERS) or root, BTAD)


def named(root: Path, names: frozenset[str]) -> bool:
    """Whether there are categories in MVTec layout and all of them have these names."""
    return bool(parts := _parts(root)) and all(category_name(part).casefold() in names for part in parts)


def categories(root: Path, leave_defects_out: bool = False) -> Split:
    """leave_defects_out: defective images in `train` are left out instead of refused."""
    parts = _parts(root)
    if not parts:
        raise DataError(
            f"{root}: no category with train/good; see the layout of MVTec AD or use layout folder"
        )
    if parts != [root]:
        for other in folders(root):
            if other not in parts and child(other, ("test",)):
                raise DataError(
                    f"{other}: has test but no train; put its normal training images in train/{GOOD}"
                )
        refuse_clashes(root, parts)
    return joined(_category(folder, leave_defects_out) for folder in parts)


def _parts(root: Path) -> list[Path]:
    if child(root, ("train",)):
        return [root]
    return [folder for folder in folders(root) if child(folder, ("train",))]


def _category(root: Path, leave_defects_out: bool) -> Split:
    category = category_name(root)
    train = child(root, ("train",))
    assert train is not None
    good = child(train, GOOD_NAMES)
    if good is None:
        raise DataError(f"{train}: has no folder good; put the normal training images in {train / GOOD}")
    left_out: list[Sample] = []
    for other in folders(train):
        if other != good:
            if not leave_defects_out:
                raise DataError(f"{other}: training takes normal images only; move it to {root / 'test'}")
            found = list_images(other, recursive=False)
            left_out += [Sample(path=path, category=category, defect=other.name) for path in found]
    refuse_stray_images(train)
    normal = list_images(good, recursive=False)
    if not normal:
        raise DataError(f"{good}: no images in it; put the normal training images there")
    return Split(normal_samples(normal, category), in_order(_tests(root, category)), tuple(left_out))


def _tests(root: Path, category: str) -> list[Sample]:
    test = child(root, ("test",))
    if test is None:
        return []
    refuse_stray_images(test)
    good = child(test, GOOD_NAMES)
    samples = list(normal_samples(list_images(good, recursive=False), category) if good else ())
    for kind in folders(test):
        if kind != good:
            samples += defects(root, category, kind, list_images(kind, recursive=False))
    return samples
