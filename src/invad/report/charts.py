"""Two charts as inline SVG. The page's style sheet colours them, so they follow light, dark and print."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

BINS = 36
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 14, 14, 30, 44
ROC_SIDE, ROC_MARGIN = 300, 48
ROC_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """Where the decisions actually made lie in the ROC plane; both rates in 0..1."""

    label: str
    css: str
    false_alarm_rate: float
    hit_rate: float


def histogram(good: Sequence[float], defective: Sequence[float], limits: tuple[float, float]) -> Markup:
    """Score histogram: good images above the axis, defective ones below, the zones of the two limits behind.

    Bar heights are shares of their own group on one common scale. Scores far beyond the bad limit are
    counted in the last bar, else one monstrous defect would squeeze everything else into one bar.
    """
    low, high, clipped = _score_range(good, defective, limits)
    counts = [_count(group, low, high) for group in (good, defective)]
    shares = [c / max(1, c.sum()) for c in counts]
    tallest = max(float(np.max(shares)), 1e-9)
    base = TOP + (HEIGHT - TOP - BOTTOM) / 2

    def x(score: float) -> float:
        return LEFT + (min(max(score, low), high) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = _zones(limits, x)
    parts += _bars(counts[0], shares[0] / tallest, base, -1, "normal", "good")
    parts += _bars(counts[1], shares[1] / tallest, base, +1, "defect", "defective")
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base:.1f}" y2="{base:.1f}"/>')
    for tick in nice_ticks(low, high):
        label = f"{tick:.6g}"
        parts.append(_text(x(tick), HEIGHT - BOTTOM + 16, label, "tick"))
    end = " (last bar: all above)" if clipped else ""
    parts.append(_text(WIDTH / 2, HEIGHT - 8, f"anomaly score{end}", "label"))
    right = WIDTH - RIGHT - 6
    parts.append(_text(right, TOP + 16, f"good images, n = {len(good)}", "label end"))
    parts.append(_text(right, HEIGHT - BOTTOM - 8, f"defective images, n = {len(defective)}", "label end"))
    told = (
        "Histogram of anomaly scores: {} good and {} defective images; review limit {:.4g}, bad limit {:.4g}."
    )
    return _svg(WIDTH, HEIGHT, told.format(len(good), len(defective), *limits), parts)


def roc_chart(curves: Sequence[NDArray[np.float64]], points: Sequence[OperatingPoint]) -> Markup:
    """ROC curves (each K x 2: false-alarm rate, hit rate, 0..1) and the realised operating points.

    One curve is drawn boldly. Of several, each is thin and their mean at equal false-alarm rate is bold.
    """
    size = ROC_SIDE + ROC_MARGIN + 16
    bold = curves[0] if len(curves) == 1 else mean_roc(curves)
    parts = [
        f'<rect class="frame" x="{ROC_MARGIN}" y="16" width="{ROC_SIDE}" height="{ROC_SIDE}"/>',
        _path(np.array([[0.0, 0.0], [1.0, 1.0]]), "chance"),
    ]
    parts += [_path(curve, "roc thin") for curve in curves if len(curves) > 1]
    parts.append(_path(bold, "roc"))
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        across, up = _place(tick, tick)
        parts.append(_text(across, 16 + ROC_SIDE + 16, f"{tick:.0%}", "tick"))
        parts.append(_text(ROC_MARGIN - 6, up + 4, f"{tick:.0%}", "tick end"))
    parts.append(_text(ROC_MARGIN + ROC_SIDE / 2, ROC_SIDE + 52, "good images flagged", "label"))
    turned = f'transform="translate(11 {16 + ROC_SIDE / 2:.0f}) rotate(-90)"'
    parts.append(f'<text class="label" {turned}>defects caught</text>')
    for point in points:
        across, up = _place(point.false_alarm_rate, point.hit_rate)
        told = f"{point.label}: {point.hit_rate:.1%} of defects, {point.false_alarm_rate:.1%} of good images"
        dot = f'<circle class="{point.css}" cx="{across:.1f}" cy="{up:.1f}" r="6">'
        parts.append(f"{dot}<title>{told}</title></circle>")
    return _svg(
        size, ROC_SIDE + 62, "ROC curve: share of defects caught against share of good images flagged.", parts
    )


def mean_roc(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean hit rate of several curves at equal false-alarm rates, K x 2."""
    grid = np.linspace(0, 1, ROC_POINTS)
    hits = np.mean([np.interp(grid, curve[:, 0], curve[:, 1]) for curve in curves], axis=0)
    return np.concatenate([[[0.0, 0.0]], np.stack([grid, hits], axis=1)])


