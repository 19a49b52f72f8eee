"""Which pictures are of one part: by their names, or as the pages of one file.

A picture of a part has a name among the others, its member: `light1`, `view3`, `page2`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from invad.data import dicom
from invad.data.formats import DICOM, HEAD_BYTES, format_of
from invad.data.images import read_image
from invad.data.layouts.base import Dataset, Problem, held_out
from invad.data.listing import natural_key
from invad.data.pages import Page, count_pages
from invad.data.preprocess import choose_window
from invad.errors import ConfigError, DataError, reason
from invad.observer import Observer
from invad.records import Sample

PAGES = "pages"

PATTERNS = {
    "names": r"(?P<part>[^/]+)_(?P<member>[^/_]+)\.[^/.]+$",
    "views": r"(?P<part>S\d+)/[^/]*_(?P<member>C\d+)_[^/]*$",
}
"""Rules with a name. names: `part017_light1.png`. views: Real-IAD, whose folder is the part."""

SUGGESTION = "'(?P<part>.+)_(?P<member>light\\d)'"

RARE = 0.5
"""Share of the parts below which a member of theirs is rather a misspelt name."""

PROBED = 16
"""Pictures of each member whose grey levels choose its 16-bit window."""

Source: TypeAlias = Path | Page


@dataclass(frozen=True, slots=True)
class Rule:
    """How files become pictures of parts, as `--parts` says it.

    pattern: searched in the path below the root, with slashes; None where the pages of a file are the
    pictures, and axes are then those that `count_pages` lets tell them apart.
    """

    text: str
    pattern: re.Pattern[str] | None
    axes: str = ""

    @classmethod
    def parse(cls, text: str) -> "Rule":
        """Raises ConfigError, of one line, for what is no rule."""
        kind, _, axes = text.partition(":")
        if kind == PAGES:
            if not set(axes) <= {"Z", "T"}:
                raise ConfigError(f"--parts {text}: after 'pages:' give Z (depth), T (time) or both")
            return cls(text, None, axes)
        try:
            pattern = re.compile(PATTERNS.get(text, text))
        except re.error as error:
            raise ConfigError(
                f"--parts {text!r}: no regular expression ({error}); give one such as {SUGGESTION}, or "
                f"pages, {', '.join(PATTERNS)}"
            ) from None
        if lacking := [name for name in ("part", "member") if name not in pattern.groupindex]:
            raise ConfigError(
                f"--parts {text!r}: names no group {' and no group '.join(lacking)}; give an expression such "
                f"as {SUGGESTION}, or pages, {', '.join(PATTERNS)}"
            )
        return cls(text, pattern)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a part. part: its name below the root, with the folders before it."""

    part: str
    member: str
    path: Path
    page: int | None = None

    @property
    def source(self) -> Source:
        return self.path if self.page is None else Page(self.path, self.page)


def pictures(path: Path, below: Path, rule: Rule) -> tuple[Picture, ...]:
    """The pictures of parts in a file. below: its path below the root that was named.

    Raises DataError for a name in which the rule finds nothing, and for pages that are not alike.
    """
    shown = below.as_posix()
    if rule.pattern is None:
        return _pages(path, below, rule)
    found = rule.pattern.search(shown)
    if not found or not found["part"] or not found["member"]:
        raise DataError(f"{path}: --parts {rule.text!r} finds no part and member in {shown!r}; change it")
    folder = shown[: found.start()].rpartition("/")[0]
    return (Picture("/".join(filter(None, [folder, found["part"]])), found["member"], path),)


def _pages(path: Path, below: Path, rule: Rule) -> tuple[Picture, ...]:
    part = below.with_suffix("").as_posix()
    try:
        with path.open("rb") as stream:
            known = format_of(stream.read(HEAD_BYTES), str(path))
            stream.seek(0)
            if known is DICOM:
                DICOM.reader(str(path))
                word, count = "frame", dicom.count_frames(stream, str(path))
            elif known.name == "TIFF":
                word, count = "page", count_pages(stream, str(path), rule.axes)
            else:
                word, count = "page", 1
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from error
    except DataError:
        raise
    except Exception as error:  # parsers of damaged bytes raise whatever comes to hand
        raise DataError(f"{path}: its pages cannot be counted; copy the file again") from error
    if count == 1:
        return (Picture(part, f"{word}1", path),)
    return tuple(Picture(part, f"{word}{i + 1}", path, i) for i in range(count))


# ------------------------------------------------------------------ to be judged


@dataclass(frozen=True, slots=True)
class PartFiles:
    """The pictures of one part; in the place of one that is there twice, a DataError that says so."""

    part: str
    members: Mapping[str, Source | DataError]


def parts_of_files(
    files: Iterable[tuple[Path, Path]], rule: Rule
) -> tuple[tuple[PartFiles, ...], tuple[tuple[Path, DataError], ...]]:
    """Parts in the order of their first files, and the files that are of none, with the reason.

    files: (path, its path below the root that was named); parts of different roots are different.
    """
    parts: dict[tuple[str, str], list[Picture]] = {}
    others = []
    for path, below in files:
        try:
            found = pictures(path, below, rule)
        except DataError as error:
            others.append((path, error))
            continue
        for picture in found:
            root = str(path)[: -len(str(below))]
            parts.setdefault((root, picture.part), []).append(picture)
    return tuple(PartFiles(part, _members(own)) for (_, part), own in parts.items()), tuple(others)


def _members(own: Sequence[Picture]) -> dict[str, Source | DataError]:
    members: dict[str, Source | DataError] = {}
    for picture in own:
        other = members.get(picture.member)
        if other is None:
            members[picture.member] = picture.source
        elif not isinstance(other, DataError):
            members[picture.member] = DataError(
                f"{picture.member} is there twice, {other} and {picture.source}"
            )
    return members


