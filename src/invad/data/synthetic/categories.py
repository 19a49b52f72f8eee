"""Which parts there are, and which defects each of them can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from invad.data.synthetic.chip import solder_chip
from invad.data.synthetic.fields import Rng
from invad.data.synthetic.flaws import (
    contamination,
    crack,
    dent,
    discolouration,
    hole,
    loose_thread,
    rust,
    scratch,
    stain,
)
from invad.data.synthetic.parts import brushed_metal, fabric, gasket, tablet
from invad.data.synthetic.scenes import Scene
from invad.errors import ConfigError


def _as_built(rng: Rng, scene: Scene) -> Scene:
    """For defects that the part's builder itself draws."""
    return scene


@dataclass(frozen=True)
class Flaw:
    """One kind of defect: what it does to the scene; its mask closes gaps up to twice `gap` (in sides)."""

    hurt: Callable[[Rng, Scene], Scene] = _as_built
    gap: float = 0.012


@dataclass(frozen=True)
class Category:
    """One kind of part: how it is built, and the defects it can have."""

    build: Callable[[Rng, int, str, Rng], Scene]
    flaws: Mapping[str, Flaw]


CATEGORIES: dict[str, Category] = {
    "gasket": Category(
        gasket,
        {
            "cut": Flaw(),
            "burr": Flaw(),
            "missing_hole": Flaw(),
            "contamination": Flaw(contamination),
            "dent": Flaw(dent, gap=0.04),
        },
    ),
    "brushed_metal": Category(
        brushed_metal,
        {
            "scratch": Flaw(scratch),
            "dent": Flaw(dent, gap=0.04),
            "stain": Flaw(stain),
            "rust": Flaw(rust),
        },
    ),
    "fabric": Category(
        fabric,
        {
            "broken_yarn": Flaw(gap=0.03),
            "slub": Flaw(gap=0.03),
            "stain": Flaw(stain),
            "loose_thread": Flaw(loose_thread),
            "hole": Flaw(hole),
        },
    ),
    "solder_chip": Category(
        solder_chip,
        {
            "missing_leg": Flaw(),
            "bent_leg": Flaw(),
            "solder_bridge": Flaw(),
            "misplaced": Flaw(gap=0.03),
            "scratch": Flaw(scratch),
        },
    ),
    "tablet": Category(
        tablet,
        {
            "chipped": Flaw(),
            "faint_score": Flaw(gap=0.02),
            "crack": Flaw(crack),
            "contamination": Flaw(contamination),
            "discolouration": Flaw(discolouration, gap=0.02),
        },
    ),
}


def defects_of(category: str) -> tuple[str, ...]:
    """Names of the defects that `category` can have. Raises ConfigError for an unknown category."""
    if category not in CATEGORIES:
        raise ConfigError(f"unknown synthetic category {category!r}; choose one of {', '.join(CATEGORIES)}")
    return tuple(CATEGORIES[category].flaws)
