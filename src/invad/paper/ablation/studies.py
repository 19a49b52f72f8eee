"""What each study varies: networks to train, and ways to read each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from invad.diffusion.ddim import PredictNoise, invert
from invad.diffusion.denoiser import sized
from invad.diffusion.readings import reconstruction_residual
from invad.diffusion.schedule import SCHEDULE, SPACINGS, timesteps
from invad.errors import ConfigError
from invad.model.settings import Preset

PAPER_STEPS = 3
NOISE_SEED = 0
GAUSSIAN = "+gaussian"

Walk = Callable[[PredictNoise, Tensor], Tensor]
"""Features B x C x h x w in the space of the denoiser to what is scored, of the same shape."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to read a network. series: the line of the chart it lies on. evaluations: of the network."""

    value: str
    series: str
    evaluations: int
    walk: Walk


@dataclass(frozen=True, slots=True)
class Network:
    """One training. weights: a file for the backbone, None for its own."""

    name: str
    settings: Preset
    variants: tuple[Variant, ...]
    weights: Path | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """A study by name. values: what is tried unless others are asked for, as text."""

    about: str
    values: tuple[str, ...]
    networks: Callable[[Preset, Sequence[str]], list[Network]]


def inversion(levels: tuple[int, ...], predict: PredictNoise, x_BChw: Tensor) -> Tensor:
    """The terminal latent of the DDIM inversion."""
    return invert(predict, x_BChw, SCHEDULE, levels).latent


def reconstruction(level: int, steps: int, predict: PredictNoise, x_BChw: Tensor) -> Tensor:
    """What reconstruction from `level` loses. The same noise for every image: none depends on another."""
    generator = torch.Generator().manual_seed(NOISE_SEED)
    noise = torch.randn(x_BChw.shape[1:], generator=generator).to(x_BChw.device).expand_as(x_BChw)
    return reconstruction_residual(predict, x_BChw, noise, SCHEDULE, level, steps)


def _inverted(value: str, levels: tuple[int, ...], series: str = "inversion") -> Variant:
    return Variant(value, series, len(levels), partial(inversion, levels))


def _steps(base: Preset, values: Sequence[str]) -> list[Network]:
    counts = [_whole(v, "steps") for v in values]
    return [Network("", base, tuple(_inverted(str(s), timesteps("reference", s)) for s in counts))]


def _schedules(base: Preset, values: Sequence[str]) -> list[Network]:
    unknown = [v for v in values if v not in SPACINGS]
    if unknown:
        raise ConfigError(f"schedule {unknown[0]!r} is unknown; choose from {', '.join(SPACINGS)}")
    variants = tuple(_inverted(v, timesteps(v, s), f"S = {s}") for s in (PAPER_STEPS, 10) for v in values)
    return [Network("", base, variants)]


def _reconstruction(base: Preset, values: Sequence[str]) -> list[Network]:
    levels = [_whole(v, "level") for v in values]
    variants = [_inverted(str(s), timesteps("reference", s)) for s in RECONSTRUCTION_STEPS]
    variants += [
        Variant(str(s), f"reconstruction from {level}", s, partial(reconstruction, level, s))
        for level in levels
        for s in RECONSTRUCTION_STEPS
    ]
    return [Network("", base, tuple(variants))]


def _backbones(base: Preset, values: Sequence[str]) -> list[Network]:
    networks = []
    for value in values:
        name, _, file = value.partition("=")
        settings = replace(base, backbone=name)
        networks.append(_at_paper_steps(name, settings, Path(file) if file else None))
    return networks


def _grids(base: Preset, values: Sequence[str]) -> list[Network]:
    return [_at_paper_steps(v, replace(base, grid_stride=_whole(v, "grid stride"))) for v in values]


def _denoisers(base: Preset, values: Sequence[str]) -> list[Network]:
    networks = []
    for value in values:
        plain = sized(value.removesuffix(GAUSSIAN))
        config = replace(plain, gaussian=value.endswith(GAUSSIAN))
        networks.append(_at_paper_steps(value, replace(base, denoiser=config)))
    return networks


def _at_paper_steps(name: str, settings: Preset, weights: Path | None = None) -> Network:
    variant = _inverted(name, timesteps("reference", PAPER_STEPS))
    return Network(name, settings, (variant,), weights)


def _whole(text: str, what: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= SCHEDULE.T:
        raise ConfigError(f"{what} {text!r}: give an integer in 1..{SCHEDULE.T}")
    return int(text)


RECONSTRUCTION_STEPS = (3, 5, 10, 50)
STEPS = ("1", "2", "3", "5", "10", "20", "50")

STUDIES: dict[str, Study] = {
    "steps": Study("steps S of the inversion", STEPS, _steps),
    "schedule": Study("which levels the inversion visits", tuple(SPACINGS), _schedules),
    "scoring": Study("what is read off the terminal latent, S = 3", ("3",), _steps),
    "reconstruction": Study(
        "reconstruction from a level, against inversion", ("200", "500", "800"), _reconstruction
    ),
    "backbone": Study(
        "feature networks; NAME=FILE takes its weights from a file",
        ("invad-s", "efficientnet_b4", "resnet50"),
        _backbones,
    ),
    "grid": Study("pixels per cell of the feature grid", ("32", "16", "8"), _grids),
    "denoiser": Study(
        "denoisers, plain or +gaussian", ("mlp-s", "mlp-s+gaussian", "dit-s", "dit-s+gaussian"), _denoisers
    ),
}
