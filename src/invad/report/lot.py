"""The report of a lot: parts that were judged one after the other, which nobody has labelled."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError
from invad.metrics.alarms import count_interval, realised_interval
from invad.report.colours import Limits, Pixels, check_limits, display, overlay
from invad.report.gallery import Picture, fit, shrink, thumbnail
from invad.report.order import Mark, order_chart
from invad.report.rendering import environment
from invad.report.spread import Judged, defect_lines, where
from invad.report.tables import Share, share, verdict
from invad.report.wording import NO_BREAK, counted, number
from invad.system.files import write_atomically

MOST_SHOWN = 36
"""Parts with a picture, whatever the size of the lot."""

MOST_GOOD = 6
"""Of them, those that were called good."""

MOST_NAMED = 20
"""Names of parts that could not be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LotPart(Judged):
    """A part with its score and p-value."""

    score: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What judged a lot. score_limits, map_limits: (review, bad). rates: the false-alarm rates asked of them.
    normals: independent good images that the limits were made from; unit: what they are."""

    score_limits: Limits
    map_limits: Limits
    rates: tuple[float, float]
    normals: int
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LotDrift:
    """Whether scores of a lot moved. said: in words. since, alarm: numbers of parts, from 0."""

    said: str
    since: int | None = None
    alarm: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """How many parts a limit called. promised: shares of good parts between which 95 % of limits lie that are
    made from so many normals."""

    what: str
    realised: Share
    asked: float
    verdict: str
    promised: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    number: int
    part: LotPart
    pictures: Sequence[Picture]


class LeastTypical:
    """Small pictures of the parts with the highest scores, and of the first good one; no more are held."""

    def __init__(self, map_limits: Limits, most: int = MOST_SHOWN):
        self.map_limits, self.most = check_limits(map_limits), most
        self.kept: list[tuple[float, int, NDArray[np.uint8], NDArray[np.float32]]] = []
        self.ground: NDArray[np.uint8] | None = None
        self._ground_is_good = False

    def see(self, number: int, score: float, good: bool, pixels: Pixels, map_HW: NDArray[np.float32]) -> None:
        """Take the next part into account. number: of the part, none twice. map_HW: in its frame."""
        as_ground = self.ground is None or (good and not self._ground_is_good)
        kept = len(self.kept) < self.most or score > self.kept[0][0]
        if not (as_ground or (kept and self.most)):
            return
        small = shrink(display(pixels))
        if as_ground:
            self.ground, self._ground_is_good = small, good
        if kept and self.most:
            entry = (score, -number, small, fit(map_HW, (small.shape[0], small.shape[1])))
            (heapq.heappush if len(self.kept) < self.most else heapq.heapreplace)(self.kept, entry)

    def pictures(self) -> Iterator[tuple[int, list[Picture]]]:
        """Number of the part and its pictures, least typical first."""
        for _, minus, small, map_hw in sorted(self.kept, key=lambda one: one[:2], reverse=True):
            hot = overlay(small, map_hw, self.map_limits)
            yield (
                -minus,
                [
                    thumbnail("image", f"Part {1 - minus}", small),
                    thumbnail("heat map", f"Heat map over part {1 - minus}", hot),
                ],
            )

    def ground_uri(self) -> str:
        """The picture that places are drawn on, as a data URI; empty before any part."""
        return "" if self.ground is None else thumbnail("", "", self.ground).uri


def write_lot_report(
    path: Path | str,
    *,
    title: str,
    parts: Sequence[LotPart],
    lost: Sequence[tuple[str, str]],
    seen: LeastTypical,
    setting: Setting,
    drift: LotDrift,
    facts: Mapping[str, str],
    notes: Sequence[str] = (),
) -> Path:
    """Write the report of a lot as one HTML file that needs nothing else; returns its path.

    parts: in the order judged, numbered from 0 as in `seen`. lost: name and error of what could not be
    judged. The file holds at most 36 pictures and 200 lines of defects, however large the lot is, and says
    how many there are. It appears complete or not at all. Raises DataError without a part, ConfigError
    without jinja2.
    """
    if not parts:
        raise DataError(f"{path}: nothing to report, not one part could be judged")
    page = environment().get_template("lot.html.j2")
    html = page.render(
        title=title,
        notes=[*notes, *_lost_in_words(lost)],
        facts=facts,
        headline=_headline(parts, lost),
        setting=setting,
        operating=list(_operating(parts, setting)),
        chart=order_chart(
            [part.score for part in parts],
            [part.decision for part in parts],
            setting.score_limits,
            list(_marks(drift, len(parts))),
        ),
        drift=drift,
        lines=defect_lines(parts),
        wheres=[
            found
            for found in [
                where("Flagged parts", [p for p in parts if p.decision != "good"], seen.ground_uri())
            ]
            if found is not None
        ],
        cards=list(_cards(parts, seen)),
        total=len(parts),
        map_limits=setting.map_limits,
    )
    return write_atomically(Path(path), html.encode("utf-8", "replace"))


def _headline(parts: Sequence[LotPart], lost: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    counts = {name: sum(part.decision == name for part in parts) for name in ("good", "review", "bad")}
    lengths = [one for part in parts if part.decision != "good" for one in part.defects]
    unit = "mm" if any(one.get("length_mm") is not None for one in lengths) else "px"
    tiles = [
        (str(len(parts)), "parts judged", f"{counts['good']} called good"),
        (str(counts["review"] + counts["bad"]), "flagged", f"{counts['bad']} bad, {counts['review']} review"),
    ]
    if lengths:
        longest = max(one[f"length_{unit}"] for one in lengths)
        tiles += [
            (str(len(lengths)), "places that stand out", "in the heat maps of flagged parts"),
            (f"{number(longest)}{NO_BREAK}{unit}", "is the longest of them", "largest Feret diameter"),
        ]
    if lost:
        tiles.append((str(len(lost)), "could not be judged", "named in the notes"))
    return tiles


def _lost_in_words(lost: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, error in lost[:MOST_NAMED]:
        yield error if name in error else f"{name}: {error}"
    if len(lost) > MOST_NAMED:
        yield f"{counted(len(lost) - MOST_NAMED, 'more part')} could not be judged."


def _operating(parts: Sequence[LotPart], setting: Setting) -> Iterator[Operating]:
    for rate, what, names in (
        (setting.rates[1], "called bad", ("bad",)),
        (setting.rates[0], "called bad or sent to review", ("bad", "review")),
    ):
        realised = share(sum(part.decision in names for part in parts), len(parts))
        expected = count_interval([(len(parts), setting.normals)], rate)
        yield Operating(
            what=what,
            realised=realised,
            asked=rate,
            verdict=verdict(realised, expected),
            promised=realised_interval(setting.normals, rate),
        )


def _cards(parts: Sequence[LotPart], seen: LeastTypical) -> Iterator[_Card]:
    good = 0
    for number_of, shown in seen.pictures():
        good += parts[number_of].decision == "good"
        if parts[number_of].decision != "good" or good <= MOST_GOOD:
            yield _Card(number=number_of, part=parts[number_of], pictures=shown)


def _marks(drift: LotDrift, total: int) -> Iterator[Mark]:
    if drift.since is not None:
        yield Mark(min(drift.since, total - 1), f"since {min(drift.since, total - 1) + 1}")
    if drift.alarm is not None and drift.alarm != drift.since:
        yield Mark(drift.alarm, "")
