"""FiftyOne: predictions as fields of samples, and what people marked or tagged there.

Masks and maps are files, so that its database stays small. Boxes are in shares of the image.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.annotated import Annotation, Written, largest_kind, write_annotations
from invad.data.images import image_size
from invad.data.layouts.base import category_name
from invad.data.png import encode_png
from invad.errors import DataError
from invad.records import GOOD, Hw, Prediction, Sample
from invad.scoring.shapes import parts_above
from invad.system.files import fitting_name, make_folder, write_atomically
from invad.system.packages import importing, using

HOST = ("fiftyone",)
"""No extra: it brings a database."""

BAD = "bad"
UNREVIEWED_SHARE = 0.02
"""Of the flagged samples, that may be without a tag when limits are set from a span of time."""


def add_predictions(
    samples: Iterable[Any],
    predictions: Iterable[Prediction],
    limits: tuple[float, float],
    output: str | Path,
    field: str = "invad",
) -> int:
    """Write predictions into the samples of their paths, and save those that are in a data set.

    samples: a data set, a view or samples. limits: `Calibration.map_limits()`. output: folder for maps and
    masks, which the samples name, so it has to stay. Returns the number of predictions. Fields, for
    field="invad":

    - `invad`: a Classification, the decision, its confidence 1 - p_value; `invad_score`, `invad_p_value`.
    - `invad_map`: a Heatmap of 0 to 255, where 255 is the bad limit: equal colours mean equal values.
    - `invad_mask`: a Segmentation, 255 above the review limit.
    - `invad_regions`: Detections with `mask_path`, `area`, `peak`, of the connected parts of the mask.

    Raises DataError for a prediction that no sample is of, before anything of it is written; ConfigError
    where FiftyOne is missing, too old or changed.
    """
    with importing(HOST, None, __name__):
        import fiftyone as host
    folder = Path(output)
    make_folder(folder)
    known = {str(Path(sample.filepath).absolute()): sample for sample in samples}
    count = 0
    for one in predictions:
        sample = None if one.path is None else known.get(str(Path(one.path).absolute()))
        if sample is None:
            raise DataError(f"{one.path}: no sample of this path; add the image to the data set first")
        with using(HOST, __name__):
            fields = _fields(host, one, limits, folder, field)
        for name, value in fields.items():
            sample[name] = value
        if sample.in_dataset:
            sample.save()
        count += 1
    return count


def _fields(
    host: Any, one: Prediction, limits: tuple[float, float], folder: Path, field: str
) -> dict[str, Any]:
    height, width = one.anomaly_map.shape
    path = Path(str(one.path)).absolute()
    stem = f"{path.stem}-{sha256(str(path).encode('utf-8', 'surrogateescape')).hexdigest()[:10]}"

    def put(kind: str, levels: NDArray[np.uint8]) -> str:
        target = folder / fitting_name(stem, f"-{field}-{kind}.png", folder)
        return str(write_atomically(target, encode_png(levels)).absolute())

    review, bad = limits
    black = min(0.0, 2 * review - bad)  # below the limits, whatever their sign
    shown = (one.anomaly_map - black) / ((bad - black) or 1.0)
    regions = []
    for number, part in enumerate(parts_above(one.anomaly_map, review), 1):
        x, y, mask = part.box()
        box = [x / width, y / height, mask.shape[1] / width, mask.shape[0] / height]
        region = host.Detection(
            label="defect",
            bounding_box=box,
            mask_path=put(f"region{number}", mask.astype(np.uint8) * 255),
            confidence=1 - one.p_value,
            area=part.area,
            peak=part.peak,
        )
        regions.append(region)
    return {
        field: host.Classification(label=one.decision, confidence=1 - one.p_value),
        f"{field}_score": one.score,
        f"{field}_p_value": one.p_value,
        f"{field}_map": host.Heatmap(map_path=put("map", np.round(255 * shown.clip(0, 1)).astype(np.uint8))),
        f"{field}_mask": host.Segmentation(
            mask_path=put("mask", (one.anomaly_map > review).astype(np.uint8) * 255)
        ),
        f"{field}_regions": host.Detections(detections=regions),
    }


def to_calibration(
    samples: Iterable[Any], field: str = "invad", category: str | None = None
) -> tuple[Sample, ...]:
    """The good images of a span of time, for `Detector.calibrate`: all of it, not the reviewed ones alone.

    samples: every image of that span, with predictions from `add_predictions`. One with the tag `good`
    counts; one with the tag `bad` does not; without a tag it counts when its decision is `good`. Limits from
    reviewed images alone would be those of the highest good scores. category: by default the name of each
    image's folder. Raises DataError when more than 2 % of the flagged ones have no tag, for a sample with
    both tags or without a prediction, and when none is good.
    """
    good: list[Sample] = []
    flagged: Counter[bool] = Counter()
    for sample in samples:
        tags = {tag for tag in (GOOD, BAD) if tag in sample.tags}
        if len(tags) > 1:
            raise DataError(f"{sample.filepath}: has the tags good and bad; keep one")
        said: Any = sample[field] if sample.has_field(field) else None
        if said is None and not tags:
            raise DataError(f"{sample.filepath}: has neither a tag nor a prediction in {field!r}; predict it")
        if said is not None and said.label != GOOD:
            flagged[bool(tags)] += 1
        if GOOD in tags or (not tags and said.label == GOOD):
            path = Path(sample.filepath)
            good.append(Sample(path=path, category=category or category_name(path.parent)))
    if flagged[False] > UNREVIEWED_SHARE * flagged.total():
        raise DataError(
            f"{flagged[False]} of {flagged.total()} flagged samples have no tag; tag them good or bad, "
            "because limits without them would be too low"
        )
    if not good:
        raise DataError("no sample is good; tag those that are, or take a longer span of time")
    return tuple(good)


def from_samples(
    samples: Iterable[Any],
    images: str | Path,
    output: str | Path,
    field: str = "ground_truth",
    category: str | None = None,
) -> Written:
    """Write what people marked as masks and a list that `invad evaluate` and `calibrate` read.

    field: Detections, with masks or boxes alone, or a Segmentation, where all but 0 is defective. A sample
    whose field is empty is good, or bad as a whole with the tag `bad`; one without the field counts by its
    tag, and is left out and named without one. images, output, category, errors: see `write_annotations`.
    """
    return write_annotations(_annotations(samples, field), Path(images), Path(output), category)


def _annotations(samples: Iterable[Any], field: str) -> Iterator[Annotation | DataError]:
    for sample in samples:
        try:
            yield _annotation(sample, sample[field] if sample.has_field(field) else None, field)
        except DataError as error:
            said = str(error)
            yield DataError(said if said.startswith(sample.filepath) else f"{sample.filepath}: {said}")


def _annotation(sample: Any, said: Any, field: str) -> Annotation:
    is_good, is_bad = GOOD in sample.tags, BAD in sample.tags
    if said is None and not (is_good or is_bad):
        raise DataError(f"has nothing in {field!r} and no tag good or bad")
    name, whole = str(Path(sample.filepath).absolute()), None
    size_hw = image_size(sample.filepath)
    areas: list[tuple[str, int]] = []
    if said is not None and hasattr(said, "detections"):
        whole = np.zeros(size_hw, bool)
        for detection in said.detections:
            mask = _mask(detection, size_hw)
            areas.append((str(detection.label or ""), int(mask.sum())))
            whole |= mask
    elif said is not None and hasattr(said, "get_mask"):
        levels = said.get_mask()
        if levels is None or levels.shape[:2] != size_hw:
            raise DataError(f"its mask is not of {size_hw[1]} x {size_hw[0]} pixels")
        whole = levels.reshape(*size_hw, -1).any(axis=2)
        areas = [("", int(whole.sum()))] if whole.any() else []
    elif said is not None:
        raise DataError(f"{field!r} is a {type(said).__name__}; give Detections or a Segmentation")
    if areas and is_good:
        raise DataError("has the tag good and a region; remove one of them")
    kind = largest_kind(areas) if areas or is_bad else GOOD
    return Annotation(name=name, size_hw=size_hw, kind=kind, mask_HW=whole if areas else None)


def _mask(detection: Any, size_hw: Hw) -> NDArray[np.bool_]:
    """The pixels H x W of a detection: its mask stretched over its box, or the box."""
    height, width = size_hw
    x, y, w, h = detection.bounding_box
    left, right = (min(width, max(0, round(side * width))) for side in (x, x + w))
    top, bottom = (min(height, max(0, round(side * height))) for side in (y, y + h))
    whole = np.zeros(size_hw, bool)
    inside = detection.get_mask()
    if inside is None:
        whole[top:bottom, left:right] = True
    elif right > left and bottom > top:
        rows = (np.arange(bottom - top) + 0.5) * inside.shape[0] / (bottom - top)
        columns = (np.arange(right - left) + 0.5) * inside.shape[1] / (right - left)
        whole[top:bottom, left:right] = inside[rows.astype(int)][:, columns.astype(int)] > 0
    return whole
