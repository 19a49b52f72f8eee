"""Line charts as an SVG file that stands by itself."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil

WIDTH, HEIGHT, COLUMNS = 330, 240, 3
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 30, 44
LEGEND_LINE = 17
LETTER = 7
"""Pixels, at most, of a letter of the text on average."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7a5c00", "#56b4e9", "#444444", "#e69f00")
"""Told apart by eyes that confuse red and green, too."""

STYLE = (
    "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}.g{stroke:#ddd}"
    ".c{stroke:#888;stroke-dasharray:4 3}polyline{fill:none;stroke-width:2}"
)

Lines = dict[str, Mapping[str, float]]
"""Values in [0, 1] by line and by name on the horizontal axis."""


def line_charts(panels: Mapping[str, Lines], *, across: str, up: str, chance: float | None = None) -> str:
    """One panel per key, all with one vertical axis and one legend; names stand evenly on the horizontal one.

    chance: a dashed line at this value.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    values = [v for lines in panels.values() for line in lines.values() for v in line.values()]
    low = max(0.0, int(min([*values, 1.0] if chance is None else [*values, chance]) * 10) / 10)
    columns = min(COLUMNS, max(1, len(panels)))
    rows = ceil(len(panels) / columns)
    told = escape(f"{up} against {across}", quote=True)
    width = max(columns * WIDTH, LEFT + LETTER * len(told))
    height = rows * HEIGHT + LEGEND_LINE * (len(names) + 2)
    parts = [
        _panel((i % columns * WIDTH, i // columns * HEIGHT), title, lines, names, low, chance)
        for i, (title, lines) in enumerate(panels.items())
    ]
    parts += _legend(names, rows * HEIGHT)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{told}"><style>{STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}'
        f'<text x="{LEFT}" y="{height - LEGEND_LINE}">{told}</text></svg>\n'
    )


def _panel(
    corner: tuple[int, int], title: str, lines: Lines, names: Sequence[str], low: float, chance: float | None
) -> str:
    ticks = list(dict.fromkeys(x for line in lines.values() for x in line))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def x(name: str) -> float:
        return LEFT + wide * (ticks.index(name) + 0.5) / len(ticks)

    def y(value: float) -> float:
        return TOP + high * (1 - (value - low) / (1 - low or 1))

    parts = [f'<text class="t" x="{LEFT}" y="18">{escape(title)}</text>']
    for tenth in range(round(low * 10), 11):
        at = y(tenth / 10)
        parts.append(f'<line class="g" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    if chance is not None:
        at = y(chance)
        parts.append(f'<line class="c" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
    crowded = sum(map(len, ticks)) > 40
    for i, name in enumerate(ticks):
        lower = 14 * (i % 2) if crowded else 0
        parts.append(
            f'<text x="{x(name):.1f}" y="{HEIGHT - BOTTOM + 16 + lower}" text-anchor="middle">'
            f"{escape(name)}</text>"
        )
    for name, line in lines.items():
        colour = COLOURS[names.index(name) % len(COLOURS)]
        spots = [(x(k), y(v), k, v) for k, v in line.items()]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b, _, _ in spots)
        parts.append(f'<polyline stroke="{colour}" points="{points}"/>')
        parts += [
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}">'
            f"<title>{escape(f'{name}, {k}: {v:.3f}')}</title></circle>"
            for a, b, k, v in spots
        ]
    return f'<g transform="translate({corner[0]} {corner[1]})">{"".join(parts)}</g>'


def _legend(names: Sequence[str], top: int) -> list[str]:
    parts = []
    for i, name in enumerate(names):
        at = top + LEGEND_LINE * (i + 1)
        colour = COLOURS[i % len(COLOURS)]
        parts.append(
            f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{at - 4}" y2="{at - 4}" stroke="{colour}" '
            'stroke-width="3"/>'
        )
        parts.append(f'<text x="{LEFT + 32}" y="{at}">{escape(name)}</text>')
    return parts
