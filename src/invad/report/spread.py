"""The defects of many pictures: their table, and where on the part they lie. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from invad.records import Decision, Hw
from invad.report.places import MOST_ROWS, Place, Spot, place_map, zones

MOST_LINES = 200
"""Of a table of defects; the clearest stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A picture and its defects, plain data with the fields of `Defect`. kind: what it shows, if known."""

    name: str
    decision: Decision
    size_hw: Hw
    defects: Sequence[Mapping[str, Any]]
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of the table of defects. number: of the part, from 1 in the order judged."""

    number: int
    judged: Judged
    one: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DefectLines:
    """The clearest defects of flagged pictures, and how many there are. unit: mm or px. sized: those of
    them whose size is that of the defect and not of its place."""

    lines: Sequence[Line]
    total: int
    flagged: int
    passed: int
    unit: str
    sized: int

    @property
    def square(self) -> str:
        """Ending of the names of areas."""
        return "mm2" if self.unit == "mm" else "px"

    @property
    def area_unit(self) -> str:
        return "mm²" if self.unit == "mm" else "px"


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where defects lie: a map and the zones that hold the most. others: defects of zones not in `places`."""

    title: str
    chart: Markup
    places: Sequence[Place]
    others: int
    total: int


def defect_lines(judged: Sequence[Judged], numbers: Sequence[int] | None = None) -> DefectLines:
    """Of pictures that were flagged, clearest first. `passed` counts places of pictures called good.

    numbers: of the part that each picture is of; by default each is of one of its own, from 1.
    """
    lines = [
        Line(number=number, judged=picture, one=one)
        for number, picture in zip(numbers or range(1, len(judged) + 1), judged, strict=True)
        for one in picture.defects
        if picture.decision != "good"
    ]
    in_mm = any(line.one.get("length_mm") is not None for line in lines)
    return DefectLines(
        lines=sorted(lines, key=lambda line: -line.one["peak"])[:MOST_LINES],
        total=len(lines),
        flagged=len({line.number for line in lines}),
        passed=sum(len(picture.defects) for picture in judged if picture.decision == "good"),
        unit="mm" if in_mm else "px",
        sized=sum(line.one.get("size_of") == "defect" for line in lines),
    )


def where(title: str, judged: Sequence[Judged], ground: str = "") -> Where | None:
    """The defects of these pictures by zone; None where there are none. ground: see `place_map`."""
    spots = [
        Spot(one["centroid_x"] / picture.size_hw[1], one["centroid_y"] / picture.size_hw[0])
        for picture in judged
        for one in picture.defects
    ]
    if not spots:
        return None
    found = zones(spots, [picture.size_hw for picture in judged])
    places = found.pareto()
    return Where(
        title=title,
        chart=place_map(found, ground),
        places=places[:MOST_ROWS],
        others=sum(place.count for place in places[MOST_ROWS:]),
        total=found.total,
    )
