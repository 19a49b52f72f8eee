"""Closed forms and slow, plain computations that the tests hold the product against.

Torch is imported inside the functions that need it: tests of metrics and limits run without it.
"""

import math
from itertools import pairwise

import numpy as np


def regions_8(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """Flood fill, written without scipy."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    regions = []
    while left:
        region, front = set(), [left.pop()]
        while front:
            y, x = front.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front.extend(near)
        regions.append(region)
    return regions


def brute_aupro(maps: list, masks: list, limit: float) -> float:
    """PRO and FPR at every distinct threshold by loops, then the area by np.interp and small trapezoids."""
    regions = [(n, region) for n, mask in enumerate(masks) for region in regions_8(mask)]
    n_normal = sum(int((~mask).sum()) for mask in masks)
    points = [(0.0, 0.0)]
    for t in sorted({float(v) for m in maps for v in m.ravel()}, reverse=True):
        covered = [sum(maps[n][p] >= t for p in region) / len(region) for n, region in regions]
        false = sum(int(((m >= t) & ~mask).sum()) for m, mask in zip(maps, masks, strict=True))
        points.append((false / n_normal, sum(covered) / len(covered)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 >= limit or x1 == x0:
            continue
        end = min(x1, limit)
        area += (end - x0) * (y0 + (y0 + (y1 - y0) * (end - x0) / (x1 - x0))) / 2
    return area / limit


def gaussian_noise(schedule, sigma):
    """The exact predictor for data from N(0, sigma^2): sqrt(1 - abar) x / (abar sigma^2 + 1 - abar)."""
    import torch

    def predict(x, t_B):
        abar = torch.tensor([schedule.abar(int(t)) for t in t_B], dtype=x.dtype).view(-1, 1, 1, 1)
        return torch.sqrt(1 - abar) * x / (abar * sigma**2 + 1 - abar)

    return predict


def posterior_noise(schedule, point_C, bank_KC, t):
    """The mean noise of a point, given that its clean cell is one of the bank: over all cells, in float64."""
    import torch

    a, point, bank = float(torch.tensor(schedule.abar(t))), point_C.double(), bank_KC.double()
    squares = (point - math.sqrt(a) * bank).square().sum(1)
    weights = torch.softmax(-squares / (2 * (1 - a)), 0)
    return (point - math.sqrt(a) * (weights @ bank)) / math.sqrt(1 - a)


def toy_noise(x, t_B):
    """The predictor that the golden numbers of the inversion were made with."""
    import torch

    level = t_B.to(x.dtype).view(-1, 1, 1, 1) / 999
    return torch.tanh(0.7 * x + 0.3) * (0.2 + 0.8 * level)
