"""The DDIM inversion of `invad.diffusion.ddim` in the manners of a scheduler of diffusers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from invad.diffusion.ddim import ABAR_NOISE, ddim_step
from invad.diffusion.schedule import LAST_LEVEL
from invad.diffusion.schedule import timesteps as named_timesteps
from invad.errors import ConfigError
from invad.integrations.diffusers.noise import as_noise, prediction_of, require_levels, schedule_of
from invad.system.packages import importing

with importing(("diffusers",), "diffusers", __package__):
    from diffusers import DDPMScheduler
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.schedulers.scheduling_utils import (
        KarrasDiffusionSchedulers,
        SchedulerMixin,
        SchedulerOutput,
    )


class InversionScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Carries images to noise: `step` goes from the level of the network to the next, noisier one.

    `InversionScheduler.from_config(pipe.scheduler.config)` takes the noise levels of any scheduler of DDPM's
    kind over. Unlike `DDIMInverseScheduler` it clips nothing, asks the network at the level that x is at, and
    ends at abar = 0, where x is the last predicted noise. The arithmetic is in float32, whatever the network
    runs in.

    num_train_timesteps, beta_start, beta_end, beta_schedule, trained_betas, rescale_betas_zero_snr: those of
    DDPMScheduler. prediction_type: epsilon, sample or v_prediction. spacing: which levels are visited, a name
    of `invad.diffusion.schedule.SPACINGS`; 'reference' in 3 steps gives 0, 500, 999. terminal: whether the
    last step ends at abar = 0; if not, the walk stops at the last level, where no network is asked.
    """

    _compatibles: ClassVar[list[str]] = [one.name for one in KarrasDiffusionSchedulers]
    order = 1
    init_noise_sigma = 1.0

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_train_timesteps: int = LAST_LEVEL + 1,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        prediction_type: str = "epsilon",
        rescale_betas_zero_snr: bool = False,
        spacing: str = "reference",
        terminal: bool = True,
    ) -> None:
        prediction_of(self)
        self.alphas_cumprod: Tensor = DDPMScheduler(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        ).alphas_cumprod
        self.schedule = schedule_of(self)
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As of every scheduler. Raises ConfigError for one without noise levels, which would be made up."""
        if isinstance(config, Mapping) and not {"beta_start", "trained_betas"} & set(config):
            raise ConfigError(
                "config: holds no noise levels (beta_start), as none of flow matching or EDM does; take that "
                "of a scheduler of DDPM's kind"
            )
        return super().from_config(config, return_unused_kwargs, **kwargs)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: "str | torch.device | None" = None,
        timesteps: Sequence[int] | None = None,
    ) -> None:
        """Choose the levels, in the order they are visited: so many of the spacing, or these.

        Raises ConfigError for levels that do not rise or that the model cannot be read at, and for a number
        of them when the model has not 1000 levels, which the spacings are for.
        """
        levels = named_timesteps(self.config.spacing if timesteps is None else timesteps, num_inference_steps)
        if timesteps is None and self.schedule.T != LAST_LEVEL + 1:
            raise ConfigError(
                f"the model has {self.schedule.T} levels, spacings are for {LAST_LEVEL + 1}; give timesteps"
            )
        require_levels(levels, self.schedule)
        if not self.config.terminal:
            self._end, levels = levels[-1], levels[:-1]
        self.num_inference_steps = len(levels)
        self.timesteps = torch.tensor(levels, dtype=torch.int64, device=device)

    def scale_model_input(self, sample: Tensor, timestep: "int | Tensor | None" = None) -> Tensor:
        """The sample itself: nothing is scaled."""
        return sample

    def step(
        self, model_output: Tensor, timestep: "int | Tensor", sample: Tensor, return_dict: bool = True
    ) -> "SchedulerOutput | tuple[Tensor]":
        """From `timestep`, one of `timesteps`, to the next level.

        model_output: what the network says of `sample` at that level, with or without a learned variance.
        The result is in the shape and type of `sample` and called prev_sample, as in all schedulers, though
        it is noisier. Raises ConfigError for another timestep, and before `set_timesteps`.
        """
        here = self.schedule.abar(int(timestep))
        there = self._next(int(timestep))
        x = sample.float()
        noise = as_noise(self.config.prediction_type, model_output, x, math.sqrt(here), math.sqrt(1.0 - here))
        moved = ddim_step(x, noise, here, there).to(sample.dtype)
        return SchedulerOutput(prev_sample=moved) if return_dict else (moved,)

    def _next(self, timestep: int) -> float:
        levels: list[int] = self.timesteps.tolist()
        if self.num_inference_steps is None or timestep not in levels:
            raise ConfigError(f"timestep = {timestep}: call set_timesteps, then step through `timesteps`")
        after = levels.index(timestep) + 1
        if after < len(levels):
            return self.schedule.abar(levels[after])
        return ABAR_NOISE if self.config.terminal else self.schedule.abar(self._end)

    def __len__(self) -> int:
        return self.schedule.T
