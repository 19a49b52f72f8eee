"""Whether a data set is what it should be: every image and mask is opened once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.content import BLANK, SHORT, copies, copies_in_words, pixel_digest
from invad.data.datasets import not_taken, read_dataset
from invad.data.images import turned
from invad.data.layouts.base import Dataset
from invad.data.masks import doubt, mask_split, read_mask_levels
from invad.data.samples import read_sample
from invad.errors import DataError
from invad.observer import Observer
from invad.records import Hw, Sample

MANY_LEVELS = 4
"""Masks with more levels than this are described by their range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """counts: category -> numbers of train, test_good, test_defective, masks, left_out.

    problems: one line each, what makes figures wrong or a run fail. notes: what is good to know.
    """

    root: Path
    layout: str
    counts: dict[str, dict[str, int]]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check_dataset(
    root: str | Path,
    *,
    layout: str = "auto",
    split: str | None = None,
    stage: Callable[[str, int], None] = lambda name, total: None,
    advance: Callable[[], None] = lambda: None,
) -> Findings:
    """Read a whole set, see `load_dataset`, and say what is wrong with it; `stage` and `advance` watch.

    Problems: what is wrong with the test part, files that cannot be read or are absent, masks of another size
    than their image or without a defective pixel, masks that mark a good image, masks with levels whose
    meaning nobody stated, defective images without a mask in a category that has masks, equal pixels within
    or across train and test. Raises as `load_dataset` when nothing is there.
    """
    dataset = read_dataset(root, layout=layout, split=split)
    samples = (*dataset.train, *dataset.test, *dataset.left_out)
    stage("checking", len(samples))
    seen = _Seen()
    for sample in samples:
        seen.look_at(sample)
        advance()
    problems = [
        *(problem.line for problem in dataset.problems),
        *seen.problems,
        *_copies(dataset, seen.marks),
        *_leaks(dataset, seen.marks),
        *_missing_masks(dataset),
    ]
    notes = [
        *not_taken(dataset),
        *_kinds(samples),
        *_sizes(seen.sizes),
        *_unmasked(dataset),
        *seen.splits_in_words(),
        *seen.turned_in_words(),
        *_left_out(dataset),
    ]
    return Findings(
        root=dataset.root,
        layout=dataset.layout,
        counts=count(dataset),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def also_tested(dataset: Dataset, trained: Iterable[str], observer: Observer) -> Iterable[str]:
    """What to say of test images with the pixels of a training image; nothing where there is none.

    trained: see `short_digests`. Images that cannot be read are passed over: training does not need them.
    """
    known = set(trained)
    if not dataset.test or not known:
        return
    observer.stage("comparing with the test part", len(dataset.test))
    seen = []
    for sample in dataset.test:
        with suppress(DataError):
            if pixel_digest(read_sample(sample))[:SHORT] in known:
                seen.append(sample.path)
        observer.advance()
    if seen:
        several = len(seen) > 1
        yield (
            f"{len(seen)} of {len(dataset.test)} images of the test part, the first {seen[0]}, "
            f"{'have' if several else 'has'} the pixels of an image that was trained on, so a test would "
            "flatter the model; 'invad data check' names both, remove one of them"
        )


def count(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Category -> numbers of train, test_good, test_defective, masks and left_out."""
    counts = {
        name: dict.fromkeys(("train", "test_good", "test_defective", "masks", "left_out"), 0)
        for name in dataset.categories
    }
    for sample in dataset.train:
        counts[sample.category]["train"] += 1
    for sample in dataset.left_out:
        counts[sample.category]["left_out"] += 1
    for sample in dataset.test:
        counts[sample.category]["test_defective" if sample.is_anomalous else "test_good"] += 1
        counts[sample.category]["masks"] += sample.is_anomalous and sample.mask_path is not None
    return counts


@dataclass(slots=True)
class _Seen:
    """What has been found so far."""

    problems: list[str] = field(default_factory=list)
    marks: dict[Path, str] = field(default_factory=dict)
    sizes: dict[str, Counter[Hw]] = field(default_factory=lambda: defaultdict(Counter))
    splits: Counter[float] = field(default_factory=Counter)
    turned: list[Path] = field(default_factory=list)

    def look_at(self, sample: Sample) -> None:
        try:
            pixels = read_sample(sample)
        except DataError as error:
            self.problems.append(str(error))
            return
        size_hw = (pixels.shape[0], pixels.shape[1])
        self.sizes[sample.category][size_hw] += 1
        self.marks[sample.path] = pixel_digest(pixels)
        if sample.mask_path is not None:
            if turned(sample.path) != turned(sample.mask_path):
                self.turned.append(sample.path)
            try:
                levels = read_mask_levels(sample.mask_path, size_hw=size_hw)
            except DataError as error:
                self.problems.append(str(error))
            else:
                self.look_at_mask(sample, sample.mask_path, levels)

    def look_at_mask(self, sample: Sample, path: Path, levels: NDArray[Any]) -> None:
        values = np.unique(levels)
        known = sample.mask_above is not None
        above = float(sample.mask_above) if sample.mask_above is not None else mask_split(levels, path)
        if not sample.is_anomalous:
            if share := float((levels > above).mean()):
                self.problems.append(
                    f"{path}: marks {share:.1%} of {sample.path}, which is said to be good; see which is true"
                )
            return
        if not (levels > above).any():
            self.problems.append(f"{path}: no pixel is above {above:g}, so no defect is marked; draw it")
        elif why := doubt(levels > above):
            self.problems.append(f"{path}: {why}")
        elif len(values) > 2 and not known:
            self.problems.append(
                f"{path}: has {len(values)} levels ({_in_words(values)}), not two; those above {above:g} are "
                "taken as defective: save it with 0 and 255"
            )
        if known or len(values) > 2:
            self.splits[above] += 1

    def turned_in_words(self) -> list[str]:
        """A mask of the same size may lie the other way round, and nobody can see it in the figures."""
        if not self.turned:
            return []
        number = "1 image is" if len(self.turned) == 1 else f"{len(self.turned)} images are"
        return [
            f"{number} turned upright by EXIF and the mask is not, the first {self.turned[0]}: see that it "
            "was drawn on the upright picture"
        ]

    def splits_in_words(self) -> list[str]:
        return [
            f"{number} masks are read as defective above level {above:g}"
            for above, number in sorted(self.splits.items())
        ]


def _in_words(levels: NDArray[Any]) -> str:
    if len(levels) > MANY_LEVELS:
        return f"{levels[0]:g} to {levels[-1]:g}"
    return ", ".join(f"{level:g}" for level in levels)


def _copies(dataset: Dataset, marks: dict[Path, str]) -> Iterable[str]:
    parts = (("training", dataset.train, "they count once"), ("test", dataset.test, "they count double"))
    for part, samples, so in parts:
        for category in dict.fromkeys(s.category for s in samples):
            paths = [s.path for s in samples if s.category == category and s.path in marks]
            if copied := copies([marks[path] for path in paths]):
                yield (
                    f"{category}, {part}: {copies_in_words(copied, paths)}: they have the same pixels, or "
                    f"show one colour only, and {so}; remove them"
                )


def _leaks(dataset: Dataset, marks: dict[Path, str]) -> Iterable[str]:
    trained = {marks[s.path]: s.path for s in reversed(dataset.train) if s.path in marks}
    for sample in dataset.test:
        mark = marks.get(sample.path)
        if mark in trained and mark != BLANK:
            yield f"{sample.path}: has the pixels of {trained[mark]}, which is trained on; remove one of them"


def _missing_masks(dataset: Dataset) -> Iterable[str]:
    masked = {s.category for s in dataset.test if s.mask_path}
    for sample in dataset.test:
        if sample.is_anomalous and sample.mask_path is None and sample.category in masked:
            yield f"{sample.path}: {sample.defect} without a mask, while others of {sample.category} have one"


def _unmasked(dataset: Dataset) -> Iterable[str]:
    defective = {s.category for s in dataset.test if s.is_anomalous}
    bare = sorted(defective - {s.category for s in dataset.test if s.mask_path})
    if bare:
        yield f"no masks, so image metrics only: {', '.join(bare)}"


def _left_out(dataset: Dataset) -> Iterable[str]:
    if dataset.left_out:
        yield f"{len(dataset.left_out)} defective images of the training part are not trained on"


def _kinds(samples: Iterable[Sample]) -> Iterable[str]:
    """Formats differ in what they lose, and a network may see that instead of the parts."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        kinds[sample.category][sample.path.suffix.lower()] += 1
    for category, endings in sorted(kinds.items()):
        if len(endings) > 1:
            said = ", ".join(f"{ending} {number}" for ending, number in sorted(endings.items()))
            yield f"{category}: images of {len(endings)} kinds: {said}"


def _sizes(sizes: dict[str, Counter[Hw]]) -> Iterable[str]:
    for category, own in sorted(sizes.items()):
        if len(own) > 1:
            common = ", ".join(f"{w} x {h} ({n})" for (h, w), n in own.most_common(3))
            yield f"{category}: {len(own)} image sizes (width x height): {common}"
