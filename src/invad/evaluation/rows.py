"""From the predictions for a category to its metrics. Needs no model.

A row: one category and seed under one protocol and one metric definition. Maps are brought to the frame of
the definition one at a time, and again for each look at them, so memory does not grow with their number.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from invad.data.preprocess import resize_map
from invad.errors import DataError
from invad.evaluation.definitions import DEFINITIONS, Definition
from invad.evaluation.false_alarms import false_alarms, realised_rate
from invad.evaluation.predictions import Predictions
from invad.metrics.exact import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    SEVEN_METRICS,
    Bools,
    Floats,
    mean_ad,
)
from invad.metrics.intervals import RESAMPLES, bootstrap_intervals
from invad.records import Hw

T = TypeVar("T")
Row = dict[str, Any]

SAMPLE_METRICS = tuple(name.replace("image", "sample") for name in IMAGE_METRICS)
MEASURED = (
    "images_per_second",
    "peak_memory_mb",
    "measured_on",
    "train_seconds",
    "calibration_n",
    "pooled_limits",
    "skipped",
)
"""Facts of a run that prediction files carry in their meta data."""


class Lazy(Sequence[T]):
    """A sequence whose items are made when asked for and not kept."""

    def __init__(self, length: int, make: Callable[[int], T]):
        self.length, self.make = length, make

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Lazy[T]": ...
    def __getitem__(self, index: int | slice) -> "T | Lazy[T]":
        if isinstance(index, slice):
            chosen = range(self.length)[index]
            return Lazy(len(chosen), lambda i: self.make(chosen[i]))
        return self.make(range(self.length)[index])


def row_of(p: Predictions, protocol: str, definition: str, resamples: int = RESAMPLES) -> Row:
    """The metrics of one category and seed. Those that the test set cannot define are None, and said why.

    n_masked: defective images with a mask, of which figures of pixels are; n_vanished: those of them whose
    mask has no pixel in the frame of the definition.

    Raises DataError when the prediction file has no scores of that protocol.
    """
    if protocol not in p.scores or protocol not in p.maps:
        raise DataError(f"{p.meta['category']}: the prediction file has no scores of protocol {protocol}")
    chosen = DEFINITIONS[definition]
    scores, labels = p.scores[protocol], p.labels
    maps, masks = framed(p, protocol, chosen)
    masked = sum(mask is not None for mask in p.masks)
    pixel = chosen.pixel(maps, masks) if masked else dict.fromkeys(PIXEL_METRICS)
    seven = {**chosen.image(scores, labels), **pixel}
    intervals = bootstrap_intervals(scores, labels, chosen.image, resamples)
    of_normals = [decision for decision, bad in zip(p.decisions, labels, strict=True) if not bad]
    row: Row = {
        "category": p.meta["category"],
        "seed": p.meta["seed"],
        "protocol": protocol,
        "definition": definition,
        **seven,
        "mad": mean_ad(seven),
        "image_95": {name: list(ends) for name, ends in intervals.items()},
        "n_normal": int((~labels).sum()),
        "n_anomalous": int(labels.sum()),
        "n_masked": masked,
        "n_vanished": sum(
            not mask.any() for mask, i in zip(masks, _known(p), strict=True) if p.masks[i] is not None
        ),
        "false_alarm_rate": realised_rate(of_normals),
        "false_alarms": false_alarms(
            of_normals, p.meta["rates"], [(len(of_normals), p.meta.get("calibration_n"))]
        ),
        **{key: p.meta.get(key) for key in MEASURED},
    }
    if any(p.samples):
        row |= sample_metrics(p, protocol, chosen)
    return {**row, "undefined": _undefined(row, masks)}


def framed(p: Predictions, protocol: str, definition: Definition) -> tuple[Lazy[Floats], Lazy[Bools]]:
    """Maps and masks of the images whose mask is known, in the frame of the definition; made on demand."""
    known = _known(p)
    height, width = p.meta["input_hw"]

    def frame(i: int) -> Hw:
        return definition.frame_hw((height, width), p.size(i))

    def make_map(k: int) -> Floats:
        return resize_map(p.maps[protocol][known[k]], frame(known[k]))

    def make_mask(k: int) -> Bools:
        i = known[k]
        if p.masks[i] is None:
            return np.zeros(frame(i), bool)
        return definition.mask(*p.mask(i), frame(i))

    return Lazy(len(known), make_map), Lazy(len(known), make_mask)


def _known(p: Predictions) -> list[int]:
    """The images whose mask is known."""
    return [i for i in range(len(p.paths)) if p.mask_known(i)]


def sample_metrics(p: Predictions, protocol: str, definition: Definition) -> dict[str, float | int | None]:
    """The image metrics of objects with several views: an object scores as its most anomalous view.

    It is anomalous if one of its views is. An image without an object stands for itself.
    """
    views: dict[str, list[int]] = {}
    for i, sample in enumerate(p.samples):
        views.setdefault(sample or f"\0{i}", []).append(i)
    scores = np.array([p.scores[protocol][own].max() for own in views.values()])
    labels = np.array([p.labels[own].any() for own in views.values()])
    metrics = definition.image(scores, labels)
    return {**dict(zip(SAMPLE_METRICS, metrics.values(), strict=True)), "n_samples": len(views)}


def _undefined(row: Row, masks: Sequence[Bools]) -> dict[str, str]:
    """Why a metric is None."""
    no_class = "all scores are alike"
    if not row["n_anomalous"] or not row["n_normal"]:
        no_class = "no defective test images" if not row["n_anomalous"] else "no good test images"
    if row["n_anomalous"] and not row["n_masked"]:
        no_pixels = "no masks"
    elif row["n_anomalous"] and not any(mask.any() for mask in masks):
        no_pixels = "no defective pixel is left of the masks"
    else:
        no_pixels = no_class if not row["n_anomalous"] else "all pixels are of one class or score alike"
    reasons: dict[str, str] = {}
    for name in (*SEVEN_METRICS, *SAMPLE_METRICS):
        if name in row and row[name] is None:
            reasons[name] = no_pixels if name in PIXEL_METRICS else no_class
    if row["mad"] is None:
        reasons["mad"] = "one of the seven is undefined"
    if row["false_alarm_rate"] is None:
        reasons["false_alarm_rate"] = "no good test images"
    return reasons
