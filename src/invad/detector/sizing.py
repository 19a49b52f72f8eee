"""The smallest area of a defect in a trained model: what it may be, and the rule that follows from it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from invad.data.region import Region
from invad.detector.kept import GIVE_PICTURES
from invad.errors import DataError
from invad.model.inspected import Inspected
from invad.model.reading import Model
from invad.records import Hw
from invad.runtime.smallest import sized_score
from invad.scoring.sizes import Smallest
from invad.scoring.typicality import ScoreRule


def smallest_of(
    area: float | Literal["none"],
    means: Mapping[Hw, Tensor],
    region: Region | None,
    model: Model,
) -> Smallest | None:
    """The smallest area of a defect in pixels of the good pictures; None for "none".

    Raises ConfigError for an area that the model cannot tell, and DataError where the size of the pictures is
    not known, or they have several.
    """
    if area == "none":
        return None
    sizes = [region.size_hw] if region is not None else [*means]
    if len(sizes) != 1:
        several = " or ".join(f"{w} x {h}" for h, w in sizes)
        raise DataError(
            f"min_area is in pixels of pictures of one size, and the good ones have {several}; set a region "
            "of interest first, which has one"
            if several
            else f"the model does not know the size of its good pictures, as older ones; {GIVE_PICTURES}"
        )
    found = Smallest(area=area, frame=(sizes[0][1], sizes[0][0]))
    found.require_known(model.extract.grid_hw)
    return found


def sized(rule: ScoreRule, smallest: Smallest | None, inspected: Inspected | None) -> ScoreRule:
    """The rule by which images are called when a defect has a smallest area."""
    if smallest is None:
        return rule

    def of_map(map_Bhw: Tensor) -> Tensor:
        whole_Bhw = map_Bhw if inspected is None else inspected.on_grid(map_Bhw)
        return torch.tensor([sized_score(map_hw.float().numpy(), smallest) for map_hw in whole_Bhw])

    return replace(rule, of_map=of_map)
