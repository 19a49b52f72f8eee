"""The metric definitions by name: same scores, same masks, different numbers.

A definition says in which frame maps and masks meet, which mask pixels are defective and how each of the
seven metrics is computed. It takes image scores as they are: how a map becomes a score is up to the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad.data.preprocess import resize_mask
from invad.errors import ConfigError
from invad.metrics.exact import Bools, Floats, Metrics, image_metrics, pixel_metrics
from invad.metrics.sampled import ader_aupro, ader_f1_max, adeval_image, adeval_pixel, official_f1_max
from invad.records import Hw

Codes = NDArray[np.uint8]
"""Mask as 0, 1 above level 0, 2 above half of full scale, see `read_mask_codes`."""

SIDE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """frame: of the model's input, of each image, or 256 x 256. mask: codes, least code of a defect, size.

    image: scores, labels -> IMAGE_METRICS. pixel: maps, masks -> PIXEL_METRICS. told: what
    distinguishes it, in words: the same aspects for every definition, in the order of reading.
    """

    summary: str
    frame: Literal["input", "image", "square"]
    mask: Callable[[Codes, int, Hw], Bools]
    image: Callable[[Floats, Bools], Metrics]
    pixel: Callable[[Sequence[Floats], Sequence[Bools]], Metrics]
    told: Mapping[str, str]

    def frame_hw(self, input_hw: Hw, image_hw: Hw) -> Hw:
        """Size at which the map and the mask of one image are compared."""
        return {"input": input_hw, "image": image_hw, "square": (SIDE, SIDE)}[self.frame]


def definitions_named(names: Sequence[str]) -> dict[str, Definition]:
    """The definitions called `names`, in that order. Raises ConfigError for an unknown name or none."""
    unknown = [name for name in names if name not in DEFINITIONS]
    if unknown or not names:
        problem = f"metric definition {unknown[0]!r} is unknown" if unknown else "no metric definition named"
        raise ConfigError(f"{problem}; choose from {', '.join(DEFINITIONS)}")
    return {name: DEFINITIONS[name] for name in names}


def same_metric(metric: str, first: str, second: str) -> bool:
    """Whether two definitions compute a metric (one of the seven or mad) alike, so that figures compare."""
    one, other = DEFINITIONS[first].told, DEFINITIONS[second].told
    aspects = TOLD_BY[metric] if metric in TOLD_BY else tuple(one)
    return all(one[aspect] == other[aspect] for aspect in aspects)


def _as_read(codes: Codes, least: int, frame_hw: Hw) -> Bools:
    return resize_mask(codes >= least, frame_hw)


def _above_half(codes: Codes, least: int, frame_hw: Hw) -> Bools:
    return resize_mask(codes >= codes.max(initial=1), frame_hw)


def _above_zero(codes: Codes, least: int, frame_hw: Hw) -> Bools:
    return resize_mask(codes >= 1, frame_hw)


def _above_zero_smoothed(codes: Codes, least: int, frame_hw: Hw) -> Bools:
    """Shrunk by means and cut at one half, so that thin defects can vanish."""
    grey = Image.fromarray(np.where(codes >= 1, np.uint8(255), np.uint8(0)))
    resized = grey.resize((frame_hw[1], frame_hw[0]), Image.Resampling.BILINEAR)
    return np.asarray(np.asarray(resized, np.float32) / 255 > 0.5)


def _ader_pixel(maps: Sequence[Floats], masks: Sequence[Bools]) -> Metrics:
    exact = pixel_metrics(maps, masks)
    return {**exact, "pixel_f1max": ader_f1_max(maps, masks), "pixel_aupro": ader_aupro(maps, masks)}


def _official_image(scores_N: Floats, labels_N: Bools) -> Metrics:
    exact = image_metrics(scores_N, labels_N)
    return {**exact, "image_f1max": official_f1_max([scores_N[None]], [labels_N[None]])}


def _official_pixel(maps: Sequence[Floats], masks: Sequence[Bools]) -> Metrics:
    sampled = adeval_pixel(maps, masks)
    ap = pixel_metrics(maps, masks)["pixel_ap"]
    return {**sampled, "pixel_ap": ap, "pixel_f1max": official_f1_max(maps, masks)}


EXACT_CURVE = "exact: every distinct score is a threshold"
EXACT_AP = "exact: sum of precision times step of recall"
STRIPS_1001 = "1001 equal steps of the score between its least and largest value, straight lines between"
NEAREST = "shrunk to the nearest pixel"

DEFINITIONS: dict[str, Definition] = {
    "exact": Definition(
        summary="All thresholds, in the model's input frame; as invad evaluate measures.",
        frame="input",
        mask=_as_read,
        image=image_metrics,
        pixel=pixel_metrics,
        told={
            "frame": "the model's input size",
            "masks": f"above 0 (label masks) or half of full scale (antialiased ones); {NEAREST}",
            "image AUROC, AP": f"{EXACT_CURVE}; AP {EXACT_AP}",
            "image F1-max": EXACT_CURVE,
            "pixel AUROC": EXACT_CURVE,
            "pixel AP": EXACT_AP,
            "pixel F1-max": EXACT_CURVE,
            "AUPRO": "exact, to a false-positive rate of 0.3, interpolated at 0.3, divided by 0.3",
        },
    ),
    "adeval": Definition(
        summary="The ADEval package: 1001 thresholds, at each image's own size.",
        frame="image",
        mask=_above_half,
        image=adeval_image,
        pixel=adeval_pixel,
        told={
            "frame": "each image's own size, maps enlarged bilinearly",
            "masks": "above half of full scale, or above 0 where nothing reaches half",
            "image AUROC, AP": f"{STRIPS_1001}, AP by the trapezoid rule; rounding can cut off an end of the "
            "curve, and with it the share of one image",
            "image F1-max": "at the same thresholds (the package has none)",
            "pixel AUROC": STRIPS_1001,
            "pixel AP": "the same steps, trapezoid rule",
            "pixel F1-max": "at the same thresholds (the package has none)",
            "AUPRO": "the same steps, to 0.3, interpolated at 0.3, divided by 0.3",
        },
    ),
    "ader200": Definition(
        summary="The ADer benchmark: 256 x 256, 200 thresholds for AUPRO, 21 for the pixel F1-max.",
        frame="square",
        mask=_above_zero_smoothed,
        image=image_metrics,
        pixel=_ader_pixel,
        told={
            "frame": "256 x 256",
            "masks": "above 0, shrunk by means, then above one half: thin defects can vanish",
            "image AUROC, AP": f"{EXACT_CURVE}; AP {EXACT_AP}",
            "image F1-max": EXACT_CURVE,
            "pixel AUROC": EXACT_CURVE,
            "pixel AP": EXACT_AP,
            "pixel F1-max": "21 thresholds of the scores scaled to 0..1",
            "AUPRO": "200 equal steps of the score, those below a rate of 0.3, that rate scaled to 0..1",
        },
    ),
    "official": Definition(
        summary="The paper's evaluation code: 256 x 256, partly exact, partly sampled.",
        frame="square",
        mask=_above_zero,
        image=_official_image,
        pixel=_official_pixel,
        told={
            "frame": "256 x 256",
            "masks": f"above 0, {NEAREST}",
            "image AUROC, AP": f"{EXACT_CURVE}; AP {EXACT_AP}",
            "image F1-max": "1000 bins of the scores scaled to 0..1",
            "pixel AUROC": STRIPS_1001,
            "pixel AP": EXACT_AP,
            "pixel F1-max": "1000 bins of the scores scaled to 0..1",
            "AUPRO": "1001 equal steps of the score, to 0.3, interpolated at 0.3, divided by 0.3",
        },
    ),
}
"""Metric definitions by name; the first is the default."""

TOLD_BY = {
    "image_auroc": ("image AUROC, AP",),
    "image_ap": ("image AUROC, AP",),
    "image_f1max": ("image F1-max",),
    "pixel_auroc": ("frame", "masks", "pixel AUROC"),
    "pixel_ap": ("frame", "masks", "pixel AP"),
    "pixel_f1max": ("frame", "masks", "pixel F1-max"),
    "pixel_aupro": ("frame", "masks", "AUPRO"),
}
"""The aspects of `Definition.told` that make a metric what it is; mAD, not here, is made by all of them."""
