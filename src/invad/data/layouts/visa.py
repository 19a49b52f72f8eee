"""VisA, as downloaded (images and lists in split_csv) or as prepared for PyTorch."""

import csv
from collections.abc import Iterator
from pathlib import Path

from invad.data.layouts.base import Split, child, folders, masks_above, sorted_out
from invad.data.layouts.mvtec import categories, named
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
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return COLUMNS[0].encode() in stream.readline()


def _prepared(root: Path, split: str) -> Path:
    inner = child(root, PREPARED) or root
    if folder := child(inner, (split,)):
        return folder
    if split != SPLITS[0] or _splits(inner):
        raise DataError(f"{inner}: has no folder {split}; choose a split that was prepared")
    return inner


def _splits(folder: Path) -> list[Path]:
    return [inside for inside in folders(folder) if inside.name.casefold() in SPLITS]


def _listed(root: Path, path: Path) -> Iterator[tuple[str, Sample]]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; choose a split that is in {LISTS}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise DataError(f"{path}: has no column {', '.join(missing)}; copy the list of VisA again")
        for number, row in enumerate(rows, start=2):
            if row["split"] not in ("train", "test") or row["label"] not in ("normal", "anomaly"):
                raise DataError(
                    f"{path}: line {number} has split {row['split']!r} and label {row['label']!r}; "
                    "give train or test, normal or anomaly"
                )
            mask = root / row["mask"] if row["mask"] else None
            yield (
                row["split"],
                Sample(
                    path=root / row["image"],
                    category=row["object"],
                    defect=GOOD if row["label"] == "normal" else row["label"],
                    mask_path=mask,
                    mask_above=None if mask is None else MASK_ABOVE,
                ),
            )
