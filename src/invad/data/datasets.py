"""Folders of images as samples for training and test. Files are only listed, never moved or opened."""

import hashlib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from invad.data.images import IMAGE_SUFFIXES, list_images, natural_key
from invad.errors import ConfigError, DataError
from invad.records import GOOD, Sample

GOOD_NAMES = ("good", "ok", "normal")
MASK_NAMES = ("ground_truth", "masks")
SPLIT_NAMES = ("train", "test", "val", "valid", "validation")
TEST_SHARE = 0.2
"""Share of the normal images held out for testing when a folder comes without a split."""

Split = tuple[tuple[Sample, ...], tuple[Sample, ...]]
"""Samples to train on (normal only) and samples to test on."""


@dataclass(frozen=True)
class Dataset:
    """Samples of one or more categories, in natural order of their paths.

    layout: key of DATASETS that read it. train: normal images only. test: normal and defective ones,
    perhaps none. No file is in both.
    """

    root: Path
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({sample.category for sample in (*self.train, *self.test)}))

    def only(self, categories: str | Iterable[str]) -> "Dataset":
        """The part of the set in these categories. Raises DataError for a name it does not have."""
        wanted = {categories} if isinstance(categories, str) else set(categories)
        unknown = sorted(wanted.difference(self.categories))
        if unknown or not wanted:
            problem = f"no category {', '.join(unknown)}" if unknown else "no category chosen"
            raise DataError(f"{self.root}: {problem}; choose from {', '.join(self.categories)}")
        return replace(
            self,
            train=tuple(sample for sample in self.train if sample.category in wanted),
            test=tuple(sample for sample in self.test if sample.category in wanted),
        )


