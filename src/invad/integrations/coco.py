"""COCO: predictions as a data set or as results, and annotations as masks.

Boxes are [x, y, width, height] in pixels from the outer corner of the first; masks are runs of pixels column
by column, beginning with those outside. Nothing of pycocotools is needed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.annotated import (
    Annotation,
    Written,
    box_mask,
    largest_kind,
    polygon_mask,
    relative_name,
    write_annotations,
)
from invad.data.images import pixel_limit
from invad.errors import DataError
from invad.records import Hw, Prediction
from invad.scoring.shapes import parts_above
from invad.system.plain import read_json

DEFECT = {"id": 1, "name": "defect", "supercategory": "defect"}
ADVICE = "export it again as COCO instances"


def to_coco(
    predictions: Iterable[Prediction], limit: float, images: str | Path | None = None
) -> dict[str, Any]:
    """Predictions as a COCO data set: every image, the good ones, too, and an annotation for each region.

    limit: of the map, above which a pixel belongs to a region; `Calibration.map_limits()[0]` is the review
    limit. images: folder below which `file_name` is written; by default the path as it was given. The images
    carry `score`, `p_value` and `decision`, the annotations the `score` of their image and their `peak`.
    `iscrowd` is 0: evaluators pass over what has 1. Raises DataError for a prediction without path.
    """
    base = None if images is None else Path(images)
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(predictions, 1):
        if one.path is None:
            raise DataError("a prediction has no path; predict files, not arrays")
        height, width = one.anomaly_map.shape
        listed.append(
            {
                "id": number,
                "file_name": relative_name(one.path, base),
                "width": width,
                "height": height,
                "score": one.score,
                "p_value": one.p_value,
                "decision": one.decision,
            }
        )
        for part in parts_above(one.anomaly_map, limit):
            x, y, mask = part.box()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": DEFECT["id"],
                    "bbox": [x, y, mask.shape[1], mask.shape[0]],
                    "area": part.area,
                    "iscrowd": 0,
                    "segmentation": encode_rle(mask, (x, y), (height, width)),
                    "score": one.score,
                    "peak": part.peak,
                }
            )
    return {"images": listed, "annotations": annotations, "categories": [DEFECT]}


def to_results(dataset: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results file of a `to_coco` data set, as `COCO.loadRes` reads it; `score` is the peak of a region,
    so that regions of one image have an order, too."""
    kept = ("image_id", "category_id", "bbox", "segmentation")
    return [{**{name: one[name] for name in kept}, "score": one["peak"]} for one in dataset["annotations"]]


def from_coco(
    path: str | Path, images: str | Path, output: str | Path, category: str | None = None
) -> Written:
    """Write the annotations of a COCO file as masks and a list that `invad evaluate` and `calibrate` read.

    images: folder below which the images lie. output: new or empty. Images without an annotation are good.
    Masks are polygons or runs, compressed or not; an annotation without one counts with its box. The kind of
    defect of an image is the category that covers most of it. What cannot be read is left out and named.
    Raises DataError as `write_annotations`, and for a file that is no COCO data set.
    """
    return write_annotations(_annotations(Path(path)), Path(images), Path(output), category)


def _annotations(path: Path) -> Iterator[Annotation | DataError]:
    content = read_coco(path)
    try:
        kinds = {int(one["id"]): str(one["name"]) for one in content["categories"]}
        listed = {int(one["id"]): one for one in content["images"]}
        if len(listed) < len(content["images"]):
            twice = Counter(int(one["id"]) for one in content["images"]).most_common(1)[0][0]
            raise DataError(f"{path}: two images have the id {twice}; {ADVICE}")
        marks: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
        for one in content["annotations"]:
            marks[int(one["image_id"])].append(one)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is no COCO data set ({_said(error)}); {ADVICE}") from None
    for image_id in sorted(set(marks) - set(listed)):
        yield DataError(f"{path}: {len(marks[image_id])} annotations are of image {image_id}, which it lacks")
    for image_id, image in listed.items():
        name = str(image.get("file_name", f"image {image_id}"))
        try:
            yield _annotation(name, (int(image["height"]), int(image["width"])), marks[image_id], kinds)
        except DataError as error:
            yield DataError(f"{name}: {error}")
        except (KeyError, TypeError, ValueError) as error:
            yield DataError(f"{name}: cannot be read in {path} ({_said(error)})")


