"""How far the false alarms of a detector may lie from the rate asked, in figures and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from invad.metrics.alarms import normals_to_halve, realised_interval
from invad.scoring.calibration import Calibration
from invad.scoring.fusion import Fusion
from invad.scoring.holding import FEW_GROUPS, MANY_GROUPS
from invad.scoring.rates import POOLED

HELD_SHARE = 5
"""Normals in all for each that a training holds out where it does so `apart`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the review limit of one category, the one with the fewest normals, can promise.

    category: its name, POOLED where there is one only. n: independent normals that set it; unit: what they
    are. rate: the false-alarm rate asked. realised_95: the central interval of the share of new normals that
    it calls (see `realised_interval`). n_to_halve: normals that halve the width of that; normals_to_halve:
    how many a training needs in all to hold out so many. Both None where that is out of reach.
    """

    category: str
    n: int
    unit: str
    rate: float
    realised_95: tuple[float, float]
    n_to_halve: int | None
    normals_to_halve: int | None

    def __str__(self) -> str:
        low, high = self.realised_95
        of = f" of {self.category}" if self.category else ""
        said = (
            f"{self.n} {self.unit} set the limit{of} for {self.rate:.1%} false alarms: what it realises lies "
            f"between {low:.1%} and {high:.1%} in 95% of cases"
        )
        if self.n_to_halve is None:
            return said
        return (
            f"{said}; about {_rounded(self.normals_to_halve)} to train on, or {_rounded(self.n_to_halve)} "
            "others for 'invad calibrate', would halve that range"
        )


def promise(
    calibrations: Mapping[str, Calibration], fusion: Fusion | None = None, *, once: bool = False
) -> Promise:
    """Of the category with the fewest normals, because images are judged by the limits of their own.

    fusion: of parts, whose limits then are what is promised. once: whether a training of this kind holds some
    normals out for good and not all in turn (see `turns`).
    """
    if fusion is not None:
        calibrations = {POOLED: fusion.calibration}
    own = {name: made for name, made in calibrations.items() if name != POOLED}
    name, made = min((own or calibrations).items(), key=lambda item: item[1].n)
    more = normals_to_halve(made.n, made.rates.review)
    in_turn = FEW_GROUPS if once else MANY_GROUPS
    whole = None if more is None else more if more < in_turn else HELD_SHARE * more
    return Promise(
        category=name if len(own) > 1 else POOLED,
        n=made.n,
        unit=made.unit if fusion is None else fusion.unit,
        rate=made.rates.review,
        realised_95=realised_interval(made.n, made.rates.review),
        n_to_halve=more,
        normals_to_halve=whole,
    )


def made_once(info: Any) -> bool:
    """Whether models of this kind are made once, with a network or of tiles: `once` of `turns` and `promise`.

    info: what a model or a bundle says of itself; the latter does not know of a network.
    """
    settings = getattr(info, "settings", None)
    return info.tiles is not None or (settings is not None and settings.denoiser is not None)


def _rounded(count: int | None) -> str:
    """To two digits: the law behind it is rough."""
    return f"{float(f'{count or 0:.1e}'):,.0f}"
