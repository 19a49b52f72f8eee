"""The smallest area of a defect in a trained model: what it may be, and the rule that follows from it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from invad.data.region import Region, inside_of
from invad.detector.kept import GIVE_PICTURES
from invad.errors import ConfigError, DataError
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


def require_room(area: float | None, region: Region | None) -> None:
    """Raises ConfigError for a smallest area of a defect, in pixels, that is more than all that counts."""
    if area is None or region is None:
        return
    counted = int(inside_of(region).sum())
    if area > counted:
        raise ConfigError(
            f"min_area = {area:g} pixels: the region leaves {counted}, so no part of it could be that large; "
            "give a smaller area, or a larger region"
        )


def advised(region: Region | str | None, min_area: float | str | None) -> str:
    """What to do about limits by which a picture that shows nothing passes, by what of them was changed."""
    ways = ["let the region count more of the picture"] if isinstance(region, Region) else []
    ways += ["take a smaller min_area"] if isinstance(min_area, int | float) else []
    ways = [*(ways or ["take a larger rate"]), "give more good images"]
    said = f"{', '.join(ways[:-1])} or {ways[-1]}"
    return said[0].upper() + said[1:]


def sized(rule: ScoreRule, smallest: Smallest | None, inspected: Inspected | None) -> ScoreRule:
    """The rule by which images are called when a defect has a smallest area."""
    if smallest is None:
        return rule

    def of_map(map_Bhw: Tensor) -> Tensor:
        whole_Bhw = map_Bhw if inspected is None else inspected.on_grid(map_Bhw)
        return torch.tensor([sized_score(map_hw.float().numpy(), smallest) for map_hw in whole_Bhw])

    return replace(rule, of_map=of_map)
