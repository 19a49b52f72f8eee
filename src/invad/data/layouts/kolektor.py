"""KolektorSDD and KolektorSDD2. Every image has a label image; whether it is defective stands only there."""

import re
from pathlib import Path

import numpy as np

from invad.data.layouts.base import Split, child, folders, held_out, sorted_out
from invad.data.listing import list_images
from invad.data.masks import read_mask
from invad.errors import DataError
from invad.records import GOOD, Sample

DEFECT = "defect"
MASK_ABOVE = 0
_ITEM = re.compile(r"kos\d+", re.IGNORECASE)
_LABEL = re.compile(r"(.+)_label", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")


def kolektor_sdd(root: Path, split: str | None = None) -> Split:
    """`kos01/Part0.jpg` with `kos01/Part0_label.bmp`. The set has no split for learning from normal images.

    The good surfaces of the items whose hashed names are lowest (a fifth) are for testing, with all defects.
    """
    items = _items(root)
    if not items:
        raise DataError(f"{root}: no folder kos01 with Part0_label.bmp; see the layout of KolektorSDD")
    kept_back = held_out(items, root)
    rows = []
    for item in items:
        files = {path.stem: path for path in list_images(item, recursive=False)}
        for stem, path in files.items():
            if not _LABEL.fullmatch(stem):
                judged = _judged(path, files.get(f"{stem}_label"), "kolektor_sdd")
                is_test = item in kept_back or (isinstance(judged, Sample) and judged.is_anomalous)
                rows.append(("test" if is_test else "train", judged))
    return sorted_out(rows, "test")


def kolektor_sdd2(root: Path, split: str | None = None) -> Split:
    """`train/10000.png` with `train/10000_GT.png`, and `test`. Defective training images are left out, and so
    are the two files of the archive whose names are no number, a second copy of 10301 and its label."""
    rows: list[tuple[str, Sample | DataError]] = []
    for part in ("train", "test"):
        try:
            folder = child(root, (part,))
            if folder is None:
                raise DataError(f"{root}: has no folder {part}; see the layout of KolektorSDD2")
            files = {path.stem: path for path in list_images(folder, recursive=False)}
        except DataError as error:
            rows.append((part, error))
            continue
        rows += [
            (part, _judged(path, files.get(f"{stem}_GT"), "kolektor_sdd2"))
            for stem, path in files.items()
            if _NUMBER.fullmatch(stem)
        ]
    return sorted_out(rows, "test")


def is_kolektor_sdd(root: Path) -> bool:
    return bool(_items(root))


def is_kolektor_sdd2(root: Path) -> bool:
    train = child(root, ("train",))
    return train is not None and any(train.glob("*_GT.png"))


def _items(root: Path) -> list[Path]:
    return [
        folder for folder in folders(root) if _ITEM.fullmatch(folder.name) and any(folder.glob("*_label.*"))
    ]


def _judged(path: Path, label: Path | None, category: str) -> Sample | DataError:
    if label is None:
        return DataError(
            f"{path}: has no label image, so nobody knows whether it is defective; copy it again"
        )
    try:
        defective = np.any(read_mask(label, above=MASK_ABOVE))
    except DataError as error:
        return error
    if not defective:
        return Sample(path=path, category=category, defect=GOOD)
    return Sample(path=path, category=category, defect=DEFECT, mask_path=label, mask_above=MASK_ABOVE)
