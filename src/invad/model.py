"""The networks of a detector in the order an image passes them; no calibration, hence no decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from invad.backbones.base import Backbone, pool_to_grid
from invad.data.preprocess import Preprocess
from invad.diffusion.ddim import Trajectory, invert
from invad.diffusion.denoiser import DenoiserModule
from invad.diffusion.empirical import EmpiricalDenoiser
from invad.diffusion.readings import ReadingConfig, read
from invad.diffusion.schedule import NoiseSchedule, linear_schedule
from invad.features import FeatureSpace
from invad.presets import Preset

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
class Model:
    """Everything between pixels and norm maps. denoiser: the trained network; empirical: read beside it."""

    extract: FeatureExtractor
    space: FeatureSpace
    denoiser: DenoiserModule
    empirical: EmpiricalDenoiser | None
    settings: Preset
    schedule: NoiseSchedule = SCHEDULE

    @torch.inference_mode()
    def read(self, z_1Chw: Tensor) -> Tensor:
        """Raw features 1 x C x h x w to norm maps L x h x w, on the CPU: those of the network first."""
        x = self.space(z_1Chw.to(self.extract.device))
        maps = [read(self.settings.reading, self.denoiser.predict_noise, x, self.schedule)]
        if self.empirical is not None and self.settings.empirical is not None:
            levels = ReadingConfig(timesteps=self.settings.empirical.timesteps)
            maps.append(read(levels, self.empirical.predict_noise, x, self.schedule))
        return torch.cat(maps, dim=1)[0].float().cpu()

    @torch.inference_mode()
    def invert(self, z_1Chw: Tensor, timesteps: Sequence[int]) -> Trajectory:
        """The whole DDIM inversion of raw features, for evaluation protocols that need its latents."""
        x = self.space(z_1Chw.to(self.extract.device))
        return invert(self.denoiser.predict_noise, x, self.schedule, timesteps)

    def to_device(self) -> "Model":
        """All parts where the backbone is, the networks in evaluation mode."""
        device = self.extract.device
        return replace(
            self,
            space=self.space.to(device),
            denoiser=self.denoiser.to(device).eval(),
            empirical=None if self.empirical is None else self.empirical.to(device).eval(),
        )
