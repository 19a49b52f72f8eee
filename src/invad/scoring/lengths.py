"""How large a defect is, from how large its place in the map is: a correction learned from drawn defects.

A model sees the surroundings of each cell, so a defect blurs into a place that is larger by several cells,
the more the clearer it is. The place above half of its own peak does not grow with clearness: it is too large
by about as much whatever the contrast. Along a scratch the map may fall below half in between; what lies in
one place above the limit is then one. What is left is told by defects of known size, drawn on good pictures
and judged by the model itself: a polynomial of second degree in the length and the width of that place, by
least squares, and beside it the bound that 95 % of drawings keep. For the bound each drawing is measured by
the polynomial that is fitted without it (the residual over one less its leverage). Errors grow with size on
parts with a structure of their own, and where a place is faint, so they count in units of a spread that is
linear in the two, and the k-th smallest of n of them is taken, k = 0.95 (n + 1) rounded up: a new drawing of
the same kind keeps the bound in about 95 % of cases (split conformal prediction with a local scale, Lei et
al. 2018, arXiv 1604.04173, with residuals of the jackknife in place of a second set).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError
from invad.scoring.shapes import Part, extents, hull_of, parts_above

SHARE = 0.5
"""Of the peak of a place, above which its size is taken."""

KEPT = 0.95
"""Share of drawings whose size lies within the bound."""

FEWEST = 40
"""Drawings below which nothing is learned: of so few the bound would be the largest of all."""

LEAST_SPREAD = 0.25
"""Of the mean error, which no spread falls below."""

REACH = 8.0
"""Cells around a place within which its half peak has to end."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Length and width (largest and smallest Feret diameter) and square root of the area, in cells."""

    length: float
    width: float
    root: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Place(Extent):
    """A place above half of its peak. faint: the limit over that peak, 0..1."""

    faint: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """weights: of 1, L, W, L², LW and W² of the place above half its peak. spread: of 1, L and the faintness
    of the place, which is the bound to either side in cells, but no less than `least`. smallest: that was
    drawn, in cells: below it nothing is told apart."""

    weights: tuple[float, ...]
    spread: tuple[float, float, float]
    least: float
    smallest: float

    def bound(self, place: Place) -> float:
        """What 95 % of drawings keep that make such a place, in cells."""
        start, by_length, by_faintness = self.spread
        return max(self.least, start + by_length * place.length + by_faintness * place.faint)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeModel:
    """What drawings taught of the sizes of defects, in cells of the model.

    longest, widest: the largest place that was seen, beyond which sizes grow as places do. drawings: that
    were found and used.
    """

    length: Fitted
    width: Fitted
    root: Fitted
    longest: float
    widest: float
    drawings: int

    def of(self, place: Place) -> Extent:
        """The size of the defect that makes such a place; never below what was drawn."""
        length, width = min(place.length, self.longest), min(place.width, self.widest)
        more_length, more_width = place.length - length, place.width - width
        terms = _terms(np.array([[length, width]]))[0]
        found_length, found_width, root = (
            max(one.smallest, float(terms @ np.array(one.weights)) + more)
            for one, more in ((self.length, more_length), (self.width, more_width), (self.root, 0.0))
        )
        if more_length or more_width:
            # As a rectangle of that length and width would grow.
            root *= ((length + more_length) * (width + more_width) / (length * width)) ** 0.5
        return Extent(length=found_length, width=min(found_width, found_length), root=root)


