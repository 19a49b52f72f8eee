"""VisA, as downloaded (images and lists in split_csv) or as prepared for PyTorch."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from invad.data.layouts.base import Split, child, folders, masks_above, sorted_out
from invad.data.layouts.mvtec import categories, named
from invad.data.lists import Named, composed, first_line, table_rows
from invad.errors import DataError
from invad.records import GOOD, Sample

SPLITS = ("1cls", "2cls_fewshot", "2cls_highshot")
LISTS = "split_csv"
PREPARED = ("visa_pytorch",)
COLUMNS = ("object", "split", "label", "image", "mask")
NAMES = frozenset(
    (
        *("candle", "capsules", "cashew", "chewinggum", "fryum", "pipe_fryum"),
        *("macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4"),
    )
)
MASK_ABOVE = 0
"""The masks hold small whole numbers, one per kind of defect."""


def visa(root: Path, split: str | None = None) -> Split:
    """`split_csv/<split>.csv` names the images of all categories; without it, folders in MVTec layout below
    `visa_pytorch`, `1cls` or the root itself. Defective training images of the 2cls splits are left out."""
    split = split or SPLITS[0]
    if (root / LISTS).is_dir():
        return sorted_out(_listed(root, root / LISTS / f"{split}.csv"), "test")
    return masks_above(categories(_prepared(root, split), leave_defects_out=split != SPLITS[0]), MASK_ABOVE)


def is_visa(root: Path) -> bool:
    if any(_is_list(root / LISTS / f"{split}.csv") for split in SPLITS):
        return True
    inner = child(root, PREPARED) or root
    return any(named(folder, NAMES) for folder in (inner, *_splits(inner)))


def _is_list(path: Path) -> bool:
    return path.is_file() and COLUMNS[0] in first_line(path)


def _prepared(root: Path, split: str) -> Path:
    inner = child(root, PREPARED) or root
    if folder := child(inner, (split,)):
        return folder
    if split != SPLITS[0] or _splits(inner):
        raise DataError(f"{inner}: has no folder {split}; choose a split that was prepared")
    return inner


def _splits(folder: Path) -> list[Path]:
    return [inside for inside in folders(folder) if inside.name.casefold() in SPLITS]


def _listed(root: Path, path: Path) -> Iterator[tuple[str, Sample | DataError]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; choose a split that is in {LISTS}")

    def columns(names: Sequence[str]) -> Collection[str]:
        if missing := [name for name in COLUMNS if name not in names]:
            raise DataError(f"{path}: has no column {', '.join(missing)}; copy the list of VisA again")
        return COLUMNS

    files = Named(root)
    for number, row in table_rows(path, columns):
        part, label = row["split"], row["label"]
        known = part in ("train", "test") and label in ("normal", "anomaly")
        if known:
            mask = files.path(row["mask"]) if row["mask"] else None
            yield (
                part,
                Sample(
                    path=files.path(row["image"]),
                    category=composed(row["object"]),
                    defect=GOOD if label == "normal" else label,
                    mask_path=mask,
                    mask_above=None if mask is None else MASK_ABOVE,
                ),
            )
        else:
            error = DataError(
                f"{path}: line {number} has split {part!r} and label {label!r}; "
                "give train or test, normal or anomaly"
            )
            yield "test" if part == "test" else "train", error
