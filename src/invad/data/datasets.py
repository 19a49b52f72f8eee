"""Folders and lists of images as samples for training and test. Nothing is moved or written.

`DATASETS` names the layouts; the modules of `invad.data.layouts` read them.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from invad.data.formats import IMAGE_SUFFIXES
from invad.data.layouts import bmad, folder, kolektor, manifest, meta, mvtec, real_iad, visa
from invad.data.layouts.base import Dataset, Layout, category_name
from invad.errors import ConfigError, DataError
from invad.records import Sample
from invad.system.files import is_file, is_folder, is_there

LIST_SUFFIXES = (*manifest.SUFFIXES, ".json")


def load_dataset(
    root: str | Path,
    *,
    categories: str | Iterable[str] | None = None,
    layout: str = "auto",
    split: str | None = None,
) -> Dataset:
    """Read a folder or a list (CSV, Parquet, JSON) of images as training and test samples.

    Upper and lower case of folder names do not matter.

    layout: a key of DATASETS or of ALIASES, or "auto" for the first of DATASETS that recognises the root.
    categories: keep only these. split: one of the layout's splits, by default its first.

    Raises DataError when the root is missing, holds no images or is ambiguous, and when a list names files
    that do not exist; ConfigError for an unknown layout or split.
    """
    dataset = read_dataset(root, categories=categories, layout=layout, split=split)
    if DATASETS[dataset.layout].listed:
        _require_files(dataset)
    return dataset


def read_dataset(
    root: str | Path,
    *,
    categories: str | Iterable[str] | None = None,
    layout: str = "auto",
    split: str | None = None,
) -> Dataset:
    """As `load_dataset`, but files that a list names may be absent."""
    root = Path(root)
    if not is_there(root):
        raise DataError(f"{root}: no such folder; give a folder of images")
    if not is_folder(root) and root.suffix.lower() not in LIST_SUFFIXES:
        raise DataError(f"{root}: is a file; give a folder of images or a list ({', '.join(LIST_SUFFIXES)})")
    layout = ALIASES.get(layout, layout)
    if layout == "auto":
        layout = recognise(root)
    if layout not in DATASETS:
        raise ConfigError(f"layout {layout!r} is unknown; choose auto, {', '.join(DATASETS)}")
    if is_file(root) and layout not in ("manifest", "meta"):
        raise DataError(f"{root}: is a list, no folder of layout {layout}; leave the layout away")
    _require_split(layout, split)
    train, test, left_out = DATASETS[layout].read(root, split)
    if not train and not test:
        raise DataError(f"{root}: no images; give a folder with {', '.join(IMAGE_SUFFIXES)} files")
    dataset = Dataset(root=root, layout=layout, train=train, test=test, left_out=left_out)
    return dataset if categories is None else dataset.only(categories)


def normal_images(path: str | Path, *, layout: str = "auto", split: str | None = None) -> tuple[Sample, ...]:
    """The normal images of a path: the file itself, or what `load_dataset` would train on.

    The category of a file or of a folder of images is the name of its folder; folders called good or train
    are passed over, and the next one above gives the name. Raises DataError as `load_dataset`, and for a
    file that is no image.
    """
    path = Path(path)
    if not is_file(path) or path.suffix.lower() in LIST_SUFFIXES:
        return load_dataset(path, layout=layout, split=split).train
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: not an image file; give one of {', '.join(IMAGE_SUFFIXES)}")
    return (Sample(path=path, category=category_name(path.parent)),)


def recognise(root: Path) -> str:
    """Key of the first layout of DATASETS that looks like this folder, or of the list that this file is."""
    if is_file(root):
        return "manifest" if manifest.is_manifest(root) else "meta"
    return next(name for name, known in DATASETS.items() if known.recognise(root))


def _require_split(layout: str, split: str | None) -> None:
    known = DATASETS[layout]
    if split is None or known.any_split or split in known.splits:
        return
    choice = f"choose {', '.join(known.splits)}" if known.splits else "it has only one, leave the option away"
    raise ConfigError(f"layout {layout} has no split {split!r}; {choice}")


def _require_files(dataset: Dataset) -> None:
    """One look into each folder instead of one at each file: lists can name 100,000 of them."""
    listings: dict[Path, frozenset[str]] = {}

    def found(path: Path) -> bool:
        parent = path.parent
        if parent not in listings:
            listings[parent] = _names_in(parent)
        return path.name in listings[parent] or is_file(path)

    samples = (*dataset.train, *dataset.test, *dataset.left_out)
    named = (path for sample in samples for path in (sample.path, sample.mask_path) if path is not None)
    absent = [path for path in named if not found(path)]
    if absent:
        lost = {s.category for s in samples if not found(s.path)}
        where = f" (in {', '.join(sorted(lost)[:5])})" if lost and len(dataset.categories) > 1 else ""
        raise DataError(
            f"{dataset.root}: {len(absent)} files that its list names do not exist{where}, the first "
            f"{absent[0]}; copy them or choose other categories"
        )


def _names_in(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()


DATASETS: dict[str, Layout] = {
    "visa": Layout(read=visa.visa, recognise=visa.is_visa, splits=visa.SPLITS, listed=True),
    "real_iad": Layout(
        read=real_iad.real_iad, recognise=real_iad.is_real_iad, splits=real_iad.SPLITS, listed=True
    ),
    "bmad": Layout(read=bmad.bmad, recognise=bmad.is_bmad, splits=bmad.SPLITS),
    "kolektor_sdd": Layout(read=kolektor.kolektor_sdd, recognise=kolektor.is_kolektor_sdd),
    "kolektor_sdd2": Layout(read=kolektor.kolektor_sdd2, recognise=kolektor.is_kolektor_sdd2),
    "btad": Layout(read=mvtec.btad, recognise=mvtec.is_btad),
    "mpdd": Layout(read=mvtec.mvtec, recognise=mvtec.is_mpdd),
    "mvtec": Layout(read=mvtec.mvtec, recognise=mvtec.is_mvtec),
    "manifest": Layout(read=manifest.manifest, recognise=manifest.is_manifest, any_split=True, listed=True),
    "meta": Layout(read=meta.meta, recognise=meta.is_meta, listed=True),
    "folder": Layout(read=folder.folder, recognise=folder.is_folder),
}
"""Layouts by name, in the order in which "auto" tries them: the particular before the general."""

ALIASES = {"mvtec_ad": "mvtec"}
