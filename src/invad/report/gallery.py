"""Which images the report shows, why, and their thumbnails."""

from base64 import b64encode
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, zip_longest
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter

from invad.data.masks import read_mask
from invad.data.samples import read_sample
from invad.errors import DataError
from invad.records import ScoredSample
from invad.report.colours import Limits, display, heatmap, outline, overlay
from invad.report.tables import anomalies, normals

THUMBNAIL_SIDE = 256
JPEG_QUALITY = 82
MASK_COLOUR = (0.0, 190.0, 230.0)
SHARES = (0.5, 0.25, 0.1875, 0.0625)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Images shown under one heading; `total` counts the images that belong here, shown or not."""

    heading: str
    explanation: str
    reason: str
    total: int
    chosen: Sequence[ScoredSample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A thumbnail: `uri` is a JPEG data URI, empty when there is nothing to show and `alt` says why."""

    label: str
    alt: str
    uri: str
    width: int
    height: int


def groups(scored: Sequence[ScoredSample], max_gallery: int) -> list[Group]:
    """At most `max_gallery` images: worst misses, then false alarms, then typical catches and good images.

    Half of the room goes to misses, a quarter to false alarms, the rest to typical images; room that a group
    does not need goes to the others, misses first.
    """
    defective, good = anomalies(scored), normals(scored)
    caught = [s for s in defective if s.decision != "good"]
    candidates = [
        sorted((s for s in defective if s.decision == "good"), key=lambda s: (-s.p_value, s.score)),
        sorted(
            (s for s in good if s.decision != "good"),
            key=lambda s: (s.decision != "bad", s.p_value, -s.score),
        ),
        _typical(caught),
        _typical([s for s in good if s.decision == "good"]),
    ]
    room = _room([len(c) for c in candidates], max_gallery)
    return [
        Group(heading=h, explanation=e, reason=r, total=len(c), chosen=c[:n])
        for (h, e, r), c, n in zip(_WORDS, candidates, room, strict=True)
        if n
    ]


_WORDS = (
    (
        "Missed defects",
        "Defective images that were called good, the most normal-looking first (highest p-value).",
        "missed: a defect called good",
    ),
    (
        "False alarms",
        "Good images that were called bad or sent to review, bad ones first (lowest p-value).",
        "false alarm: a good image flagged",
    ),
    (
        "Typical detections",
        "Defects that were flagged, the kinds taking turns, each nearest the median score of its kind.",
        "typical detection of this kind",
    ),
    (
        "Typical good images",
        "Good images that passed, nearest the median score of their category.",
        "typical good image",
    ),
)


def _typical(candidates: Sequence[ScoredSample]) -> list[ScoredSample]:
    kinds = defaultdict(list)
    for s in candidates:
        kinds[s.sample.category, s.sample.defect].append(s)
    for members in kinds.values():
        middle = median(s.score for s in members)
        members.sort(key=lambda s: abs(s.score - middle))
    turns = zip_longest(*(members for _, members in sorted(kinds.items())))
    return [s for s in chain.from_iterable(turns) if s is not None]


def _room(wanted: Sequence[int], total: int) -> list[int]:
    given = [min(n, int(total * part)) for n, part in zip(wanted, SHARES, strict=True)]
    for i, n in enumerate(wanted):
        given[i] += min(n - given[i], total - sum(given))
    return given


def pictures(scored: ScoredSample, limits: Limits) -> list[Picture]:
    """Thumbnails of the image, its heat map and, if there is one, its mask.

    An unreadable image or mask becomes a Picture without uri that tells what is wrong.
    """
    name = f"{scored.sample.category}, {scored.sample.defect}, {scored.sample.path.name}"
    try:
        image = shrink(display(read_sample(scored.sample)))
    except DataError as error:
        lost = Picture(label="image", alt=f"no image: {error}", uri="", width=0, height=0)
        alone = heatmap(fit(scored.anomaly_map, _thumbnail_size(scored.anomaly_map.shape)), limits)
        return [lost, thumbnail("heat map", f"Heat map of {name}", alone)]
    hot = overlay(image, fit(scored.anomaly_map, (image.shape[0], image.shape[1])), limits)
    shown = [thumbnail("image", f"Image {name}", image), thumbnail("heat map", f"Heat map over {name}", hot)]
    if scored.sample.mask_path is not None:
        shown.append(_mask_picture(scored.sample.mask_path, scored.sample.mask_above, image, name))
    return shown


def _mask_picture(path: Path, above: int | None, image: NDArray[np.uint8], name: str) -> Picture:
    try:
        mask = read_mask(path, above=above)
    except DataError as error:
        return Picture(label="marked defect", alt=f"no mask: {error}", uri="", width=0, height=0)
    fitted = fit(mask.astype(np.float32), (image.shape[0], image.shape[1])) >= 0.5
    drawn = image.astype(np.float32)
    drawn[fitted] = drawn[fitted] * 0.45 + np.array(MASK_COLOUR, np.float32) * 0.55
    drawn[outline(fitted)] = MASK_COLOUR
    return thumbnail("marked defect", f"Marked defect of {name}", np.rint(drawn).astype(np.uint8))


def _thumbnail_size(shape: tuple[int, ...]) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL_SIDE / max(shape[:2]))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def shrink(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image of H x W x 3 no larger than a thumbnail."""
    height, width = _thumbnail_size(image.shape)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def fit(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize H x W to `size`; a small hot spot keeps its peak, because a thumbnail must not hide it."""
    ratio = [-(-old // new) for old, new in zip(values.shape, size, strict=True)]
    peaks = maximum_filter(values.astype(np.float32), size=ratio)
    if max(ratio) > 1:
        rows, columns = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(int)
            for old, new in zip(values.shape, size, strict=True)
        )
        return np.asarray(peaks[np.ix_(rows, columns)])
    resized = Image.fromarray(peaks).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)


def thumbnail(label: str, alt: str, pixels: NDArray[np.uint8]) -> Picture:
    """Pixels of H x W x 3 as a JPEG for a page."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    uri = "data:image/jpeg;base64," + b64encode(buffer.getvalue()).decode("ascii")
    return Picture(label=label, alt=alt, uri=uri, width=pixels.shape[1], height=pixels.shape[0])
