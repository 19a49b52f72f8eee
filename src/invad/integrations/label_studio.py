"""Label Studio: predictions as tasks to correct, and annotations as masks.

Its rectangles are in percent of the image. Its "RLE" is not that of COCO: a stream of bits over the pixels
row by row, each four times, as red, green, blue and alpha. Nothing of its packages is needed.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

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
from invad.errors import DataError, reason
from invad.records import Hw, Prediction
from invad.scoring.shapes import Part, parts_above

DEFECT = "defect"
LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files of its own machine, if it is told to."""

CONFIG = """\
<View>
  <Image name="image" value="$image" zoom="true"/>
  <BrushLabels name="brush" toName="image">
    <Label value="defect" background="#d61428"/>
  </BrushLabels>
  <RectangleLabels name="box" toName="image">
    <Label value="defect" background="#d61428"/>
  </RectangleLabels>
  <Choices name="decision" toName="image" choice="single" showInLine="true">
    <Choice value="good"/>
    <Choice value="review"/>
    <Choice value="bad"/>
  </Choices>
</View>
"""
"""The labelling configuration that the tasks are written for: a region whose names differ is not shown."""

Shape = Literal["brush", "box"]

ADVICE = "export the project as JSON"

_FIELDS = (3, 4, 8, 16)
"""Bits of the four fields that hold the length of a run, less one."""

_HEAD_BITS = 32 + 5 + 4 * 4


def to_tasks(
    predictions: Iterable[Prediction],
    limit: float,
    *,
    images: str | Path | None = None,
    url: str = LOCAL_FILES,
    shape: Shape = "brush",
    model_version: str = "invad",
) -> Iterator[dict[str, Any]]:
    """A task for each prediction, with its regions to be corrected and its decision.

    limit: of the map, above which a pixel belongs to a region; `Calibration.map_limits()[0]` is the review
    limit. images, url: the address of an image is `url` and its path below `images`, by default the path as
    it was given. shape: how regions are drawn. model_version: shown beside them, such as the content hash of
    the model. `score` is 1 - p_value. Raises DataError for a prediction without path.
    """
    base = None if images is None else Path(images)
    for one in predictions:
        if one.path is None:
            raise DataError("a prediction has no path; predict files, not arrays")
        name = relative_name(one.path, base)
        height, width = one.anomaly_map.shape
        place = {"original_width": width, "original_height": height, "image_rotation": 0}
        result = [
            {"id": _id(name, number), **_region(part, (height, width), shape), **place}
            for number, part in enumerate(parts_above(one.anomaly_map, limit))
        ]
        result.append(
            {
                "id": _id(name, -1),
                "type": "choices",
                "from_name": "decision",
                "to_name": "image",
                "value": {"choices": [one.decision]},
                **place,
            }
        )
        yield {
            "data": {
                "image": url + quote(name, errors="surrogateescape"),
                "path": name,
                "anomaly_score": one.score,
                "p_value": one.p_value,
            },
            "predictions": [{"model_version": model_version, "score": 1 - one.p_value, "result": result}],
        }