def nice_ticks(low: float, high: float) -> list[float]:
    """About eight round numbers inside low..high."""
    rough = (high - low) / 8
    unit = 10.0 ** floor(log10(rough))
    step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough * 0.999)
    return [k * step for k in range(ceil(low / step), floor(high / step) + 1)]


def _score_range(
    good: Sequence[float], defective: Sequence[float], limits: tuple[float, float]
) -> tuple[float, float, bool]:
    """Lowest and highest score shown, and whether scores above the highest exist."""
    known = [limit for limit in limits if isfinite(limit)]
    everything = [*good, *defective, *known]
    low, top = min(everything), max(everything)
    centre = float(np.median(good)) if len(good) else low
    wanted = centre + 5 * (max(known) - centre) if known else top
    high = min(top, wanted) if wanted > centre else top
    if high <= low:
        low, high = low - 0.5, low + 0.5
    pad = (high - low) * 0.02
    return low - pad, high + pad, top > high + pad


def _count(group: Sequence[float], low: float, high: float) -> NDArray[np.int64]:
    return np.histogram(np.clip(group, low, high), bins=BINS, range=(low, high))[0]


def _zones(limits: tuple[float, float], x: Callable[[float], float]) -> list[str]:
    """Shaded grounds with their names, and limit lines; after a limit at infinity there is no zone."""
    edges = [float(LEFT), *(x(limit) if isfinite(limit) else float(WIDTH - RIGHT) for limit in limits)]
    edges.append(float(WIDTH - RIGHT))
    height = HEIGHT - TOP - BOTTOM
    parts = []
    for name, start, stop in zip(("good", "review", "bad"), edges[:-1], edges[1:], strict=True):
        place = f'x="{start:.1f}" y="{TOP}" width="{stop - start:.1f}" height="{height}"'
        parts.append(f'<rect class="zone-{name}" {place}/>')
    # Outer names stand at the outer edges, so that they stay clear of a narrow review zone.
    parts.append(_text(LEFT, TOP - 10, "good", "label start zone-name-good"))
    if edges[1] < edges[2]:
        middle = min(max((edges[1] + edges[2]) / 2, LEFT + 60), WIDTH - RIGHT - 50)
        parts.append(_text(middle, TOP - 10, "review", "label zone-name-review"))
    if edges[2] < edges[3]:
        parts.append(_text(WIDTH - RIGHT, TOP - 10, "bad", "label end zone-name-bad"))
    for name, limit in zip(("review", "bad"), limits, strict=True):
        if isfinite(limit):
            told = f"{name} limit {limit:.4g}"
            parts.append(
                f'<line class="limit-{name}" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{TOP - 4}" '
                f'y2="{TOP + height}"><title>{told}</title></line>'
            )
    return parts


def _bars(
    counts: NDArray[np.int64],
    heights: NDArray[np.float64],
    base: float,
    direction: int,
    css: str,
    noun: str,
) -> list[str]:
    step = (WIDTH - LEFT - RIGHT) / BINS
    room = (HEIGHT - TOP - BOTTOM) / 2 - 20
    return [
        f'<rect class="{css}" x="{LEFT + i * step + 0.5:.1f}" y="{base - (h if direction < 0 else 0):.1f}" '
        f'width="{step - 1:.1f}" height="{h:.1f}"><title>{n} {noun}</title></rect>'
        for i, (n, h) in enumerate(zip(counts, heights * room, strict=True))
        if n
    ]


def _place(false_alarm_rate: float, hit_rate: float) -> tuple[float, float]:
    return ROC_MARGIN + false_alarm_rate * ROC_SIDE, 16 + (1 - hit_rate) * ROC_SIDE


def _path(curve: NDArray[np.float64], css: str) -> str:
    kept = curve[np.unique(np.linspace(0, len(curve) - 1, ROC_POINTS).astype(int))]
    spots = " ".join("{:.1f},{:.1f}".format(*_place(a, h)) for a, h in kept)
    return f'<polyline class="{css}" points="{spots}"/>'


def _text(x: float, y: float, text: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{text}</text>'


def _svg(width: float, height: float, told: str, parts: Sequence[str]) -> Markup:
    # Only numbers and this module's own words are ever put into the parts, so they need no escaping.
    opening = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{told}">'
    return Markup(opening + "".join(parts) + "</svg>")
