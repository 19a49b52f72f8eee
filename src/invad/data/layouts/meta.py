"""meta.json, the list that research code of the ADer and UniAD family exchanges: read and written.

{"train" | "test": {category: [{"img_path", "mask_path", "cls_name", "specie_name", "anomaly"}]}}
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from invad.data.layouts.base import Dataset, Split, sorted_out
from invad.data.layouts.manifest import relative
from invad.data.lists import Named, composed
from invad.errors import DataError, reason
from invad.records import GOOD, Sample
from invad.system.files import write_atomically

NAME = "meta.json"
DEFECT = "defect"


def meta(root: Path, split: str | None = None) -> Split:
    """A folder with meta.json, or such a file; paths are relative to its folder."""
    path = _list_of(root)
    if not path.is_file():
        raise DataError(f"{root}: has no {NAME}; give the list itself")
    try:
        content = json.loads(path.read_bytes())
        parts = {part: content.get(part, {}) for part in ("train", "test")}
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from error
    except (ValueError, AttributeError) as error:
        raise _no_list(path, error) from error
    files, rows = Named(path.parent), list[tuple[str, Sample | DataError]]()
    for part, groups in parts.items():
        try:
            rows += [(part, _sample(row, files, name)) for name, group in groups.items() for row in group]
        except (KeyError, TypeError, AttributeError) as error:
            rows.append((part, _no_list(path, error)))
    return sorted_out(rows, "test")


def _no_list(path: Path, error: Exception) -> DataError:
    why = f"{type(error).__name__}: {error}"
    return DataError(f"{path}: is no list with train and test ({why}); write it again")


def is_meta(root: Path) -> bool:
    path = _list_of(root)
    return path.is_file() and path.suffix.lower() == ".json"


def write_meta(dataset: Dataset, path: str | Path) -> Path:
    """Write a set as meta.json. Paths below the folder of the file are relative to it, others absolute; the
    keys sample_id and mask_above, which other readers pass over, are there when they say something.
    Raises DataError when it cannot be written."""
    path = Path(path)
    content = {
        "train": _grouped((*dataset.train, *dataset.left_out), path.parent),
        "test": _grouped(dataset.test, path.parent),
    }
    return write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def _list_of(root: Path) -> Path:
    return root / NAME if root.is_dir() else root


def _grouped(samples: Iterable[Sample], base: Path) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for sample in samples:
        row = {
            "img_path": relative(sample.path, base),
            "mask_path": relative(sample.mask_path, base) if sample.mask_path else "",
            "cls_name": sample.category,
            "specie_name": sample.defect,
            "anomaly": int(sample.is_anomalous),
        }
        ours = {"sample_id": sample.sample_id, "mask_above": sample.mask_above}
        groups.setdefault(sample.category, []).append(
            {**row, **{key: value for key, value in ours.items() if value is not None}}
        )
    return groups


def _sample(row: dict[str, Any], files: Named, category: str) -> Sample:
    kind = str(row.get("specie_name") or DEFECT)
    if row["anomaly"] not in (0, 1):
        raise TypeError(f"anomaly is {row['anomaly']!r}, not 0 or 1")
    mask = row.get("mask_path")
    return Sample(
        path=files.path(row["img_path"]),
        category=composed(category),
        # Some writers call defective images good; the number is what all of them agree on.
        defect=GOOD if not row["anomaly"] else DEFECT if kind == GOOD else kind,
        mask_path=files.path(mask) if mask and row["anomaly"] else None,
        mask_above=row.get("mask_above"),
        sample_id=row.get("sample_id"),
    )
