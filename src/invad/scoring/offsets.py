"""Norm maps that several models read, as the one that is kept would have read them."""

from collections.abc import Hashable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invad.scoring.holding import members_of


def as_the_last_reads(
    maps_NLhw: Tensor, readers: Sequence[int], categories: Sequence[str], groups: Sequence[Hashable]
) -> Tensor:
    """Norm maps of held-out normals, N x L x h x w, without what the models that read them differ in.

    readers: of each image the number of its model; the highest one is of the model that is kept. Each model
    knows other cells, so it reads some places higher than the next does. Per category, noise level and cell,
    with m_k the mean over the groups that model k read, and K the model that is kept:

        x' = x - m_k + m_K

    A category stays as it is where a model read fewer than two groups of it.
    """
    if len(set(readers)) == 1:
        return maps_NLhw
    made = maps_NLhw.clone()
    reader_N, last = np.asarray(readers), max(readers)
    for category in dict.fromkeys(categories):
        own = np.flatnonzero([one == category for one in categories])
        read_by = {k: own[reader_N[own] == k] for k in np.unique(reader_N[own])}
        means = {k: _mean_and_count(maps_NLhw, index, groups) for k, index in read_by.items()}
        if last not in means or min(count for _, count in means.values()) < 2:
            continue
        for k, index in read_by.items():
            made[index] += means[last][0] - means[k][0]
    return made


def _mean_and_count(
    maps_NLhw: Tensor, index: NDArray[np.intp], groups: Sequence[Hashable]
) -> tuple[Tensor, int]:
    """The mean over the groups of the images `index`, L x h x w, and how many these are."""
    members = members_of([groups[i] for i in index])
    return torch.stack([maps_NLhw[index[own]].mean(dim=0) for own in members]).mean(dim=0), len(members)
