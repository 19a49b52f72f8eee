"""A contact sheet of a data set: a row per category, good images first, defects with their masks outlined."""

from base64 import b64encode
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from invad.data.layouts.base import Dataset
from invad.data.masks import read_mask
from invad.data.samples import read_sample
from invad.errors import DataError
from invad.records import Sample
from invad.report.colours import display, outline
from invad.system.files import write_atomically

SIDE = 120
GAP = 8
CAPTION = 16
INK = (24, 28, 36)
MARKED = (235, 20, 140)
TRAIN, TEST_GOOD, DEFECTS = 2, 2, 6
"""Pictures of a category at most, one of each kind of defect first."""


@dataclass(frozen=True, slots=True)
class Thumb:
    caption: str
    picture: Image.Image


def write_sheet(dataset: Dataset, path: str | Path) -> Path:
    """Write a contact sheet, HTML by the ending `.html`, else PNG. Unreadable images become a cross.

    Raises DataError when it cannot be written.
    """
    path = Path(path)
    rows = {name: [_thumb(*chosen) for chosen in _chosen(dataset.only(name))] for name in dataset.categories}
    return write_atomically(path, _html(dataset, rows) if path.suffix.lower() == ".html" else _png(rows))


def _chosen(dataset: Dataset) -> list[tuple[str, Sample]]:
    good = [s for s in dataset.test if not s.is_anomalous]
    bad = [s for s in dataset.test if s.is_anomalous]
    first: dict[str, Sample] = {}
    for sample in bad:
        first.setdefault(sample.defect, sample)
    kinds = list(first.values())
    others = [s for s in bad if s not in kinds][: max(0, DEFECTS - len(kinds))]
    return [
        *(("train", s) for s in dataset.train[:TRAIN]),
        *(("test good", s) for s in good[:TEST_GOOD]),
        *((s.defect, s) for s in [*kinds, *others][:DEFECTS]),
    ]


def _thumb(caption: str, sample: Sample) -> Thumb:
    try:
        pixels = display(read_sample(sample))
    except DataError:
        return Thumb(f"{caption}: unreadable", _cross())
    scale = SIDE / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    picture = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)).copy()
    if sample.mask_path is not None:
        try:
            mask = read_mask(sample.mask_path, size_hw=pixels.shape[:2], above=sample.mask_above)
        except DataError:
            return Thumb(f"{caption}: no mask", Image.fromarray(picture))
        share = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
        marked = np.asarray(share) > 0
        picture[outline(marked)] = MARKED
    return Thumb(caption, Image.fromarray(picture))


def _cross() -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), (230, 230, 230))
    pen = ImageDraw.Draw(picture)
    pen.line((0, 0, SIDE, SIDE), fill=INK)
    pen.line((0, SIDE, SIDE, 0), fill=INK)
    return picture


def _png(rows: dict[str, list[Thumb]]) -> bytes:
    columns = max(map(len, rows.values()), default=1)
    height = SIDE + 2 * CAPTION + 2 * GAP
    sheet = Image.new("RGB", (GAP + columns * (SIDE + GAP), GAP + len(rows) * height), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (name, thumbs) in enumerate(rows.items()):
        top = GAP + number * height
        pen.text((GAP, top), name, fill=INK, font=font)
        for column, thumb in enumerate(thumbs):
            left = GAP + column * (SIDE + GAP)
            sheet.paste(thumb.picture, (left, top + CAPTION))
            pen.text((left, top + CAPTION + SIDE + 2), _shortened(thumb.caption, font), fill=INK, font=font)
    return _encoded(sheet)


def _shortened(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont") -> str:
    while font.getlength(text) > SIDE and len(text) > 2:
        text = text[:-2] + "…"
    return text


def _html(dataset: Dataset, rows: dict[str, list[Thumb]]) -> bytes:
    parts = [
        '<!doctype html><meta charset="utf-8"><title>Contact sheet</title><style>body{font-family:sans-serif}'
        "figure{display:inline-block;margin:4px;vertical-align:top}figcaption{font-size:12px}</style>",
        f"<h1>{escape(str(dataset.root))}</h1><p>Layout {escape(dataset.layout)}.</p>",
    ]
    for name, thumbs in rows.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        for thumb in thumbs:
            uri = "data:image/png;base64," + b64encode(_encoded(thumb.picture)).decode()
            said = escape(thumb.caption)
            parts.append(f'<figure><img src="{uri}" alt="{said}"><figcaption>{said}</figcaption></figure>')
    return "\n".join(parts).encode("utf-8", "replace")


def _encoded(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
