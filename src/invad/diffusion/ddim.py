"""The probability-flow ODE of a diffusion model, solved with DDIM (Euler) steps in either direction.

Inversion carries clean features towards noise; sampling carries noise back. Both are the same walk over
noise levels. The solver knows no network: it is given `predict_noise(x_BChw, t_B) -> BChw`, where t_B is
int64 with one level per image. Nothing is clipped, because features are not confined to [-1, 1].
Tensors keep their dtype and device; coefficients are computed as Python floats (float64).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from invad.diffusion.schedule import NoiseSchedule
from invad.errors import ConfigError

PredictNoise = Callable[[Tensor, Tensor], Tensor]

ABAR_CLEAN = 1.0
ABAR_NOISE = 0.0


@dataclass(frozen=True, slots=True)
class Trajectory:
    """What a walk saw. Each step adds one noise and one latent, so there is one latent more than noises.

    timesteps: the levels asked for. latents: B x C x h x w each; latents[0] is the input itself.
    noises: B x C x h x w each; noises[i] was predicted on latents[i] at timesteps[i].
    """

    timesteps: tuple[int, ...]
    latents: tuple[Tensor, ...]
    noises: tuple[Tensor, ...]

    @property
    def latent(self) -> Tensor:
        """Where the walk ended, B x C x h x w."""
        return self.latents[-1]


def ddim_step(x: Tensor, eps: Tensor, abar_from: float, abar_to: float) -> Tensor:
    """One Euler step between two noise levels, up or down (DDIM, arXiv 2010.02502, Eq. 12 with sigma = 0).

    x and eps have one shape; abar_from in (0, 1], abar_to in [0, 1]. With f = (x - sqrt(1 - abar_from) eps)
    / sqrt(abar_from), the clean estimate, the result is sqrt(abar_to) f + sqrt(1 - abar_to) eps. For
    abar_to = 0 that is eps exactly.
    """
    if not (0.0 < abar_from <= 1.0 and 0.0 <= abar_to <= 1.0):
        raise ValueError(
            f"abar_from = {abar_from}, abar_to = {abar_to}: need abar_from in (0, 1], abar_to in [0, 1]"
        )
    keep = math.sqrt(abar_to / abar_from)
    return keep * x + (math.sqrt(1.0 - abar_to) - keep * math.sqrt(1.0 - abar_from)) * eps


def invert(
    predict_noise: PredictNoise,
    x_BChw: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    *,
    terminal: bool = True,
) -> Trajectory:
    """Carry clean features to noise (arXiv 2504.05662, Eq. 7); x_BChw counts as lying at timesteps[0].

    With `terminal`, S network evaluations and S steps, the last one to abar = 0: the final latent equals the
    last predicted noise exactly. Without it the walk stops at the last level, after S - 1 of each.
    Raises ConfigError unless timesteps increase strictly within the schedule.
    """
    _require_monotone(timesteps, rising=True)
    return _walk(predict_noise, x_BChw, schedule, timesteps, ABAR_NOISE if terminal else None)


def sample(
    predict_noise: PredictNoise, x_BChw: Tensor, schedule: NoiseSchedule, timesteps: Sequence[int]
) -> Trajectory:
    """Carry x_BChw, lying at level timesteps[0], down the descending timesteps to clean features (abar = 1).

    Raises ConfigError unless timesteps decrease strictly within the schedule.
    """
    _require_monotone(timesteps, rising=False)
    return _walk(predict_noise, x_BChw, schedule, timesteps, ABAR_CLEAN)


def q_sample(x0: Tensor, noise: Tensor, t: int | Tensor, schedule: NoiseSchedule) -> Tensor:
    """Forward noising: sqrt(abar_t) x0 + sqrt(1 - abar_t) noise.

    x0 and noise B x C x h x w; t one level for all, or an int64 tensor of B levels in 0..T-1.
    """
    if isinstance(t, int):
        abar = schedule.abar(t)
        return math.sqrt(abar) * x0 + math.sqrt(1.0 - abar) * noise
    abar_T = np.asarray(schedule.alphas_cumprod)
    signal_B, spread_B = (
        torch.from_numpy(power).to(x0.dtype).to(x0.device)[t].view(-1, *[1] * (x0.ndim - 1))
        for power in (np.sqrt(abar_T), np.sqrt(1.0 - abar_T))
    )
    return signal_B * x0 + spread_B * noise


def _walk(
    predict_noise: PredictNoise,
    x: Tensor,
    schedule: NoiseSchedule,
    timesteps: Sequence[int],
    abar_end: float | None,
) -> Trajectory:
    starts = [schedule.abar(t) for t in timesteps]
    ends = starts[1:] if abar_end is None else [*starts[1:], abar_end]
    latents, noises = [x], []
    # zip stops at the last end: without a final level to step to, the last start is not evaluated.
    for t, abar_from, abar_to in zip(timesteps, starts, ends, strict=False):
        x = latents[-1]
        # Expanded, not filled: networks see that all entries are one level and embed it once.
        t_B = torch.full((1,), t, dtype=torch.int64, device=x.device).expand(x.shape[0])
        noises.append(predict_noise(x, t_B))
        latents.append(ddim_step(x, noises[-1], abar_from, abar_to))
    return Trajectory(tuple(timesteps), tuple(latents), tuple(noises))


def _require_monotone(timesteps: Sequence[int], *, rising: bool) -> None:
    way = 1 if rising else -1
    if any(way * b <= way * a for a, b in pairwise(timesteps)):
        order = "increase (inversion)" if rising else "decrease (sampling)"
        raise ConfigError(f"timesteps = {list(timesteps)}: levels must strictly {order}; sort them")