def half_peak(map_HW: NDArray[np.float32], part: Part, limit: float, cell: float) -> Place | None:
    """The place of a part above half of its own peak, in cells of `cell` pixels.

    limit: the part lies above it. Where the map falls below half in between, as along a scratch, all that
    lies in the part is taken together. None where it runs into the place of a higher peak, or further than
    REACH cells from the part.
    """
    margin = int(np.ceil(REACH * cell))
    top, left = max(0, int(part.rows_R.min()) - margin), max(0, int(part.starts_R.min()) - margin)
    bottom, right = int(part.rows_R.max()) + 1 + margin, int(part.ends_R.max()) + margin
    window = map_HW[top:bottom, left:right]
    highest = int(np.argmax([map_HW[r, a:b].max() for r, a, b in _runs(part)]))
    row, start, end = _runs(part)[highest]
    peak_at = row - top, start + int(map_HW[row, start:end].argmax()) - left
    inside = np.zeros(window.shape, np.bool_)
    for r, a, b in _runs(part):
        inside[r - top, a - left : b - left] = True
    peak = np.zeros(window.shape, np.bool_)
    peak[peak_at] = True
    own = []
    for found in parts_above(window, SHARE * part.peak):
        is_highest = _meets(found, peak)
        if not is_highest and not _meets(found, inside):
            continue
        if found.peak > part.peak or _cut(found, window.shape, (top, left), map_HW.shape):
            if is_highest:
                return None
            continue
        own.append(found)
    if not own:
        return None
    length, width = extents(hull_of(np.concatenate([found.hull() for found in own])))
    faint = min(1.0, max(0.0, limit) / part.peak) if part.peak > 0 else 1.0
    area = sum(found.area for found in own)
    return Place(length=length / cell, width=width / cell, root=area**0.5 / cell, faint=faint)


def _meets(part: Part, mask: NDArray[np.bool_]) -> bool:
    return any(mask[r, a:b].any() for r, a, b in _runs(part))


def _runs(part: Part) -> list[tuple[int, int, int]]:
    return list(zip(part.rows_R.tolist(), part.starts_R.tolist(), part.ends_R.tolist(), strict=True))


def _cut(found: Part, window: tuple[int, ...], corner: tuple[int, int], whole: tuple[int, ...]) -> bool:
    """Whether a place reaches an edge of the window that is no edge of the map."""
    return bool(
        (found.rows_R.min() == 0 and corner[0] > 0)
        or (found.starts_R.min() == 0 and corner[1] > 0)
        or (found.rows_R.max() + 1 == window[0] and corner[0] + window[0] < whole[0])
        or (found.ends_R.max() == window[1] and corner[1] + window[1] < whole[1])
    )


def fit_sizes(places: Sequence[Place], drawn: Sequence[Extent]) -> SizeModel:
    """Learn sizes from the places of drawn defects and what was drawn, in cells.

    Raises DataError for fewer than FEWEST, or where they do not differ.
    """
    if len(places) < FEWEST:
        raise DataError(f"{len(places)} drawn defects were found; {FEWEST} are needed to learn sizes from")
    seen_N2 = np.array([[place.length, place.width] for place in places])
    terms_NK, faint_N = _terms(seen_N2), np.array([place.faint for place in places])
    if np.linalg.matrix_rank(terms_NK) < terms_NK.shape[1]:
        raise DataError("the places of drawn defects are all alike, so that they tell no size")
    return SizeModel(
        length=_fitted(terms_NK, faint_N, np.array([one.length for one in drawn])),
        width=_fitted(terms_NK, faint_N, np.array([one.width for one in drawn])),
        root=_fitted(terms_NK, faint_N, np.array([one.root for one in drawn])),
        longest=float(seen_N2[:, 0].max()),
        widest=float(seen_N2[:, 1].max()),
        drawings=len(places),
    )


def _terms(seen_N2: Floats) -> Floats:
    length, width = seen_N2.T
    return np.stack([np.ones_like(length), length, width, length**2, length * width, width**2], axis=1)


def _fitted(terms_NK: Floats, faint_N: Floats, true_N: Floats) -> Fitted:
    weights, *_ = np.linalg.lstsq(terms_NK, true_N, rcond=None)
    leverage_N = np.einsum("nk,kn->n", terms_NK, np.linalg.pinv(terms_NK))
    apart_N = np.abs(true_N - terms_NK @ weights) / np.maximum(1 - leverage_N, 1e-9)
    grows_N3 = np.stack([np.ones_like(faint_N), terms_NK[:, 1], faint_N], axis=1)
    spread, *_ = np.linalg.lstsq(grows_N3, apart_N, rcond=None)
    least = max(LEAST_SPREAD * float(apart_N.mean()), 1e-9)
    units_N = apart_N / np.maximum(least, grows_N3 @ spread)
    k = min(len(units_N), int(np.ceil(KEPT * (len(units_N) + 1))))
    units = float(np.sort(units_N)[k - 1])
    return Fitted(
        weights=tuple(float(w) for w in weights),
        spread=(float(spread[0]) * units, float(spread[1]) * units, float(spread[2]) * units),
        least=least * units,
        smallest=float(true_N.min()),
    )
