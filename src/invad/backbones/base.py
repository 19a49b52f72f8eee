"""The contract every backbone fulfils, and how its maps are brought to one grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invad.records import Hw

CELL = 16
"""Pixels of a cell, and the fewest where a backbone sees the image smaller than another."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneInfo:
    """What is known of a backbone: `name`, where its weights came from (`source`), their `licence`.

    side: of the square image, in pixels, at which its features serve best: what is taken where the settings
    name none. shape: what besides the name is needed to build the network empty, as plain JSON data.
    """

    name: str
    source: str
    licence: str
    side: int = 256
    shape: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Part:
    """A network that sees an image at `share` of the input's size, and the grids that its maps are for."""

    backbone: "Backbone"
    share: float = 1.0
    on_grid: bool = True
    on_fine: bool = True


class Backbone(nn.Module):
    """A frozen network that turns images into feature maps at several strides.

    Subclasses implement `features`. Channels and strides are read off the network by `probe`, never
    declared by hand. `forward` takes B x 3 x H x W float32 RGB in [0, 1] and returns one
    B x C_i x H/stride_i x W/stride_i float32 map per tap; the normalisation the weights expect
    (`mean`, `std`, as buffers) is applied inside, so it travels with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        info: BackboneInfo,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        size_multiple: int = 32,
    ):
        super().__init__()
        self.info = info
        self.size_multiple = size_multiple
        self._channels: int | None = None
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))

    def features(self, x_B3HW: Tensor) -> list[Tensor]:
        """Maps of normalised images, finest first."""
        raise NotImplementedError

    def forward(self, x_B3HW: Tensor) -> list[Tensor]:
        return self.features((x_B3HW - self.mean) / self.std)

    @torch.no_grad()
    def probe(self, input_hw: Hw) -> tuple[tuple[int, int, int], ...]:
        """The (channels, height, width) of every tap for one input size."""
        maps = self(torch.zeros(1, 3, *input_hw, device=self.mean.device))
        return tuple((m.shape[1], m.shape[2], m.shape[3]) for m in maps)

    @property
    def apart(self) -> tuple[Part, ...]:
        """The networks that see the image, each at its own size: this one, unless it is made of several."""
        return (Part(self),)

    @property
    def channels(self) -> int:
        """Of all taps together."""
        if self._channels is None:
            side = math.lcm(self.size_multiple, 32)
            self._channels = sum(c for c, _, _ in self.probe((side, side)))
        return self._channels

    def freeze(self) -> "Backbone":
        """Evaluation mode for good, no gradients, the memory layout that convolutions on a CPU like."""
        self.eval().requires_grad_(False)
        return self.to(memory_format=torch.channels_last)


def pool_to_grid(maps: Sequence[Tensor], grid_hw: Hw) -> Tensor:
    """Bring maps of several strides to one grid and concatenate them: B x sum(C_i) x h x w.

    Finer maps are *averaged* over each cell (area pooling, hence free of aliasing); coarser ones are
    interpolated bilinearly. Plain bilinear reduction skips most of a fine map and loses small defects.
    """
    h, w = grid_hw

    def fit(m: Tensor) -> Tensor:
        if m.shape[-2:] == (h, w):
            return m
        if m.shape[-2] >= h and m.shape[-1] >= w:
            return F.adaptive_avg_pool2d(m, grid_hw)
        return F.interpolate(m, grid_hw, mode="bilinear", align_corners=False)

    return torch.cat([fit(m) for m in maps], dim=1)
