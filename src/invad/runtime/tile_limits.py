"""Statistics and limits of tiles from held-out pictures: each judged by what it did not help to fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from invad.data.tiling import Cut, Tile
from invad.runtime.fusing import Usual, picture_score
from invad.runtime.kept_tiles import HeldPicture
from invad.scoring.calibration import Calibration, numbered
from invad.scoring.holding import folds
from invad.scoring.norms import (
    CROSS_FITS,
    CellRule,
    CellStats,
    position_stats,
    ring_stats,
    typicality_map,
)
from invad.scoring.rates import POOLED, Rates
from invad.scoring.spread import SPREAD, shrunk_variance, top_mean

BEHIND = 2.0
"""Spreads by which the score of an overview stays behind that of the tiles of its picture, whatever their
number: who cuts pictures looks for what is small, and the tiles see most of what is large, too. Of 10 to 24
tiles it was about as many while an overview counted like one of them."""

MOST_TILES = 4000
"""Tiles from which the statistics of one place are taken; more change them by less than they vary."""

Maps = list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class TileLimits:
    """stats, calibrations: of the model inside, by place, POOLED among them; the latter are of the worst tile
    of each picture. places: the scores of tiles. pictures: calibrations by category. hint: what the tiles say
    of the choice of positions. scores, maps: of the held-out pictures, each judged by what it did not help to
    fit."""

    stats: Mapping[str, CellStats]
    calibrations: Mapping[str, Calibration]
    places: dict[str, Usual]
    pictures: dict[str, Calibration]
    hint: str | None
    scores: tuple[float, ...]
    maps: tuple[NDArray[np.float32], ...]


def top_cells(rule: CellRule, grid_hw: tuple[int, int]) -> int:
    """Cells that make the score of a tile."""
    return max(1, round(rule.top_fraction * grid_hw[0] * grid_hw[1]))


def fit_tile_limits(
    held: Sequence[HeldPicture],
    groups: Sequence[int],
    rule: CellRule,
    rates: Rates,
    min_area: float | None = None,
) -> TileLimits:
    """Statistics of tiles and limits of pictures. groups: of each picture; a group is judged as a whole by
    statistics of the others. min_area: see `Tiled`."""
    top = top_cells(rule, held[0].cut.grid_hw)
    categories = [one.category for one in held]
    parts = list(folds(categories, CROSS_FITS, 0, groups))
    maps: list[Maps] = [[] for _ in held]
    for rest, fold in parts:
        stats = _stats([held[i] for i in rest], rule)
        for i in fold:
            maps[i] = _z_maps(held[i], stats, rule)
    tops = [[top_mean(map_hw, top) for map_hw in own] for own in maps]
    scores, peaks = [0.0] * len(held), [0.0] * len(held)
    wholes: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(held)
    for rest, fold in parts:
        places = _usual([held[i] for i in rest], [tops[i] for i in rest])
        for i in fold:
            scores[i], whole = picture_score(held[i].cut, maps[i], places, top, min_area)
            wholes[i] = whole
            peaks[i] = float(whole.max()) if min_area is None else scores[i]
    return TileLimits(
        _stats(held, rule),
        _inside(held, maps, tops, groups, rates),
        _usual(held, tops),
        {
            name: _calibration(
                [
                    (scores[i], peaks[i], groups[i])
                    for i in range(len(held))
                    if name in (POOLED, categories[i])
                ],
                rates,
            )
            for name in (POOLED, *sorted(set(categories)))
            if name == POOLED or len({g for g, c in zip(groups, categories, strict=True) if c == name}) > 1
        },
        _hint(held, tops),
        tuple(scores),
        tuple(wholes),
    )


def _stats(held: Sequence[HeldPicture], rule: CellRule) -> dict[str, CellStats]:
    """Of the cells of the tiles of each place; where they have a place each, also of all together.

    Tiles that share theirs begin anywhere, so a cell's place in one says how near its border is and no more.
    The same holds for overviews of pictures that move, which are those without a region: what is ignored
    lies still. Cells near a tile's border count at the picture's, where no neighbour sees them from within.
    """
    by_place: dict[str, list[_Read]] = {}
    for one in held:
        counted = [*(_counted_in(one.cut, tile) for tile in one.cut.tiles()), np.ones(one.cut.grid_hw, bool)]
        for place, *read in zip(one.cut.places(), one.maps_TLhw, counted, strict=True):
            by_place.setdefault(place, []).append(_Read(*read))
    overviews = {one.cut.overview for one in held}
    tiles = [own for place, own in by_place.items() if place not in overviews]
    by_place[POOLED] = [read for own in tiles for read in own]
    shared, moving = held[0].cut.positions == "shared", held[0].cut.counted is None
    edge, found = min(one.cut.edge for one in held), {}
    for place, own in by_place.items():
        some = own[:: max(1, -(-len(own) // MOST_TILES))]
        maps_NLhw = np.stack([one.maps_Lhw for one in some]).astype(np.float64)
        if shared and (moving or place not in overviews):
            counted_Nhw = np.stack([one.counted_hw for one in some])
            found[place] = ring_stats(maps_NLhw, counted_Nhw, 1 if place in overviews else edge, rule)
        else:
            found[place] = CellStats(*position_stats(maps_NLhw))
    return found


@dataclass(frozen=True, slots=True)
class _Read:
    """The norm maps L x h x w of a tile or an overview, and its cells that count."""

    maps_Lhw: NDArray[np.float32]
    counted_hw: NDArray[np.bool_]


def _counted_in(cut: Cut, tile: Tile) -> NDArray[np.bool_]:
    if cut.counted is None:
        return np.ones(cut.grid_hw, bool)
    (h, w), top, left = cut.grid_hw, cut.down.origins[tile.row], cut.along.origins[tile.column]
    return cut.counted[top : top + h, left : left + w]


def _z_maps(one: HeldPicture, stats: Mapping[str, CellStats], rule: CellRule) -> Maps:
    return [
        typicality_map(maps_Lhw[None], stats[place], rule)[0]
        for place, maps_Lhw in zip(one.cut.places(), one.maps_TLhw, strict=True)
    ]


def _usual(held: Sequence[HeldPicture], tops: Sequence[Sequence[float]]) -> dict[str, Usual]:
    """Of tiles their median score and spread; of an overview what brings its scores to the median and the
    spread of the highest tile of the same pictures, less BEHIND spreads."""
    by_place: dict[str, list[float]] = {}
    scored = [tuple(zip(one.cut.places(), own, strict=True)) for one, own in zip(held, tops, strict=True)]
    for place, score in chain.from_iterable(scored):
        by_place.setdefault(place, []).append(score)
    usual = {place: _one_usual(scores) for place, scores in by_place.items()}
    highest: dict[str, list[float]] = {}
    for *tiles, (overview, _) in scored:
        most = max((score - usual[place].median) / usual[place].spread for place, score in tiles)
        highest.setdefault(overview, []).append(most)
    return {**usual, **{place: _behind(usual[place], most) for place, most in highest.items()}}


def _behind(overview: Usual, highest: Sequence[float]) -> Usual:
    """For an overview, by its own scores and the highest standardised ones of tiles of the same pictures."""
    values = np.asarray(highest)
    median = float(np.median(values))
    # Of few pictures mixed with 1, the spread of a tile's score.
    variance = shrunk_variance(float(np.mean(np.square(values - median))), 1 / SPREAD, len(values))
    spread = overview.spread / max(variance**0.5, 1e-6)
    return Usual(median=overview.median + BEHIND * overview.spread - median * spread, spread=spread)


def _one_usual(scores: Sequence[float]) -> Usual:
    """Median, and standard deviation about it, since normal tiles that lie far out are what a defect is told
    from; a few show little of the spread, see `shrunk_variance`."""
    values = np.asarray(scores)
    median = float(np.median(values))
    variance = shrunk_variance(float(np.mean(np.square(values - median))), median, len(values))
    return Usual(median=median, spread=max(variance**0.5, 1e-6))


def _inside(
    held: Sequence[HeldPicture],
    maps: Sequence[Maps],
    tops: Sequence[Sequence[float]],
    groups: Sequence[int],
    rates: Rates,
) -> dict[str, Calibration]:
    """By place, of the worst tile of each picture."""
    rows: dict[str, list[tuple[float, float, int]]] = {POOLED: []}
    for one, own, scores, group in zip(held, maps, tops, groups, strict=True):
        worst: dict[str, tuple[float, float]] = {}
        for place, map_hw, score in zip(one.cut.places(), own, scores, strict=True):
            before = worst.get(place, (-np.inf, -np.inf))
            worst[place] = max(before[0], score), max(before[1], float(map_hw.max()))
        for place, (score, peak) in worst.items():
            rows.setdefault(place, []).append((score, peak, group))
        tiles = [found for place, found in worst.items() if place != one.cut.overview]
        rows[POOLED].append((max(s for s, _ in tiles), max(p for _, p in tiles), group))
    return {place: _calibration(own_rows, rates) for place, own_rows in rows.items()}


def _calibration(rows: Sequence[tuple[float, float, int]], rates: Rates) -> Calibration:
    """rows: score, peak and group of each picture. Sorted: what is saved does not tell their order."""
    numbers = numbered([group for _, _, group in rows])
    ordered = sorted((score, peak, n) for (score, peak, _), n in zip(rows, numbers, strict=True))
    return Calibration(
        scores=tuple(score for score, _, _ in ordered),
        peaks=tuple(peak for _, peak, _ in ordered),
        rates=rates,
        groups=tuple(n for _, _, n in ordered) if len(set(numbers)) < len(numbers) else (),
    )


def _hint(held: Sequence[HeldPicture], tops: Sequence[Sequence[float]]) -> str | None:
    """Whether positions of their own, or shared ones, would fit the held-out tiles better."""
    cut = held[0].cut
    if len(cut) < 2 or any(one.cut.picture_hw != cut.picture_hw for one in held):
        return None
    own = [i for i, one in enumerate(held) if one.cut.member == cut.member]
    tops_NT = np.array([tops[i] for i in own])[:, :-1]
    medians_T = np.median(tops_NT, axis=0)
    within = 1.4826 * float(np.median(np.abs(tops_NT - medians_T)))
    apart = float(np.ptp(medians_T)) / max(within, 1e-9)
    said = f"the usual scores of tiles of different places lie {apart:.1f} of their spreads apart"
    if cut.positions == "shared" and apart > 2:
        return f"{said}: where parts lie still, --positions each may find more"
    if cut.positions == "each" and apart < 1:
        return f"{said}: --positions shared would learn more from as many pictures"
    return None
