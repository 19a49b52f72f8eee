"""Linear resizing along one axis as a matrix, the same numbers as torch's interpolate.

The weights come from the pixel centres by a few tensor operations, so that a graph can compute them from the
size of the image it is given. `centres` are those of the finer axis: of the source where it shrinks
(`antialias_weights`), of the target where it grows (`bilinear_weights`).
"""

import torch
from torch import Tensor, nn


def centres(length: int, device: torch.device | None = None) -> Tensor:
    """0.5, 1.5, ...: float32, `length` of them."""
    return torch.arange(length, dtype=torch.float32, device=device) + 0.5


def antialias_weights(centres_H: Tensor, after: int) -> Tensor:
    """after x H: each row a triangle about the centre of its pixel, as wide as the ratio, at least 1."""
    length = centres_H[-1] + 0.5
    ratio = length / after
    targets = centres(after, centres_H.device) * ratio
    triangle = (1 - (centres_H - targets[:, None]).abs() / ratio.clamp_min(1)).clamp_min(0)
    return triangle / triangle.sum(dim=1, keepdim=True)


def bilinear_weights(centres_H: Tensor, before: int) -> Tensor:
    """H x before: interpolation between the two nearest of `before` pixels, the outer ones repeated."""
    length = centres_H[-1] + 0.5
    places = (centres_H * (before / length) - 0.5).clamp(0, before - 1)
    nodes = torch.arange(before, dtype=torch.float32, device=centres_H.device)
    return (1 - (places[:, None] - nodes).abs()).clamp_min(0)


def area_weights(before: int, after: int) -> Tensor:
    """after x before: means over the windows of adaptive average pooling."""
    numbers = torch.arange(before)
    first = torch.arange(after) * before // after
    last = -(-(torch.arange(after) + 1) * before // after)
    inside = (numbers >= first[:, None]) & (numbers < last[:, None])
    return inside.float() / inside.sum(dim=1, keepdim=True)


class Matrices(nn.Module):
    """A linear resize of maps, of one size, as two constant matrices."""

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns.T.contiguous())
        self.rows: Tensor
        self.columns: Tensor

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # In this order: OpenVINO takes a last product with constants for a layer, and fuses wrongly.
        return self.rows @ (x_BCHW @ self.columns)
