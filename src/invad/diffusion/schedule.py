"""Noise levels: how much signal is left at each training step, and which steps the solver visits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError

LAST_LEVEL = 999
"""Index of the noisiest of the 1000 training levels, the end of every named schedule."""


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """Cumulative signal power abar_t of every training level, float64, decreasing, in (0, 1)."""

    alphas_cumprod: tuple[float, ...]

    @property
    def T(self) -> int:
        """Number of training levels."""
        return len(self.alphas_cumprod)

    def abar(self, t: int) -> float:
        """abar_t, the signal power at level t. Raises ConfigError outside 0..T-1."""
        if not 0 <= t < self.T:
            raise ConfigError(f"timesteps: level {t} is outside 0..{self.T - 1}; choose levels in that range")
        return self.alphas_cumprod[t]


def linear_schedule(steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """Betas rising linearly, abar_t = prod_{s <= t} (1 - beta_s).

    Raises ConfigError for betas outside (0, 1).
    """
    if steps < 1:
        raise ConfigError(f"steps = {steps}: give at least 1 training level")
    if not 0.0 < beta_start <= beta_end < 1.0:
        raise ConfigError(
            f"beta_start = {beta_start}, beta_end = {beta_end}: choose 0 < beta_start <= beta_end < 1"
        )
    alphas = 1.0 - np.linspace(beta_start, beta_end, steps, dtype=np.float64)
    return NoiseSchedule(tuple(np.cumprod(alphas).tolist()))


SCHEDULE = linear_schedule()
"""The levels that every network here is trained on and read at."""


def timesteps(levels: str | Sequence[int], steps: int | None = None) -> tuple[int, ...]:
    """The levels tau_1 < ... < tau_S at which the network is evaluated.

    levels: a name of SPACINGS, which needs `steps` = S >= 1; or the levels themselves, which are
    checked (strictly increasing integers in 0..999) and returned, `steps` then being None or their count.
    Raises ConfigError naming the key, the value and what to write instead.
    """
    if not isinstance(levels, str):
        return _explicit(levels, steps)
    if levels not in SPACINGS:
        raise ConfigError(
            f"timesteps = {levels!r} is unknown; choose one of {sorted(SPACINGS)} or list levels"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= LAST_LEVEL + 1:
        raise ConfigError(
            f"steps = {steps!r}: the {levels!r} timesteps need an integer in 1..{LAST_LEVEL + 1}"
        )
    chosen = SPACINGS[levels](steps)
    if len(set(chosen)) != steps:
        raise ConfigError(
            f"steps = {steps}: the {levels!r} timesteps have fewer levels; choose at most {LAST_LEVEL}"
        )
    return chosen


def _explicit(levels: Sequence[int], steps: int | None) -> tuple[int, ...]:
    shown = f"timesteps = {list(levels)!r}"
    if not levels:
        raise ConfigError(f"{shown} is empty; list at least one level in 0..{LAST_LEVEL}")
    if any(isinstance(t, bool) or not isinstance(t, int) for t in levels):
        raise ConfigError(f"{shown}: write integers only, in 0..{LAST_LEVEL}")
    if min(levels) < 0 or max(levels) > LAST_LEVEL:
        raise ConfigError(f"{shown}: keep every level in 0..{LAST_LEVEL}")
    if any(b <= a for a, b in pairwise(levels)):
        raise ConfigError(f"{shown}: sort the levels, each larger than the one before")
    if steps is not None and steps != len(levels):
        raise ConfigError(
            f"steps = {steps} but timesteps lists {len(levels)} levels; drop steps or make them equal"
        )
    return tuple(levels)


def _reference(steps: int) -> tuple[int, ...]:
    """Evenly spaced with both ends, as published code does: 3 steps give 0, 500, 999."""
    return tuple(int(t) for t in np.round(np.linspace(0, LAST_LEVEL, steps)))


def _paper(steps: int) -> tuple[int, ...]:
    """Evenly spaced without the clean end, as the paper's text says: 3 steps give 333, 666, 999."""
    return tuple(round(i * LAST_LEVEL / steps) for i in range(1, steps + 1))


def _quadratic(steps: int) -> tuple[int, ...]:
    """Evenly spaced roots with both ends: most steps near the clean end. 3 steps give 0, 250, 999."""
    return _apart(LAST_LEVEL * np.linspace(0, 1, steps) ** 2)


def _cubic(steps: int) -> tuple[int, ...]:
    """Evenly spaced cube roots with both ends. 3 steps give 0, 125, 999."""
    return _apart(LAST_LEVEL * np.linspace(0, 1, steps) ** 3)


def _exponential(steps: int) -> tuple[int, ...]:
    """Levels plus one in geometric progression, with both ends. 3 steps give 0, 31, 999."""
    return _apart(np.geomspace(1, LAST_LEVEL + 1, steps) - 1)


def _apart(levels: NDArray[np.float64]) -> tuple[int, ...]:
    """Rounded, each at least one above the one before: close to 0 many would be the same."""
    order = np.arange(len(levels))
    return tuple((np.maximum.accumulate(np.round(levels).astype(int) - order) + order).tolist())


SPACINGS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "reference": _reference,
    "paper": _paper,
    "uniform": _reference,
    "quadratic": _quadratic,
    "cubic": _cubic,
    "exponential": _exponential,
}
