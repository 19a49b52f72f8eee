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

        x' = x + b (m_K - m_k)

    b is the `reliability` of the differences. A category stays as it is where a model read fewer than two
    groups of it.
    """
    if len(set(readers)) == 1:
        return maps_NLhw
    made = maps_NLhw.clone()
    reader_N, last = np.asarray(readers), max(readers)
    for category in dict.fromkeys(categories):
        own = np.flatnonzero([one == category for one in categories])
        read_by = {k: own[reader_N[own] == k] for k in np.unique(reader_N[own])}
        parts = {k: _by_group(maps_NLhw, index, groups) for k, index in read_by.items()}
        if last not in parts or len(parts) < 2 or min(map(len, parts.values())) < 2:
            continue
        share_L11 = reliability(list(parts.values()))
        for k, index in read_by.items():
            made[index] += share_L11 * (parts[last].mean(dim=0) - parts[k].mean(dim=0))
    return made


def reliability(parts: Sequence[Tensor]) -> Tensor:
    """How much of what models differ in is theirs and not of the images that each read, L x 1 x 1, 0 to 1.

    parts: of each model the maps of the groups that it read, at least two, n_k x L x h x w. With B the
    variance of their means over the models, W the mean of s_k^2 / n_k, s_k^2 the variance over the groups of
    one, and both averaged over the cells of a level (empirical Bayes; Efron and Morris, JASA 68, 1973):

        b = max(0, 1 - W / B)
    """
    between = torch.stack([part.mean(dim=0) for part in parts]).var(dim=0)
    within = torch.stack([part.var(dim=0) / len(part) for part in parts]).mean(dim=0)
    between_L11, within_L11 = (of.mean(dim=(-2, -1), keepdim=True) for of in (between, within))
    return (1 - within_L11 / between_L11.clamp_min(torch.finfo(between.dtype).tiny)).clamp(0, 1)


def _by_group(maps_NLhw: Tensor, index: NDArray[np.intp], groups: Sequence[Hashable]) -> Tensor:
    """The mean map of each group of the images `index`, n x L x h x w."""
    members = members_of([groups[i] for i in index])
    return torch.stack([maps_NLhw[index[one]].mean(dim=0) for one in members])
