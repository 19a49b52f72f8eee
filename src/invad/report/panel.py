"""One PNG for one image: what the camera saw, what the detector saw, and the verdict in words."""

from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from invad.records import Decision
from invad.report.colours import Limits, Pixels, display, overlay
from invad.report.wording import number, p_value_text
from invad.system.files import write_atomically

PAPER = (255, 255, 255)
INK = (24, 28, 36)
BADGES: dict[Decision, tuple[int, int, int]] = {
    "good": (21, 115, 71),
    "review": (154, 92, 0),
    "bad": (190, 18, 42),
}
GAP = 4
SMALLEST_SIDE = 240
CAPTION_SHARE = 28


def save_overlay(
    path: Path | str,
    pixels: Pixels,
    anomaly_map: NDArray[np.float32],
    limits: Limits,
    *,
    decision: Decision,
    score: float,
    p_value: float,
) -> Path:
    """Write a PNG: image | overlay above a strip with decision, score and p-value; returns the path.

    pixels: H x W x 3. anomaly_map: float32 H x W. limits: (review, bad) map limits, as in `overlay`.
    Images with both sides under 240 px are enlarged by a whole factor. The file appears complete or not at
    all.
    Raises DataError if it cannot be written or the shapes do not fit, ConfigError for impossible limits.
    """
    left, right = display(pixels), overlay(pixels, anomaly_map, limits)
    factor = max(1, -(-SMALLEST_SIDE // max(left.shape[:2])))
    left, right = (np.kron(side, np.ones((factor, factor, 1), np.uint8)) for side in (left, right))
    separator = np.full((left.shape[0], GAP, 3), 255, np.uint8)
    pictures = Image.fromarray(np.concatenate([left, separator, right], axis=1))
    strip = _caption(decision, [f"score {number(score)}", p_value_text(p_value)], pictures.width)
    panel = Image.new("RGB", (max(pictures.width, strip.width), pictures.height + strip.height), PAPER)
    panel.paste(pictures, ((panel.width - pictures.width) // 2, 0))
    panel.paste(strip, (0, pictures.height))
    buffer = BytesIO()
    panel.save(buffer, format="PNG")
    return write_atomically(Path(path), buffer.getvalue())


def _caption(decision: Decision, texts: list[str], width: int) -> Image.Image:
    """A strip at least `width` wide: a coloured badge with the decision, then the texts."""
    size = max(13, width // CAPTION_SHARE // 2)
    font = ImageFont.load_default(size)
    pad = size // 2
    parts = [decision.upper(), *texts]
    lengths = [round(font.getlength(part)) for part in parts]
    needed = sum(lengths) + pad * (2 + 2 * len(parts))
    strip = Image.new("RGB", (max(width, needed), size * 2), PAPER)
    pen = ImageDraw.Draw(strip)
    x, middle = pad, strip.height // 2
    badge = (x, pad // 2, x + lengths[0] + 2 * pad, strip.height - pad // 2)
    pen.rounded_rectangle(badge, radius=pad // 2, fill=BADGES[decision])
    for part, length, ink in zip(parts, lengths, [PAPER, INK, INK], strict=True):
        pen.text((x + pad, middle), part, fill=ink, font=font, anchor="lm")
        x += length + 2 * pad
    return strip
