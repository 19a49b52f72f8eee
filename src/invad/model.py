"""The networks of a detector in the order an image passes them; no calibration, hence no decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from invad.backbones.base import Backbone, pool_to_grid
from invad.data.preprocess import Preprocess
from invad.diffusion.ddim import PredictNoise, Trajectory, invert
from invad.diffusion.denoiser import DenoiserModule
from invad.diffusion.empirical import CANDIDATES, EmpiricalDenoiser
from invad.diffusion.gaussian import GaussianDenoiser, shrunk
from invad.diffusion.readings import ReadingConfig, read
from invad.diffusion.schedule import NoiseSchedule, linear_schedule
from invad.features import FeatureSpace
from invad.presets import ClosedFormConfig, Preset

SCHEDULE = linear_schedule()

SMALLEST_SIDE = 16
"""Pixels; a smaller input would vanish in the strides of a backbone."""


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """Pixels to raw features on the grid: preprocessing, frozen backbone at several scales, pooling.

    Images are processed one at a time, so that a score cannot depend on batch-mates, not even by rounding.
    """

    preprocess: Preprocess
    backbone: Backbone
    grid_hw: tuple[int, int]
    pooling: str = "area"
    scales: tuple[float, ...] = (1.0,)

    @property
    def device(self) -> torch.device:
        return self.backbone.mean.device

    @property
    def channels(self) -> int:
        """Of the raw features: those of the backbone's taps, once per scale."""
        return len(self.scales) * sum(c for c, _, _ in self.backbone.probe(self.preprocess.input_hw))

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[Any]) -> Tensor:
        """H x W x 3 pixels (see read_image) to 1 x C x h x w float32."""
        x = self.preprocess(pixels)[None].to(self.device)
        return torch.cat([self._pooled(self.backbone(self._scaled(x, s))) for s in self.scales], dim=1)

    def _scaled(self, x_13HW: Tensor, scale: float) -> Tensor:
        if scale != 1:
            multiple = self.backbone.size_multiple
            h, w = (max(1, round(scale * side / multiple)) * multiple for side in x_13HW.shape[2:])
            h, w = max(h, SMALLEST_SIDE), max(w, SMALLEST_SIDE)
            x_13HW = F.interpolate(x_13HW, (h, w), mode="bilinear", antialias=True)
        return x_13HW.contiguous(memory_format=torch.channels_last)

    def _pooled(self, maps: Sequence[Tensor]) -> Tensor:
        if self.pooling == "area":
            return pool_to_grid(maps, self.grid_hw).contiguous()
        return torch.cat([F.interpolate(m, self.grid_hw, mode="bilinear") for m in maps], dim=1)


@dataclass(frozen=True, slots=True)
class Reader:
    """A noise predictor, the feature space it works in, and how it is read."""

    space: FeatureSpace
    denoiser: DenoiserModule
    config: ReadingConfig

    def read(self, z_BChw: Tensor, schedule: NoiseSchedule) -> Tensor:
        """Raw features to norm maps B x L x h x w."""
        predict: PredictNoise = self.denoiser.predict_noise
        if self.config.kind == "early" and isinstance(self.denoiser, GaussianDenoiser):
            predict = self.denoiser.in_eigenbasis
        return read(self.config, predict, self.space(z_BChw), schedule)

    def to(self, device: torch.device) -> "Reader":
        return Reader(self.space.to(device), self.denoiser.to(device).eval(), self.config)


@dataclass(frozen=True, slots=True)
class Model:
    """Everything between pixels and norm maps. learned: the trained network; closed_form: read beside it."""

    extract: FeatureExtractor
    learned: Reader
    closed_form: tuple[Reader, ...]
    settings: Preset
    schedule: NoiseSchedule = SCHEDULE

    @torch.inference_mode()
    def read(self, z_1Chw: Tensor) -> Tensor:
        """Raw features 1 x C x h x w to norm maps L x h x w, on the CPU: the learned ones first."""
        z = z_1Chw.to(self.extract.device)
        maps = []
        for reader in (self.learned, *self.closed_form):
            maps.append(reader.read(z, self.schedule)[0].float().cpu())
        return torch.cat(maps)

    @torch.inference_mode()
    def invert(self, z_1Chw: Tensor, timesteps: Sequence[int]) -> Trajectory:
        """The whole DDIM inversion of raw features, for evaluation protocols that need its latents."""
        z = self.learned.space(z_1Chw.to(self.extract.device))
        return invert(self.learned.denoiser.predict_noise, z, self.schedule, timesteps)


def gaussian_of(
    space: FeatureSpace, z_NChw: NDArray[np.float32], index: NDArray[np.intp]
) -> tuple[Tensor, Tensor]:
    """Mean K and shrunk covariance K x K of the raw features of the images `index` in a space, float64."""
    mean, covariance = space.covariance(z_NChw, index)
    return mean, shrunk(covariance, len(index) * z_NChw.shape[2] * z_NChw.shape[3])


def fit_closed_form(
    config: ClosedFormConfig,
    space: FeatureSpace,
    z_NChw: NDArray[np.float32],
    index: NDArray[np.intp],
    seed: int,
) -> Reader:
    """The closed-form predictor of the raw features of the images `index`."""
    denoiser: GaussianDenoiser | EmpiricalDenoiser
    if config.kind == "gaussian":
        denoiser = GaussianDenoiser(space.channels)
        denoiser.set_gaussian(*gaussian_of(space, z_NChw, index))
    else:
        # A share of the cells of every image: all of a large set would not fit in memory.
        h, w = z_NChw.shape[2:]
        share = min(1.0, 2 * CANDIDATES / (len(index) * h * w))
        generator = torch.Generator().manual_seed(seed)
        cells = []
        for i in index:
            x = space(torch.from_numpy(np.ascontiguousarray(z_NChw[i : i + 1])))[0].flatten(1).T
            cells.append(x[torch.randperm(len(x), generator=generator)[: max(1, round(share * len(x)))]])
        denoiser = EmpiricalDenoiser(space.channels, config.cells)
        denoiser.set_bank(torch.cat(cells), seed)
    return Reader(space, denoiser, ReadingConfig(timesteps=config.timesteps))


def empty_closed_form(config: ClosedFormConfig, space: FeatureSpace, tensors: Mapping[str, Tensor]) -> Reader:
    """The same from its saved tensors."""
    denoiser = (
        GaussianDenoiser(space.channels)
        if config.kind == "gaussian"
        else EmpiricalDenoiser(space.channels, len(tensors["bank"]))
    )
    denoiser.load_state_dict(dict(tensors))
    return Reader(space, denoiser, ReadingConfig(timesteps=config.timesteps))
