"""Predictions as files: a heat map as a grey PNG of 16 bits that says what its levels mean."""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from invad.data.images import read_image
from invad.errors import DataError, reason
from invad.records import Decision, Prediction
from invad.report.colours import Limits
from invad.system.files import write_atomically
from invad.system.plain import from_plain, to_plain

TEXT = "invad:prediction"
"""Text of the PNG, the fields of `_Said` as JSON."""

WHITE = 65535
AGAIN = "write it again with 'invad predict --maps DIR'"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """range: values of black and of white. limits: (review, bad) of the map. The rest: see `Prediction`."""

    path: str | None
    category: str | None
    score: float
    p_value: float
    decision: Decision
    range: tuple[float, float]
    limits: Limits
    content_hash: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MapFile:
    """A prediction from a file, the (review, bad) limits of its map, and the content hash of the model."""

    prediction: Prediction
    limits: Limits
    content_hash: str | None


def write_map(path: Path, prediction: Prediction, limits: Limits, content_hash: str | None = None) -> Path:
    """Write a prediction with its map in the size of the image.

    A value of the map comes back within 1/65535 of their range. limits: (review, bad) of the map.
    content_hash: of the model. Raises DataError when the file cannot be written.
    """
    p = prediction
    black, white = float(p.anomaly_map.min()), float(p.anomaly_map.max())
    spread = white - black or 1.0
    levels = np.round((p.anomaly_map.astype(np.float64) - black) / spread * WHITE).astype(np.uint16)
    said = _Said(
        path=p.path,
        category=p.category,
        score=p.score,
        p_value=p.p_value,
        decision=p.decision,
        range=(black, black + spread),
        limits=limits,
        content_hash=content_hash,
    )
    text = PngImagePlugin.PngInfo()
    text.add_text(TEXT, json.dumps(to_plain(said), allow_nan=False))
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "PNG", compress_level=1, pnginfo=text)
    return write_atomically(path, stream.getvalue())


def read_map(path: Path) -> MapFile:
    """The reverse of `write_map`. Raises DataError for any other file."""
    levels = read_image(path)[..., 0]
    try:
        with Image.open(path) as image:
            said = from_plain(_Said, json.loads(image.info[TEXT]), str(path), DataError, AGAIN)
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None
    except (KeyError, ValueError, TypeError):
        raise DataError(f"{path}: is no heat map; {AGAIN}") from None
    black, white = said.range
    prediction = Prediction(
        path=said.path,
        category=said.category,
        score=said.score,
        p_value=said.p_value,
        decision=said.decision,
        anomaly_map=np.asarray(black + levels.astype(np.float64) / WHITE * (white - black), np.float32),
    )
    return MapFile(prediction=prediction, limits=said.limits, content_hash=said.content_hash)
