"""Which pictures are the same, whatever their files are called."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.system.digests import file_blake2

BLANK = "of one colour"
"""The mark of pictures that show nothing: as samples of how things look they are all the same."""

SHORT = 16
"""Hexadecimal digits of a digest that is kept in a model."""

SHOWN = 3
"""Copies that a line names; the others are counted."""


def file_digest(path: Path) -> str:
    """BLAKE2 of the bytes of a file; empty where they cannot be read, which is said when it is decoded."""
    try:
        return file_blake2(path)
    except OSError:
        return ""


def pixel_digest(pixels: NDArray[Any]) -> str:
    """BLAKE2 of H x W x C pixels, their shape and dtype, in whatever format they were stored; or BLANK."""
    if (pixels == pixels[:1, :1]).all():
        return BLANK
    digest = hashlib.blake2b(f"{pixels.shape} {pixels.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def short_digests(marks: Iterable[str]) -> tuple[str, ...]:
    """The first 8 bytes of each `pixel_digest`, once, sorted, without BLANK, which says nothing of a picture.

    Enough to know a picture again: among a million pictures two differing ones share it with a chance of
    1 in 30 million. They tell neither the pictures nor their order.
    """
    return tuple(sorted({mark[:SHORT] for mark in marks if mark != BLANK}))


def copies(marks: Sequence[object]) -> dict[int, int]:
    """The item of which each repeated item is a copy: the first with its mark. Both as indices."""
    first: dict[object, int] = {}
    originals = {i: first.setdefault(mark, i) for i, mark in enumerate(marks)}
    return {i: original for i, original in originals.items() if i != original}


def copies_in_words(copied: Mapping[int, int], paths: Sequence[Path], how: str = "are copies") -> str:
    """`12 of 24 images are copies of others (a.png of b.png, ...)`."""
    named = [f"{paths[i]} of {paths[original].name}" for i, original in [*copied.items()][:SHOWN]]
    more = f" and {len(copied) - SHOWN} more" if len(copied) > SHOWN else ""
    return f"{len(copied)} of {len(paths)} images {how} of others ({', '.join(named)}{more})"
