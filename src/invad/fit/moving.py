"""Moved copies of normal images, for parts that do not lie where the last one lay."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from invad.records import Sample


@dataclass(frozen=True, slots=True)
class Move:
    """Of what a picture shows: to the right and down, as shares of its sides, and counterclockwise about its
    centre, in degrees."""

    right: float
    down: float
    turn: float


def largest_turn(share: float) -> float:
    """Degrees by which the middle of a side of a square moves by `share` of it: 2.3 for 0.02."""
    return math.degrees(math.asin(2 * share))


def draw_moves(samples: Sequence[Sample], share: float, seed: int) -> tuple[Move, ...]:
    """A move for each sample, uniform within `share` and `largest_turn`. Pictures of one part move alike."""
    rng = np.random.default_rng(seed)
    drawn: dict[Hashable, Move] = {}
    most = largest_turn(share)
    moves = []
    for number, sample in enumerate(samples):
        right, down, turn = (float(rng.uniform(-far, far)) for far in (share, share, most))
        part = number if sample.member is None else sample.sample_id
        moves.append(drawn.setdefault(part, Move(right, down, turn)))
    return tuple(moves)


def moved(pixels: NDArray[Any], move: Move) -> NDArray[Any]:
    """What a picture H x W x 3 shows, moved; of its size and type.

    What comes in at a side, which no camera saw, is its mirrored border. Between pixels it is linear.
    """
    height, width = pixels.shape[:2]
    x_1CHW = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32))[None]
    cos, sin = math.cos(math.radians(move.turn)), math.sin(math.radians(move.turn))
    # grid_sample asks of each pixel of the answer where it was, in halves of a side from the centre
    back = np.array([[cos, -sin * height / width], [sin * width / height, cos]])
    shift = -back @ np.array([2 * move.right, 2 * move.down])
    theta = torch.from_numpy(np.column_stack([back, shift]).astype(np.float32))[None]
    grid = F.affine_grid(theta, list(x_1CHW.shape), align_corners=False)
    y_1CHW = F.grid_sample(x_1CHW, grid, padding_mode="reflection", align_corners=False)
    values = y_1CHW[0].permute(1, 2, 0).numpy()
    if np.issubdtype(pixels.dtype, np.integer):
        values = values.round()
    return np.ascontiguousarray(values.astype(pixels.dtype))
