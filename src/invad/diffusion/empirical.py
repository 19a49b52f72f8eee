"""The exact noise predictor of a finite set of cells, without any training.

If clean cells are drawn from c_1 .. c_K, each as likely, and x = sqrt(a) c + sqrt(1 - a) eps, then

    E[eps | x] = (x - sqrt(a) sum_k w_k c_k) / sqrt(1 - a)
    w = softmax_k(-||x - sqrt(a) c_k||^2 / (2 (1 - a)))

which is what a network trained without end on these cells would say: it has learned them by heart. At an
early level the weights pick one cell, and the norm of the noise is the distance to the nearest neighbour, in
units of sqrt(1 - a). Only the NEAREST cells enter the sum, the rest weigh nothing: one large matrix product
remains of two. A learned network generalises between the cells where this one does not; this one is exact
where few images leave a network little to learn from.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from invad.diffusion.base import Denoiser
from invad.diffusion.schedule import SCHEDULE
from invad.diffusion.schedule import timesteps as checked_timesteps
from invad.errors import ConfigError

CANDIDATES = 10
"""For each cell of the bank, drawn at random before the greedy selection, which costs their product."""

SKETCH = 64
"""Dimensions of the random projection on which the selection is made."""

NEAREST = 4
"""Cells of the bank that have a weight."""

LATEST = 100
"""The latest level at which those beyond the nearest change the norm of the noise by less than 1e-5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmpiricalConfig:
    """cells: largest size of the bank of one category. timesteps: the noise levels read, rising, 0..100."""

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
        if checked_timesteps(self.timesteps)[-1] > LATEST:
            raise ConfigError(f"empirical.timesteps = {self.timesteps!r}: give early levels, up to {LATEST}")


class EmpiricalDenoiser(Denoiser):
    """A noise predictor over a bank of at most `cells` cells. `set_bank` comes first."""

    abar: Tensor
    bank: Tensor

    def __init__(self, channels: int, cells: int) -> None:
        super().__init__()
        self.register_buffer("abar", torch.tensor(SCHEDULE.alphas_cumprod, dtype=torch.float32))
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

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        a = self.abar[t_B].view(-1, 1, 1)
        x_BNC = x_BChw.flatten(2).transpose(1, 2).contiguous()
        # ||x - sqrt(a) c||^2 = ||x||^2 - 2 a (x c / sqrt(a) - ||c||^2 / 2): the nearer, the larger.
        nearness_BNK = F.linear(x_BNC / a.sqrt(), self.bank, self.bank.square().sum(1) / -2)
        index_BNk = largest(nearness_BNK, min(NEAREST, len(self.bank)))
        away_BNkC = x_BNC[:, :, None] - a.sqrt()[..., None] * F.embedding(index_BNk, self.bank)
        weights_BNk = torch.softmax(-away_BNkC.square().sum(-1) / (2 * (1 - a)), dim=-1)
        noise_BNC = (weights_BNk[:, :, None] @ away_BNkC)[:, :, 0] / (1 - a).sqrt()
        return noise_BNC.transpose(1, 2).reshape(x_BChw.shape)


def largest(values_BNK: Tensor, k: int) -> Tensor:
    """Indices of the k largest, in any order: B x N x k.

    Engines sort slowly. The k largest lie in the k columns with the largest maxima, so that two short
    selections do for a long one: K values are taken as rows of a table whose sides are near its root.
    """
    size = values_BNK.shape[-1]
    rows = max(n for n in range(1, math.isqrt(size) + 1) if size % n == 0)
    if rows < 2 * k:
        return values_BNK.topk(k, sorted=False).indices
    table_BNRC = values_BNK.view(*values_BNK.shape[:2], rows, size // rows)
    columns_BNk = table_BNRC.amax(-2).topk(k, sorted=False).indices
    chosen_BNRk = table_BNRC.gather(-1, columns_BNk[:, :, None].expand(-1, -1, rows, -1))
    place_BNk = chosen_BNRk.flatten(-2).topk(k, sorted=False).indices
    index_BNk: Tensor = place_BNk // k * (size // rows) + columns_BNk.gather(-1, place_BNk % k)
    return index_BNk


def draw_cells(
    x_NChw: NDArray[np.float32],
    index: NDArray[np.intp],
    size: int,
    seed: int,
    places: NDArray[np.intp] | None = None,
) -> Tensor:
    """Twice the candidates for a bank of `size` cells, M x C, the same share of every image of `index`.

    All cells of a large set are too many. places: numbers, row by row, of the cells that may be drawn; None
    for all.
    """
    cells = x_NChw.shape[2] * x_NChw.shape[3] if places is None else len(places)
    share = min(1.0, 2 * CANDIDATES * size / (len(index) * cells))
    count = max(1, round(share * cells))
    generator = torch.Generator().manual_seed(seed)
    drawn = [_row(x_NChw[i], places).T[torch.randperm(cells, generator=generator)[:count]] for i in index]
    return torch.cat(drawn)


def _row(x_Chw: NDArray[np.float32], places: NDArray[np.intp] | None) -> Tensor:
    """The cells at `places`, or all, in one row: C x n."""
    cells = torch.from_numpy(np.array(x_Chw)).flatten(1)
    return cells if places is None else cells[:, torch.from_numpy(places)]


def greedy_coreset(cells_NC: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Indices of a k-centre greedy selection on a random projection (as PatchCore, arXiv 2106.08265)."""
    y = cells_NC @ (torch.randn(cells_NC.shape[1], SKETCH, generator=generator) / math.sqrt(SKETCH))
    squares = y.square().sum(1)
    chosen = torch.empty(size, dtype=torch.int64)
    chosen[0] = torch.randint(len(y), (1,), generator=generator)
    nearest, distance = torch.full_like(squares, math.inf), torch.empty_like(squares)
    for i in range(size):
        if i > 0:
            chosen[i] = nearest.argmax()
        last = y[chosen[i]]
        # ||y - c||^2 = ||y||^2 - 2 y c + ||c||^2 reads y once where the difference is written and read again.
        torch.addmv(squares, y, last, alpha=-2, out=distance).add_(last.square().sum())
        torch.minimum(nearest, distance, out=nearest)
        nearest[chosen[i]] = -math.inf  # whatever rounding left of its distance to itself
    return chosen
