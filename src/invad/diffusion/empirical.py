"""The exact noise predictor of a finite set of cells, without any training.

If clean cells are drawn from c_1 .. c_K, each as likely, and x = sqrt(a) c + sqrt(1 - a) eps, then

    E[eps | x] = (x - sqrt(a) sum_k w_k c_k) / sqrt(1 - a)
    w = softmax_k(-||x - sqrt(a) c_k||^2 / (2 (1 - a)))

which is what a network trained without end on these cells would say: it has learned them by heart. At an
early level the weights pick one cell, and the norm of the noise is the distance to the nearest neighbour, in
units of sqrt(1 - a). A learned network generalises between the cells where this one does not; this one is
exact where few images leave a network little to learn from.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from invad.diffusion.schedule import linear_schedule
from invad.diffusion.schedule import timesteps as checked_timesteps
from invad.errors import ConfigError

CANDIDATES = 10
"""For each cell of the bank, drawn at random before the greedy selection, which costs their product."""

SKETCH = 64
"""Dimensions of the random projection on which the selection is made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmpiricalConfig:
    """cells: largest size of the bank of one category. timesteps: the noise levels read, rising, 0..999."""

    cells: int = 2000
    timesteps: tuple[int, ...] = (20,)

    def cells_for(self, categories: int) -> int:
        """Largest size of the bank of a model of several categories.

        It grows with their root: each gets less than a bank of its own, and the time an image takes grows
        less than the number of models that one replaces.
        """
        return round(self.cells * math.sqrt(categories))

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise ConfigError(f"empirical.cells = {self.cells!r}: give an integer of at least 1")
        checked_timesteps(self.timesteps)


class EmpiricalDenoiser(nn.Module):
    """A noise predictor over a bank of at most `cells` cells. `set_bank` comes first."""

    abar: Tensor
    bank: Tensor

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.register_buffer("abar", torch.tensor(linear_schedule().alphas_cumprod, dtype=torch.float32))
        self.register_buffer("bank", torch.zeros(cells, channels))

    def set_bank(self, cells_NC: Tensor, seed: int) -> None:
        """The bank from clean cells N x C float32: all of them, or a greedy coreset of a random part."""
        size = len(self.bank)
        generator = torch.Generator().manual_seed(seed)
        if len(cells_NC) > CANDIDATES * size:
            cells_NC = cells_NC[torch.randperm(len(cells_NC), generator=generator)[: CANDIDATES * size]]
        if len(cells_NC) > size:
            cells_NC = cells_NC[greedy_coreset(cells_NC, size, generator)]
        self.bank = cells_NC.clone()

    def predict_noise(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        """x_BChw float, t_B int64 levels; returns the predicted noise, B x C x h x w."""
        noise: Tensor = self(x_BChw, t_B)
        return noise

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        a = self.abar[t_B].view(-1, 1, 1)
        x_BNC = x_BChw.flatten(2).transpose(1, 2)
        bank = a.sqrt() * self.bank
        squares = (
            x_BNC.square().sum(-1, keepdim=True)
            - 2 * x_BNC @ bank.transpose(1, 2)
            + bank.square().sum(-1)[:, None]
        )
        weights = torch.softmax(-squares / (2 * (1 - a)), dim=-1)
        noise = (x_BNC - weights @ bank) / (1 - a).sqrt()
        return noise.transpose(1, 2).reshape(x_BChw.shape)


def draw_cells(x_NChw: NDArray[np.float32], index: NDArray[np.intp], size: int, seed: int) -> Tensor:
    """Twice the candidates for a bank of `size` cells, M x C, the same share of every image of `index`.

    All cells of a large set are too many.
    """
    cells = x_NChw.shape[2] * x_NChw.shape[3]
    share = min(1.0, 2 * CANDIDATES * size / (len(index) * cells))
    count = max(1, round(share * cells))
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        torch.from_numpy(np.array(x_NChw[i])).flatten(1).T[torch.randperm(cells, generator=generator)[:count]]
        for i in index
    ]
    return torch.cat(drawn)


def greedy_coreset(cells_NC: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Indices of a k-centre greedy selection on a random projection (as PatchCore, arXiv 2106.08265)."""
    y = cells_NC @ (torch.randn(cells_NC.shape[1], SKETCH, generator=generator) / math.sqrt(SKETCH))
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = torch.randint(len(y), (1,), generator=generator)
    nearest = (y - y[chosen[0]]).square().sum(1)
    for i in range(1, size):
        chosen[i] = nearest.argmax()
        nearest = torch.minimum(nearest, (y - y[chosen[i]]).square().sum(1))
    return chosen
