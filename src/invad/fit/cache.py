"""Features on disk: one memory-mapped array and a record with a checksum for each finished block of images.

    FOLDER/features.npy        N x C x h x w float32, plain NumPy
    FOLDER/block-000002.json   rows 32 to 47 are written: their SHA-256, which images are unreadable, and the
                               digests of the pixels of the others

A block counts when its record is there and its checksum holds, so a killed extraction continues where it
stopped and damage is noticed. Several processes may write different blocks at once.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from invad.errors import TrainingError
from invad.system.files import replacing, writing
from invad.system.lock import sole_writer
from invad.system.plain import read_plain, to_plain

ARRAY = "features.npy"
BLOCK = 16
"""Images: a block takes about a second to compute."""


def require_room(folder: Path, size: int) -> None:
    """Raises TrainingError when `size` bytes do not fit on the disk of `folder`."""
    if shutil.disk_usage(folder).free < size:
        raise TrainingError(
            f"{folder}: no room for {size / 2**20:,.0f} MB of features; free space, or choose a folder on a "
            "larger disk (--cache, or TMPDIR)"
        )


@dataclass(frozen=True, slots=True)
class Decoded:
    """What decoding some images told, by row. unreadable: why it is. pixels: the digest of its pixels."""

    unreadable: dict[int, str] = field(default_factory=dict)
    pixels: dict[int, str] = field(default_factory=dict)

    def __or__(self, other: "Decoded") -> "Decoded":
        return Decoded(self.unreadable | other.unreadable, self.pixels | other.pixels)


@dataclass(frozen=True, slots=True)
class _Record:
    """What a file of a block says; see the head of this module."""

    sha256: str
    unreadable: dict[int, str]
    pixels: dict[int, str]


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """The features of one set of images by one extractor: `folder` must be named after both."""

    folder: Path
    shape: tuple[int, ...]

    def prepare(self, held: ExitStack, note: Callable[[str], None]) -> None:
        """Make folder and array, or keep what an earlier run left. Raises TrainingError without room.

        Until `held` is left no other training fills the folder; one that does is waited for, which is noted.
        """
        path = self.folder / ARRAY
        with writing(self.folder, TrainingError):
            self.folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(
                sole_writer(
                    self.folder,
                    "training",
                    lambda: note(f"{self.folder}: another training computes these features; waiting for it"),
                )
            )
            if self._is_whole(path):
                return
            for old in (path, *self.folder.glob("block-*.json")):
                old.unlink(missing_ok=True)
            require_room(self.folder, 4 * math.prod(self.shape))
            with replacing(path) as partial:
                np.lib.format.open_memmap(partial, "w+", np.float32, self.shape)

    def blocks(self) -> range:
        return range(math.ceil(self.shape[0] / BLOCK))

    def rows(self, block: int) -> range:
        return range(block * BLOCK, min((block + 1) * BLOCK, self.shape[0]))

    def read_record(self, block: int) -> Decoded | None:
        """What decoding the rows of a finished block told; None when it must be computed (again)."""
        try:
            record = read_plain(_Record, self._record(block), TrainingError, "")
            whole = record.sha256 == _digest(self.array()[_slice(self.rows(block))])
        except (TrainingError, OSError, ValueError):
            return None
        whole = whole and record.unreadable.keys() | record.pixels.keys() == set(self.rows(block))
        return Decoded(record.unreadable, record.pixels) if whole else None

    def is_recorded(self, block: int) -> bool:
        """Whether there is a record, sound or not."""
        return self._record(block).exists()

    def write(self, block: int, features: NDArray[np.float32], decoded: Decoded) -> None:
        """Store the rows of a block, then its record."""
        record = _Record(_digest(features), decoded.unreadable, decoded.pixels)
        with writing(self.folder, TrainingError):
            # Not through the map: there, a full disk kills the process.
            with (self.folder / ARRAY).open("r+b") as file:
                file.seek(self.array().offset + self.rows(block).start * features[0].nbytes)
                file.write(np.ascontiguousarray(features).data)
                file.flush()
                os.fsync(file.fileno())
            with replacing(self._record(block)) as partial:
                partial.write_text(json.dumps(to_plain(record)) + "\n", encoding="utf-8")

    def array(self) -> "np.memmap[tuple[int, ...], np.dtype[np.float32]]":
        """All rows; those of unfinished blocks are zero. What is written to it never reaches the file."""
        return np.lib.format.open_memmap(self.folder / ARRAY, "c")

    def _is_whole(self, path: Path) -> bool:
        try:
            array = np.lib.format.open_memmap(path, "r")
        except (OSError, ValueError):
            return False
        return array.shape == self.shape and array.dtype == np.float32

    def _record(self, block: int) -> Path:
        return self.folder / f"block-{block:06d}.json"


def _slice(rows: range) -> slice:
    return slice(rows.start, rows.stop)


def _digest(features: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.ascontiguousarray(features).data).hexdigest()
