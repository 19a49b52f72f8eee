"""Ready settings by name: what a user chooses with `--preset`, one row each."""

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from invad.backbones.base import CELL, Backbone
from invad.backbones.beside import EACH
from invad.backbones.registry import load_backbone
from invad.diffusion.denoiser import SIZES, DenoiserConfig
from invad.diffusion.empirical import EmpiricalConfig
from invad.diffusion.readings import ReadingConfig
from invad.diffusion.schedule import timesteps
from invad.errors import ConfigError
from invad.model.space import SpaceConfig
from invad.scoring.typicality import ScoreRule
from invad.system.arguments import path_of, require, require_fields

MOST_MOVED = 0.1
"""Share of its sides by which a copy may be moved: beyond it a third and more of it is mirrored border."""

POOLINGS = ("area", "bilinear")
DRAWN = ("images", "cells")

SPACE = SpaceConfig(contrast=0.5, components=256, whitening=0.5)
"""Half of a cell's contrast, in the directions that normals vary in, half whitened."""

DIRECTIONS = replace(SPACE, contrast=1.0, components=128)
"""All of it: where a cell points, and not how far. 256 components take twice the time and find no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a denoiser is trained.

    steps: optimiser steps; None for `epochs` passes over the images, at least `min_steps` of them. batch:
    images a step. lr: peak learning rate, reached after `warmup` steps or after `warmup_share` of all of
    them, whichever is later, then cosine to zero. ema: decay of the averaged weights that are kept in the
    end. grad_clip: largest gradient norm. early_share: share of the levels drawn from EARLY_LEVELS, where the
    detector reads; the rest is uniform over all. draw: `images` for whole images, each with a level, or
    `cells` for as many cells of many images, each row of them with a level; the latter for networks that
    denoise every cell by itself. seed: of initial weights, batches, levels and noise.
    """

    steps: int | None = None
    epochs: int = 25
    min_steps: int = 150
    batch: int = 8
    lr: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 50
    warmup_share: float = 0.0
    ema: float = 0.995
    grad_clip: float = 1.0
    early_share: float = 0.7
    draw: str = "images"
    seed: int = 0

    def __post_init__(self) -> None:
        require_fields(self, "train.")
        rules = {
            "steps": (self.steps is None or self.steps >= 1, "an integer of at least 1"),
            "epochs": (self.epochs >= 1, "an integer of at least 1"),
            "min_steps": (self.min_steps >= 1, "an integer of at least 1"),
            "early_share": (0 <= self.early_share <= 1, "a share from 0 to 1"),
            "draw": (self.draw in DRAWN, " or ".join(DRAWN)),
            "batch": (self.batch >= 1, "an integer of at least 1"),
            "lr": (0 < self.lr <= 1e30, "a positive number such as 0.001"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number of at least 0"),
            "warmup": (self.warmup >= 0, "an integer of at least 0"),
            "warmup_share": (0 <= self.warmup_share < 1, "a share from 0 to below 1"),
            "ema": (0 <= self.ema < 1, "a number from 0 to below 1, such as 0.99"),
            "grad_clip": (self.grad_clip > 0, "a positive number such as 1"),
            "seed": (0 <= self.seed < 2**32, "an integer from 0 to 4294967295"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: give {wanted}")

    def steps_for(self, images: int) -> int:
        """Optimiser steps for a training on this many images."""
        return self.steps or max(self.min_steps, round(self.epochs * images / self.batch))


@dataclass(frozen=True, slots=True)
class BankConfig:
    """A bank of known cells: what the names of its tensors begin with, its grid, its space, and the number of
    the backbone whose features it knows, None for those of all."""

    name: str
    fine: bool
    space: SpaceConfig
    empirical: EmpiricalConfig
    part: int | None = None

    @property
    def reading(self) -> ReadingConfig:
        return ReadingConfig(timesteps=self.empirical.timesteps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """All settings of a detector that do not depend on the images.

    backbone: a name (see `invad backbones list`), or several, each with known cells of its own (`A,B`).
    strides: taps of a convolutional backbone. grid_stride: pixels of the input per cell of the feature grid;
    None for CELL pixels of the image as the backbone sees it that sees it smallest. area_side: the input has
    about area_side^2 pixels; None for the side at which the backbone is best, of several the largest such.
    square: ignore the images' aspect ratio. scales: sizes, relative to the input, at which the backbone sees
    the image; the maps of all are brought to one grid. fine: how many times finer a second grid is, on which
    the first of the scales alone, or the second part of a backbone `A//B`, is compared with an empirical
    predictor of its own; None for no such grid. pooling: how finer maps reach a grid, `area` (antialiased) or
    `bilinear` (the paper's). space: what is noised and denoised. second_space: of a second empirical
    predictor beside that of each grid, of the first backbone; its maps count as much as those of the first in
    the image score, and not at all in the anomaly map. None for no such. denoiser: the network that predicts
    noise, and reading: where it is read; None for no network. empirical: the predictor of known cells, on the
    grid and on the fine one; None for none. All predictors count the same. floor: share of an image's own
    floor that is taken away from its map (see `typicality_map`). top_fraction: share of the most atypical
    cells whose mean is the image score. top_fractions: that share for each predictor, in the order network,
    grid, fine grid, where the image score is combined from the predictors' own (see `combined_scores`); None
    for the score of the map. Of several backbones the last draws the anomaly map, and beside a network there
    are two predictors: the grid of the first one, and the maps of all.
    """

    backbone: str = "invad-s"
    strides: tuple[int, ...] = (4, 8, 16)
    grid_stride: int | None = None
    area_side: int | None = None
    square: bool = False
    pooling: str = "area"
    scales: tuple[float, ...] = (1.0, 0.5, 0.25)
    fine: int | None = 2
    space: SpaceConfig = SPACE
    second_space: SpaceConfig | None = None
    denoiser: DenoiserConfig | None = field(default_factory=lambda: SIZES["mlp-s"])
    reading: ReadingConfig = field(default_factory=lambda: ReadingConfig(timesteps=(200, 300, 400)))
    empirical: EmpiricalConfig | None = field(default_factory=EmpiricalConfig)
    floor: float = 0.5
    top_fraction: float = 0.02
    top_fractions: tuple[float, ...] | None = None
    moved: float = 0.0
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        require_fields(self)
        predictors = len(self.score_rule.predictors)
        rules = {
            "moved": (0 <= self.moved <= MOST_MOVED, f"a share from 0 to {MOST_MOVED}, such as 0.02"),
            "strides": (bool(self.strides) and min(self.strides) >= 1, "strides such as 4, 8, 16"),
            "backbone": (
                len(self._backbones) == 1 or self.empirical is not None,
                "one backbone, or an empirical predictor of each",
            ),
            "grid_stride": (
                self.grid_stride is None or self.grid_stride >= 1,
                "an integer of at least 1, or null",
            ),
            "area_side": (self.area_side is None or self.area_side >= 16, "pixels, at least 16"),
            "scales": (
                bool(self.scales) and all(0.1 <= s <= 1 for s in self.scales),
                "sizes from 0.1 to 1, such as 1, 0.5, 0.25",
            ),
            "fine": (
                self.fine is None or (self.fine >= 2 and self.empirical is not None),
                "an integer of at least 2 and an empirical predictor, or null",
            ),
            "second_space": (
                self.second_space is None or (self.empirical is not None and self.top_fractions is not None),
                "an empirical predictor and top_fractions beside it, or null",
            ),
            "pooling": (self.pooling in POOLINGS, " or ".join(POOLINGS)),
            "denoiser": (
                self.denoiser is not None or self.empirical is not None,
                "a network, or an empirical predictor beside none",
            ),
            "floor": (0 <= self.floor <= 1, "a share from 0 to 1"),
            "top_fraction": (0 < self.top_fraction <= 1, "a share above 0, at most 1"),
            "top_fractions": (
                self.top_fractions is None
                or (
                    len(self.top_fractions) == predictors
                    and all(0 < share <= 1 for share in self.top_fractions)
                ),
                f"{predictors} shares above 0, at most 1, one for each predictor, or null",
            ),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: give {wanted}")

    @property
    def score_rule(self) -> ScoreRule:
        """How norm maps, in the order of `Model.read`, become an anomaly map and an image score."""
        network = () if self.denoiser is None else tuple(range(len(self.reading.timesteps)))
        maps = self._maps_of_banks(len(network))
        if len(self._backbones) > 1:
            grid = tuple(i for bank, own in maps.items() if not (bank.part or bank.fine) for i in own)
            predictors = [network, grid, tuple(i for own in maps.values() for i in own)]
        else:
            fine = [
                tuple(i for bank, own in maps.items() if bank.fine == is_ for i in own)
                for is_ in (False, True)
            ]
            predictors = [network, *fine]
        drawn = [one for one in (network, *(own for bank, own in maps.items() if self._draws(bank))) if one]
        weight = {i: 1 / (len(drawn) * len(one)) for one in drawn for i in one}
        return ScoreRule(
            predictors=tuple(one for one in predictors if one),
            weights=tuple(weight.get(i, 0.0) for i in range(len(network) + sum(map(len, maps.values())))),
            floor=self.floor,
            top_fraction=self.top_fraction,
            top_fractions=self.top_fractions,
        )

    @property
    def banks(self) -> tuple[BankConfig, ...]:
        """Of each backbone those of the grid and of the fine one, on each in `space`, and of the first
        backbone in the second one as well."""
        if self.empirical is None:
            return ()
        grids = {"": False} if self.fine is None else {"": False, "fine.": True}
        several = len(self._backbones) > 1
        return tuple(
            BankConfig(
                (f"part{part}." if part else "") + grid + own,
                fine,
                space,
                self.empirical,
                part if several else None,
            )
            for part in range(len(self._backbones))
            for grid, fine in grids.items()
            for own, space in (self._spaces if part == 0 else {"": self.space}).items()
        )

    def cell_px(self, backbone: Backbone) -> int:
        """Pixels of the input per cell of the grid."""
        smallest = min([part.share for part in backbone.apart if part.on_grid and part.on_fine], default=1.0)
        return self.grid_stride or round(CELL / smallest)

    @property
    def of_first_backbone(self) -> "Preset":
        """The same with the first of several backbones alone."""
        return replace(self, backbone=self._backbones[0])

    @property
    def _backbones(self) -> list[str]:
        return self.backbone.split(EACH)

    @property
    def _spaces(self) -> dict[str, SpaceConfig]:
        second = {} if self.second_space is None else {"second.": self.second_space}
        return {"": self.space, **second}

    def _draws(self, bank: BankConfig) -> bool:
        """Whether the maps of a bank make the anomaly map."""
        last = bank.part is None or bank.part == len(self._backbones) - 1
        return last and not bank.name.endswith("second.")

    def _maps_of_banks(self, first: int) -> dict[BankConfig, tuple[int, ...]]:
        """Numbers of the norm maps of each bank, from `first` on."""
        maps = {}
        for bank in self.banks:
            maps[bank] = tuple(range(first, first + len(bank.empirical.timesteps)))
            first += len(bank.empirical.timesteps)
        return maps

    def steps_for(self, images: int) -> int:
        """Optimiser steps for a training on this many images; 0 without a network."""
        return 0 if self.denoiser is None else self.train.steps_for(images)

    def override(
        self,
        *,
        backbone: str | None = None,
        area_side: int | None = None,
        steps: int | None = None,
        batch: int | None = None,
        seed: int | None = None,
        moved: float | None = None,
    ) -> "Preset":
        """These settings with what is given in place of their own. Raises ConfigError out of range."""
        given: dict[str, Any] = {"steps": steps, "batch": batch, "seed": seed}
        train = replace(self.train, **{name: value for name, value in given.items() if value is not None})
        side = self.area_side if area_side is None else area_side
        by = self.moved if moved is None else moved
        return replace(self, backbone=backbone or self.backbone, area_side=side, moved=by, train=train)

    def load_backbone(self, name: str | None = None, weights: str | Path | None = None) -> Backbone:
        """The frozen backbone of these settings, or the one called `name` as they would use it.

        weights: a file in place of those that the name stands for. Raises as `invad.backbones.registry`'s
        `load_backbone`.
        """
        require(name=(name, str | None))
        file = None if weights is None else path_of(weights, "weights")
        return load_backbone(
            name or self.backbone, weights=file, strides=self.strides, image_size=self.area_side
        )


def preset_of(given: str | Preset) -> Preset:
    """A preset by its name, or itself. Raises ConfigError for a name that is unknown, and for neither."""
    require(preset=(given, str | Preset))
    return preset_named(given) if isinstance(given, str) else given


def preset_named(name: str) -> Preset:
    """The preset called `name`. Raises ConfigError listing the names otherwise."""
    if name not in PRESETS:
        raise ConfigError(f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


# Known cells alone: nothing is trained (see docs/results.md for what a network gave beside them).
# A fine grid is there for what is small, so fewer cells make a score that it has a part in.
_BANKS = Preset(denoiser=None, top_fractions=(0.02, 0.01), second_space=DIRECTIONS)

# One backbone knows best whether a whole image is normal, one that was trained on ImageNet where it is not.
_STANDARD = replace(_BANKS, backbone="invad-s,efficientnet-lite2")

# The paper's setting; 1,223 M parameters, for a data-centre GPU.
_PAPER = Preset(
    backbone="efficientnet_b4",
    area_side=256,
    strides=(2, 4, 8, 16),
    square=True,
    pooling="bilinear",
    scales=(1.0,),
    fine=None,
    space=SpaceConfig(standardise=False),
    empirical=None,
    denoiser=SIZES["dit-paper"],
    reading=ReadingConfig(kind="inversion", timesteps=timesteps("reference", 3)),
    train=TrainConfig(
        epochs=300,
        batch=8,
        lr=5e-5,
        weight_decay=0.01,
        warmup=0,
        warmup_share=40 / 300,
        ema=0.999,
        early_share=0.0,
    ),
)

# The same with 5.1 M parameters, which a CPU trains in an hour, on the backbone of the same family that needs
# no hub. An eighth of the width takes eight times the rate.
_PAPER_M = replace(
    _PAPER,
    backbone="efficientnet-lite2",
    denoiser=DenoiserConfig(kind="dit", width=256, depth=4, heads=4),
    train=replace(_PAPER.train, lr=4e-4),
)

PRESETS: dict[str, Preset] = {
    "standard": _STANDARD,
    # One backbone on a smaller input, one grid and one space, for a short cycle and a small CPU.
    "fast": replace(_BANKS, area_side=192, fine=None, second_space=None, top_fractions=None),
    # Smaller cells, for small defects.
    "accurate": replace(_STANDARD, grid_stride=16),
    # A network with attention over the grid beside the known cells, for what is missing or misplaced.
    "dit": replace(
        _BANKS,
        denoiser=SIZES["dit-s"],
        reading=ReadingConfig(timesteps=(100,)),
        top_fractions=(0.02, 0.02, 0.01),
        train=TrainConfig(epochs=100, lr=5e-4),
    ),
    "paper": _PAPER,
    "paper-m": _PAPER_M,
    # Its features standardised, which the paper does not do: then the noise is in scale with every channel.
    "paper-m-standardised": replace(_PAPER_M, space=SpaceConfig()),
    # The paper's method with a network that a CPU trains in minutes: for ablations, not for use on a line.
    "paper-s": replace(
        _PAPER,
        backbone="invad-s",
        strides=(4, 8, 16),
        space=SpaceConfig(),
        denoiser=DenoiserConfig(kind="mlp", width=256, depth=3, mlp_ratio=1.0),
        train=TrainConfig(steps=600, batch=8, lr=2e-3, warmup=50, ema=0.99, early_share=0.0),
    ),
}
