"""BMAD: six medical sets, in the layouts of the archives, of the authors' code and of later re-packings.

They differ in where the words stand, not in the words, so a file is placed by the names of its folders.
"""

from collections.abc import Iterator
from pathlib import Path

from invad.data.layouts.base import Problem, Split, folders, in_order, joined, sorted_out
from invad.data.listing import list_images, stem
from invad.data.lists import composed
from invad.errors import DataError
from invad.records import GOOD, Sample

SPLITS = ("test", "valid")
PARTS = {"train": "train", "test": "test", "val": "valid", "valid": "valid"}
LABELS = ("label", "anomaly_mask", "val_label", "test_label")
BAD = "ungood"
ON_THE_WAY = frozenset({*PARTS, "img", "hist_diy"})
"""Folders between a set and its folder Ungood."""

SETS = {
    "brain": "brain", "liver": "liver", "resc": "resc", "retina_resc": "resc", "oct2017": "oct2017",
    "retina_oct2017": "oct2017", "chest": "chest", "chest-rsna": "chest", "camelyon16": "camelyon16",
    "camelyon16_256": "camelyon16", "histopathology": "camelyon16",
}  # fmt: skip
"""Lower-case folder names, without an ending _AD or -AD -> category."""

MASK_ABOVE = 0
"""Labels number the kinds of tissue; 0 is healthy."""


def bmad(root: Path, split: str | None = None) -> Split:
    """One set or a folder of sets. Split "valid" tests on the set's own validation images instead of "test";
    they are never among the training images."""
    sets = [root] if _has_bad(root) else [folder for folder in folders(root) if _has_bad(folder)]
    if not sets:
        raise DataError(f"{root}: no folder Ungood below test or valid; see the layout of BMAD")
    return joined(_set(folder, split or SPLITS[0]) for folder in sets)


def is_bmad(root: Path) -> bool:
    return _has_bad(root) or any(_has_bad(folder) for folder in folders(root))


def _has_bad(folder: Path) -> bool:
    try:
        inside = {path.name.casefold(): path for path in folders(folder)}
    except DataError:  # whoever reads that part says why
        return False
    return BAD in inside or any(_has_bad(path) for name, path in inside.items() if name in ON_THE_WAY)


def _set(root: Path, test: str) -> Split:
    category = _category(root)
    images: dict[tuple[str, str, str], Path] = {}
    masks: dict[tuple[str, str, str], Path] = {}
    problems: list[Problem] = []
    for path in list_images(root):
        part, kind, is_label = _place(root, path)
        own = masks if is_label else images
        if part is None or kind is None:
            line = f"{path}: is below no folder of {'/'.join(PARTS)} with good or Ungood; move it away"
        elif other := own.get((part, kind, stem(path))):
            line = f"{path}: has the name of {other}; keep one of them"
        else:
            own[part, kind, stem(path)] = path
            continue
        if part == "train":
            raise DataError(line)
        problems.append(Problem(category, line))

    def rows() -> Iterator[tuple[str, Sample]]:
        for key, path in images.items():
            part, kind, _ = key
            mask = masks.get(key) if kind == BAD else None  # labels of good images are empty
            yield (
                part,
                Sample(
                    path=path,
                    category=category,
                    defect=kind,
                    mask_path=mask,
                    mask_above=None if mask is None else MASK_ABOVE,
                ),
            )

    split = sorted_out(rows(), test)
    return Split(in_order(split.train), in_order(split.test), in_order(split.left_out), tuple(problems))


def _place(root: Path, path: Path) -> tuple[str | None, str | None, bool]:
    """(part, kind of defect, whether it is a label) by the folders on the way; the innermost word counts."""
    words = [word.casefold() for word in path.relative_to(root).parts[-2::-1]]
    part = next((PARTS[word] for word in words if word in PARTS), None)
    kind = next((word for word in words if word in (GOOD, BAD)), None)
    return part, kind, any(word in LABELS for word in words)


def _category(root: Path) -> str:
    name = root.resolve().name
    short = name.casefold().removesuffix("_ad").removesuffix("-ad")
    return SETS.get(short, composed(name))
