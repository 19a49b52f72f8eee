"""The report of a lot: parts that were judged one after the other, which nobody has labelled.

A part has one picture, or several with a name each, its members.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError
from invad.metrics.alarms import count_interval, realised_interval
from invad.records import Decision
from invad.report.colours import Limits, Pixels, check_limits, display, overlay
from invad.report.gallery import Picture, fit, shrink, thumbnail
from invad.report.order import Mark, order_chart
from invad.report.rendering import environment
from invad.report.spread import Judged, Where, defect_lines, where
from invad.report.tables import Share, share, verdict
from invad.report.wording import NO_BREAK, counted, number
from invad.system.files import write_atomically

MOST_SHOWN = 36
"""Parts with a picture, whatever the size of the lot."""

MOST_GOOD = 6
"""Of them, those that were called good."""

MOST_NAMED = 20
"""Names of parts that could not be judged."""

MOST_MEMBERS = 6
"""Of the pictures of a part, those that are shown: the ones that lie highest above their normals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LotPicture(Judged):
    """A picture of a part. kind: its member, empty where it is the only one. decision: of the part. p_value:
    of the picture; above: how many spreads of normal ones it lies above them, of a member."""

    p_value: float
    above: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LotPart:
    """A part with its score and p-value. seen_by: the member that decided, of several. reason: what was wrong
    with its pictures."""

    name: str
    decision: Decision
    score: float
    p_value: float
    pictures: Sequence[LotPicture]
    seen_by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A picture as it was judged: pixels H x W (x 3), its heat map H x W, (review, bad) limits of that map.

    member, above: see `LotPicture`. together: the map is that of all pictures of the part.
    """

    pixels: Pixels
    map_HW: NDArray[np.float32]
    map_limits: Limits
    member: str = ""
    above: float = 0.0
    together: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What judged a lot. score_limits, map_limits: (review, bad); the latter None where each member has its
    own. rates: the false-alarm rates asked of them. normals: independent good images or parts that the limits
    were made from; unit: what they are. members: of parts of several pictures, in their order."""

    score_limits: Limits
    map_limits: Limits | None
    rates: tuple[float, float]
    normals: int
    unit: str
    members: tuple[str, ...] = ()


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
class Shown:
    """The thumbnails of a picture of a part; member: see `LotPicture`."""

    member: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Card:
    number: int
    part: LotPart
    shown: Sequence[Shown]

    @property
    def told(self) -> dict[str, LotPicture]:
        """What is said of each picture, by member."""
        return {picture.kind: picture for picture in self.part.pictures}

    @property
    def left_out(self) -> int:
        return len(self.part.pictures) - sum(shown.member in self.told for shown in self.shown)


class LeastTypical:
    """Small pictures of the parts with the highest scores, and of the first good one; no more are held."""

    def __init__(self, most: int = MOST_SHOWN):
        self.most = most
        self.kept: list[tuple[float, int, list[View]]] = []
        self.grounds: dict[str, NDArray[np.uint8]] = {}
        self._ground_is_good = False

    def see(self, number: int, score: float, good: bool, views: Sequence[View]) -> None:
        """Take the next part into account, by its pictures. number: of the part, none twice."""
        as_ground = not self.grounds or (good and not self._ground_is_good)
        kept = self.most > 0 and (len(self.kept) < self.most or score > self.kept[0][0])
        if as_ground:
            self._ground_is_good = good
        if as_ground or any(view.member not in self.grounds for view in views):
            for view in views:
                if not view.together and (as_ground or view.member not in self.grounds):
                    self.grounds[view.member] = shrink(display(view.pixels))
        if kept:
            entry = (score, -number, list(map(_small, _highest(views))))
            (heapq.heappush if len(self.kept) < self.most else heapq.heapreplace)(self.kept, entry)

    def pictures(self) -> Iterator[tuple[int, list[Shown]]]:
        """Number of the part and its pictures, least typical first."""
        for _, minus, views in sorted(self.kept, key=lambda one: one[:2], reverse=True):
            yield -minus, [_shown(1 - minus, view) for view in views]

    def ground_uri(self, member: str = "") -> str:
        """The picture that places are drawn on, as a data URI; empty before any part with that member."""
        ground = self.grounds.get(member)
        return "" if ground is None else thumbnail("", "", ground).uri


def _highest(views: Sequence[View]) -> list[View]:
    """At most MOST_MEMBERS, in their order, and the one of all together."""
    chosen = heapq.nlargest(
        MOST_MEMBERS, (view for view in views if not view.together), key=lambda v: v.above
    )
    return [view for view in views if view.together or any(view is one for one in chosen)]


def _small(view: View) -> View:
    """As large as its thumbnail."""
    check_limits(view.map_limits)
    pixels = shrink(display(view.pixels))
    return replace(view, pixels=pixels, map_HW=fit(view.map_HW, (pixels.shape[0], pixels.shape[1])))


def _shown(number: int, small: View) -> Shown:
    of = f"part {number}" + (f", {small.member}" if small.member else "")
    hot = overlay(small.pixels, small.map_HW, small.map_limits)
    pictures = [thumbnail("heat map", f"Heat map over {of}", hot)]
    if not small.together:
        pictures.insert(0, thumbnail("image", f"Image of {of}", display(small.pixels)))
    return Shown(member=small.member, pictures=pictures)


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
    pictures = [picture for part in parts for picture in part.pictures]
    numbers = [number for number, part in enumerate(parts, 1) for _ in part.pictures]
    page = environment().get_template("lot.html.j2")
    html = page.render(
        title=title,
        notes=[*notes, *_lost_in_words(lost), *_incomplete(parts)],
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
        lines=defect_lines(pictures, numbers),
        wheres=list(_wheres(pictures, seen, setting.members)),
        cards=list(_cards(parts, seen)),
        total=len(parts),
        map_limits=setting.map_limits,
    )
    return write_atomically(Path(path), html.encode("utf-8", "replace"))


def _headline(parts: Sequence[LotPart], lost: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
    counts = {name: sum(part.decision == name for part in parts) for name in ("good", "review", "bad")}
    flagged = [part for part in parts if part.decision != "good"]
    lengths = [one for part in flagged for picture in part.pictures for one in picture.defects]
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


def _incomplete(parts: Sequence[LotPart]) -> Iterator[str]:
    lacking = [part for part in parts if part.reason]
    if lacking:
        shown = "; ".join(f"{part.name}: {part.reason}" for part in lacking[:MOST_NAMED])
        more = f"; and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
        yield (
            f"{counted(len(lacking), 'part')} could not be judged by all pictures, and so cannot be good: "
            f"{shown}{more}."
        )


def _wheres(pictures: Sequence[LotPicture], seen: LeastTypical, members: Sequence[str]) -> Iterator[Where]:
    for member in members or ("",):
        own = [one for one in pictures if one.kind == member and one.decision != "good"]
        found = where(f"Flagged parts, {member}" if member else "Flagged parts", own, seen.ground_uri(member))
        if found is not None:
            yield found


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
            yield _Card(number=number_of, part=parts[number_of], shown=shown)


def _marks(drift: LotDrift, total: int) -> Iterator[Mark]:
    if drift.since is not None:
        yield Mark(min(drift.since, total - 1), f"since {min(drift.since, total - 1) + 1}")
    if drift.alarm is not None and drift.alarm != drift.since:
        yield Mark(drift.alarm, "")
