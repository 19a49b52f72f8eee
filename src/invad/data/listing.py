"""Which files of a folder are images, and in which order."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invad.data.formats import DICOM, HEAD_BYTES, IMAGE_SUFFIXES
from invad.errors import DataError, reason
from invad.system.files import is_file, is_folder, is_there

SYSTEM_FOLDERS = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp", "@sharebin"),
        *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
        *("__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),
    )
)
"""Lower-case names of folders that a NAS, Windows, macOS or a file system makes by itself."""

COMPANIONS = frozenset(
    [
        ".cfg",
        ".csv",
        ".db",
        ".html",
        ".ini",
        ".json",
        ".jsonl",
        ".log",
        ".md",
        ".parquet",
        ".tsv",
        ".txt",
        ".xml",
        ".yaml",
        ".yml",
    ]
)
"""Endings of files that lie beside pictures and are none."""

DICOM_INDEX = "dicomdir"
"""Lower-case name of the file that lists the pictures of a DICOM medium."""

DANGLING = "links that lead nowhere"
PIPES = "pipes or devices"


@dataclass(frozen=True, slots=True)
class Listing:
    """images: in natural order. not_taken: files that may be pictures but have another ending, or no file."""

    images: tuple[Path, ...]
    not_taken: tuple[Path, ...]

    def in_words(self) -> tuple[str, ...]:
        """One line when something was not taken."""
        return not_taken_in_words([(str(p), _why_not_taken(p)) for p in self.not_taken])


ENDINGS = " ".join(IMAGE_SUFFIXES)


def _why_not_taken(path: Path) -> str:
    if path.is_symlink():
        return DANGLING
    ending = path.suffix.lower()
    return PIPES if ending in IMAGE_SUFFIXES else ending


def not_taken_in_words(files: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """One line of (name, ending) when there are any."""
    if not files:
        return ()
    kinds = Counter(ending or "no ending" for _, ending in files)
    said = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    number = "1 file was" if len(files) == 1 else f"{len(files)} files were"
    return (f"{number} not taken ({said}), the first {files[0][0]}; images end in {ENDINGS}",)


def list_images(folder: str | Path, recursive: bool = True) -> tuple[Path, ...]:
    """Image files below a folder (or directly in it) in natural order: part2 before part10.

    Suffixes are compared without case. Names that start with a dot and system folders are skipped. Links are
    followed, but no folder is entered twice, so loops end. Raises DataError when there is no such folder.
    """
    return survey(folder, recursive).images


def survey(folder: str | Path, recursive: bool = True) -> Listing:
    """As `list_images`, with the files that were not taken."""
    folder = Path(folder)
    if not is_folder(folder):
        raise DataError(
            f"{folder}: {'is a file' if is_there(folder) else 'no such folder'}; give a folder of images"
        )
    files = sorted(
        _walk(folder, recursive, {_real(folder)}), key=lambda path: natural_key(path.relative_to(folder))
    )
    images = tuple(path for path in files if is_image(path) and _is_file(path))
    taken = frozenset(images)
    return Listing(images, tuple(p for p in files if p not in taken and not is_companion(p.name)))


def is_image(path: Path) -> bool:
    """Whether its ending is that of an image, or it has none and is DICOM inside."""
    return path.suffix.lower() in IMAGE_SUFFIXES or (_is_unnamed(path) and _is_dicom(path))


def stem(path: Path) -> str:
    """The name of an image without its ending; a number behind a dot is none, it is part of a DICOM name."""
    return path.name if _is_unnamed(path) else path.stem


def _is_unnamed(path: Path) -> bool:
    """Whether the name has no ending, as that of many DICOM files: IM0001, or 1.2.840.113619.2.5."""
    return path.suffix in ("", ".") or path.suffix[1:].isdecimal()


def _is_dicom(path: Path) -> bool:
    if is_companion(path.name):
        return False
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as stream:
            return DICOM.magic.match(stream.read(HEAD_BYTES)) is not None
    except OSError:
        return False


def is_companion(name: str) -> bool:
    """Whether a file of this name lies beside pictures and is none."""
    return Path(name).suffix.lower() in COMPANIONS or name.casefold() == DICOM_INDEX


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name is hidden or the system's own."""
    return name.startswith(".") or name.casefold() in SYSTEM_FOLDERS


def natural_key(path: str | Path) -> tuple[Any, ...]:
    """Sort key of a path: part by part, digits as numbers, case only as a tie-break."""
    parts = tuple(
        tuple(
            int(piece) if i % 2 else piece for i, piece in enumerate(re.split(r"([0-9]+)", part.casefold()))
        )
        for part in Path(path).parts
    )
    return (parts, str(path))


def _walk(folder: Path, recursive: bool, seen: set[Path]) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir(), key=natural_key)
    except OSError as error:
        raise DataError(f"{folder}: {reason(error, writing=False)}") from error
    for entry in entries:
        if is_passed_over(entry.name):
            continue
        if not _is_folder(entry):
            yield entry
        elif recursive and (real := _real(entry)) not in seen:
            seen.add(real)
            yield from _walk(entry, recursive, seen)


def _real(path: Path) -> Path:
    # Unlike Path.resolve it answers for every path.
    return Path(os.path.realpath(path))


def _is_folder(entry: Path) -> bool:
    """An image that cannot be looked at is no folder; of anything else nobody knows what is left out."""
    try:
        return is_folder(entry)
    except DataError:
        if entry.suffix.lower() in IMAGE_SUFFIXES:
            return False
        raise


def _is_file(path: Path) -> bool:
    """Whoever reads an image that cannot be looked at says why."""
    try:
        return is_file(path)
    except DataError:
        return True
