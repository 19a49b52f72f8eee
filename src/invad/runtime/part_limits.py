"""How the pictures of held-out parts become one score and its limits, alike with and without PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError, DataError
from invad.runtime.kept_tiles import HeldPicture
from invad.scoring.calibration import numbered
from invad.scoring.fusion import Fusion, Kind, ScoreOf, fit_fusion
from invad.scoring.rates import Rates


@dataclass(frozen=True, slots=True)
class PartPlan:
    """What is decided of parts before their pictures are read; the fields are those of `Fusion`."""

    rule: str
    kind: Kind
    members: tuple[str, ...]
    windows: Mapping[str, tuple[float, float]]

    @classmethod
    def of(cls, fusion: Fusion, region: object = None) -> "PartPlan":
        """The plan of a model that was fitted before. Raises ConfigError as `require_scores`."""
        require_scores(fusion.kind, region)
        return cls(
            fusion.rule,
            fusion.kind,
            fusion.members,
            fusion.by_member,
        )


def require_scores(kind: Kind, region: object) -> None:
    """Raises ConfigError for a region of interest where parts are fused cell by cell."""
    if kind == "cells" and region not in (None, "none"):
        raise ConfigError(
            "a region of interest does not go with the fusion of cells; fuse scores, which respect it"
        )


class Fitted(Protocol):
    """What a cross-fit says of pictures, with PyTorch or without: scores, and maps N x h x w."""

    @property
    def scores(self) -> tuple[float, ...]: ...

    @property
    def maps_Nhw(self) -> Any: ...


def fit_parts(
    categories: Sequence[str],
    groups: Sequence[int],
    parts: Sequence[int],
    fit: Callable[[list[int], str, list[int]], Fitted],
    *,
    plan: PartPlan,
    rates: Rates,
    score_of: ScoreOf | None = None,
) -> Fusion:
    """How pictures of parts become one score. categories, groups, parts: of each held-out normal picture, as
    `detector.kept.Kept` has them. fit: of the pictures of these numbers, which are of one member, and their
    groups. score_of: see `fuse`. Raises DataError as `fused_of`."""
    scores: dict[tuple[int, str], float] = {}
    cells: dict[tuple[int, str], NDArray[np.float32]] = {}
    group_of: dict[int, int] = {}
    for member in plan.members:
        own = [i for i, category in enumerate(categories) if category == member]
        if not own:
            continue
        fitted = fit(own, member, [groups[i] for i in own])
        for i, score, cells_hw in zip(own, fitted.scores, np.asarray(fitted.maps_Nhw), strict=True):
            scores[parts[i], member], cells[parts[i], member] = score, cells_hw
            group_of[parts[i]] = groups[i]
    return fused_of(scores, cells, group_of, plan=plan, rates=rates, score_of=score_of)


def fit_tiled_parts(
    held: Sequence[HeldPicture],
    scores: Sequence[float],
    maps: Sequence[NDArray[np.float32]],
    groups: Sequence[int],
    *,
    plan: PartPlan,
    rates: Rates,
    top_cells: int,
) -> Fusion:
    """How pictures of parts become one score, from the scores and maps of pictures that were cut into tiles.

    groups: of each of them. top_cells: see Fusion. Raises DataError as `fused_of`, and for cells of pictures
    of several sizes.
    """
    if plan.kind == "cells" and len({map_hw.shape for map_hw in maps}) > 1:
        raise DataError("the good pictures have several sizes, and cells are fused of one frame; fuse scores")
    numbers = numbered(one.part for one in held)
    keys = [(part, one.category) for part, one in zip(numbers, held, strict=True)]
    return fused_of(
        dict(zip(keys, scores, strict=True)),
        dict(zip(keys, maps, strict=True)),
        dict(zip(numbers, groups, strict=True)),
        plan=plan,
        rates=rates,
        top_cells=top_cells,
    )


def fused_of(
    scores: Mapping[tuple[int, str], float],
    cells: Mapping[tuple[int, str], NDArray[np.float32]],
    group_of: Mapping[int, int],
    *,
    plan: PartPlan,
    rates: Rates,
    top_cells: int | None = None,
    score_of: ScoreOf | None = None,
) -> Fusion:
    """From the scores and maps of pictures, by part and member, and the group of each part. top_cells,
    score_of: see `fuse`.

    Raises DataError when fewer than two of the parts have all members: a picture may have been left out as a
    copy.
    """
    members = plan.members
    parts = [part for part in group_of if all((part, member) in scores for member in members)]
    if len({group_of[part] for part in parts}) < 2:
        raise DataError(
            f"{len(parts)} of {len(group_of)} held-out parts have a picture of {', '.join(members)} that is "
            "no copy of another part's: limits of parts need at least 2; give more parts"
        )
    return fit_fusion(
        np.array([[scores[part, member] for member in members] for part in parts]),
        [[cells[part, member] for member in members] for part in parts],
        [group_of[part] for part in parts],
        rule=plan.rule,
        kind=plan.kind,
        members=members,
        windows=[plan.windows[member] for member in members],
        rates=rates,
        top_cells=top_cells if plan.kind == "cells" else None,
        score_of=score_of,
    )
