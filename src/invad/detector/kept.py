"""Norm maps of held-out good images, kept with a model so that it can be calibrated anew without pictures.

They are what the networks said of every cell, before any comparison. So limits can be made of fewer cells,
or at other rates, in a moment. Cells that were ignored when the images were read are not among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from invad.data.preprocess import Preprocess
from invad.data.region import Region, cells_of
from invad.errors import DataError
from invad.fit.plan import mean_pictures
from invad.model.inspected import Inspected, inspect
from invad.model.reading import Model
from invad.records import Hw, Sample
from invad.runtime import limits
from invad.runtime.held import LARGEST, within
from invad.runtime.limits import GIVE_PICTURES as GIVE_PICTURES
from invad.scoring.calibration import numbered


@dataclass(frozen=True, slots=True)
class Kept:
    """Norm maps N x L x h x w of held-out good images, and what they are of.

    middle_Lhw, offsets_NLhw: their median, float32, and what each differs from it, float16; together they are
    exact to a thousandth of how far an image is from the others. categories, groups, pictures: of each image
    its category, the number of its group, and that of its picture, which several categories may share. parts:
    the number of the part that it is a picture of; empty where images stand for themselves.
    region: the one that they were read with, whose cells alone are there (N x L x 1 x n); None for all cells.
    """

    middle_Lhw: Tensor
    offsets_NLhw: Tensor
    categories: tuple[str, ...]
    groups: tuple[int, ...]
    pictures: tuple[int, ...]
    region: Region | None = None
    parts: tuple[int, ...] = ()

    @property
    def maps_NLhw(self) -> Tensor:
        """As they were read, float32."""
        return self.middle_Lhw + self.offsets_NLhw.float()


def keep(
    maps_NLhw: Tensor,
    samples: Sequence[Sample],
    groups: Sequence[int],
    pixels: Sequence[str],
    inspected: Inspected | None,
) -> Kept:
    """Norm maps as a model read them. pixels: digests of the pictures."""
    middle_Lhw = maps_NLhw.median(dim=0).values
    return Kept(
        middle_Lhw,
        (maps_NLhw - middle_Lhw).clamp(-LARGEST, LARGEST).half(),
        tuple(sample.category for sample in samples),
        numbered(groups),
        numbered(pixels),
        None if inspected is None else inspected.region,
        numbered(sample.sample_id for sample in samples) if any(s.member for s in samples) else (),
    )


def of_category(kept: Kept, category: str) -> Kept:
    """What is kept of the images of one category."""
    own = [i for i, one in enumerate(kept.categories) if one == category]
    return replace(
        kept,
        offsets_NLhw=kept.offsets_NLhw[own],
        categories=(category,) * len(own),
        groups=tuple(kept.groups[i] for i in own),
        pictures=tuple(kept.pictures[i] for i in own),
        parts=tuple(kept.parts[i] for i in own) if kept.parts else (),
    )


def maps_of(kept: Kept | None, inspected: Inspected | None, grid_hw: Hw) -> Tensor:
    """The kept maps of the cells that count, N x L x h x w or N x L x 1 x n float32.

    Raises DataError without kept maps, and when cells or pixels were ignored before that would count now.
    """
    if kept is None:
        raise DataError(f"the model keeps no maps of held-out images, older ones do not; {GIVE_PICTURES}")
    maps_NLhw = kept.maps_NLhw
    before = kept.region
    if before is None:
        return maps_NLhw if inspected is None else inspected.counted(maps_NLhw)
    if inspected is not None and inspected.region == before:
        return maps_NLhw
    had = np.flatnonzero(cells_of(before, grid_hw))
    wanted = None if inspected is None else inspected.cells_n.numpy()
    if wanted is None or inspected is None or not within(inspected.region, before, wanted, had):
        raise DataError(
            "the new region counts what was ignored when the model's good images were read; "
            f"{GIVE_PICTURES}, or train a new model"
        )
    return maps_NLhw[..., torch.from_numpy(np.searchsorted(had, wanted))]


def doubts_of(kept: Kept | None, region: Region | None) -> tuple[str, ...]:
    """What limits from kept maps do not know of a region, in one line."""
    return () if kept is None else limits.doubts_of(kept.region, region)


def looking_at(
    model: Model,
    whole: Preprocess,
    region: Region | None,
    means: Mapping[Hw, Tensor],
    normals: Sequence[Sample],
) -> tuple[Model, Mapping[Hw, Tensor]]:
    """The model with another region, and the mean pictures that are known then.

    whole: how pictures become its input without one. normals: tell the mean picture of frames that `means`
    lacks. Raises DataError as `inspect`.
    """
    preprocess, inspected, extract = whole, None, model.extract
    if region is not None:
        if region.size_hw not in means:
            means = {**means, **mean_pictures(normals, whole, region)}
        preprocess = whole.alone(region.size_hw)
        inspected = inspect(region, means, extract.grid_hw)
    extract = replace(extract, preprocess=preprocess, inspected=inspected)
    return replace(model, extract=extract), means
