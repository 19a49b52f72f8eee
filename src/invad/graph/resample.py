"""Linear resizing along one axis as a matrix, the same numbers as torch's interpolate.

The weights come from the pixel centres by a few tensor operations, so that a graph can compute them from the
size of the image it is given. `centres` are those of the finer axis: of the source where it shrinks
(`antialias_weights`), of the target where it grows (`bilinear_weights`).
"""

import torch
from torch import Tensor, nn

from invad.records import Hw


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


class Resize(nn.Module):
    """Grey levels B x H x W x 3 to B x 3 x H' x W' in [0, 1], as `Preprocess`."""

    def __init__(self, input_hw: Hw, size_hw: Hw | None) -> None:
        super().__init__()
        self.input_hw, self.same = input_hw, size_hw == input_hw
        fixed = size_hw is not None and not self.same
        for axis, name in enumerate(("rows", "columns")):
            weights = antialias_weights(centres(size_hw[axis]), input_hw[axis]) if size_hw and fixed else None
            self.register_buffer(name, weights)
        self.rows: Tensor | None
        self.columns: Tensor | None

    def forward(self, image_BHW3: Tensor, range_2: Tensor) -> Tensor:
        black, white = range_2[0], range_2[1]
        x = ((image_BHW3 - black) / (white - black)).clamp(0, 1).permute(0, 3, 1, 2)
        if self.same:
            return x
        rows, columns = self.rows, self.columns
        if rows is None or columns is None:
            rows = antialias_weights(centres(image_BHW3.shape[1], x.device), self.input_hw[0])
            columns = antialias_weights(centres(image_BHW3.shape[2], x.device), self.input_hw[1])
        return (rows @ (x @ columns.T)).clamp(0, 1)


class Enlarge(nn.Module):
    """A map B x h x w to B x H x W, as `resize_map`."""

    def __init__(self, grid_hw: Hw, size_hw: Hw | None) -> None:
        super().__init__()
        self.grid_hw = grid_hw
        for axis, name in enumerate(("rows", "columns")):
            weights = bilinear_weights(centres(size_hw[axis]), grid_hw[axis]) if size_hw else None
            self.register_buffer(name, weights)
        self.rows: Tensor | None
        self.columns: Tensor | None

    def forward(self, map_Bhw: Tensor, like_BHW3: Tensor) -> Tensor:
        rows, columns = self.rows, self.columns
        if rows is None or columns is None:
            rows = bilinear_weights(centres(like_BHW3.shape[1], map_Bhw.device), self.grid_hw[0])
            columns = bilinear_weights(centres(like_BHW3.shape[2], map_Bhw.device), self.grid_hw[1])
        return rows @ map_Bhw @ columns.T
