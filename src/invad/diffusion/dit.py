"""Diffusion transformer (DiT, arXiv 2212.09748) with adaLN-zero on the cells of a feature grid.

Parameter names and arithmetic are those of the published InvAD checkpoints, so that importing one is a plain
key mapping (reference.py). The embeddings of time and position at the top serve mlp.py as well.
Legend: B images, N = h * w / patch^2 tokens, D width.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from invad.diffusion.base import Denoiser
from invad.records import Hw

TIME_FEATURES = 256
NORM_EPS = 1e-6
MAX_PERIOD = 10_000.0


def time_features(t_B: Tensor, dim: int = TIME_FEATURES) -> Tensor:
    """Sinusoidal features of the level, float32 B x dim: cosines, then sines. dim is even."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t_B.device)
    angle = t_B.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) / half * index)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def distinct_levels(t_B: Tensor) -> Tensor:
    """t_B, or its first entry when t_B is one level expanded over the batch (stride 0).

    What is computed from the result has a first axis of B or 1, and broadcasts either way.
    """
    return t_B[:1] if t_B.stride(0) == 0 else t_B


def grid_features(h: int, w: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Fixed 2-D sin-cos positions of a grid of any size, float32 (h * w) x dim, row by row.

    The first half of dim encodes the column, the second half the row; each half sines, then cosines.
    dim is a multiple of 4.
    """
    quarter = dim // 4
    index = torch.arange(quarter, dtype=torch.float32, device=device)
    rate = torch.exp(-math.log(MAX_PERIOD) / quarter * index)
    row = torch.arange(h, dtype=torch.float32, device=device)[:, None] * rate
    col = torch.arange(w, dtype=torch.float32, device=device)[:, None] * rate
    col_waves = torch.cat([col.sin(), col.cos()], dim=1)[None].expand(h, w, 2 * quarter)
    row_waves = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(h, w, 2 * quarter)
    return torch.cat([col_waves, row_waves], dim=2).reshape(h * w, dim)


def modulate(x_BND: Tensor, shift_BD: Tensor, scale_BD: Tensor) -> Tensor:
    """x (1 + scale) + shift, one shift and scale per image (or one for all, first axis 1)."""
    return torch.addcmul(shift_BD[:, None], x_BND, 1.0 + scale_BD[:, None])


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _zero_linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class TimeEmbedder(nn.Module):
    """Level index to vector: int64 B -> B x width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(layer.get_parameter("weight"), std=0.02)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, t_B: Tensor) -> Tensor:
        dtype = self.mlp[0].get_parameter("weight").dtype
        embedding: Tensor = self.mlp(time_features(t_B).to(dtype))
        return embedding


def _attended(q_BHNd: Tensor, k_BHNd: Tensor, v_BHNd: Tensor) -> Tensor:
    """Scaled dot-product attention; in bf16 on a CPU the gradient of torch's own takes twice as long."""
    if not (q_BHNd.requires_grad and q_BHNd.device.type == "cpu" and q_BHNd.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q_BHNd, k_BHNd, v_BHNd)
    q, k, v = (part.contiguous() for part in (q_BHNd, k_BHNd, v_BHNd))
    likeness: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    mixed: Tensor = likeness.softmax(dim=-1, dtype=likeness.dtype) @ v
    return mixed


class Attention(nn.Module):
    """Multi-head self-attention over all cells."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = _linear(width, 3 * width)
        self.proj = _linear(width, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        B, N, D = x_BND.shape
        q, k, v = self.qkv(x_BND).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed = _attended(q, k, v)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(B, N, D))
        return out


class FeedForward(nn.Module):
    """Two layers with the tanh form of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = _linear(width, hidden)
        self.fc2 = _linear(hidden, width)

    def forward(self, x_BND: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x_BND), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention and feed-forward, each shifted, scaled and gated by the time embedding."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=NORM_EPS)
        self.mlp = FeedForward(width, int(width * mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), _zero_linear(width, 6 * width))

    def forward(self, x_BND: Tensor, c_BD: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c_BD).chunk(6, dim=1)
        x_BND = torch.addcmul(x_BND, gate1[:, None], self.attn(modulate(self.norm1(x_BND), shift1, scale1)))
        return torch.addcmul(x_BND, gate2[:, None], self.mlp(modulate(self.norm2(x_BND), shift2, scale2)))


