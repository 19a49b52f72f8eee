"""Noise predictors at fixed levels: what the level alone decides is computed once and becomes constants.

A folded predictor takes and gives tokens, B x N x C, N = h w cells of one grid, row by row. At one level:

    LayerNorm(y) (1 + scale) + shift    is the affine part of the norm, or goes into the linear layer behind
    gate (W y + b)                      is a linear layer with other weights
    the Gaussian predictor around it    is two affine maps, before and after

The levels of a transformer share their large layers, so that it needs no more memory for three levels than
for one; the small layers of the token-wise network are copied for each level, and nothing is left between
them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from invad.diffusion.dit import NORM_EPS, DiT, grid_features
from invad.diffusion.empirical import EmpiricalDenoiser
from invad.diffusion.gaussian import GaussianPreconditioned
from invad.diffusion.mlp import TokenMLP

Hw = tuple[int, int]


def fold_denoiser(denoiser: nn.Module, levels: tuple[int, ...], grid_hw: Hw) -> nn.ModuleList:
    """One module per level, B x N x C -> predicted noise B x N x C, equal to predict_noise at that level.

    Float32, in evaluation mode; parts that several levels use alike are shared.
    """
    with torch.no_grad():
        if isinstance(denoiser, EmpiricalDenoiser):
            return nn.ModuleList(FixedLevel(denoiser, t, grid_hw) for t in levels).eval()
        net: nn.Module = denoiser
        around: list[Affine | None] = [None] * len(levels)
        if isinstance(denoiser, GaussianPreconditioned):
            net, around = denoiser.net, [Affine.gaussian(denoiser, t) for t in levels]
        if isinstance(net, TokenMLP):
            made: Iterator[nn.Module] = (
                FoldedMLP(net, t, grid_hw, a) for t, a in zip(levels, around, strict=True)
            )
            return nn.ModuleList(made).eval()
        assert isinstance(net, DiT)
        shared = SharedDiT(net, grid_hw)
        made = (FoldedDiT(net, shared, t, a) for t, a in zip(levels, around, strict=True))
        return nn.ModuleList(made).eval()


@dataclass(frozen=True, slots=True)
class Affine:
    """noise = keep x + offset + gain net(scale x + shift), per channel."""

    scale: Tensor
    shift: Tensor
    keep: Tensor
    offset: Tensor
    gain: Tensor

    @staticmethod
    def gaussian(outer: GaussianPreconditioned, t: int) -> "Affine":
        """The closed form of gaussian.py at level t, in float64."""
        a, v, m = outer.abar[t].double(), outer.variance.double(), outer.mean.double()
        total = a * v + 1 - a
        scale, keep = total.rsqrt(), ((1 - a) / total).sqrt()
        shift = -a.sqrt() * m * scale
        return Affine(scale, shift, keep * scale, keep * shift, (a * v / total).sqrt())


class FixedLevel(nn.Module):
    """A predictor without parts that the level folds into, at one level."""

    t_1: Tensor

    def __init__(self, denoiser: EmpiricalDenoiser, t: int, grid_hw: Hw) -> None:
        super().__init__()
        self.denoiser, self.grid_hw = denoiser, grid_hw
        self.register_buffer("t_1", torch.tensor([t]))

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.denoiser.predict_noise(_cells(x_BNC, self.grid_hw), self.t_1).flatten(2).transpose(1, 2)


class FoldedMLP(nn.Module):
    """A TokenMLP at one level: linear layers, norms without parameters, and one sum with the positions."""

    positions: Tensor
    keep: Tensor | None

    def __init__(self, net: TokenMLP, t: int, grid_hw: Hw, around: Affine | None) -> None:
        super().__init__()
        time = F.silu(net.time(torch.tensor([t], device=net.input.weight.device)))
        parts = net.modulation(time)[0].double().split(net.width)
        weight, bias = _double(net.input)
        positions = torch.zeros(1, net.width, dtype=torch.float64, device=weight.device)
        if net.positional:
            positions = grid_features(*grid_hw, net.width, weight.device).double()
        if around is not None:
            weight, bias = weight * around.scale, bias + weight @ around.shift
        self.input = _linear(weight, None)
        self.register_buffer("positions", (positions + bias).float())
        self.expand, self.contract = nn.ModuleList(), nn.ModuleList()
        for i, block in enumerate(net.blocks):
            shift, scale, gate = parts[3 * i : 3 * i + 3]
            self.expand.append(_modulated(block.get_submodule("fc1"), shift, scale))
            weight, bias = _double(block.get_submodule("fc2"))
            self.contract.append(_linear(gate[:, None] * weight, gate * bias))
        output = _modulated(net.output, *parts[-2:])
        if around is not None:
            weight, bias = _double(output)
            output = _linear(around.gain[:, None] * weight, around.gain * bias + around.offset)
        self.output = output
        self.register_buffer("keep", None if around is None else around.keep.float())

    def forward(self, x_BNC: Tensor) -> Tensor:
        y = self.input(x_BNC) + self.positions
        for fc1, fc2 in zip(self.expand, self.contract, strict=True):
            y = y + fc2(F.silu(fc1(_normed(y))))
        noise: Tensor = self.output(_normed(y))
        return noise if self.keep is None else noise + self.keep * x_BNC


class SharedDiT(nn.Module):
    """The layers of a DiT that see no level."""

    positions: Tensor

    def __init__(self, net: DiT, grid_hw: Hw) -> None:
        super().__init__()
        self.patch, self.grid_hw = net.patch, grid_hw
        self.hw = (grid_hw[0] // net.patch, grid_hw[1] // net.patch)
        self.embed = net.x_embedder.proj
        self.attention = nn.ModuleList(block.get_submodule("attn") for block in net.blocks)
        self.forwards = nn.ModuleList(block.get_submodule("mlp") for block in net.blocks)
        positions = torch.zeros(1, net.width)
        if net.positional:
            positions = net.pos_embed[0] if net.pos_embed is not None else grid_features(*self.hw, net.width)
        self.register_buffer("positions", positions.to(self.embed.weight.device))

    def tokens(self, x_BNC: Tensor) -> Tensor:
        """Cells to tokens of patch x patch cells, with their positions."""
        if self.patch == 1:
            return F.linear(x_BNC, self.embed.weight[:, :, 0, 0], self.embed.bias) + self.positions
        tokens: Tensor = self.embed(_cells(x_BNC, self.grid_hw)).flatten(2).transpose(1, 2) + self.positions
        return tokens

    def cells(self, x_BNP: Tensor) -> Tensor:
        """The inverse of the grouping of `tokens`."""
        if self.patch == 1:
            return x_BNP
        (h, w), p = self.hw, self.patch
        grouped = x_BNP.view(x_BNP.shape[0], h, w, p, p, -1).transpose(2, 3)
        return grouped.reshape(x_BNP.shape[0], h * p * w * p, -1)


class FoldedDiT(nn.Module):
    """A DiT at one level, around the layers it shares with the other levels."""

    def __init__(self, net: DiT, shared: SharedDiT, t: int, around: Affine | None) -> None:
        super().__init__()
        self.shared = shared
        c_1D = net.t_embedder(torch.tensor([t], device=net.x_embedder.proj.weight.device))
        rows = torch.stack([b.get_submodule("adaLN_modulation")(c_1D)[0].view(6, -1) for b in net.blocks])
        rows[:, [1, 4]] += 1
        self.register_buffer("modulation", rows)
        self.modulation: Tensor
        shift, scale = net.final_layer.adaLN_modulation(c_1D)[0].double().chunk(2)
        output = _modulated(net.final_layer.linear, shift, scale)
        for name in ("scale", "shift", "keep", "offset"):
            value = None if around is None else getattr(around, name).float()
            self.register_buffer(name, value)
        self.scale: Tensor | None
        self.shift: Tensor | None
        self.keep: Tensor | None
        self.offset: Tensor | None
        if around is not None:
            weight, bias = _double(output)
            gain = around.gain.repeat(net.patch**2)
            output = _linear(gain[:, None] * weight, gain * bias)
        self.output = output

    def forward(self, x_BNC: Tensor) -> Tensor:
        x = x_BNC if self.scale is None or self.shift is None else x_BNC * self.scale + self.shift
        y = self.shared.tokens(x)
        layers = zip(self.modulation, self.shared.attention, self.shared.forwards, strict=True)
        for (shift1, scale1, gate1, shift2, scale2, gate2), attention, forward in layers:
            y = y + gate1 * attention(_normed(y, scale1, shift1))
            y = y + gate2 * forward(_normed(y, scale2, shift2))
        noise = self.shared.cells(self.output(_normed(y)))
        if self.keep is None or self.offset is None:
            return noise
        return noise + self.keep * x_BNC + self.offset


def fuse_batch_norm(net: nn.Module, *example: Tensor) -> nn.Module:
    """Batch norms that follow a convolution go into its weights, in place; `net` is in evaluation mode.

    Which norm follows which convolution is read off one run on `example`, not off names.
    """
    made: dict[int, nn.Conv2d] = {}
    calls: dict[nn.Module, int] = {}
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []
    alive = []  # an id is taken anew once its tensor is gone

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        alive.append(output)
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = module
        elif id(inputs[0]) in made and isinstance(module, nn.BatchNorm2d):
            pairs.append((made[id(inputs[0])], module))

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [m.register_forward_hook(watch) for m in layers]
    with torch.no_grad():
        net(*example)
    for hook in hooks:
        hook.remove()
    names = {module: name for name, module in net.named_modules()}
    for conv, norm in pairs:
        if calls[conv] == calls[norm] == 1 and norm.track_running_stats:
            _replace(net, names[conv], fuse_conv_bn_eval(conv, norm))
            # timm's norms carry their activation
            _replace(net, names[norm], getattr(norm, "act", None) or nn.Identity())
    return net


def _replace(net: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, module)


def _cells(x_BNC: Tensor, grid_hw: Hw) -> Tensor:
    return x_BNC.transpose(1, 2).reshape(x_BNC.shape[0], -1, *grid_hw)


def _normed(x_BND: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    return F.layer_norm(x_BND, x_BND.shape[-1:], weight, bias, NORM_EPS)


def _double(layer: nn.Module) -> tuple[Tensor, Tensor]:
    return layer.get_parameter("weight").double(), layer.get_parameter("bias").double()


def _modulated(layer: nn.Module, shift: Tensor, scale: Tensor) -> nn.Linear:
    """W (y (1 + scale) + shift) + b as one linear layer."""
    weight, bias = _double(layer)
    return _linear(weight * (1 + scale), bias + weight @ shift)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.float(), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias.float(), requires_grad=False)  # type: ignore[assignment]
    return layer
