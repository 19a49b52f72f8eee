"""The networks of a detector in the order an image passes them; no calibration, hence no decisions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from invad.backbones.base import Backbone, pool_to_grid
from invad.data.preprocess import Preprocess
from invad.diffusion.ddim import Trajectory, invert
from invad.diffusion.denoiser import DenoiserModule
from invad.diffusion.readings import read
from invad.diffusion.schedule import NoiseSchedule, linear_schedule
from invad.presets import Preset
from invad.training import Standardiser

SCHEDULE = linear_schedule()


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """Pixels to raw features on the grid: preprocessing, frozen backbone, pooling.

    Images are processed one at a time, so that a score cannot depend on batch-mates, not even by rounding.
    """

    preprocess: Preprocess
    backbone: Backbone
    grid_hw: tuple[int, int]
    pooling: str = "area"

    @property
    def device(self) -> torch.device:
        return self.backbone.mean.device

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[Any]) -> Tensor:
        """H x W x 3 pixels (see read_image) to 1 x C x h x w float32."""
        x = self.preprocess(pixels)[None].to(self.device)
        maps = self.backbone(x.contiguous(memory_format=torch.channels_last))
        if self.pooling == "area":
            return pool_to_grid(maps, self.grid_hw).contiguous()
        return torch.cat([F.interpolate(m, self.grid_hw, mode="bilinear") for m in maps], dim=1)


@dataclass(frozen=True, slots=True)
class Model:
    """Everything between pixels and norm maps."""

    extract: FeatureExtractor
    standardiser: Standardiser
    denoiser: DenoiserModule
    settings: Preset
    schedule: NoiseSchedule = SCHEDULE

    @torch.inference_mode()
    def read(self, z_1Chw: Tensor) -> Tensor:
        """Raw features 1 x C x h x w to norm maps L x h x w, on the CPU."""
        z = self.standardiser(z_1Chw.to(self.extract.device))
        return read(self.settings.reading, self.denoiser.predict_noise, z, self.schedule)[0].float().cpu()

    @torch.inference_mode()
    def invert(self, z_1Chw: Tensor, timesteps: Sequence[int]) -> Trajectory:
        """The whole DDIM inversion of raw features, for evaluation protocols that need its latents."""
        z = self.standardiser(z_1Chw.to(self.extract.device))
        return invert(self.denoiser.predict_noise, z, self.schedule, timesteps)
