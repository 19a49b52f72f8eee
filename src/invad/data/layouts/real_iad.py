"""Real-IAD: objects seen from five sides, in lists per category (JSON)."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from invad.data.layouts.base import Split, folders, joined, sorted_out
from invad.data.listing import natural_key
from invad.data.lists import Named, composed
from invad.errors import DataError, reason
from invad.records import GOOD, Sample

STANDARD = "realiad_jsons"
CONTAMINATED = tuple(f"realiad_jsons_fuiad_{share}" for share in ("0.0", "0.1", "0.2", "0.4"))
SPLITS = (STANDARD, "realiad_jsons_sv", *CONTAMINATED)
MASK_ABOVE = 127
"""The masks of the smaller resolutions were averaged, so their edges have all levels."""

_RESOLUTION = re.compile(r"realiad_(256|512|1024|raw)", re.IGNORECASE)


def real_iad(root: Path, split: str | None = None) -> Split:
    """The lists lie in `realiad_jsons/<split>`, in `<split>`, or as `<category>.json` in the root; the images
    in `realiad_256` (or 512, 1024, raw) or in the root. The root may also be `realiad_256` itself, with the
    lists beside it. The views of one object share a sample_id. The training lists of the fuiad splits hold
    defects on purpose: they are trained on as they are."""
    split = split or STANDARD
    lists = _lists(root, split)
    if not lists:
        raise DataError(f"{root}: no lists of split {split}; put the folder {split} there or choose another")
    images = _images(root, [path.stem for path in lists])
    return joined(
        sorted_out(_listed(path, images, contaminated=split in CONTAMINATED), "test") for path in lists
    )


def is_real_iad(root: Path) -> bool:
    return any(_lists(root, split) for split in SPLITS)


def _lists(root: Path, split: str) -> list[Path]:
    bases = (root, root.parent) if _RESOLUTION.fullmatch(root.name) else (root,)
    for base in bases:
        for folder in (base / STANDARD / split, base / split):
            if lists := sorted(folder.glob("*.json"), key=natural_key):
                return lists
    beside = [path for path in sorted(root.glob("*.json"), key=natural_key) if (root / path.stem).is_dir()]
    return beside if split == STANDARD else []


def _images(root: Path, categories: list[str]) -> Path:
    if any((root / name).is_dir() for name in categories):
        return root
    resolutions = [folder for folder in folders(root) if _RESOLUTION.fullmatch(folder.name)]
    if len(resolutions) > 1:
        names = ", ".join(folder.name for folder in resolutions)
        raise DataError(f"{root}: holds {names}; give one of them instead, such as {resolutions[0]}")
    if not resolutions:
        raise DataError(f"{root}: has lists but no images; put realiad_256 (or 512, 1024, raw) there")
    return resolutions[0]


def _listed(path: Path, images: Path, contaminated: bool) -> Iterator[tuple[str, Sample | DataError]]:
    try:
        content = json.loads(path.read_bytes())
        meta = content.get("meta", {})
        files = Named(images / meta.get("prefix", path.stem))
        normal = meta.get("normal_class", "OK")
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise _no_list(path, error) from error
    for part in ("train", "test"):
        try:
            for row in content[part]:
                is_good = row["anomaly_class"] == normal or (contaminated and part == "train")
                yield part, _sample(row, files, path.stem, GOOD if is_good else row["anomaly_class"])
        except (KeyError, TypeError, AttributeError) as error:
            yield part, _no_list(path, error)


def _no_list(path: Path, error: Exception) -> DataError:
    why = f"{type(error).__name__}: {error}"
    return DataError(f"{path}: is no list of Real-IAD ({why}); copy the lists again")


def _sample(row: dict[str, Any], files: Named, category: str, defect: str) -> Sample:
    image, mask = row["image_path"], row.get("mask_path") if defect != GOOD else None
    return Sample(
        path=files.path(image),
        category=composed(category),
        defect=defect,
        mask_path=files.path(mask) if mask else None,
        mask_above=MASK_ABOVE if mask else None,
        sample_id=f"{category}/{image.rpartition('/')[0]}",
    )
