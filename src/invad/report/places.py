"""Where on the part defects lie: a grid of zones, a count for each, and the zones that hold the most."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup, escape

from invad.records import Hw
from invad.report.wording import counted

ZONES = 8
"""Along the longer side of a picture."""

LONG = 480.0
"""Units of the drawing along that side."""

MARGIN = 24.0
MOST_ROWS = 10
MOST_ALIKE = 3
"""Defects in a zone that make it as dark as can be, where no zone has more."""


@dataclass(frozen=True, slots=True)
class Spot:
    """The middle of a defect, as shares of the width and the height of its picture, 0..1."""

    x: float
    y: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A zone and its defects. share: of all of them; together: of this zone and those before it, 0..1."""

    name: str
    count: int
    share: float
    together: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Zones:
    """Counts of defects by (row, column) of a grid that is laid over every picture, whatever its size."""

    rows: int
    columns: int
    counts: Counter[tuple[int, int]]

    @property
    def total(self) -> int:
        return self.counts.total()

    def pareto(self) -> list[Place]:
        """The zones with a defect, most first; equals by row and column."""
        places, before = [], 0
        for zone, count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0])):
            before += count
            name = zone_name(*zone)
            share, together = count / self.total, before / self.total
            places.append(Place(name=name, count=count, share=share, together=together))
        return places


def zones(spots: Sequence[Spot], sizes_hw: Sequence[Hw]) -> Zones:
    """Count defects by zone. sizes_hw: of the pictures, whose usual shape decides how many rows there are."""
    shape = median(height / width for height, width in sizes_hw) if sizes_hw else 1.0
    columns = max(1, round(ZONES * min(1, 1 / shape)))
    rows = max(1, round(ZONES * min(1, shape)))
    counts = Counter(
        (min(rows - 1, max(0, int(s.y * rows))), min(columns - 1, max(0, int(s.x * columns)))) for s in spots
    )
    return Zones(rows=rows, columns=columns, counts=counts)


def zone_name(row: int, column: int) -> str:
    """As in a spreadsheet: the letter of the column and the number of the row, `A1` at the upper left."""
    return f"{chr(ord('A') + column)}{row + 1}"


def place_map(found: Zones, picture: str = "") -> Markup:
    """The zones as SVG, the darker the more defects. picture: a data URI that is laid under them."""
    side = LONG / max(found.rows, found.columns)
    width, height = found.columns * side, found.rows * side
    zones = f"{counted(found.rows, 'row')} and {counted(found.columns, 'column')}"
    told = f"Map of {counted(found.total, 'defect')} in {zones} of the picture."
    parts = [f'<svg viewBox="0 0 {width + MARGIN:.0f} {height + MARGIN:.0f}" role="img" aria-label="{told}">']
    if picture:
        parts.append(
            f'<image href="{escape(picture)}" x="{MARGIN}" y="{MARGIN}" width="{width:.1f}" '
            f'height="{height:.1f}" preserveAspectRatio="none"/>'
        )
    for column in range(found.columns):
        x = MARGIN + (column + 0.5) * side
        parts.append(f'<text class="tick" x="{x:.1f}" y="{MARGIN - 8:.1f}">{zone_name(0, column)[0]}</text>')
    for row in range(found.rows):
        y = MARGIN + (row + 0.5) * side + 4
        parts.append(f'<text class="tick" x="{MARGIN / 2 - 2:.1f}" y="{y:.1f}">{row + 1}</text>')
    most = max(MOST_ALIKE, *found.counts.values())
    for row in range(found.rows):
        for column in range(found.columns):
            count = found.counts[row, column]
            x, y = MARGIN + column * side, MARGIN + row * side
            opacity = 0.2 + 0.6 * count / most if count else 0
            parts.append(
                f'<rect class="zone" x="{x:.1f}" y="{y:.1f}" width="{side:.1f}" height="{side:.1f}" '
                f'fill-opacity="{opacity:.2f}"><title>{zone_name(row, column)}: {count}</title></rect>'
            )
            if count:
                middle = f'x="{x + side / 2:.1f}" y="{y + side / 2 + 6:.1f}"'
                parts.append(f'<text class="zone-count" {middle}>{count}</text>')
    return Markup("".join(parts) + "</svg>")
