"""Heat maps on one fixed colour scale.

The colours are tied to the two map limits of the calibration and to nothing else, so equal anomaly values
have equal colours in every image. With u = (value - review) / (bad - review):

    u <= -1        transparent
    -1 < u < 0     yellow, fading in
    0              yellow
    0 < u < 1      yellow to red
    u >= 1         red, with a thin outline around the region
"""

from math import isfinite

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError, DataError

Limits = tuple[float, float]
Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

YELLOW = (255.0, 214.0, 10.0)
RED = (214.0, 20.0, 40.0)
OUTLINE = (110.0, 0.0, 24.0)
BACKGROUND = (30.0, 34.0, 42.0)
OPACITY_AT_REVIEW = 0.45
OPACITY_AT_BAD = 0.65
DISPLAY_PERCENTILES = (0.5, 99.5)
PIXELS_PER_OUTLINE = 400


def display(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels a screen can show: uint8 H x W x 3.

    uint8 is returned as it is. uint16 and float32 have no agreed white point, so each image is stretched
    between its own 0.5 % and 99.5 % percentiles. This is for looking only; scores never see it.
    Raises DataError unless `pixels` is H x W x 3.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise DataError(f"cannot show pixels of shape {pixels.shape}: give H x W x 3")
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    values = np.nan_to_num(pixels.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = np.percentile(values, DISPLAY_PERCENTILES)
    if high <= low:
        return np.full(values.shape, 128, np.uint8)
    stretched: NDArray[np.float64] = np.clip((values - low) / (high - low), 0, 1) * 255
    return np.rint(stretched).astype(np.uint8)


def overlay(pixels: Pixels, anomaly_map: NDArray[np.float32], limits: Limits) -> NDArray[np.uint8]:
    """The heat map drawn over the image, and an outline of the region at or above the bad limit.

    pixels: H x W x 3, uint8, uint16 or float32. anomaly_map: float32 H x W, same H and W, the unit of
    `limits`. limits: (review, bad) map limits of the calibration. Returns uint8 H x W x 3.
    Raises ConfigError for impossible limits, DataError for shapes that do not fit.
    """
    base = display(pixels)
    if anomaly_map.shape != base.shape[:2]:
        raise DataError(
            f"the anomaly map is {anomaly_map.shape} but the image is {base.shape[:2]}: resize the map first"
        )
    colour, opacity = _colour_and_opacity(anomaly_map, limits)
    return _draw(base.astype(np.float32), colour, opacity, anomaly_map, limits)


def heatmap(anomaly_map: NDArray[np.float32], limits: Limits) -> NDArray[np.uint8]:
    """The same colours as `overlay` on a dark ground, solid from the review limit up.

    anomaly_map: float32 H x W. limits: (review, bad) map limits. Returns uint8 H x W x 3.
    Raises ConfigError for impossible limits, DataError unless the map is H x W.
    """
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise DataError(f"cannot show an anomaly map of shape {anomaly_map.shape}: give H x W")
    colour, opacity = _colour_and_opacity(anomaly_map, limits)
    ground = np.broadcast_to(np.array(BACKGROUND, np.float32), colour.shape)
    return _draw(ground, colour, np.minimum(opacity / OPACITY_AT_REVIEW, 1), anomaly_map, limits)


def layer(anomaly_map: NDArray[np.float32], limits: Limits) -> NDArray[np.uint8]:
    """The colours of `overlay` alone, to be laid over the image: opaque from the bad limit up.

    anomaly_map: float32 H x W. limits: (review, bad) map limits. Returns uint8 H x W x 4, the last
    channel opacity. Raises ConfigError for impossible limits, DataError unless the map is H x W.
    """
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise DataError(f"cannot show an anomaly map of shape {anomaly_map.shape}: give H x W")
    colour, opacity = _colour_and_opacity(anomaly_map, limits)
    drawn = np.concatenate([colour, 255 * opacity[..., None] / OPACITY_AT_BAD], axis=2)
    drawn[outline(anomaly_map >= limits[1])] = (*OUTLINE, 255)
    return np.asarray(np.rint(drawn), np.uint8)


def check_limits(limits: Limits) -> Limits:
    """The limits as they are; raises ConfigError unless both are finite and review <= bad."""
    review, bad = limits
    if not (isfinite(review) and isfinite(bad) and review <= bad):
        raise ConfigError(f"map limits {limits} are unusable: give finite (review, bad) with review <= bad")
    return review, bad


def _colour_and_opacity(
    anomaly_map: NDArray[np.float32], limits: Limits
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour H x W x 3 in 0..255 and opacity H x W in 0..1 of every map value."""
    review, bad = check_limits(limits)
    # Equal limits leave no review band: the fade below it still needs some width.
    width = (bad - review) or abs(bad) * 0.1 or 1.0
    values = np.nan_to_num(anomaly_map.astype(np.float64), nan=review - width)
    u = np.where(values >= bad, 1.0, (np.clip(values, review - width, bad) - review) / width)
    toward_red = np.clip(u, 0, 1)[..., None]
    colour = np.array(YELLOW) * (1 - toward_red) + np.array(RED) * toward_red
    opacity = np.interp(u, (-1, 0, 1), (0, OPACITY_AT_REVIEW, OPACITY_AT_BAD))
    return colour.astype(np.float32), opacity.astype(np.float32)


def _draw(
    ground: NDArray[np.float32],
    colour: NDArray[np.float32],
    opacity: NDArray[np.float32],
    anomaly_map: NDArray[np.float32],
    limits: Limits,
) -> NDArray[np.uint8]:
    drawn = ground + (colour - ground) * opacity[..., None]
    drawn[outline(anomaly_map >= limits[1])] = OUTLINE
    return np.rint(drawn).astype(np.uint8)


def outline(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The inner edge of a region, bool H x W; one pixel wide, wider on images too large to show it."""
    if not region.any():
        return region
    width = max(1, round(min(region.shape) / PIXELS_PER_OUTLINE))
    inside = region
    for _ in range(width):
        padded = np.pad(inside, 1, constant_values=True)
        rows, columns = padded[:, 1:-1], padded[1:-1]
        inside = inside & rows[:-2] & rows[2:] & columns[:, :-2] & columns[:, 2:]
    return region & ~inside
