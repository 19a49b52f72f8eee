"""Synthetic pictures as a folder in the layout of MVTec AD."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from invad.data.synthetic.categories import CATEGORIES, defects_of
from invad.data.synthetic.drawing import draw
from invad.errors import ConfigError, DataError

_PARTS_PER_SEED = 1_000_000  # data sets of different seeds share no part


def write_dataset(
    root: Path,
    *,
    categories: Sequence[str] | None = None,
    train: int = 60,
    test_good: int = 30,
    per_defect: int = 10,
    size: int = 256,
    seed: int = 0,
) -> Path:
    """Write synthetic pictures as PNG files in the layout of MVTec AD and return `root`.

    Under root/<category>: train/good, test/good, test/<defect> and ground_truth/<defect>/000_mask.png (0 and
    255). Every picture shows another part. The folder is built beside `root` and appears only when complete.
    Raises DataError if `root` exists and is not an empty folder, ConfigError for an unknown category or a
    negative count.
    """
    chosen = tuple(CATEGORIES) if categories is None else tuple(categories)
    for category in chosen:
        defects_of(category)
    if min(train, test_good, per_defect) < 0:
        raise ConfigError(f"counts must be 0 or more, got {train}, {test_good}, {per_defect}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and is not an empty folder; choose a new folder or empty this one")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        draft = Path(scratch) / root.name
        draft.mkdir()
        for category in chosen:
            _write_category(draft / category, category, train, test_good, per_defect, size, seed)
        if root.exists():
            root.rmdir()
        draft.replace(root)
    return root


def _write_category(
    folder: Path, category: str, train: int, test_good: int, per_defect: int, size: int, seed: int
) -> None:
    plan = [("train", "good", train), ("test", "good", test_good)]
    plan += [("test", defect, per_defect) for defect in defects_of(category)]
    part = 0
    for split, defect, count in plan:
        pictures, masks = folder / split / defect, folder / "ground_truth" / defect
        pictures.mkdir(parents=True, exist_ok=True)
        if defect != "good":
            masks.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture, mask = draw(category, defect, seed=_PARTS_PER_SEED * seed + part, size=size)
            part += 1
            Image.fromarray(picture).save(pictures / f"{index:03d}.png", compress_level=4)
            if defect != "good":
                Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{index:03d}_mask.png")
