"""Two results side by side, as one HTML file. Nothing is measured here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import TypeAlias

from markupsafe import Markup

from invad.records import Decision
from invad.report.rendering import environment
from invad.report.tables import share
from invad.report.wording import counted, percent

SIDE, MARGIN = 360.0, 46.0
MOST_DOTS, MOST_ROWS = 2000, 200


Pictures: TypeAlias = tuple[Sequence[tuple[str, float]], str]


@dataclass(frozen=True, slots=True)
class Moved:
    """A part under both: name, what it is if known, and (decision, p-value) by A and by B.

    pictures: of a part of several, by A and by B, name and p-value of each and the name of the one that
    decided.
    """

    name: str
    label: str
    a: tuple[Decision, float]
    b: tuple[Decision, float]
    pictures: tuple[Pictures, Pictures] = (((), ""), ((), ""))

    @property
    def changed(self) -> bool:
        return self.a[0] != self.b[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A result. counts: parts by decision."""

    letter: str
    name: str
    counts: Mapping[Decision, int]

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def flagged_words(self) -> str:
        own = share(self.total - self.counts["good"], self.total)
        return f"{own.part} ({percent(own.value)}; 95 % interval {percent(own.low)} to {percent(own.high)})"


def comparison_page(
    sides: tuple[Side, Side],
    moved: Sequence[Moved],
    only: tuple[int, int],
    tests: Sequence[tuple[str, ...]],
    said: Sequence[str],
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> str:
    """HTML of two results. moved: every part that both judged. only: parts of A, and of B, alone. tests: rows
    of (what, both, A alone, B alone, neither, p). said: what that means. At most 200 changed parts are named.
    Raises ConfigError without jinja2."""
    order: dict[Decision, int] = {"good": 0, "review": 1, "bad": 2}
    changed = sorted(
        (one for one in moved if one.changed), key=lambda one: -abs(order[one.a[0]] - order[one.b[0]])
    )
    grid = {(a, b): sum((m.a[0], m.b[0]) == (a, b) for m in moved) for a in order for b in order}
    if moved:
        headline = [
            (str(len(moved)), "parts judged by both", f"{only[0]} by A alone, {only[1]} by B alone"),
            (
                str(len(changed)),
                "changed their decision",
                f"{counted(len(moved) - len(changed), 'part')} did not",
            ),
        ]
    else:
        headline = [(str(side.total), f"parts of {side.letter}", side.name) for side in sides]
    return (
        environment()
        .get_template("comparison.html.j2")
        .render(
            title="Two results side by side",
            notes=notes,
            facts=facts,
            headline=headline,
            sides=sides,
            order=list(order),
            grid=grid if moved else None,
            chart=p_chart(moved) if moved else None,
            tests=tests,
            said=said,
            changed=changed[:MOST_ROWS],
            left_out=len(changed) - len(changed[:MOST_ROWS]),
        )
    )


def p_chart(moved: Sequence[Moved]) -> Markup:
    """p-values of the same parts by A (across) and B (up), both logarithmic, the suspicious at the right and
    the top. Of more than MOST_DOTS every so-manieth that did not change is left out."""
    low = min(min(one.a[1], one.b[1]) for one in moved)
    decades = max(1, -(-int(-1000 * log10(low)) // 1000))

    def at(p_value: float) -> float:
        return SIDE * -log10(p_value) / decades

    step = -(-len(moved) // MOST_DOTS)
    parts = [f'<rect class="frame" x="{MARGIN}" y="12" width="{SIDE}" height="{SIDE}"/>']
    parts.append(f'<line class="chance" x1="{MARGIN}" y1="{12 + SIDE}" x2="{MARGIN + SIDE}" y2="12"/>')
    for tick in range(decades + 1):
        place, name = SIDE * tick / decades, f"{10.0**-tick:g}"
        parts.append(f'<text class="tick" x="{MARGIN + place:.1f}" y="{SIDE + 28}">{name}</text>')
        parts.append(f'<text class="tick end" x="{MARGIN - 6}" y="{16 + SIDE - place:.1f}">{name}</text>')
    for number, one in enumerate(moved):
        if one.changed or number % step == 0:
            css, r = ("of-bad", 4.5) if one.changed else ("of-good", 2.5)
            spot = f'cx="{MARGIN + at(one.a[1]):.1f}" cy="{12 + SIDE - at(one.b[1]):.1f}"'
            parts.append(f'<circle class="{css}" {spot} r="{r}"/>')
    parts.append(f'<text class="label" x="{MARGIN + SIDE / 2}" y="{SIDE + 46}">p-value by A</text>')
    turned = f'transform="translate(11 {12 + SIDE / 2:.0f}) rotate(-90)"'
    parts.append(f'<text class="label" {turned}>p-value by B</text>')
    changed = sum(one.changed for one in moved)
    told = f"p-values of {counted(len(moved), 'part')} by A and by B; {changed} changed."
    box = f'viewBox="0 0 {SIDE + MARGIN + 14:.0f} {SIDE + 54:.0f}"'
    return Markup(f'<svg {box} role="img" aria-label="{told}">' + "".join(parts) + "</svg>")
