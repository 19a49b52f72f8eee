"""What every layout is made of: folders by name, samples, masks by name, a split where there is none."""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from invad.data.listing import is_passed_over, list_images, natural_key, stem
from invad.data.lists import composed
from invad.errors import DataError, reason
from invad.records import GOOD, Sample
from invad.system.arguments import require

GOOD_NAMES = ("good", "ok", "normal")
MASK_NAMES = ("ground_truth", "masks")
SPLIT_NAMES = ("train", "test", "val", "valid", "validation")
TEST_SHARE = 0.2
"""Share of the normal images held out for testing when a folder comes without a split."""


class Problem(NamedTuple):
    """What is wrong with the test part of a set, in one line. category: None: of the set as a whole."""

    category: str | None
    line: str


class Split(NamedTuple):
    """train: normal samples. test: normal and defective ones. left_out: defective ones of a training part.

    problems: of the test part, which never stop a training. notes: what was not taken on purpose.
    """

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    left_out: tuple[Sample, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Samples of one or more categories, in natural order of their paths or in that of the list.

    layout: key of DATASETS that read it. train: normal images only. test: normal and defective ones,
    perhaps none. left_out: defective images of a training part, which nobody trains on. No file is in two.
    problems: what is wrong with the test part; whoever needs that part takes `sound_test`. notes: what a list
    names and was not taken.
    """

    root: Path
    layout: str
    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    left_out: tuple[Sample, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def sound_test(self) -> tuple[Sample, ...]:
        """The test samples. Raises DataError when something is wrong with that part of the set."""
        if self.problems:
            more = len(self.problems) - 1
            raise DataError(
                self.problems[0].line + (f"; 'invad data check' lists {more} more" if more else "")
            )
        return self.test

    @property
    def categories(self) -> tuple[str, ...]:
        """Names of the categories of all samples, in alphabetical order."""
        return tuple(sorted({sample.category for sample in (*self.train, *self.test, *self.left_out)}))

    def only(self, categories: str | Iterable[str]) -> "Dataset":
        """The part of the set in these categories, whatever the form of their accents.

        Raises DataError for a name it does not have.
        """
        require(categories=(categories, str | Iterable))
        names = [categories] if isinstance(categories, str) else [*categories]
        for name in names:
            require(category=(name, str))
        wanted = {composed(name) for name in names}
        unknown = sorted(wanted.difference(map(composed, self.categories)))
        if unknown or not wanted:
            problem = f"no category {', '.join(unknown)}" if unknown else "no category chosen"
            raise DataError(f"{self.root}: {problem}; choose from {', '.join(self.categories)}")

        def kept(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
            return tuple(sample for sample in samples if composed(sample.category) in wanted)

        problems = tuple(p for p in self.problems if p.category is None or composed(p.category) in wanted)
        return replace(
            self,
            train=kept(self.train),
            test=kept(self.test),
            left_out=kept(self.left_out),
            problems=problems,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way in which data sets lie on disk.

    read: (root, name of the split or None) -> samples. recognise: whether a root has this layout; it looks at
    names and opens list files only. splits: names that `read` knows, the default first; empty when there is
    nothing to choose. any_split: the names are the data's own, so that `read` judges them. listed: a file
    names the images, so they may be absent. whole: every image below the root belongs to some part, so that
    others have been put in a wrong place.
    """

    read: Callable[[Path, str | None], Split]
    recognise: Callable[[Path], bool]
    splits: tuple[str, ...] = ()
    any_split: bool = False
    listed: bool = False
    whole: bool = False


def folders(folder: Path) -> list[Path]:
    """Folders in a folder in natural order, hidden ones left out. Raises DataError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not is_passed_over(entry.name) and entry.is_dir()]
    except OSError as error:
        raise DataError(f"{folder}: {reason(error, writing=False)}") from error
    return sorted((folder / name for name in names), key=natural_key)


def child(folder: Path, names: Collection[str]) -> Path | None:
    """The folder in `folder` that has one of these lower-case names, in any case."""
    alike = [path for path in folders(folder) if path.name.casefold() in names]
    if len(alike) > 1:
        raise DataError(f"{folder}: has both {alike[0].name} and {alike[1].name}; merge them into one folder")
    return alike[0] if alike else None


def category_name(folder: Path) -> str:
    """Name of a folder, looking past folders that only say good or train."""
    folder = folder.resolve() if folder.name in ("", "..") else folder.absolute()
    while folder.name.casefold() in (*GOOD_NAMES, *SPLIT_NAMES) and folder.parent.name:
        folder = folder.parent
    return composed(folder.name) or "images"


def normal_samples(paths: Iterable[Path], category: str) -> tuple[Sample, ...]:
    return tuple(Sample(path=path, category=category) for path in paths)


@contextmanager
def kept_as_problem(problems: list[Problem], category: str | None) -> Iterator[None]:
    """Around what reads the test part: its error becomes a problem and what follows goes on."""
    try:
        yield
    except DataError as error:
        problems.append(Problem(category, str(error)))


def defects(
    category: str, kind: Path, images: Collection[Path], masks: Mapping[str, Path], problems: list[Problem]
) -> list[Sample]:
    """Samples of the images of one kind of defect, with their masks; masks that fit none are a problem."""
    drawn = {path: _find_mask(masks, kind, path) for path in images}
    own = next((path for name, path in masks.items() if name.startswith(f"{_name(Path(kind.name))}/")), None)
    if own is not None and images and not any(drawn.values()):
        first = next(iter(images))
        if own.parent.name in {stem(path) for path in images}:
            line = f"{own.parent}: a folder of masks of one image; merge them into {own.parent.name}_mask.png"
        else:
            line = (
                f"{own}: no mask of {kind.name} fits an image; name it {stem(first)}_mask.png after "
                f"{first.name}"
            )
        problems.append(Problem(category, line))
    return [
        Sample(path=path, category=category, defect=kind.name, mask_path=mask) for path, mask in drawn.items()
    ]


def masks_of(root: Path, category: str, problems: list[Problem]) -> dict[str, Path]:
    """Mask files of a category by path below the mask folder, without suffix, such as "scratch/007_mask"."""
    masks: dict[str, Path] = {}
    with kept_as_problem(problems, category):
        folder = child(root, MASK_NAMES)
        for path in list_images(folder) if folder else ():
            name = _name(path.relative_to(folder).with_name(stem(path))) if folder else ""
            if other := masks.get(name):
                problems.append(
                    Problem(category, f"{path}: a second mask beside {other.name}; keep one of them")
                )
            masks.setdefault(name, path)
    return masks


def _name(path: Path) -> str:
    """macOS writes an accent as a character of its own."""
    return composed(path.as_posix())


def _find_mask(masks: Mapping[str, Path], kind: Path, image: Path) -> Path | None:
    """Mask of image <defect>/<x>: <defect>/<x>_mask or <defect>/<x>, else <x>_mask or <x>, of any suffix."""
    own, defect = _name(image.relative_to(kind).with_name(stem(image))), _name(Path(kind.name))
    for name in (f"{defect}/{own}_mask", f"{defect}/{own}", f"{own}_mask", own):
        if name in masks:
            return masks[name]
    return None


def held_out(paths: Collection[Path], base: Path) -> frozenset[Path]:
    """The fifth of the paths that is kept for testing: those whose hashed name below `base` is lowest.

    A hash per name, not a shuffle of the list: images added later never move one that was trained on into
    the test set. Of two or more at least one is held out and one kept.
    """

    def position(path: Path) -> float:
        below = path.relative_to(base) if path.is_relative_to(base) else path
        name = composed(below.as_posix())
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64

    if len(paths) < 2:
        return frozenset()
    placed = sorted((position(path), path) for path in paths)
    lowest = [path for place, path in placed if place < TEST_SHARE] or [placed[0][1]]
    return frozenset(lowest[: len(paths) - 1])


def refuse_stray_images(folder: Path) -> None:
    for path in list_images(folder, recursive=False)[:1]:
        raise DataError(
            f"{path}: is it normal? move it to {folder / GOOD} or to a folder named after its defect"
        )


def refuse_clashes(root: Path, categories: Iterable[Path]) -> None:
    seen: dict[str, str] = {}
    for path in categories:
        other = seen.setdefault(composed(path.name).casefold(), path.name)
        if other != path.name:
            raise DataError(
                f"{root}: categories {other} and {path.name} differ only in case or in how an accent is "
                "written; rename one"
            )


def joined(splits: Iterable[Split]) -> Split:
    parts = list(splits)
    return Split(
        train=tuple(sample for part in parts for sample in part.train),
        test=tuple(sample for part in parts for sample in part.test),
        left_out=tuple(sample for part in parts for sample in part.left_out),
        problems=tuple(problem for part in parts for problem in part.problems),
    )


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """In natural order of the paths."""
    return tuple(sorted(samples, key=lambda sample: natural_key(sample.path)))


def shared_masks(samples: Iterable[Sample]) -> Iterator[Problem]:
    """The masks that would be those of two images."""
    owners: dict[Path, Path] = {}
    for sample in samples:
        if sample.mask_path and (other := owners.setdefault(sample.mask_path, sample.path)) != sample.path:
            yield Problem(
                sample.category,
                f"{sample.mask_path}: mask of {other} or of {sample.path}? sort masks by defect",
            )


def sorted_out(rows: Iterable[tuple[str, Sample | DataError]], test: str) -> Split:
    """Samples by the name of their part: "train", and `test` for the part to test on; others are not read.

    An error in the place of a sample is raised for the training part, and a problem of the part to test on.
    """
    train: list[Sample] = []
    tests: list[Sample] = []
    left_out: list[Sample] = []
    problems: list[Problem] = []
    for part, sample in rows:
        if isinstance(sample, DataError):
            if part == "train":
                raise sample
            if part == test:
                problems.append(Problem(None, str(sample)))
        elif part == test:
            tests.append(sample)
        elif part == "train":
            (left_out if sample.is_anomalous else train).append(sample)
    return Split(tuple(train), tuple(tests), tuple(left_out), tuple(problems))


def masks_above(split: Split, level: int) -> Split:
    """The split with a level above which all its masks are defective."""

    def ruled(sample: Sample) -> Sample:
        return replace(sample, mask_above=level) if sample.mask_path else sample

    return Split(
        train=tuple(map(ruled, split.train)),
        test=tuple(map(ruled, split.test)),
        left_out=tuple(map(ruled, split.left_out)),
        problems=split.problems,
    )
