"""Linear resizing along one axis as a matrix, the same numbers as torch's interpolate.

The weights come from the pixel centres by a few tensor operations, so that a graph can compute them from the
size of the image it is given. `centres` are those of the finer axis: of the source where it shrinks
(`antialias_weights`), of the target where it grows (`bilinear_weights`).
"""

import torch
from torch import Tensor, nn

from invad.records import Hw

BLOCKS = 32
"""Into as many blocks the rows of a large matrix of resizing are put at most: the more, the fewer of its
numbers are zeros, and the smaller are the products."""


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


def near_weights(length: int, after: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """`antialias_weights` without most of their zeros: places S x N int64, weights S x M x N, S M = after.

    Row M s + m of the matrix has weights[s, m] at places[s], and zeros elsewhere. Places beyond either end
    are that end, with the weight 0.
    """
    blocks = max(n for n in range(1, BLOCKS + 1) if after % n == 0)
    # A row reaches as far as the ratio to either side of its centre, at least 1; the rest is for rounding.
    first_S = torch.arange(blocks, device=device) * length // blocks - length // (2 * after) - 2
    across = torch.arange(length // blocks + length // after + 6, device=device)
    places_SN = first_S[:, None] + across
    ratio = (centres(length, device)[-1] + 0.5) / after
    targets_SM1 = (centres(after, device) * ratio).view(blocks, -1, 1)
    distance = (places_SN[:, None].float() + 0.5 - targets_SM1).abs()
    inside = ((places_SN >= 0) & (places_SN < length))[:, None].float()
    triangle = (1 - distance / ratio.clamp_min(1)).clamp_min(0) * inside
    return places_SN.clamp(0, length - 1), triangle / triangle.sum(dim=2, keepdim=True)


def resized(x_BLN: Tensor, places_SN: Tensor, weights_SMN: Tensor) -> Tensor:
    """B x L x N to B x S M x N, by `near_weights`."""
    images, _, across = x_BLN.shape
    near = x_BLN.index_select(1, places_SN.flatten()).reshape(images, *places_SN.shape, across)
    return (weights_SMN @ near).flatten(1, 2)


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
        self.input_hw, self.size_hw = input_hw, size_hw
        fixed = None if size_hw == input_hw else size_hw
        for axis, name in enumerate(("rows", "columns")):
            places, weights = (None, None) if fixed is None else near_weights(fixed[axis], input_hw[axis])
            self.register_buffer(f"{name}_near", places)
            self.register_buffer(name, weights)
        self.rows: Tensor
        self.rows_near: Tensor
        self.columns: Tensor
        self.columns_near: Tensor

    def forward(self, image_BHW3: Tensor, range_2: Tensor) -> Tensor:
        black, white = range_2[0], range_2[1]
        images, height, width, _ = image_BHW3.shape
        # As rows, because OpenVINO's loops are as short as the last axis.
        x_BHN = ((image_BHW3.flatten(2) - black) / (white - black)).clamp(0, 1)
        if self.size_hw == self.input_hw:
            x_B3hw = x_BHN.reshape(images, height, width, 3).permute(0, 3, 1, 2)
        else:
            (h, w), (rows, columns) = self.input_hw, self._weights(height, width, x_BHN.device)
            x_BW3h = resized(x_BHN, *rows).reshape(images, h, width, 3).permute(0, 2, 3, 1)
            x_B3hw = resized(x_BW3h.flatten(2), *columns).reshape(images, w, 3, h).permute(0, 2, 3, 1)
        return x_B3hw.clamp(0, 1)

    def _weights(
        self, height: int, width: int, device: torch.device
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        if self.size_hw is not None:
            return (self.rows_near, self.rows), (self.columns_near, self.columns)
        h, w = self.input_hw
        return near_weights(height, h, device), near_weights(width, w, device)


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
