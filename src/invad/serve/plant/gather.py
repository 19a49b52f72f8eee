"""Which files of a folder are one part, when it is whole, and what of it was judged before."""

import io
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from invad.data.images import read_image
from invad.data.members import Picture, Rule, pictures
from invad.data.png import encode_png
from invad.errors import DataError
from invad.scoring.fusion import Fusion
from invad.serve.plant.found import File, content_of, mark_of
from invad.serve.plant.sources import FolderSource
from invad.serve.records import Result
from invad.serve.store import taken

Misfit: TypeAlias = "tuple[File, str]"
"""A file that is of no part, and why."""

Digests: TypeAlias = "frozenset[tuple[str, str | None]]"
"""(member, SHA-256 of its picture) of a part."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file that is not done with. since: when it was first seen as it is, on the clock that only rises.
    is_settled: it has stayed so for long enough to be read."""

    file: File
    since: float
    is_settled: bool


@dataclass(frozen=True, slots=True)
class Gathered:
    """Files that are judged together. name: of the part, with the folders before it. pictures: of a model of
    parts, in the order of the files; else the file is the picture. lacks: members that did not come."""

    name: str
    files: tuple[File, ...]
    pictures: tuple[Picture, ...] = ()
    lacks: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """In words."""
        if len(self.files) == 1:
            return str(self.files[0].path)
        return f"{self.name} ({', '.join(one.path.name for one in self.files)})"

    @property
    def order(self) -> tuple[int, str]:
        """Parts are handed over by the time of their newest file."""
        return max(one.mark[1] for one in self.files), self.name


class Gatherer:
    """Puts files together by the rule of a source or of its model. One thread uses it."""

    def __init__(self, source: FolderSource, fusion: Fusion):
        """Raises ConfigError for what is no rule."""
        self.fusion = fusion
        self._folder, self._seconds = Path(source.path), source.missing_after
        self._rule = Rule.parse(source.parts or fusion.rule)
        self._shows: dict[str, tuple[taken.Mark, tuple[Picture, ...] | DataError]] = {}

    @property
    def looks_inside(self) -> bool:
        """Whether the content of a file says what it shows, and not its name."""
        return self._rule.pattern is None

    def gather(self, seen: Iterable[Seen], now: float) -> tuple[list[Gathered], list[Misfit]]:
        """The parts that are to be judged now, and files that are of none."""
        # A file that grows has no number of pages yet.
        known = [one for one in seen if one.is_settled or not self.looks_inside]
        self._shows = {one.file.key: self._shown_by(one.file) for one in known}
        parts: dict[str, list[tuple[Seen, tuple[Picture, ...]]]] = {}
        misfits = []
        for one in known:
            _, shown = self._shows[one.file.key]
            if isinstance(shown, DataError):
                if one.is_settled:
                    misfits.append((one.file, str(shown).removeprefix(f"{one.file.path}: ")))
            elif not any(picture.member in self.fusion.members for picture in shown):
                if one.is_settled:
                    has = ", ".join(self.fusion.members)
                    misfits.append((one.file, f"{shown[0].member} is unknown, the model has {has}"))
            else:
                parts.setdefault(shown[0].part, []).append((one, shown))
        ready = [self._ready(name, own, now) for name, own in parts.items()]
        return [one for one in ready if one is not None], misfits

    def _ready(
        self, name: str, own: Sequence[tuple[Seen, tuple[Picture, ...]]], now: float
    ) -> Gathered | None:
        own = sorted(own, key=lambda one: one[0].file.key)
        shown = tuple(picture for _, of_file in own for picture in of_file)
        there = {picture.member for picture in shown}
        lacks = tuple(member for member in self.fusion.members if member not in there)
        if lacks and now - max(one.since for one, _ in own) < self._seconds:
            return None
        if not all(one.is_settled for one, _ in own):
            return None
        return Gathered(name, tuple(one.file for one, _ in own), shown, lacks)

    def _shown_by(self, file: File) -> tuple[taken.Mark, tuple[Picture, ...] | DataError]:
        """The pictures in a file, which is looked at once."""
        known = self._shows.get(file.key)
        if known is not None and known[0] == file.mark:
            return known
        try:
            return file.mark, pictures(file.path, file.path.relative_to(self._folder), self._rule)
        except DataError as error:
            return file.mark, error


def contents(one: Gathered) -> list[tuple[str, bytes]] | None:
    """(member, encoded picture) of a part; a page becomes a file of its own, without losing a level.

    None where a file is gone or changes. Raises OSError, and DataError for a page that cannot be read.
    """
    files = {file.path: file for file in one.files}
    found = []
    for picture in one.pictures:
        if picture.page is None:
            body = content_of(files[picture.path])
        else:
            body = _encoded(read_image(picture.source))
        if body is None:
            return None
        found.append((picture.member, body))
    return found if all(mark_of(file.path) == file.mark for file in one.files) else None


def _encoded(pixels_HW3: NDArray[Any]) -> bytes:
    grey = pixels_HW3[..., 0]
    pixels = grey if np.array_equal(pixels_HW3, np.repeat(grey[..., None], 3, 2)) else pixels_HW3
    if pixels.dtype.kind == "u":
        return encode_png(pixels)
    from tifffile import imwrite

    stream = io.BytesIO()
    imwrite(stream, pixels, photometric="minisblack" if pixels.ndim == 2 else "rgb")
    return stream.getvalue()


# ------------------------------------------------------------------ judged before


@dataclass(frozen=True, slots=True)
class Before:
    """What an earlier result says of pictures: judged are those that it was made of, late are those that came
    after it."""

    result: Result
    judged: Digests
    late: Digests


def before(
    own: Digests, lacks: Sequence[str], earlier: Sequence[Result], members: Sequence[str]
) -> Before | None:
    """Whether pictures of a part are those of a result, or came too late for one; None: they are a new part.

    lacks: members that did not come. earlier: results of parts of the same name, newest first. Where files
    were put away in part when a service was killed, or one was touched, some of a result's pictures are there
    again; where a part was decided without a picture, that one alone comes.
    """
    for one in earlier:
        theirs = frozenset((member.member, member.sha256) for member in one.members)
        if own <= theirs or theirs <= own:
            return Before(one, own & theirs, own - theirs)
    if earlier and lacks:
        missing = _lacking(earlier[0], members)
        if {member for member, _ in own} <= missing:
            return Before(earlier[0], frozenset(), own)
    return None


def _lacking(result: Result, members: Sequence[str]) -> Set[str]:
    return set(members) - {one.member for one in result.members}
