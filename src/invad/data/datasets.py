"""Folders and lists of images as samples for training and test. Nothing is moved or written.

`DATASETS` names the layouts; the modules of `invad.data.layouts` read them.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from invad.data.formats import IMAGE_SUFFIXES
from invad.data.layouts import bmad, folder, kolektor, manifest, meta, mvtec, real_iad, visa
from invad.data.layouts.base import Dataset, Layout, Problem, category_name
from invad.data.listing import is_image, survey
from invad.errors import ConfigError, DataError
from invad.records import Sample
from invad.system.arguments import path_of, require
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

    Upper and lower case of folder names do not matter. What is wrong with the test part does not stop a
    training: it is in `Dataset.problems`, and `Dataset.sound_test` raises it.

    layout: a key of DATASETS or of ALIASES, or "auto" for the first of DATASETS that recognises the root.
    categories: keep only these. split: one of the layout's splits, by default its first.

    Raises DataError when the root is missing, holds no images or is ambiguous, and when a list names
    training images that do not exist; ConfigError for an unknown layout or split.
    """
    return selected(read_dataset(root, layout=layout, split=split), categories)


def selected(dataset: Dataset, categories: str | Iterable[str] | None) -> Dataset:
    """What `load_dataset` makes of a set that was read: these categories, and files that are there."""
    dataset = dataset if categories is None else dataset.only(categories)
    return _with_files(dataset) if DATASETS[dataset.layout].listed else dataset


def read_dataset(root: str | Path, *, layout: str = "auto", split: str | None = None) -> Dataset:
    """As `load_dataset`, but files that a list names may be absent."""
    root = path_of(root, "root")
    require(layout=(layout, str), split=(split, str | None))
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
    train, test, left_out, problems, notes = DATASETS[layout].read(root, split)
    if not train and not test:
        said = f"no images; give a folder with {', '.join(IMAGE_SUFFIXES)} files"
        raise DataError(problems[0].line if problems else f"{root}: {said}")
    return Dataset(root, layout, train, test, left_out, problems, notes)


def not_taken(dataset: Dataset) -> tuple[str, ...]:
    """What lies below the root of a set that was read and is in no part of it, one line for each reason.

    Files that are no images of a known format, images where the layout reads none, and what a list names and
    was not taken.
    """
    if not is_folder(dataset.root):
        return dataset.notes
    try:
        others = survey(dataset.root)
    except DataError as error:  # a folder that nobody may open need not be one that is read
        return (*dataset.notes, str(error))
    images = _elsewhere(dataset, others.images) if DATASETS[dataset.layout].whole else []
    if not images:
        return (*dataset.notes, *others.in_words())
    number = "1 image was" if len(images) == 1 else f"{len(images)} images were"
    line = f"{number} not taken, the first {images[0]}: layout {dataset.layout} reads none there; move it"
    return (*others.in_words(), line)


def _elsewhere(dataset: Dataset, images: Iterable[Path]) -> list[Path]:
    samples = (*dataset.train, *dataset.test, *dataset.left_out)
    used = {path for sample in samples for path in (sample.path, sample.mask_path) if path is not None}
    others = [path for path in images if path not in used]
    if not others:
        return []
    real = set(map(os.path.realpath, used))  # links give a file several names
    return [path for path in others if os.path.realpath(path) not in real]


def normal_images(path: str | Path, *, layout: str = "auto", split: str | None = None) -> tuple[Sample, ...]:
    """The training images of `normal_set`."""
    return normal_set(path, layout=layout, split=split).train


def all_samples(given: Sequence[Any]) -> Sequence[Sample]:
    """What was given in place of a folder. Raises ConfigError where one is no Sample, such as a path."""
    require(samples=(given, Iterable))
    for one in given:
        if not isinstance(one, Sample):
            said = f"{str(one)[:100]!r} is a {type(one).__name__}, no Sample"
            raise ConfigError(f"{said}; give a folder, or Sample(path=..., category=...) for each image")
    return given


def normal_set(path: str | Path, *, layout: str = "auto", split: str | None = None) -> Dataset:
    """A set for its normal images: that of `load_dataset`, or one of the file that the path is.

    The category of a file or of a folder of images is the name of its folder; folders called good or train
    are passed over, and the next one above gives the name. Raises DataError as `load_dataset`, and for a
    file that is no image.
    """
    path = Path(path)
    if not is_file(path) or path.suffix.lower() in LIST_SUFFIXES:
        return load_dataset(path, layout=layout, split=split)
    if not is_image(path):
        raise DataError(f"{path}: not an image file; give one of {', '.join(IMAGE_SUFFIXES)}")
    return Dataset(path, "folder", (Sample(path=path, category=category_name(path.parent)),), ())


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


def _with_files(dataset: Dataset) -> Dataset:
    """The set, with the absent files of its test part as problems. Raises DataError for training images.

    One look into each folder instead of one at each file: lists can name 100,000 of them.
    """
    listings: dict[Path, frozenset[str]] = {}

    def is_reachable(path: Path) -> bool:
        parent = path.parent
        if parent not in listings:
            listings[parent] = _names_in(parent)
        return path.name in listings[parent] or is_file(path)

    if lost := [s for s in dataset.train if not is_reachable(s.path)]:
        raise DataError(_absent(dataset, [s.path for s in lost], {s.category for s in lost}))
    absent: dict[str, list[Path]] = {}
    for sample in (*dataset.test, *dataset.left_out):
        for path in (sample.path, sample.mask_path):
            if path is not None and not is_reachable(path):
                absent.setdefault(sample.category, []).append(path)
    problems = [Problem(name, _absent(dataset, paths, {name})) for name, paths in absent.items()]
    return replace(dataset, problems=(*dataset.problems, *problems))


def _absent(dataset: Dataset, paths: list[Path], categories: set[str]) -> str:
    where = f" (in {', '.join(sorted(categories)[:5])})" if len(dataset.categories) > 1 else ""
    return (
        f"{dataset.root}: {len(paths)} files that its list names do not exist{where}, the first {paths[0]}; "
        "copy them or choose other categories"
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
    "btad": Layout(read=mvtec.btad, recognise=mvtec.is_btad, whole=True),
    "mpdd": Layout(read=mvtec.mvtec, recognise=mvtec.is_mpdd, whole=True),
    "mvtec": Layout(read=mvtec.mvtec, recognise=mvtec.is_mvtec, whole=True),
    "manifest": Layout(read=manifest.manifest, recognise=manifest.is_manifest, any_split=True, listed=True),
    "meta": Layout(read=meta.meta, recognise=meta.is_meta, listed=True),
    "folder": Layout(read=folder.folder, recognise=folder.is_folder, whole=True),
}
"""Layouts by name, in the order in which "auto" tries them: the particular before the general."""

ALIASES = {"mvtec_ad": "mvtec"}