class PatchEmbedder(nn.Module):
    """Non-overlapping patches to tokens: B x C x h x w -> B x N x D."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)
        # A patch convolution is a linear map of the flattened patch, and is drawn as one.
        nn.init.xavier_uniform_(self.proj.weight.view(width, -1))
        nn.init.zeros_(self.proj.get_parameter("bias"))

    def forward(self, x_BChw: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x_BChw)
        return tokens.flatten(2).transpose(1, 2)


class FinalLayer(nn.Module):
    """Last modulated norm and the projection to patch * patch * channels values per token."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, elementwise_affine=False, eps=NORM_EPS)
        self.linear = _zero_linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), _zero_linear(width, 2 * width))

    def forward(self, x_BND: Tensor, c_BD: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c_BD).chunk(2, dim=1)
        out: Tensor = self.linear(modulate(self.norm_final(x_BND), shift, scale))
        return out


class DiT(Denoiser):
    """Noise predictor for any grid whose sides are multiples of `patch`; predicts zero until trained.

    stored_grid_hw: the token grid (cells / patch) of a position table held in the weights, as imported
    checkpoints have; the network then takes that grid only. Without it positions are computed for any grid.
    """

    pos_embed: Tensor | None
    checkpointing: bool = False

    def __init__(
        self,
        channels: int,
        *,
        width: int,
        depth: int,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        patch: int = 1,
        positional: bool = True,
        stored_grid_hw: Hw | None = None,
    ) -> None:
        super().__init__()
        self.width, self.patch, self.positional = width, patch, positional
        self.stored_grid_hw = stored_grid_hw
        self.x_embedder = PatchEmbedder(channels, width, patch)
        self.t_embedder = TimeEmbedder(width)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch * patch * channels)
        table = None if stored_grid_hw is None else grid_features(*stored_grid_hw, width)[None]
        self.register_buffer("pos_embed", table)

    def recompute_activations(self, on: bool) -> None:
        self.checkpointing = on

    def before_loading(self, weights: Mapping[str, Tensor], grid_hw: Hw) -> None:
        """Make room for the position table that weights of an imported checkpoint hold."""
        if "pos_embed" in weights:
            self.stored_grid_hw = (grid_hw[0] // self.patch, grid_hw[1] // self.patch)
            self.pos_embed = grid_features(*self.stored_grid_hw, self.width)[None]

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        h, w = x_BChw.shape[2] // self.patch, x_BChw.shape[3] // self.patch
        x_BND = self.x_embedder(x_BChw.to(self.x_embedder.proj.weight.dtype))
        if self.positional:
            x_BND = x_BND + self._positions(h, w, x_BND)
        c_BD = self.t_embedder(distinct_levels(t_B))
        for block in self.blocks:
            if self.checkpointing:
                x_BND = checkpoint(block, x_BND, c_BD, use_reentrant=False)
            else:
                x_BND = block(x_BND, c_BD)
        return self._unpatchify(self.final_layer(x_BND, c_BD), h, w)

    def _positions(self, h: int, w: int, like: Tensor) -> Tensor:
        if self.pos_embed is None:
            return grid_features(h, w, self.width, like.device).to(like.dtype)
        if (h, w) != self.stored_grid_hw:
            raise ValueError(f"the position table is for {self.stored_grid_hw} tokens, got {(h, w)}")
        return self.pos_embed.to(like.dtype)

    def _unpatchify(self, x_BNP: Tensor, h: int, w: int) -> Tensor:
        p = self.patch
        cells = x_BNP.view(x_BNP.shape[0], h, w, p, p, -1)
        return cells.permute(0, 5, 1, 3, 2, 4).reshape(x_BNP.shape[0], -1, h * p, w * p)
