"""Scores in the order of a lot, as inline SVG: a dot for each part, or ranges where there are too many."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup

from invad.records import Decision
from invad.report.charts import nice_ticks
from invad.report.wording import counted

WIDTH, HEIGHT = 720.0, 260.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 22.0, 40.0
MOST_DOTS = 400
"""Parts, or ranges of parts, that are drawn one by one."""

ABOVE = 5.0
"""How many times the bad limit's distance from the middle the axis reaches; higher scores lie at its edge."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A line across the chart before the part with this number, from 0."""

    number: int
    label: str


def order_chart(
    scores: Sequence[float],
    decisions: Sequence[Decision],
    limits: tuple[float, float],
    marks: Sequence[Mark] = (),
) -> Markup:
    """Scores from the first part of a lot to its last one, with the (review, bad) limits and the marks.

    More than MOST_DOTS parts are drawn as ranges, from the lowest to the highest score of neighbours, and of
    those that were flagged the highest of each range as a dot.
    """
    low, high = _reach(scores, limits)
    n = len(scores)

    def x(number: float) -> float:
        return LEFT + (number + 0.5) / n * (WIDTH - LEFT - RIGHT)

    def y(score: float) -> float:
        return TOP + (high - min(max(score, low), high)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in nice_ticks(low, high):
        parts.append(_line("grid", LEFT, WIDTH - RIGHT, y(tick), y(tick)))
        parts.append(_text(LEFT - 6, y(tick) + 4, f"{tick:.6g}", "tick end"))
    for name, limit in zip(("review", "bad"), limits, strict=True):
        if low <= limit <= high:
            parts.append(_line(f"limit-{name}", LEFT, WIDTH - RIGHT, y(limit), y(limit)))
            # Limits may be near each other: their names stand on their outer sides.
            side, place, beside = (
                ("start", LEFT + 4, 15) if name == "review" else ("end", WIDTH - RIGHT - 4, -5)
            )
            parts.append(_text(place, y(limit) + beside, f"{name} limit", f"label {side} zone-name-{name}"))
    step = -(-n // MOST_DOTS)
    for first in range(0, n, step):
        parts += _drawn(scores[first : first + step], decisions[first : first + step], first, x, y)
    for mark in marks:
        at = x(mark.number - 0.5)
        parts.append(_line("mark", at, at, TOP, HEIGHT - BOTTOM))
        side = "end" if at > WIDTH / 2 else "start"
        parts.append(_text(at + (-5 if side == "end" else 5), TOP - 8, mark.label, f"label {side}"))
    parts.append(_text(LEFT, HEIGHT - BOTTOM + 16, "1", "tick start"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - BOTTOM + 16, str(n), "tick end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, "part, in the order judged", "label"))
    review, bad = limits
    told = f"Anomaly scores of {counted(n, 'part')} in their order; review limit {review:.4g}, bad {bad:.4g}."
    opening = f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{told}">'
    return Markup(opening + "".join(parts) + "</svg>")


def _reach(scores: Sequence[float], limits: tuple[float, float]) -> tuple[float, float]:
    low, middle = min(scores), median(scores)
    top = max(*scores, *limits)
    high = min(top, max(middle + ABOVE * (limits[1] - middle), limits[1]))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _drawn(
    scores: Sequence[float],
    decisions: Sequence[Decision],
    first: int,
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> Iterator[str]:
    if len(scores) == 1:
        yield _dot(x(first), y(scores[0]), decisions[0], f"part {first + 1}: {scores[0]:.4g}")
        return
    middle = x(first + (len(scores) - 1) / 2)
    yield _line("range", middle, middle, y(max(scores)), y(min(scores)))
    yield _dot(middle, y(median(scores)), "good", f"parts {first + 1} to {first + len(scores)}, median")
    flagged = [pair for pair in zip(scores, decisions, strict=True) if pair[1] != "good"]
    if flagged:
        score, decision = max(flagged)
        yield _dot(middle, y(score), decision, f"{len(flagged)} flagged, the highest {score:.4g}")


def _dot(x: float, y: float, decision: str, told: str) -> str:
    r = 2.2 if decision == "good" else 3.6
    return f'<circle class="of-{decision}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"><title>{told}</title></circle>'


def _line(css: str, x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="{css}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, css: str) -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}">{text}</text>'