def load_dataset(
    root: str | Path, *, categories: str | Iterable[str] | None = None, layout: str = "auto"
) -> Dataset:
    """Find out what is in a folder. Names of folders are compared without case.

    layout: a key of DATASETS, or "auto": "mvtec" when the root or a folder in it has a folder `train`,
        else "folder".
    categories: keep only these.

    Raises DataError when the folder is missing, holds no images or is ambiguous, ConfigError for an
    unknown layout.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(
            f"{root}: {'is a file' if root.exists() else 'no such folder'}; give a folder of images"
        )
    if layout == "auto":
        splits = [_child(folder, ("train",)) for folder in (root, *_folders(root))]
        layout = "mvtec" if any(splits) else "folder"
    if layout not in DATASETS:
        raise ConfigError(f"layout {layout!r} is unknown; choose auto, {', '.join(DATASETS)}")
    train, test = DATASETS[layout](root)
    if not train and not test:
        raise DataError(f"{root}: no images; give a folder with {', '.join(IMAGE_SUFFIXES)} files")
    dataset = Dataset(root=root, layout=layout, train=train, test=test)
    return dataset if categories is None else dataset.only(categories)


def normal_images(path: str | Path) -> tuple[Sample, ...]:
    """The normal images a path stands for: one file, or what `load_dataset` would train on.

    The category of a file or of a folder of images is the name of its folder, looking past folders
    that only say good or train. Raises DataError as `load_dataset`, and for a file that is no image.
    """
    path = Path(path)
    if not path.is_file():
        return load_dataset(path).train
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: not an image file; give one of {', '.join(IMAGE_SUFFIXES)}")
    return (Sample(path=path, category=_category_name(path.parent)),)


def mvtec(root: Path) -> Split:
    """MVTec AD layout, also of VisA (pytorch), MPDD and BTAD: one category folder or a folder of them.

    A category holds `train/good`, and may hold `test/good`, `test/<defect>` and masks in
    `ground_truth/<defect>` (see `_find_mask`). Images lie directly in these folders. `good` may be
    called `ok` or `normal`. Other folders, such as `valid`, are not read.
    """
    if _child(root, ("train",)):
        return _mvtec_category(root)
    parts = [folder for folder in _folders(root) if _child(folder, ("train",))]
    if not parts:
        raise DataError(
            f"{root}: no category with train/good; see the layout of MVTec AD or use layout folder"
        )
    for other in _folders(root):
        if other not in parts and _child(other, ("test",)):
            raise DataError(f"{other}: has test but no train; put its normal training images in train/{GOOD}")
    _refuse_clashes(root, parts)
    return _joined(_mvtec_category(folder) for folder in parts)


def folder(root: Path) -> Split:
    """Images without a split: a plain folder of normal images, one category, or a folder of categories.

    A category holds `good` (or `ok`, `normal`) and may hold one folder per kind of defect, all read
    with their sub-folders, and masks in `ground_truth` or `masks` (see `_find_mask`). With defects,
    the normal images whose hashed name falls in the lowest 20 % are held out for testing, the same
    ones on every machine and whatever images are added later; at least one is (if there are two).
    Without defects all normal images are for training.
    """
    if _child(root, GOOD_NAMES):
        return _folder_category(root)
    kinds = [kind for kind in _folders(root) if kind.name.casefold() not in MASK_NAMES and list_images(kind)]
    parts = [kind for kind in kinds if _child(kind, GOOD_NAMES)]
    plain = list_images(root, recursive=False)
    if kinds and (plain or len(parts) < len(kinds)):
        odd = next((kind.name for kind in kinds if kind not in parts), kinds[0].name)
        raise DataError(
            f"{root}: is sub-folder {odd} normal or defective? put the normal images in {root / GOOD}"
        )
    _refuse_clashes(root, parts)
    if parts:
        return _joined(_folder_category(part) for part in parts)
    return _samples(plain, _category_name(root)), ()


def _mvtec_category(root: Path) -> Split:
    category = _category_name(root)
    train = _child(root, ("train",))
    assert train is not None
    good = _child(train, GOOD_NAMES)
    if good is None:
        raise DataError(f"{train}: has no folder good; put the normal training images in {train / GOOD}")
    for other in _folders(train):
        if other != good:
            raise DataError(f"{other}: training takes normal images only; move it to {root / 'test'}")
    _refuse_stray_images(train)
    normal = list_images(good, recursive=False)
    if not normal:
        raise DataError(f"{good}: no images in it; put the normal training images there")
    test = _child(root, ("test",))
    if test is None:
        return _samples(normal, category), ()
    _refuse_stray_images(test)
    test_good = _child(test, GOOD_NAMES)
    tests = list(_samples(list_images(test_good, recursive=False), category) if test_good else ())
    for kind in _folders(test):
        if kind != test_good:
            tests += _defects(root, category, kind, list_images(kind, recursive=False))
    return _samples(normal, category), _as_test(tests)


def _folder_category(root: Path) -> Split:
    category = _category_name(root)
    good = _child(root, GOOD_NAMES)
    assert good is not None
    _refuse_stray_images(root)
    normal = list_images(good)
    if not normal:
        raise DataError(f"{good}: no images in it; put the normal images there")
    defects: list[Sample] = []
    for kind in _folders(root):
        if kind.name.casefold() in SPLIT_NAMES:
            raise DataError(
                f"{kind}: a split beside {good.name}; move {good.name} to {root / 'train' / GOOD}"
            )
        if kind != good and kind.name.casefold() not in MASK_NAMES and (images := list_images(kind)):
            defects += _defects(root, category, kind, images)
    held_out = _held_out(normal, good) if defects else frozenset()
    train = [path for path in normal if path not in held_out]
    test = [path for path in normal if path in held_out]
    return _samples(train, category), _as_test([*_samples(test, category), *defects])


def _held_out(paths: Collection[Path], good: Path) -> frozenset[Path]:
    # A hash per name, not a shuffle of the list: images added later never move one that was
    # trained on into the test set.
    def position(path: Path) -> float:
        name = unicodedata.normalize("NFC", path.relative_to(good).as_posix())
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64

    if len(paths) < 2:
        return frozenset()
    ranked = sorted(paths, key=position)
    chosen = [path for path in ranked if position(path) < TEST_SHARE] or ranked[:1]
    return frozenset(chosen[: len(paths) - 1])


def _samples(paths: Iterable[Path], category: str) -> tuple[Sample, ...]:
    return tuple(Sample(path=path, category=category) for path in paths)


def _defects(root: Path, category: str, kind: Path, images: Collection[Path]) -> list[Sample]:
    if not images:
        raise DataError(f"{kind}: no images directly in it; put its images there or remove the folder")
    masks = _masks(root)
    found = {path: _find_mask(masks, kind, path) for path in images}
    own = next((path for name, path in masks.items() if name.startswith(f"{kind.name}/")), None)
    if own is not None and not any(found.values()):
        first = next(iter(images))
        raise DataError(
            f"{own}: no mask of {kind.name} fits an image; name it {first.stem}_mask.png after {first.name}"
        )
    return [
        Sample(path=path, category=category, defect=kind.name, mask_path=mask) for path, mask in found.items()
    ]


def _masks(root: Path) -> dict[str, Path]:
    """Mask files of a category by path below the mask folder, without suffix, such as "scratch/007_mask"."""
    folder = _child(root, MASK_NAMES)
    masks: dict[str, Path] = {}
    for path in list_images(folder) if folder else ():
        name = path.relative_to(folder).with_suffix("").as_posix() if folder else ""
        if name in masks:
            raise DataError(f"{path}: a second mask beside {masks[name].name}; keep one of them")
        masks[name] = path
    return masks


def _find_mask(masks: dict[str, Path], kind: Path, image: Path) -> Path | None:
    """Mask of image <defect>/<x>: <defect>/<x>_mask or <defect>/<x>, else <x>_mask or <x>, of any suffix."""
    stem = image.relative_to(kind).with_suffix("").as_posix()
    for name in (f"{kind.name}/{stem}_mask", f"{kind.name}/{stem}", f"{stem}_mask", stem):
        if name in masks:
            return masks[name]
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        inside = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}; allow reading this folder") from error
    return sorted(inside, key=natural_key)


def _child(folder: Path, names: Collection[str]) -> Path | None:
    found = [path for path in _folders(folder) if path.name.casefold() in names]
    if len(found) > 1:
        raise DataError(f"{folder}: has both {found[0].name} and {found[1].name}; merge them into one folder")
    return found[0] if found else None


def _category_name(folder: Path) -> str:
    folder = folder.resolve() if folder.name in ("", "..") else folder.absolute()
    while folder.name.casefold() in (*GOOD_NAMES, *SPLIT_NAMES) and folder.parent.name:
        folder = folder.parent
    return folder.name or "images"


def _refuse_stray_images(folder: Path) -> None:
    for path in list_images(folder, recursive=False)[:1]:
        raise DataError(
            f"{path}: is it normal? move it to {folder / GOOD} or to a folder named after its defect"
        )


def _refuse_clashes(root: Path, categories: Iterable[Path]) -> None:
    seen: dict[str, str] = {}
    for path in categories:
        other = seen.setdefault(path.name.casefold(), path.name)
        if other != path.name:
            raise DataError(f"{root}: categories {other} and {path.name} differ only in case; rename one")


def _joined(splits: Iterator[Split]) -> Split:
    pairs = list(splits)
    return tuple(s for train, _ in pairs for s in train), tuple(s for _, test in pairs for s in test)


def _as_test(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    ordered = tuple(sorted(samples, key=lambda sample: natural_key(sample.path)))
    owners: dict[Path, Path] = {}
    for sample in ordered:
        if sample.mask_path and (other := owners.setdefault(sample.mask_path, sample.path)) != sample.path:
            raise DataError(f"{sample.mask_path}: mask of {other} or of {sample.path}? sort masks by defect")
    return ordered


DATASETS: dict[str, Callable[[Path], Split]] = {"mvtec": mvtec, "folder": folder}
"""Layouts by name. A new one is a function here: root folder -> (train, test)."""
