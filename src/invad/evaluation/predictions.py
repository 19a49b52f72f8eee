"""The prediction file: what a model said of the test images of one category, to be measured at any time.

One `.npz` without pickle. Maps stay on the feature grid and masks at the size of their images, so that every
metric definition can bring both to its own frame; each mask is packed by itself.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError, reason
from invad.records import GOOD, Hw
from invad.scoring.rates import Rates
from invad.system.files import write_atomically
from invad.system.plain import from_plain

FORMAT = 1
AGAIN = "remove it and run the benchmark again"
COMPRESSION = 1
"""zlib level: masks are nearly empty, so the fastest is small enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meta:
    """The keys of the meta data, which the file holds as JSON; the defaults are of what older ones lack."""

    format: int
    category: str
    seed: int
    input_hw: Hw
    rates: Rates
    run: dict[str, Any]
    machine: dict[str, Any]
    data_digest: str | None = None
    images_per_second: float | None = None
    peak_memory_mb: float | None = None
    measured_on: str | None = None
    train_seconds: float | None = None
    calibration_n: int | None = None
    pooled_limits: bool | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PackedMask:
    """Mask of one image as `read_mask_codes` gives it, compressed. least: least code of a defective pixel."""

    data: bytes
    least: int

    @classmethod
    def pack(cls, codes: NDArray[np.uint8], least: int) -> "PackedMask":
        return cls(zlib.compress(np.ascontiguousarray(codes).tobytes(), COMPRESSION), least)

    def unpack(self, size_hw: Hw) -> NDArray[np.uint8]:
        """Codes H x W. Raises DataError when they are damaged or of another size."""
        try:
            codes = np.frombuffer(zlib.decompress(self.data), np.uint8)
            return codes.reshape(size_hw)
        except (zlib.error, ValueError):
            raise DataError("a mask of the prediction file is damaged; make the file again") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """N test images of one category under one model.

    meta: plain data on the run, the keys of `_Meta`. paths: below the root of the data set. samples: the
    object that an image is a view of, "" for an image by itself. sizes_N2: height and width of the images.
    p_values, decisions: of the calibrated score. scores, maps: by protocol, N and N x h x w on the feature
    grid. masks: None for a normal image and for a defective one without a mask.
    """

    meta: dict[str, Any]
    paths: tuple[str, ...]
    defects: tuple[str, ...]
    samples: tuple[str, ...]
    sizes_N2: NDArray[np.int32]
    p_values: NDArray[np.float64]
    decisions: tuple[str, ...]
    scores: Mapping[str, NDArray[np.float64]]
    maps: Mapping[str, NDArray[np.float32]]
    masks: tuple[PackedMask | None, ...]

    @property
    def labels(self) -> NDArray[np.bool_]:
        return np.array([defect != GOOD for defect in self.defects], bool)

    def size(self, i: int) -> Hw:
        """Height and width of image i."""
        return int(self.sizes_N2[i, 0]), int(self.sizes_N2[i, 1])

    def mask_known(self, i: int) -> bool:
        """Of normal images it is: they have no defective pixel."""
        return self.masks[i] is not None or self.defects[i] == GOOD

    def mask(self, i: int) -> tuple[NDArray[np.uint8], int]:
        """Codes H x W and the least code of a defect, of an image whose mask is known."""
        packed = self.masks[i]
        if packed is None:
            return np.zeros(self.size(i), np.uint8), 1
        return packed.unpack(self.size(i)), packed.least


def write_predictions(path: Path, predictions: Predictions) -> Path:
    """Write the file completely or not at all. Raises DataError when it cannot be written."""
    p = predictions
    masks = [mask.data if mask is not None else b"" for mask in p.masks]
    arrays: dict[str, NDArray[Any]] = {
        "meta": _text([json.dumps({**p.meta, "format": FORMAT}, allow_nan=False)]),
        "paths": _text(p.paths),
        "defects": _text(p.defects),
        "samples": _text(p.samples),
        "sizes": p.sizes_N2,
        "p_values": p.p_values,
        "decisions": _text(p.decisions),
        "mask_least": np.array([0 if mask is None else mask.least for mask in p.masks], np.uint8),
        "mask_ends": np.cumsum([len(data) for data in masks], dtype=np.int64),
        "mask_data": np.frombuffer(b"".join(masks), np.uint8),
        **{f"scores.{name}": values for name, values in p.scores.items()},
        **{f"maps.{name}": values for name, values in p.maps.items()},
    }
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    return write_atomically(path, content.getvalue())


def read_predictions(path: Path) -> Predictions:
    """Read a prediction file. Raises DataError naming one that is missing, damaged or of a newer format."""
    try:
        # Opened here: numpy leaves the file open when it is no archive.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays["meta"][0]))
        if meta["format"] > FORMAT:
            raise DataError(f"{path}: format {meta['format']} is newer than this invad reads; update invad")
        from_plain(_Meta, meta, f"{path}: meta", DataError, AGAIN)
        return _from_arrays(meta, arrays)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error, writing=False)}") from None
    except (ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile, zlib.error):
        raise DataError(f"{path}: damaged or no prediction file; {AGAIN}") from None


def _from_arrays(meta: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Predictions:
    data = arrays["mask_data"].tobytes()
    ends = arrays["mask_ends"].tolist()
    masks = tuple(
        PackedMask(data[start:end], least) if least else None
        for start, end, least in zip([0, *ends[:-1]], ends, arrays["mask_least"].tolist(), strict=True)
    )

    def by_protocol(kind: str) -> dict[str, NDArray[Any]]:
        return {name.split(".", 1)[1]: values for name, values in arrays.items() if name.startswith(kind)}

    predictions = Predictions(
        meta=meta,
        paths=_words(arrays["paths"]),
        defects=_words(arrays["defects"]),
        samples=_words(arrays["samples"]),
        sizes_N2=arrays["sizes"],
        p_values=arrays["p_values"],
        decisions=_words(arrays["decisions"]),
        scores=by_protocol("scores."),
        maps=by_protocol("maps."),
        masks=masks,
    )
    parts: list[Any] = [masks, *predictions.scores.values(), *predictions.maps.values()]
    if {len(part) for part in parts} != {len(predictions.paths)}:
        raise ValueError("parts of different lengths, or parts are missing")
    return predictions


def _text(words: Sequence[str]) -> NDArray[np.str_]:
    return np.array(words, dtype=np.str_)


def _words(array: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(word) for word in array)
