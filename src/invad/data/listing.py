"""Which files of a folder are images, and in which order."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from invad.errors import DataError

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Lower-case endings of the files that `list_images` finds and `read_image` decodes."""


def list_images(folder: str | Path, recursive: bool = True) -> tuple[Path, ...]:
    """Image files below a folder (or directly in it) in natural order: part2 before part10.

    Suffixes are compared without case. Names that start with a dot are skipped. Links are followed,
    but no folder is entered twice, so loops end. Raises DataError when there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{folder}: {'is a file' if folder.exists() else 'no such folder'}; give a folder of images"
        )
    found = _walk(folder, recursive, {folder.resolve()})
    return tuple(sorted(found, key=lambda path: natural_key(path.relative_to(folder))))


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
        raise DataError(f"{folder}: {error.strerror or error}; allow reading this folder") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if recursive and entry.is_dir():
            real = entry.resolve()
            if real not in seen:
                seen.add(real)
                yield from _walk(entry, recursive, seen)
        elif entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            yield entry
