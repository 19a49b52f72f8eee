"""MVTec AD and its kin: train/good, test/<defect>, ground_truth/<defect> in each category.

MVTec AD, MPDD, BTAD and VisA as prepared for PyTorch differ in names only.
"""

from pathlib import Path

from invad.data.layouts.base import (
    GOOD_NAMES,
    Problem,
    Split,
    category_name,
    child,
    defects,
    folders,
    in_order,
    joined,
    kept_as_problem,
    masks_of,
    normal_samples,
    refuse_clashes,
    refuse_stray_images,
    shared_masks,
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
    untrained: list[Path] = []
    if parts != [root]:
        untrained = [other for other in folders(root) if other not in parts and child(other, ("test",))]
        refuse_clashes(root, parts)
    return joined([*(_category(folder, leave_defects_out) for folder in parts), *map(_untrained, untrained)])


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
            images = list_images(other, recursive=False)
            left_out += [Sample(path=path, category=category, defect=other.name) for path in images]
    refuse_stray_images(train)
    normal = list_images(good, recursive=False)
    if not normal:
        raise DataError(f"{good}: no images directly in it; put the normal training images there")
    test, problems = _tests(root, category)
    return Split(normal_samples(normal, category), test, tuple(left_out), problems)


def _untrained(root: Path) -> Split:
    category = category_name(root)
    test, problems = _tests(root, category)
    line = f"{root}: has test but no train; put its normal training images in train/{GOOD} or name the others"
    return Split((), test, (), (Problem(category, f"{line} with --categories"), *problems))


def _tests(root: Path, category: str) -> tuple[tuple[Sample, ...], tuple[Problem, ...]]:
    problems: list[Problem] = []
    samples: list[Sample] = []
    kinds: list[Path] = []
    with kept_as_problem(problems, category):
        test = child(root, ("test",))
        if test is None:
            return (), ()
        kinds = folders(test)
        with kept_as_problem(problems, category):
            refuse_stray_images(test)
        if not kinds and not problems:
            raise DataError(f"{test}: no folders in it; put good images in {test / GOOD} or remove it")
        child(test, GOOD_NAMES)  # two of them are one too many
    masks = masks_of(root, category, problems)
    for kind in kinds:
        with kept_as_problem(problems, category):
            images = list_images(kind, recursive=False)
            if not images:
                raise DataError(
                    f"{kind}: no images directly in it; put its images there or remove the folder"
                )
            if kind.name.casefold() in GOOD_NAMES:
                samples += normal_samples(images, category)
            else:
                samples += defects(category, kind, images, masks, problems)
    ordered = in_order(samples)
    return ordered, (*problems, *shared_masks(ordered))
