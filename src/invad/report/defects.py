"""The table of defects as one HTML page that needs nothing else."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from invad.report.colours import Pixels, display
from invad.report.rendering import environment
from invad.report.wording import counted, number

SIDE = 360
"""Pixels of the longer side of a picture."""

MOST_PICTURES = 100


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture made small: a JPEG as a data URI, and height and width of the image itself."""

    uri: str
    height: int
    width: int


def shown(pixels: Pixels) -> Shown:
    """The picture of H x W x 3 pixels for the page."""
    image = Image.fromarray(np.ascontiguousarray(display(pixels)))
    height, width = pixels.shape[:2]
    image.thumbnail((SIDE, SIDE))
    stream = BytesIO()
    image.save(stream, "JPEG", quality=82)
    return Shown("data:image/jpeg;base64," + b64encode(stream.getvalue()).decode("ascii"), height, width)


def defects_page(
    rows: Sequence[Mapping[str, Any]],
    pictures: Mapping[int, Shown],
    *,
    facts: Mapping[str, str],
    in_mm: bool,
    notes: Sequence[str] = (),
) -> str:
    """HTML of judged images and their defects.

    rows: with `path`, `decision`, `defects` (dicts with the fields of `Defect`) or `error`, and `frame` and
    `time` of a video. pictures: by the number of the row. in_mm: sizes are on the part. Raises ConfigError
    without jinja2.
    """
    flagged = [(number_of, row) for number_of, row in enumerate(rows) if row.get("defects")]
    unit = "mm" if in_mm else "px"
    lengths = [one[f"length_{unit}"] for _, row in flagged for one in row["defects"]]
    cells = sorted({one["cell_px"] for _, row in flagged for one in row["defects"]})
    unread = sum("error" in row for row in rows)
    headline = [
        (str(len(lengths)), "defects", f"in {counted(len(flagged), 'image')} of {len(rows)}"),
        (f"{number(max(lengths, default=None))} {unit}", "is the greatest length", "largest Feret diameter"),
        (
            number(cells[-1] if cells else None) + " px",
            "is a cell of the model",
            "of its grid",
        ),
    ]
    if unread:
        headline.append((str(unread), "could not be judged", "named in the table"))
    left_out = sum(number_of not in pictures for number_of, _ in flagged)
    return (
        environment()
        .get_template("defects.html.j2")
        .render(
            title="Defects",
            notes=notes,
            facts=facts,
            headline=headline,
            rows=rows,
            flagged=flagged,
            pictures=pictures,
            left_out=left_out,
            sized=sum(one.get("size_of") == "defect" for _, row in flagged for one in row["defects"]),
            total=len(lengths),
            unit=unit,
            square="mm2" if in_mm else "px",
            area_unit="mm²" if in_mm else "px",
        )
    )
