"""Images without a split: good ones, and perhaps a folder per kind of defect."""

from pathlib import Path

from invad.data.layouts.base import (
    GOOD_NAMES,
    MASK_NAMES,
    SPLIT_NAMES,
    Problem,
    Split,
    category_name,
    child,
    defects,
    folders,
    held_out,
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


def folder(root: Path, split: str | None = None) -> Split:
    """A plain folder of normal images, one category, or a folder of categories.

    A category holds `good` (or `ok`, `normal`) and may hold one folder per kind of defect, all read
    with their sub-folders, and masks in `ground_truth` or `masks`. With defects, the normal images whose
    hashed name falls in the lowest 20 % are held out for testing (`held_out`), the same ones on every machine
    and whatever images are added later. Without defects all normal images are for training.
    """
    if child(root, GOOD_NAMES):
        return _category(root)
    kinds = [kind for kind in folders(root) if kind.name.casefold() not in MASK_NAMES and list_images(kind)]
    parts = [kind for kind in kinds if child(kind, GOOD_NAMES)]
    plain = list_images(root, recursive=False)
    if kinds and (plain or len(parts) < len(kinds)):
        odd = next((kind.name for kind in kinds if kind not in parts), kinds[0].name)
        raise DataError(
            f"{root}: is sub-folder {odd} normal or defective? put the normal images in {root / GOOD}"
        )
    refuse_clashes(root, parts)
    if parts:
        return joined(_category(part) for part in parts)
    return Split(normal_samples(plain, category_name(root)), ())


def is_folder(root: Path) -> bool:
    return root.is_dir()


def _category(root: Path) -> Split:
    category = category_name(root)
    good = child(root, GOOD_NAMES)
    assert good is not None
    refuse_stray_images(root)
    normal = list_images(good)
    if not normal:
        raise DataError(f"{good}: no images in it; put the normal images there")
    bad: list[Sample] = []
    problems: list[Problem] = []
    masks = masks_of(root, category, problems)
    for kind in folders(root):
        if kind.name.casefold() in SPLIT_NAMES:
            raise DataError(
                f"{kind}: a split beside {good.name}; move {good.name} to {root / 'train' / GOOD}"
            )
        if kind != good and kind.name.casefold() not in MASK_NAMES:
            with kept_as_problem(problems, category):
                bad += defects(category, kind, list_images(kind), masks, problems)
    kept_back = held_out(normal, good) if bad or problems else frozenset()
    train = [path for path in normal if path not in kept_back]
    test = [path for path in normal if path in kept_back]
    tests = in_order([*normal_samples(test, category), *bad])
    return Split(normal_samples(train, category), tests, (), (*problems, *shared_masks(tests)))
