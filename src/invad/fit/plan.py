"""What a spread of the normal images tells before any is learned from: input size, window, mean picture."""

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.backbones.base import Backbone
from invad.data.preprocess import (
    Preprocess,
    choose_input_hw,
    choose_window,
    group_aspects,
    log_aspect,
)
from invad.data.region import Region, require_frame
from invad.data.samples import read_sample
from invad.errors import DataError
from invad.model.reading import FeatureExtractor
from invad.model.settings import Preset
from invad.records import Hw, Sample

LARGEST_MULTIPLE = 64
"""Pixels; an input is not stretched further than this only to fit the grid to the backbone."""

PROBED_IMAGES = 64
"""Images read to choose the input size and the 16-bit window."""

AVERAGED_IMAGES, AVERAGED_SIZES = 32, 4
"""Of which the mean normal picture is made, and sizes of images of which there is one at most."""

AVERAGED_OF_CATEGORY = 12
"""Images of each of several categories."""

ALIKE = 1.5
"""Largest ratio between the aspect ratios of categories that share an input size."""


def plan(
    samples: Sequence[Sample],
    settings: Preset,
    backbone: Backbone,
    *,
    strict: bool,
    region: Region | None = None,
    tile_px: int | None = None,
) -> FeatureExtractor:
    """Choose input size and 16-bit window from a spread of the images, the grid from the input size.

    region: only images of its frame count. tile_px: side of the tiles that images are
    cut into, if they are. Raises DataError when none of them can be read.
    """
    sizes: dict[str, list[Hw]] = {}
    windows = []
    failed: DataError | None = None
    for sample in _spread(samples):
        try:
            pixels = read_sample(sample)
            require_frame(region, (pixels.shape[0], pixels.shape[1]), sample.path)
        except DataError as error:
            if strict:
                raise
            failed = failed or error
            continue
        seen_hw = (pixels.shape[0], pixels.shape[1]) if tile_px is None else (tile_px, tile_px)
        sizes.setdefault(sample.category, []).append(seen_hw)
        windows.append(_extremes(pixels))
    if not sizes:
        if region is not None and failed is not None:
            raise failed
        raise DataError(
            f"{samples[0].path.parent if samples else 'data'}: no readable image among the normals; "
            "give a folder of good images"
        )
    (input_hw, grid_hw), *others = (input_and_grid(group, settings, backbone) for group in _shapes(sizes))
    return FeatureExtractor(
        Preprocess(input_hw, choose_window(windows), tuple(hw for hw, _ in others if hw != input_hw)),
        backbone,
        grid_hw,
        settings.pooling,
        settings.scales,
        settings.fine,
    )


def means_by_category(samples: Sequence[Sample], preprocess: Preprocess) -> dict[str, dict[Hw, torch.Tensor]]:
    """As `mean_pictures`, of each of several categories; nothing of a single one."""
    categories = sorted({sample.category for sample in samples})
    if len(categories) < 2:
        return {}
    own = {name: [one for one in samples if one.category == name] for name in categories}
    return {name: mean_pictures(each, preprocess, images=AVERAGED_OF_CATEGORY) for name, each in own.items()}


def mean_pictures(
    samples: Sequence[Sample],
    preprocess: Preprocess,
    region: Region | None = None,
    *,
    images: int = AVERAGED_IMAGES,
) -> dict[Hw, torch.Tensor]:
    """By height and width of images, the mean of a spread of them as the network sees one: 3 x H' x W' uint8.

    Of the few sizes that most of them have. region: only images of its frame count. images: that
    are read at most.
    """
    spread = _spread(samples)
    sums: dict[Hw, list[torch.Tensor]] = {}
    for i in np.linspace(0, len(spread) - 1, min(len(spread), images)).round().astype(int):
        with suppress(DataError):
            pixels = read_sample(spread[i])
            require_frame(region, (pixels.shape[0], pixels.shape[1]), spread[i].path)
            x_3HW = preprocess(pixels)
            sums.setdefault((pixels.shape[0], pixels.shape[1]), []).append(x_3HW)
    most = sorted(sums, key=lambda size_hw: -len(sums[size_hw]))[:AVERAGED_SIZES]
    return {hw: (255 * torch.stack(sums[hw]).mean(dim=0)).round().byte() for hw in most}


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    """PROBED_IMAGES of the samples at equal distances, the same share of each category, one at least."""
    categories: dict[str, list[Sample]] = {}
    for sample in samples:
        categories.setdefault(sample.category, []).append(sample)
    share = max(1, PROBED_IMAGES // max(1, len(categories)))
    return [
        own[i]
        for own in categories.values()
        for i in np.linspace(0, len(own) - 1, min(len(own), share)).round().astype(int)
    ]


def _shapes(sizes: Mapping[str, Sequence[Hw]]) -> list[list[Hw]]:
    """Image sizes of the categories whose median aspect ratios are alike, the largest group first."""
    own = list(sizes.values())
    medians = [statistics.median(log_aspect(size_hw) for size_hw in category) for category in own]
    groups = [[hw for i in group for hw in own[i]] for group in group_aspects(medians, ALIKE)]
    return sorted(groups, key=len, reverse=True)


def input_and_grid(sizes_hw: Sequence[Hw], settings: Preset, backbone: Backbone) -> tuple[Hw, Hw]:
    """Input size and grid. Where patches and grid do not go together (14 and 16) the patches are the grid."""
    side = settings.area_side or backbone.info.side
    cell = settings.cell_px(backbone)
    multiple = math.lcm(backbone.size_multiple, cell)
    if multiple <= LARGEST_MULTIPLE:
        h, w = choose_input_hw(sizes_hw, side, multiple, settings.square)
        return (h, w), (h // cell, w // cell)
    h, w = choose_input_hw(sizes_hw, side, backbone.size_multiple, settings.square)
    grids = [(rows, columns) for _, rows, columns in backbone.probe((h, w))]
    return (h, w), min(grids, key=lambda grid: abs(h / grid[0] - cell))


def _extremes(pixels: NDArray[Any]) -> NDArray[Any]:
    """All that choose_window needs of an image, so that 64 large ones need not stay in memory."""
    return np.array([pixels.min(), pixels.max()], dtype=pixels.dtype)
