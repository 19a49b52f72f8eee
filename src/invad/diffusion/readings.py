"""What is read off the denoiser for one feature map: norms of predicted noise at chosen levels.

The statistic is a norm per cell of the feature grid, || eps_theta(x, t) ||_2 over channels. By Tweedie's
formula the ideal predictor is eps* = -sqrt(1 - abar_t) * score of the noised density, so its norm says how
far from the bulk of the normal data, at that noise level, a cell lies.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from invad.diffusion.ddim import PredictNoise, invert, q_sample, sample
from invad.diffusion.schedule import NoiseSchedule
from invad.diffusion.schedule import timesteps as checked_timesteps
from invad.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingConfig:
    """How a feature map is read. kind: a name of READINGS. timesteps: the noise levels, rising, 0..999."""

    kind: str = "early"
    timesteps: tuple[int, ...] = (100, 200, 300)

    def __post_init__(self) -> None:
        if self.kind not in READINGS:
            raise ConfigError(f"reading.kind = {self.kind!r} is unknown; choose one of {sorted(READINGS)}")
        checked_timesteps(self.timesteps)


def norms(x_BChw: Tensor) -> Tensor:
    """Euclidean norm over channels: B x C x h x w -> B x h x w."""
    length: Tensor = torch.linalg.vector_norm(x_BChw, dim=1)
    return length


def read(
    config: ReadingConfig, predict_noise: PredictNoise, z_BChw: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """Norm maps of standardised features: B x L x h x w float32, L the number of levels."""
    return READINGS[config.kind](predict_noise, z_BChw, schedule, config.timesteps)


def early(
    predict_noise: PredictNoise, z_BChw: Tensor, schedule: NoiseSchedule, timesteps: tuple[int, ...]
) -> Tensor:
    """The noise predicted on the clean features, all levels in one batch, no steps in between."""
    del schedule
    levels = torch.tensor(timesteps, dtype=torch.int64, device=z_BChw.device)
    repeated = z_BChw.repeat_interleave(len(timesteps), dim=0)
    lengths = norms(predict_noise(repeated, levels.repeat(z_BChw.shape[0])))
    return lengths.view(z_BChw.shape[0], len(timesteps), *lengths.shape[1:])


def inversion(
    predict_noise: PredictNoise, z_BChw: Tensor, schedule: NoiseSchedule, timesteps: tuple[int, ...]
) -> Tensor:
    """The noise predicted along the DDIM inversion.

    The last map is the norm of the terminal latent (Eq. 8), because the last step ends at abar = 0.
    """
    trajectory = invert(predict_noise, z_BChw, schedule, timesteps)
    return torch.stack([norms(noise) for noise in trajectory.noises], dim=1)


def reconstruction_residual(
    predict_noise: PredictNoise,
    x_BChw: Tensor,
    noise_BChw: Tensor,
    schedule: NoiseSchedule,
    level: int,
    steps: int,
) -> Tensor:
    """What reconstruction loses of clean features: the baseline that inversion replaces, B x C x h x w.

    They are noised to `level` and carried back to the clean end in `steps` steps that start there.
    Raises ConfigError when there are fewer than `steps` levels from `level` down to 1.
    """
    if not 1 <= steps <= level:
        raise ConfigError(f"steps = {steps}: a reconstruction from level {level} takes 1 to {level} steps")
    levels = tuple(round(level * (steps - i) / steps) for i in range(steps))
    noised = q_sample(x_BChw, noise_BChw, level, schedule)
    return x_BChw - sample(predict_noise, noised, schedule, levels).latent


Reading = Callable[[PredictNoise, Tensor, NoiseSchedule, tuple[int, ...]], Tensor]

READINGS: dict[str, Reading] = {"early": early, "inversion": inversion}