# ------------------------------------------------------------------ to learn and to measure


def member_samples(samples: Sequence[Sample], rule: Rule, root: Path) -> tuple[Sample, ...]:
    """A sample for each picture of each part: its category is the member, its sample_id the part.

    Raises DataError for files of several categories, for a file of no part, and for a member that a part has
    twice.
    """
    categories = sorted({sample.category for sample in samples})
    if len(categories) > 1:
        raise DataError(
            f"{root}: --parts is for one product, and there are {', '.join(categories[:5])}; choose one with "
            "--categories"
        )
    base, made, lost = root.absolute(), [], []
    first: dict[tuple[str, str], Source] = {}
    for sample in samples:
        whole = sample.path.absolute()
        below = whole.relative_to(base) if whole.is_relative_to(base) and whole != base else whole
        try:
            found = pictures(sample.path, below, rule)
        except DataError as error:
            lost.append(error)
            continue
        for picture in found:
            part, source = sample.sample_id or picture.part, picture.source
            other = first.setdefault((part, picture.member), source)
            if other is not source:
                raise DataError(
                    f"{other} and {source}: both are {picture.member} of {part}; keep one, or change --parts"
                )
            made.append(
                replace(
                    sample,
                    category=picture.member,
                    member=picture.member,
                    sample_id=part,
                    page=picture.page,
                )
            )
    if lost:
        raise lost[0]
    return tuple(made)


def whole_parts(
    samples: Sequence[Sample], observer: Observer, members: Sequence[str] = ()
) -> tuple[Sample, ...]:
    """The samples of the parts that have every member, which are all that teach what a good part is.

    members: those to have; by default those of most parts. The others are named. Raises DataError for a
    member that few parts have, and when fewer than two parts are whole.
    """
    parts: dict[str, list[Sample]] = {}
    for sample in samples:
        parts.setdefault(sample.sample_id or "", []).append(sample)
    seen: dict[str, list[str]] = {}
    for part, own in parts.items():
        for sample in own:
            seen.setdefault(sample.member or "", []).append(part)
    wanted = set(members or seen)
    for member, of in seen.items():
        if member not in wanted:
            raise DataError(
                f"{of[0]}: has a member {member}, and the model knows {', '.join(members)}; leave it out"
            )
        if not members and len(of) < RARE * len(parts):
            raise DataError(
                f"{member} is a member of {len(of)} of {len(parts)} parts, such as {of[0]}; a model needs "
                "each of each part: correct the names or leave it out"
            )
    lacking = {part: wanted - {s.member for s in own} for part, own in parts.items()}
    broken = [part for part, missing in lacking.items() if missing]
    if len(parts) - len(broken) < 2:
        some = f", such as {', '.join(sorted(lacking[broken[0]]))} of {broken[0]}" if broken else ""
        raise DataError(
            f"{len(parts) - len(broken)} of {len(parts)} parts have all of {', '.join(sorted(wanted))}: at "
            f"least 2 are needed; add what is missing{some}, or change --parts"
        )
    if broken:
        shown = "; ".join(f"{part} lacks {', '.join(sorted(lacking[part]))}" for part in broken[:3])
        more = f"; and {len(broken) - 3} more" if len(broken) > 3 else ""
        observer.note(f"left out, because a picture is missing: {shown}{more}")
    return tuple(s for part, own in parts.items() if not lacking[part] for s in own)


def members_in_order(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The members of the samples, light2 before light10."""
    return tuple(sorted({sample.member for sample in samples if sample.member}, key=natural_key))


def split_by_part(dataset: Dataset, rule: Rule) -> Dataset:
    """The set with samples of members; where it came without a split, good parts are held out as wholes.

    What is wrong with the test part becomes a problem of it. Raises DataError as `member_samples`.
    """
    train, test, problems = dataset.train, dataset.test, dataset.problems
    is_split = dataset.layout != "folder" or not test
    if not is_split:
        train = (*train, *(sample for sample in test if not sample.is_anomalous))
        test = tuple(sample for sample in test if sample.is_anomalous)
    train = member_samples(train, rule, dataset.root)
    try:
        test = member_samples(test, rule, dataset.root)
    except DataError as error:
        test, problems = (), (*problems, Problem(None, str(error)))
    if not is_split:
        kept = held_out({Path(sample.sample_id or "") for sample in train}, Path())
        test = (*(s for s in train if Path(s.sample_id or "") in kept), *test)
        train = tuple(s for s in train if Path(s.sample_id or "") not in kept)
    return replace(dataset, train=train, test=test, problems=problems)


def windows(samples: Sequence[Sample]) -> dict[str, tuple[float, float]]:
    """The 16-bit window of each member, from some of its pictures: lights differ by design."""
    own: dict[str, list[Sample]] = {}
    for sample in samples:
        own.setdefault(sample.member or "", []).append(sample)
    return {member: choose_window(list(_levels(some))) for member, some in own.items()}


def _levels(samples: Sequence[Sample]) -> Iterator[NDArray[Any]]:
    for i in np.linspace(0, len(samples) - 1, min(len(samples), PROBED)).round().astype(int):
        sample = samples[i]
        try:
            pixels = read_image(sample.path if sample.page is None else Page(sample.path, sample.page))
        except DataError:  # who learns from it says so
            continue
        yield np.array([pixels.min(), pixels.max()], dtype=pixels.dtype)


def with_windows(samples: Iterable[Sample], known: Mapping[str, tuple[float, float]]) -> tuple[Sample, ...]:
    """The samples with the window of their member."""
    return tuple(replace(s, window=known.get(s.member or "")) for s in samples)
