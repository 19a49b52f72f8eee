"""Baselines on the same features as the detector, so that only the method differs."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invad.diffusion.empirical import greedy_coreset
from invad.diffusion.readings import norms, reconstruction_residual
from invad.diffusion.schedule import SCHEDULE
from invad.model.reading import Model


class NearestNeighbour:
    """Distance to the nearest cell of a greedy coreset, on features standardised per channel."""

    def __init__(self, train_NChw: NDArray[np.float32], share: float = 0.1, seed: int = 0):
        train = torch.from_numpy(train_NChw)
        self.mean = train.mean((0, 2, 3), keepdim=True)
        self.std = train.std((0, 2, 3), keepdim=True).clamp_min(1e-6)
        bank = ((train - self.mean) / self.std).permute(0, 2, 3, 1).reshape(-1, train.shape[1])
        size = max(1, round(share * len(bank)))
        self.bank = bank[greedy_coreset(bank, size, torch.Generator().manual_seed(seed))]

    def __call__(self, test_NChw: NDArray[np.float32]) -> Tensor:
        """N x h x w."""
        maps = []
        for one in test_NChw:
            z = ((torch.from_numpy(one)[None] - self.mean) / self.std)[0].flatten(1).T
            maps.append(torch.cdist(z, self.bank).min(dim=1).values.view(one.shape[1:]))
        return torch.stack(maps)


def padim_maps(
    train_NChw: NDArray[np.float32], test_NChw: NDArray[np.float32], channels: int, seed: int = 0
) -> Tensor:
    """Mahalanobis distance to a Gaussian per cell, on randomly chosen channels (PaDiM, arXiv 2011.08785)."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(train_NChw.shape[1], generator=generator)[:channels]
    train = torch.from_numpy(train_NChw)[:, chosen].permute(2, 3, 0, 1)  # h x w x N x C
    mean = train.mean(2, keepdim=True)
    centred = train - mean
    covariance = centred.transpose(2, 3) @ centred / max(1, train.shape[2] - 1) + 0.01 * torch.eye(
        len(chosen)
    )
    root = torch.linalg.cholesky(covariance)
    offset = torch.from_numpy(test_NChw)[:, chosen].permute(2, 3, 1, 0) - mean.transpose(
        2, 3
    )  # h x w x C x N
    solved = torch.linalg.solve_triangular(root, offset, upper=False)
    return solved.square().sum(2).sqrt().permute(2, 0, 1)


@torch.inference_mode()
def reconstruction_maps(model: Model, test_NChw: NDArray[np.float32], level: int, steps: int) -> Tensor:
    """Length of the difference between features and what is left of them after noise and DDIM, N x h x w.

    They are noised to `level` and denoised in `steps` steps, which is what inversion replaces.
    """
    generator = torch.Generator().manual_seed(0)
    maps = []
    for one in test_NChw:
        x = model.space(torch.from_numpy(one[None]))
        noise = torch.randn(x.shape, generator=generator)
        lost = reconstruction_residual(model.denoiser.predict_noise, x, noise, SCHEDULE, level, steps)
        maps.append(norms(lost)[0])
    return torch.stack(maps)