def read_coco(path: Path) -> dict[str, Any]:
    """The object in the file. Raises DataError for a list of results, and for anything else."""
    try:
        is_results = path.read_text(encoding="utf-8", errors="replace").lstrip().startswith("[")
    except OSError:
        is_results = False
    if is_results:
        raise DataError(
            f"{path}: is a list, such as results, without the size of the images; give the data set of COCO"
        )
    content = read_json(path, DataError, ADVICE)
    lists = ("images", "annotations", "categories")
    lacking = [name for name in lists if not isinstance(content.get(name), list)]
    if lacking:
        raise DataError(f"{path}: has no list {' and no list '.join(lacking)}; {ADVICE}")
    return content


def _annotation(
    name: str, size_hw: Hw, marks: Sequence[Mapping[str, Any]], kinds: Mapping[int, str]
) -> Annotation:
    require_size(size_hw)
    if not marks:
        return Annotation(name=name, size_hw=size_hw)
    whole = np.zeros(size_hw, dtype=bool)
    areas = []
    for mark in marks:
        number = int(mark["category_id"])
        if number not in kinds:
            raise DataError(f"an annotation is of category {number}, which the file does not name")
        mask = mask_of(mark, size_hw)
        areas.append((kinds[number], int(mask.sum())))
        whole |= mask
    return Annotation(name=name, size_hw=size_hw, kind=largest_kind(areas), mask_HW=whole)


def require_size(size_hw: Hw) -> None:
    """Raises DataError for what is no size of an image, before memory is taken for it."""
    if min(size_hw) < 1 or size_hw[0] * size_hw[1] > pixel_limit():
        raise DataError(f"a size of {size_hw[1]} x {size_hw[0]} pixels")


def mask_of(annotation: Mapping[str, Any], size_hw: Hw) -> NDArray[np.bool_]:
    """The mask H x W of one annotation: its runs, its polygons, or else its box. Raises DataError."""
    said = annotation.get("segmentation")
    if isinstance(said, Mapping):
        if tuple(map(int, said["size"])) != tuple(size_hw):
            raise DataError(f"a mask is of {said['size']} (rows, columns), its image of {list(size_hw)}")
        return decode_rle(said["counts"], size_hw)
    if said:
        mask = np.zeros(size_hw, dtype=bool)
        for polygon in said:
            corners = [float(value) for value in polygon]
            mask |= polygon_mask(size_hw, list(zip(corners[::2], corners[1::2], strict=True)))
        return mask
    x, y, width, height = map(float, annotation["bbox"])
    return box_mask(size_hw, x, y, width, height)


def encode_rle(
    mask_hw: NDArray[np.bool_], at_xy: tuple[int, int] = (0, 0), size_hw: Hw | None = None
) -> dict[str, Any]:
    """A mask h x w as uncompressed runs, `{"size": [H, W], "counts": [...]}`.

    at_xy: the place of its first pixel in an image of `size_hw`, by default the mask is all of the image.
    """
    height, width = mask_hw.shape if size_hw is None else size_hw
    h, w = mask_hw.shape
    # Down the columns, each followed by a pixel that is outside, so that no run goes on in the next.
    flat = np.zeros(w * (h + 1) + 1, bool)
    flat[1:].reshape(w, h + 1)[:, :-1] = mask_hw.T
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    column, row = np.divmod(edges, h + 1)
    places = (at_xy[0] + column) * height + at_xy[1] + row
    # What ends where the next begins is one run: both go down to the border of the image.
    joined = np.flatnonzero(places[1:-1:2] == places[2::2])
    places = np.delete(places, np.concatenate([2 * joined + 1, 2 * joined + 2]))
    total = height * width
    counts = np.diff(np.concatenate([[0], places, [total]])).tolist()
    return {"size": [height, width], "counts": counts if counts[-1] or total == 0 else counts[:-1]}


def decode_rle(counts: Sequence[int] | str | bytes, size_hw: Hw) -> NDArray[np.bool_]:
    """Runs as a mask H x W. counts: a list, or the text into which pycocotools packs it.

    Raises DataError for runs that do not fill the image.
    """
    height, width = size_hw
    runs = np.asarray(_unpacked(counts) if isinstance(counts, str | bytes) else counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or int(runs.sum()) != height * width:
        raise DataError(f"the runs of a mask do not fill {width} x {height} pixels")
    inside = np.arange(len(runs)) % 2 == 1
    mask: NDArray[np.bool_] = np.repeat(inside, runs).reshape(width, height).T
    return mask


def _unpacked(text: str | bytes) -> list[int]:
    """Five bits a character, the lowest first, the sixth where more follow; from the fourth number on
    the difference from the last but one."""
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii", "replace") if isinstance(text, str) else text:
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise DataError("the text of a mask is damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _said(error: Exception) -> str:
    return f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:120]
