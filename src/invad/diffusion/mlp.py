"""Token-wise residual MLP: every grid cell is denoised by itself, from its features, the level and its place.

The light denoiser for CPUs: no attention, so the cost is a few matrix products over the B * h * w cells.
Time enters as in DiT (adaLN-zero), but through a narrow embedding and one product for all blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invad.diffusion.base import Denoiser
from invad.diffusion.dit import NORM_EPS, TimeEmbedder, distinct_levels, grid_features, modulate

TIME_WIDTH = 96
"""Width of the time embedding. The level is one number: wider only adds modulation weights."""


class Block(nn.Module):
    """x + gate * two layers of the modulated norm of x."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BND: Tensor, shift_BD: Tensor, scale_BD: Tensor, gate_BD: Tensor) -> Tensor:
        normed = F.layer_norm(x_BND, x_BND.shape[-1:], eps=NORM_EPS)
        hidden = F.silu(self.fc1(modulate(normed, shift_BD, scale_BD)))
        return torch.addcmul(x_BND, gate_BD[:, None], self.fc2(hidden))


class TokenMLP(Denoiser):
    """Noise predictor for any grid h x w; predicts zero until trained."""

    def __init__(
        self, channels: int, *, width: int, depth: int, mlp_ratio: float = 1.0, positional: bool = True
    ) -> None:
        super().__init__()
        self.width, self.positional = width, positional
        self.input = nn.Linear(channels, width)
        self.time = TimeEmbedder(TIME_WIDTH)
        # Rows: shift, scale, gate of each block, then shift, scale of the output norm.
        self.modulation = nn.Linear(TIME_WIDTH, (3 * depth + 2) * width)
        self.blocks = nn.ModuleList(Block(width, int(width * mlp_ratio)) for _ in range(depth))
        self.output = nn.Linear(width, channels)
        for layer in (self.modulation, self.output):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def cellwise(self) -> bool:
        return True

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        h, w = x_BChw.shape[2:]
        x_BND = self.input(x_BChw.flatten(2).transpose(1, 2).to(self.input.weight.dtype))
        if self.positional:
            x_BND = x_BND + grid_features(h, w, self.width, x_BND.device).to(x_BND.dtype)
        if shared := t_B.ndim > 1:
            # Cells that share a level take the place of an image.
            t_B = t_B.flatten()
            x_BND = x_BND.reshape(len(t_B), -1, self.width)
        time = F.silu(self.time(distinct_levels(t_B)))
        parts = self.modulation(time).split(self.width, dim=1)
        for i, block in enumerate(self.blocks):
            x_BND = block(x_BND, *parts[3 * i : 3 * i + 3])
        normed = F.layer_norm(x_BND, x_BND.shape[-1:], eps=NORM_EPS)
        eps_BNC = self.output(modulate(normed, *parts[-2:]))
        if shared:
            eps_BNC = eps_BNC.reshape(len(x_BChw), h * w, -1)
        return eps_BNC.transpose(1, 2).unflatten(2, (h, w))  # type: ignore[no-any-return]
