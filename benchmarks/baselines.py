"""Baselines on the same features as the detector, so that only the method differs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def greedy_coreset(x_ND: Tensor, share: float, seed: int, projected: int = 64) -> Tensor:
    """Indices of a k-centre greedy selection (PatchCore, arXiv 2106.08265), on a random projection."""
    generator = torch.Generator().manual_seed(seed)
    n = max(1, round(share * len(x_ND)))
    y = x_ND @ (torch.randn(x_ND.shape[1], projected, generator=generator) / projected**0.5)
    chosen = torch.empty(n, dtype=torch.int64)
    chosen[0] = torch.randint(len(y), (1,), generator=generator)
    nearest = (y - y[chosen[0]]).square().sum(1)
    for i in range(1, n):
        chosen[i] = nearest.argmax()
        nearest = torch.minimum(nearest, (y - y[chosen[i]]).square().sum(1))
    return chosen


def nearest_neighbour_maps(
    train_NChw: NDArray[np.float32], test_NChw: NDArray[np.float32], share: float = 0.1, seed: int = 0
) -> Tensor:
    """Distance of every test cell to its nearest coreset cell, standardised features: N x h x w."""
    train = torch.from_numpy(train_NChw)
    mean, std = train.mean((0, 2, 3), keepdim=True), train.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
    bank = ((train - mean) / std).permute(0, 2, 3, 1).reshape(-1, train.shape[1])
    bank = bank[greedy_coreset(bank, share, seed)]
    maps = []
    for one in test_NChw:
        z = ((torch.from_numpy(one)[None] - mean) / std)[0].flatten(1).T
        maps.append(torch.cdist(z, bank).min(dim=1).values.view(one.shape[1:]))
    return torch.stack(maps)
