"""What people said of parts as a data set in the layout of MVTec AD, which `invad evaluate` reads.

Judged parts become `test/good` and `test/DEFECT`, masks `ground_truth/DEFECT`; good parts without a verdict
become `train/good`, which the layout asks for. A category is a folder: that of the part, or its station. A
part of several pictures has a file for each, ID_MEMBER, which `--parts` reads back.
"""

import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad.data.formats import HEAD_BYTES, format_of
from invad.errors import DataError
from invad.serve.records import Result
from invad.system.files import is_folder, is_there, make_folder, write_atomically

GOOD, TAKEN = "good", ("good", "ok", "normal")
UNNAMED = "defect"
TRAIN = 200
"""Good parts without a verdict of each category; for `invad evaluate` a few are enough."""

MOST_LOOKED = 20_000
"""Good parts without a verdict that are looked at for these."""

LONGEST_NAME = 80

BY_NAMES = "names"
BY_FIRST = r"(?P<part>[^/_]+)_(?P<member>[^/]+)\.[^/.]+$"
"""Rules by which files of parts are read: the usual one, and one for members with an underscore."""

Pictures: TypeAlias = Sequence[tuple[str, bytes]]
"""(member, file) of each picture of a part; the member is empty where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What was said last of a part. mask: see `Review`; the newest that there is."""

    defect: str | None
    mask: Sequence[int] | None

    @classmethod
    def of(cls, reviews: Iterable[tuple[str, str | None, Sequence[int] | None]]) -> "Words":
        """Of (verdict, defect, mask), the newest first: a later verdict need not say them again, and what was
        taken back is not said any more."""
        said = list(takewhile(lambda one: one[0] != "open", reviews))
        defect = next((one[1] for one in said if one[1] is not None), None)
        return cls(defect=defect, mask=next((one[2] for one in said if one[2] is not None), None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Numbers of parts and masks. left_out: parts that are not in the set, and why, one line each.
    without_masks: ids of bad parts that count for whole images alone. parts: rule by which files of parts of
    several pictures are read, as `--parts` takes it; None without such."""

    good: int
    bad: int
    train: int
    masks: int
    left_out: tuple[str, ...]
    without_masks: tuple[str, ...]
    parts: str | None = None


def write_set(
    judged: Iterable[Result],
    unreviewed: Iterable[Result],
    output: Path,
    words: Callable[[Result], Words],
    pictures: Callable[[Result], Pictures | None],
    *,
    train: int = TRAIN,
) -> Written:
    """Write the set to a new or empty folder.

    judged: parts with a verdict, unreviewed: good ones without; both newest first, of which the newest of one
    picture counts. words, pictures: of a part; None where they are not kept. train: parts of each category in
    `train/good` at most. Raises DataError for a folder that is not empty or cannot be written.
    """
    if is_there(output) and (not is_folder(output) or any(output.iterdir())):
        raise DataError(f"{output}: is not empty; write into a new folder")
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    folders: dict[str, bool] = {}
    members: set[str] = set()
    seen: dict[str, str] = {}
    left_out: list[str] = []
    bare: list[str] = []

    def put(part: Result, place: Path) -> bool:
        """Whether the pictures could be written."""
        if (first := seen.get(part.image_sha256)) is not None:
            left_out.append(f"{part.id}: the same picture as {first}")
            return False
        if part.reason:
            left_out.append(f"{part.id}: {part.reason}")
            return False
        if odd := [one.member for one in part.members if "/" in one.member or "\0" in one.member]:
            left_out.append(f"{part.id}: no file can be named after its picture {odd[0]}")
            return False
        if (files := pictures(part)) is None:
            several = "pictures are" if part.members else "image is"
            left_out.append(f"{part.id}: its {several} not kept any more")
            return False
        seen[part.image_sha256] = part.id
        make_folder(place)
        for member, content in files:
            write_atomically(place / f"{_stem(part, member)}{_ending(content)}", content)
        members.update(member for member, _ in files if member)
        return True

    def category_of(part: Result) -> str:
        """Its folder, which holds parts of one picture, or of several: a rule reads all of a folder."""
        text, several = part.category or part.station, bool(part.members)
        name = _name(text, "parts", names)
        if folders.setdefault(name, several) != several:
            name = _name(f"{text}_{'of_several' if several else 'of_one'}", "parts", names)
            folders.setdefault(name, several)
        return name

    for part in judged:
        if part.verdict not in ("good", "bad"):
            left_out.append(f"{part.id}: called {part.verdict}")
            continue
        root = output / category_of(part)
        said = words(part)
        kind = GOOD if part.verdict == "good" else _defect(said.defect, names)
        if not put(part, root / "test" / kind):
            continue
        counts[part.verdict] += 1
        if part.verdict == "bad" and said.mask is None:
            bare.append(part.id)
        elif part.verdict == "bad" and said.mask is not None:
            place = root / "ground_truth" / kind
            make_folder(place)
            name = f"{_stem(part, part.seen_by or '')}_mask.png"
            write_atomically(place / name, mask_png(said.mask, part.width, part.height))
            counts["masks"] += 1
    categories = {folder.name for folder in output.iterdir()} if is_folder(output) else set()
    trained: defaultdict[str, int] = defaultdict(int)
    for part in islice(unreviewed, MOST_LOOKED):
        if all(trained[category] >= train for category in categories):
            break
        category = category_of(part)
        if category not in categories or trained[category] >= train or part.image_sha256 in seen:
            continue
        if not part.image_kept or part.reason:
            continue
        if put(part, output / category / "train" / GOOD):
            trained[category] += 1
    left_out += [
        f"{category}: train/good is empty, because no good part without a verdict has an image; put one there"
        for category in sorted(categories - {one for one in trained if trained[one]})
    ]
    return Written(
        good=counts["good"],
        bad=counts["bad"],
        train=sum(trained.values()),
        masks=counts["masks"],
        left_out=tuple(left_out),
        without_masks=tuple(bare),
        parts=None if not members else BY_FIRST if any("_" in member for member in members) else BY_NAMES,
    )


def _stem(part: Result, member: str) -> str:
    return f"{part.id}_{member}" if member else part.id


def mask_png(runs: Sequence[int], width: int, height: int) -> bytes:
    """Runs of pixels that are not, and are, defective, in turn, by rows, as a PNG of 0 and 255."""
    stream = io.BytesIO()
    Image.fromarray(mask_of(runs, width, height).astype(np.uint8) * 255).save(stream, "PNG")
    return stream.getvalue()


def mask_of(runs: Sequence[int], width: int, height: int) -> NDArray[np.bool_]:
    """H x W. Raises DataError for runs that do not add up to it."""
    if sum(runs) != width * height or any(run < 0 for run in runs):
        raise DataError(f"the runs of a mask do not add up to {width} x {height} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(height, width)


def _ending(content: bytes) -> str:
    known = format_of(content[:HEAD_BYTES], "image")
    return ".jpg" if known.name == "JPEG" else known.suffixes[-1]


def _defect(said: str | None, names: dict[str, str]) -> str:
    name = _name(said or UNNAMED, UNNAMED, names)
    return f"{name}_{UNNAMED}" if name.casefold() in TAKEN else name


def _name(text: str, instead: str, names: dict[str, str]) -> str:
    """A name of a folder on every system: what people typed is no path, and case makes no second one."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._")[:LONGEST_NAME] or instead
    return names.setdefault(name.casefold(), name)