def _id(name: str, number: int) -> str:
    return sha256(f"{name} {number}".encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _region(part: Part, size_hw: Hw, shape: Shape) -> dict[str, Any]:
    height, width = size_hw
    x, y, mask = part.box()
    if shape == "box":
        value: dict[str, Any] = {
            "x": 100 * x / width,
            "y": 100 * y / height,
            "width": 100 * mask.shape[1] / width,
            "height": 100 * mask.shape[0] / height,
            "rotation": 0,
            "rectanglelabels": [DEFECT],
        }
        return {"type": "rectanglelabels", "from_name": "box", "to_name": "image", "value": value}
    starts = part.rows_R * width + part.starts_R
    order = np.argsort(starts)
    ends = part.rows_R * width + part.ends_R
    rle = list(_packed(np.stack([starts[order], ends[order]], 1).ravel(), height * width))
    value = {"format": "rle", "rle": rle, "brushlabels": [DEFECT]}
    return {"type": "brushlabels", "from_name": "brush", "to_name": "image", "value": value}


def encode_rle(mask_HW: NDArray[np.bool_]) -> bytes:
    """A mask H x W as the bytes of a brush region."""
    flat = np.zeros(mask_HW.size + 2, bool)
    flat[1:-1] = mask_HW.ravel()
    return _packed(np.flatnonzero(flat[1:] != flat[:-1]), mask_HW.size)


def _packed(edges: NDArray[np.intp], pixels: int) -> bytes:
    """edges: where runs of marked pixels begin and end, in turn, of so many pixels in the order of rows."""
    bounds = np.concatenate([[0], edges, [pixels]]) * 4
    lengths = np.diff(bounds)
    values = np.arange(len(lengths)) % 2 * 255
    # A chunk holds as much as its longest field.
    most = 1 << _FIELDS[-1]
    chunks = -(-lengths // most)
    values = np.repeat(values, chunks)
    last = np.cumsum(chunks) - 1
    cut = np.full(int(chunks.sum()), most)
    cut[last[chunks > 0]] = (lengths - (chunks - 1) * most)[chunks > 0]
    field = np.searchsorted(np.left_shift(1, _FIELDS), cut)
    sizes = np.asarray(_FIELDS)[field]
    # Of a run: one bit that says so, two for the field, its length less one, and one value of eight bits.
    codes = (((1 << 2) | field) << (sizes + 8)) | ((cut - 1) << 8) | values
    widths = sizes + 11
    head = pixels * 4
    for bits, number in ((5, 7), *((4, size - 1) for size in _FIELDS)):
        head = head << bits | number
    chunk = np.repeat(np.arange(len(codes)), widths)
    place = np.arange(len(chunk)) - np.repeat(np.cumsum(widths) - widths, widths)
    body = (codes[chunk] >> (widths[chunk] - 1 - place)) & 1
    first = [(head >> (_HEAD_BITS - 1 - i)) & 1 for i in range(_HEAD_BITS)]
    return np.packbits(np.concatenate([first, body]).astype(np.uint8)).tobytes()


def decode_rle(rle: Sequence[int] | bytes, size_hw: Hw) -> NDArray[np.bool_]:
    """The bytes of a brush region as a mask H x W: where its alpha is not 0.

    Raises DataError for bytes that do not fill the image.
    """
    try:
        bits = _Bits(bytes(rle))
    except (TypeError, ValueError):
        raise DataError("a brush region holds no bytes") from None
    total = size_hw[0] * size_hw[1] * 4
    if bits.take(32) != total:
        raise DataError(f"a brush region is of another size than {size_hw[1]} x {size_hw[0]} pixels")
    word = bits.take(5) + 1
    fields = [bits.take(4) + 1 for _ in range(4)]
    if word != 8:
        raise DataError(f"a brush region has values of {word} bits, not of 8")
    values = np.zeros(total, np.uint8)
    done = 0
    while done < total:
        is_run = bits.take(1)
        length = bits.take(fields[bits.take(2)]) + 1
        if length > total - done:
            raise DataError("a brush region is longer than its image; it is damaged")
        values[done : done + length] = bits.take(8) if is_run else bits.bytes(length)
        done += length
    mask: NDArray[np.bool_] = values.reshape(-1, 4)[:, 3].reshape(size_hw) > 0
    return mask


class _Bits:
    """Bits from the highest of the first byte on."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def take(self, count: int) -> int:
        """The next bits as a number. Raises DataError when there are no more."""
        end = self.at + count
        if end > 8 * len(self.content):
            raise DataError("a brush region ends early; it is damaged")
        held = int.from_bytes(self.content[self.at // 8 : -(-end // 8)], "big")
        self.at = end
        return (held >> (-end % 8)) & ((1 << count) - 1)

    def bytes(self, count: int) -> NDArray[np.uint8]:
        return np.frombuffer(self.take(8 * count).to_bytes(count, "big"), np.uint8)


def from_label_studio(
    path: str | Path, images: str | Path, output: str | Path, category: str | None = None
) -> Written:
    """Write the annotations of an export as masks and a list that `invad evaluate` and `calibrate` read.

    path: the project as JSON. images: folder below which the images lie. output: new or empty. Of a task the
    annotation that was marked as ground truth counts, else the newest. A task that was submitted without a
    region is good; one that nobody submitted, or whose decision is `review`, is left out and named. The kind
    of defect of an image is the label that covers most of it. Raises DataError as `write_annotations`, and
    for a file that is no such export.
    """
    return write_annotations(_annotations(Path(path)), Path(images), Path(output), category)


def _annotations(path: Path) -> Iterator[Annotation | DataError]:
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: {reason(error, writing=False)}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: unreadable ({' '.join(str(error).split())[:120]}); {ADVICE}") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path}: holds no list of tasks; {ADVICE}")
    if tasks and not any("data" in task for task in tasks):
        raise DataError(f"{path}: its tasks have no data, as of JSON-MIN; {ADVICE}")
    for number, task in enumerate(tasks, 1):
        name = f"task {task.get('id', number)}"
        try:
            name = _name(task)
            yield _annotation(name, task)
        except DataError as error:
            yield DataError(f"{name}: {error}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            yield DataError(f"{name}: cannot be read in {path} ({' '.join(str(error).split())[:120]})")


def _name(task: Mapping[str, Any]) -> str:
    """What the image was called: the path that `to_tasks` wrote, or the end of its address."""
    data = task["data"]
    if isinstance(data.get("path"), str):
        return str(data["path"])
    address = data.get("image") or next(value for value in data.values() if isinstance(value, str))
    parts = urlsplit(str(address))
    if inside := parse_qs(parts.query).get("d"):
        return "/" + inside[0].lstrip("/")
    return ("/" if parts.scheme else "") + unquote(parts.path)


def _annotation(name: str, task: Mapping[str, Any]) -> Annotation:
    said = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    if not said:
        raise DataError("has no annotation that was submitted")
    newest = max(said, key=lambda one: (bool(one.get("ground_truth")), str(one.get("updated_at") or "")))
    results = newest["result"]
    choice = {str(word) for one in results if one["type"] == "choices" for word in one["value"]["choices"]}
    if "review" in choice:
        raise DataError("its decision is 'review'; call it good or bad")
    regions = [one for one in results if one["type"] not in ("choices", "textarea", "rating", "number")]
    if "good" in choice and regions:
        raise DataError("is called good and has a region; remove one of them")
    size_hw = _size(results)
    if not regions:
        kind = DEFECT if "bad" in choice else "good"
        return Annotation(name=name, size_hw=size_hw, kind=kind)
    whole = None
    areas = []
    for region in regions:
        mask = mask_of(region)
        if whole is not None and mask.shape != whole.shape:
            raise DataError("its regions are of images of two sizes")
        areas.append((_label(region), int(mask.sum())))
        whole = mask if whole is None else whole | mask
    return Annotation(name=name, size_hw=size_hw, kind=largest_kind(areas), mask_HW=whole)


def _size(results: Sequence[Mapping[str, Any]]) -> Hw | None:
    """None where nothing was marked: an empty annotation does not say it."""
    known = [one for one in results if "original_width" in one]
    return (int(known[0]["original_height"]), int(known[0]["original_width"])) if known else None


def _label(region: Mapping[str, Any]) -> str:
    value = region["value"]
    names = value.get(region["type"]) or value.get("labels") or ()
    return str(names[0]) if names else ""


def mask_of(region: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The pixels H x W that a region marks: a brush, rectangle, ellipse or polygon. Raises DataError."""
    width, height = int(region["original_width"]), int(region["original_height"])
    if min(width, height) < 1 or width * height > pixel_limit():
        raise DataError(f"a size of {width} x {height} pixels")
    if region.get("image_rotation"):
        raise DataError("was turned in the editor; turn it back, or turn the file")
    size_hw, value = (height, width), region["value"]
    if "rle" in value or "rle" in region:
        return decode_rle(value["rle"] if "rle" in value else region["rle"], size_hw)
    if "points" in value:
        return polygon_mask(size_hw, [(x * width / 100, y * height / 100) for x, y in value["points"]])
    x, y = value.get("x", 0) * width / 100, value.get("y", 0) * height / 100
    turn = math.radians(value.get("rotation") or 0)
    if "radiusX" in value:
        across, down = value["radiusX"] * width / 100, value["radiusY"] * height / 100
        steps = [2 * math.pi * i / 180 for i in range(180)]
        corners = [(across * math.cos(step), down * math.sin(step)) for step in steps]
    elif "width" in value and "height" in value:
        w, h = value["width"] * width / 100, value["height"] * height / 100
        if not turn:
            return box_mask(size_hw, x, y, w, h)
        corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)]
    else:
        raise DataError(f"a region of the type {region['type']!r} marks no pixels; use a brush or a box")
    cosine, sine = math.cos(turn), math.sin(turn)
    return polygon_mask(size_hw, [(x + cosine * a - sine * b, y + sine * a + cosine * b) for a, b in corners])
