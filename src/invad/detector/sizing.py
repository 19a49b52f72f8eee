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
from invad.runtime.limits import advised as advised
from invad.runtime.smallest import require_room as require_room
from invad.runtime.smallest import sized_score, smallest_in
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
    if area != "none" and region is None and not means:
        raise DataError(
            f"the model does not know the size of its good pictures, as older ones; {GIVE_PICTURES}"
        )
    return smallest_in(area, [region.size_hw] if region is not None else means, model.extract.grid_hw)


def sized(rule: ScoreRule, smallest: Smallest | None, inspected: Inspected | None) -> ScoreRule:
    """The rule by which images are called when a defect has a smallest area."""
    if smallest is None:
        return rule

    def of_map(map_Bhw: Tensor) -> Tensor:
        whole_Bhw = map_Bhw if inspected is None else inspected.on_grid(map_Bhw)
        return torch.tensor([sized_score(map_hw.float().numpy(), smallest) for map_hw in whole_Bhw])

    return replace(rule, of_map=of_map)
