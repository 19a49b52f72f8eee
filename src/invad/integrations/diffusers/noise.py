"""What a network of diffusers says, as the noise that it means; and the schedule it was trained on.

With m the output at a level of signal power abar, x = sqrt(abar) x0 + sqrt(1 - abar) eps:

    epsilon       eps = m
    sample        eps = (x - sqrt(abar) m) / sqrt(1 - abar)
    v_prediction  eps = sqrt(abar) m + sqrt(1 - abar) x        (Salimans and Ho, arXiv 2202.00512)
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from torch import Tensor

from invad.diffusion.schedule import NoiseSchedule
from invad.errors import ConfigError

Share: TypeAlias = float | Tensor
"""sqrt(abar) or sqrt(1 - abar): one number, or one per image, B x 1 x 1 x 1."""

PREDICTIONS: dict[str, Callable[[Tensor, Tensor, Share, Share], Tensor]] = {
    "epsilon": lambda m, x, signal, spread: m,
    "sample": lambda m, x, signal, spread: (x - signal * m) / spread,
    "v_prediction": lambda m, x, signal, spread: signal * m + spread * x,
}


def as_noise(kind: str, output: Tensor, x_BChw: Tensor, signal: Share, spread: Share) -> Tensor:
    """The noise in x_BChw, in its shape and type, of what a network said of it.

    kind: a name of PREDICTIONS. output: B x C x h x w, or B x 2C x h x w from a network that also says a
    variance, which is left out.
    """
    return PREDICTIONS[kind](output[:, : x_BChw.shape[1]].to(x_BChw.dtype), x_BChw, signal, spread)


def prediction_of(scheduler: Any) -> str:
    """What the network beside this scheduler predicts, a name of PREDICTIONS.

    Raises ConfigError for flow matching, which goes another way from image to noise, and for anything else.
    """
    name = type(scheduler).__name__
    kind = getattr(scheduler.config, "prediction_type", "epsilon")
    if name.startswith("Flow") or "flow" in str(kind):
        raise ConfigError(
            f"{name}: flow matching (as in SD3 and Flux) predicts a velocity on another path and is not "
            f"read; take a model with noise levels, as of DDPM, that predicts {', '.join(PREDICTIONS)}"
        )
    if kind not in PREDICTIONS:
        raise ConfigError(
            f"{name}: prediction_type {kind!r} is not read; it has to be {', '.join(PREDICTIONS)}"
        )
    return str(kind)


def schedule_of(scheduler: Any) -> NoiseSchedule:
    """The noise levels a network was trained on: `alphas_cumprod`, all that is read of a scheduler's walk.

    Raises ConfigError when it has none.
    """
    abar = getattr(scheduler, "alphas_cumprod", None)
    if abar is None:
        raise ConfigError(
            f"{type(scheduler).__name__} has no alphas_cumprod; take a model with noise levels, as of DDPM"
        )
    return NoiseSchedule(tuple(abar.double().tolist()))


def require_levels(timesteps: Sequence[int], schedule: NoiseSchedule) -> None:
    """Raises ConfigError for a level that the schedule lacks, or at which there is no signal or no noise."""
    for t in timesteps:
        if not 0 < schedule.abar(t) < 1:
            raise ConfigError(
                f"timesteps: at level {t} of this model the share of signal is {schedule.abar(t):.0f}, so "
                "its noise cannot be read there; leave it out"
            )


def matching_levels(schedule: NoiseSchedule, abars: Sequence[float]) -> tuple[int, ...]:
    """The levels of a schedule at which the shares of signal are nearest to these, rising, each once."""
    return tuple(sorted({min(range(schedule.T), key=lambda t: abs(schedule.abar(t) - a)) for a in abars}))
