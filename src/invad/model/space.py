"""From raw backbone features to the space a denoiser works in.

    s = (z - mean) / std per channel,    u = s / rms(s)^contrast per cell,    x = (u - offset) W

rms(s) is the root mean square over the channels of one cell: how strong a structure is, as against what it
is. Light and contrast scale it. contrast = 1 keeps the direction alone, 0.5 takes the root of the strength,
0 keeps it. W holds the leading principal directions v_k of the training cells, each divided by its standard
deviation to the power of `whitening`, and all by one number, for a mean variance of one. whitening = 0 keeps
distances as they are, 1 makes a deviation count by how rare it is in its direction.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invad.errors import ConfigError

SMALLEST_RMS = 0.05
"""Of a cell, in standard deviations: below it a cell has no contrast, and its direction is noise."""


SMALLEST_SHARE = 1e-4
"""Of the mean variance of the directions kept: whitening must not blow up one that has less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceConfig:
    """standardise: use per-channel statistics. contrast: exponent in [0, 1]. components: principal directions
    kept, at most the channels; None keeps the channels themselves. whitening: exponent in [0, 1], of
    principal directions only.
    """

    standardise: bool = True
    contrast: float = 0.0
    components: int | None = None
    whitening: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.contrast <= 1:
            raise ConfigError(f"contrast = {self.contrast!r}: give a number from 0 to 1")
        if self.components is not None and self.components < 1:
            raise ConfigError(f"components = {self.components!r}: give an integer of at least 1, or null")
        if not 0 <= self.whitening <= 1:
            raise ConfigError(f"whitening = {self.whitening!r}: give a number from 0 to 1")
        if self.whitening and self.components is None:
            raise ConfigError(f"whitening = {self.whitening!r}: needs components, the directions to whiten")


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Per-channel mean and standard deviation of training features, C each."""

    mean_C: Tensor
    std_C: Tensor

    def __call__(self, z_BChw: Tensor) -> Tensor:
        return (z_BChw - self.mean_C.view(1, -1, 1, 1)) / self.std_C.view(1, -1, 1, 1)

    @staticmethod
    def fit(z_NChw: NDArray[np.float32], index: NDArray[np.intp]) -> "Standardiser":
        """Statistics of the images `index`, accumulated image by image in float64."""
        total = np.zeros(z_NChw.shape[1])
        squares = np.zeros(z_NChw.shape[1])
        for i in index:
            z = z_NChw[i].astype(np.float64)
            total += z.mean((1, 2))
            squares += np.square(z).mean((1, 2))
        mean = total / len(index)
        std = np.sqrt(np.maximum(squares / len(index) - mean**2, 0))
        # A dead channel would turn rounding noise into features.
        std = np.maximum(std, 1e-4 * max(float(np.median(std)), 1e-12))
        return Standardiser(torch.from_numpy(mean).float(), torch.from_numpy(std).float())

    @staticmethod
    def identity(channels: int) -> "Standardiser":
        return Standardiser(torch.zeros(channels), torch.ones(channels))

    def to(self, device: torch.device) -> "Standardiser":
        return Standardiser(self.mean_C.to(device), self.std_C.to(device))


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """Raw features B x C x h x w to B x K x h x w. offset_C, basis_CK: None where the channels are kept."""

    standardiser: Standardiser
    contrast: float = 0.0
    offset_C: Tensor | None = None
    basis_CK: Tensor | None = None

    @property
    def channels(self) -> int:
        """K."""
        if self.basis_CK is not None:
            return self.basis_CK.shape[1]
        return self.standardiser.mean_C.numel()

    def __call__(self, z_BChw: Tensor) -> Tensor:
        u = self.standardiser(z_BChw)
        if self.contrast:
            rms = u.square().mean(dim=1, keepdim=True).sqrt().clamp_min(SMALLEST_RMS)
            u = u / rms**self.contrast
        if self.basis_CK is None or self.offset_C is None:
            return u
        centred = u - self.offset_C.view(1, -1, 1, 1)
        return torch.einsum("bchw,ck->bkhw", centred, self.basis_CK)

    @staticmethod
    def fit(config: SpaceConfig, z_NChw: NDArray[np.float32], index: NDArray[np.intp]) -> "FeatureSpace":
        """Statistics of the images `index` alone."""
        channels = z_NChw.shape[1]
        standardiser = (
            Standardiser.fit(z_NChw, index) if config.standardise else Standardiser.identity(channels)
        )
        space = FeatureSpace(standardiser, config.contrast)
        if config.components is None:
            return space
        mean, covariance = space.covariance(z_NChw, index)
        values, vectors = torch.linalg.eigh(covariance)
        kept = min(config.components, channels)
        v = values.flip(0)[:kept]
        v = v.clamp_min(SMALLEST_SHARE * max(float(v.mean()), 1e-12))
        factors = v ** (-config.whitening / 2)
        factors /= (v * factors**2).mean().sqrt()
        basis = vectors.flip(1)[:, :kept] * factors
        return replace(space, offset_C=mean.float(), basis_CK=basis.float().contiguous())

    def covariance(self, z_NChw: NDArray[np.float32], index: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Mean K and covariance K x K of the cells of the images `index` in this space, float64."""
        total: Tensor | float = 0.0
        products: Tensor | float = 0.0
        cells = 0
        for i in index:
            x = self(torch.from_numpy(np.ascontiguousarray(z_NChw[i : i + 1])))[0].flatten(1).double()
            total = total + x.sum(dim=1)
            products = products + x @ x.T
            cells += x.shape[1]
        mean = torch.as_tensor(total) / cells
        return mean, torch.as_tensor(products) / cells - torch.outer(mean, mean)

    def tensors(self) -> dict[str, Tensor]:
        """What has to be saved of it."""
        named = {
            "mean": self.standardiser.mean_C,
            "std": self.standardiser.std_C,
            "offset": self.offset_C,
            "basis": self.basis_CK,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @staticmethod
    def from_tensors(config: SpaceConfig, tensors: dict[str, Tensor]) -> "FeatureSpace":
        """The inverse of `tensors`. Raises KeyError when a statistic is missing."""
        space = FeatureSpace(Standardiser(tensors["mean"], tensors["std"]), config.contrast)
        if config.components is None:
            return space
        return replace(space, offset_C=tensors["offset"], basis_CK=tensors["basis"])

    def to(self, device: torch.device) -> "FeatureSpace":
        return FeatureSpace(
            self.standardiser.to(device),
            self.contrast,
            None if self.offset_C is None else self.offset_C.to(device),
            None if self.basis_CK is None else self.basis_CK.to(device),
        )
