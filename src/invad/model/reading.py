"""The networks of a detector in the order an image passes them; no calibration, hence no decisions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from invad.backbones.base import CELL, Backbone, Part, pool_to_grid
from invad.data.images import ImageSource, read_image
from invad.data.preprocess import Preprocess
from invad.data.region import require_frame
from invad.diffusion.base import Denoiser
from invad.diffusion.ddim import Trajectory, invert
from invad.diffusion.empirical import EmpiricalDenoiser
from invad.diffusion.readings import read
from invad.diffusion.schedule import SCHEDULE
from invad.errors import ConfigError
from invad.model.inspected import Inspected
from invad.model.settings import BankConfig, Preset
from invad.model.space import FeatureSpace
from invad.records import Hw

Array = TypeVar("Array", Tensor, NDArray[Any])

SMALLEST_SIDE = 16
"""Pixels; a smaller input would vanish in the strides of a backbone."""


@dataclass(frozen=True, slots=True)
class FeatureExtractor:
    """Pixels to raw features on the grid: preprocessing, frozen backbone at several scales, pooling.

    fine: maps are given a second time, on a grid this many times finer, whose cells are packed as channels of
    the grid's cells (pixel unshuffle); `split` takes the two apart. They are those of the first scale. Of
    several backbones (`Backbone.apart`) the channels follow each other, on either grid. inspected: the part
    of the picture that counts, None where all of it does.
    """

    preprocess: Preprocess
    backbone: Backbone
    grid_hw: Hw
    pooling: str = "area"
    scales: tuple[float, ...] = (1.0,)
    fine: int | None = None
    inspected: Inspected | None = None

    @property
    def device(self) -> torch.device:
        return self.backbone.mean.device

    @property
    def channels(self) -> int:
        """Of the raw features: those of the taps, once per scale and once per fine cell."""
        return sum(self._widths(False)) + (self.fine or 0) ** 2 * sum(self._widths(True))

    def _widths(self, fine: bool) -> list[int]:
        """Channels of a cell that each part has on the grid, or on the fine one."""
        if fine:
            return [part.backbone.channels for part in self.backbone.apart if part.on_fine]
        return [len(self.scales) * part.backbone.channels for part in self.backbone.apart if part.on_grid]

    def span(self, config: BankConfig) -> tuple[int, int]:
        """First channel of those that a bank knows of the cells of its grid, and the one behind the last."""
        widths = self._widths(config.fine and self.fine is not None)
        if config.part is None:
            return 0, sum(widths)
        return sum(widths[: config.part]), sum(widths[: config.part + 1])

    def cells_hw(self, part: Part) -> Hw:
        """Cells in which a part sees the image: the grid, or fewer where it sees it so small that cells of
        the grid are smaller than CELL of its pixels."""
        sides = zip(self.grid_hw, self.preprocess.input_hw, strict=True)
        h, w = (max(1, round(n * min(1.0, part.share * max(1.0, side / n / CELL)))) for n, side in sides)
        return h, w

    def seen_hw(self, input_hw: Hw, part: Part) -> tuple[Hw, ...]:
        """The sizes at which a part sees an image of this size, one per scale; on the fine grid the first."""
        multiple = part.backbone.size_multiple
        scales = self.scales if part.on_grid else self.scales[:1]
        return tuple(scaled_hw(input_hw, part.share * scale, multiple) for scale in scales)

    def decode(self, source: ImageSource) -> NDArray[Any]:
        """Pixels of an image. Raises DataError for one that is unreadable or not of the region's size."""
        pixels = read_image(source)
        if self.inspected is not None:
            name = source if isinstance(source, str | Path) else "<array>"
            require_frame(self.inspected.region, (pixels.shape[0], pixels.shape[1]), name)
        return pixels

    def __call__(self, pixels: NDArray[Any]) -> Tensor:
        """H x W x 3 pixels (see read_image) to 1 x C x h x w float32."""
        return self.features(self.preprocess(pixels)[None])

    @torch.inference_mode()
    def features(self, x_B3HW: Tensor) -> Tensor:
        """Preprocessed images to B x C x h x w float32.

        Several images at once can change the last digits: libraries choose their loops by the shape.
        """
        if self.inspected is not None:
            x_B3HW = self.inspected.neutral(x_B3HW)
        # From pinned memory the copy to a GPU overlaps with what it still computes.
        x = x_B3HW.pin_memory() if self.device.type == "cuda" else x_B3HW
        x = x.to(self.device, non_blocking=True)
        coarse, finer = [], []
        for part in self.backbone.apart:
            if not part.on_grid and self.fine is None:
                continue
            taps = [part.backbone(_resized(x, hw)) for hw in self.seen_hw((x.shape[2], x.shape[3]), part)]
            if part.on_grid:
                coarse += [self._on_grid(maps, part, 1) for maps in taps]
            if part.on_fine and self.fine is not None:
                finer.append(self._on_grid(taps[0], part, self.fine))
        if self.fine is None:
            return torch.cat(coarse, dim=1)
        return torch.cat([*coarse, F.pixel_unshuffle(torch.cat(finer, dim=1), self.fine)], dim=1)

    def split(self, z_BChw: Array) -> tuple[Array, Array | None]:
        """Raw features to those of the grid and those of the fine one, views of what is given.

        The fine cells come as B x C' x (fine^2 h) x w, one block of h x w after the other: a cell's place
        does not matter to a feature space or a bank. None without a fine grid.
        """
        if self.fine is None:
            return z_BChw, None
        b, c, h, w = z_BChw.shape
        own = sum(self._widths(False))
        taps = (c - own) // self.fine**2
        return z_BChw[:, :own], z_BChw[:, own:].reshape(b, taps, self.fine**2 * h, w)

    def known(self, z_BChw: Array, config: BankConfig) -> Array:
        """Of raw features the cells and channels that a bank knows, as `split` gives them."""
        z, z_fine = self.split(z_BChw)
        first, last = self.span(config)
        return (z if z_fine is None or not config.fine else z_fine)[:, first:last]

    def learned(self, z_BChw: Array) -> Array:
        """Of raw features those that a network learns: of the grid, and of the first of several backbones."""
        return self.split(z_BChw)[0][:, : self._widths(False)[0]]

    def _on_grid(self, maps: Sequence[Tensor], part: Part, times: int) -> Tensor:
        """The maps of a part on the grid, or on one that is `times` finer."""
        (h, w), (rows, columns) = self.grid_hw, self.cells_hw(part)
        x_BChw = self._pooled(maps, (times * rows, times * columns))
        if (rows, columns) == (h, w):
            return x_BChw
        return F.interpolate(x_BChw, (times * h, times * w), mode="bilinear")

    def _pooled(self, maps: Sequence[Tensor], grid_hw: Hw) -> Tensor:
        if self.pooling == "area":
            return pool_to_grid(maps, grid_hw).contiguous()
        return torch.cat([F.interpolate(m, grid_hw, mode="bilinear") for m in maps], dim=1)


def _resized(x_B3HW: Tensor, hw: Hw) -> Tensor:
    if hw != tuple(x_B3HW.shape[2:]):
        x_B3HW = F.interpolate(x_B3HW, hw, mode="bilinear", antialias=True)
    return x_B3HW.contiguous(memory_format=torch.channels_last)


def scaled_hw(input_hw: Hw, scale: float, multiple: int) -> Hw:
    """Height and width of the input at `scale`, multiples of `multiple`; the input's own at scale 1."""
    if scale == 1:
        return input_hw
    h, w = (max(SMALLEST_SIDE, max(1, round(scale * side / multiple)) * multiple) for side in input_hw)
    return h, w


@dataclass(frozen=True, slots=True)
class Bank:
    """An empirical predictor and the space its known cells lie in."""

    config: BankConfig
    space: FeatureSpace
    empirical: EmpiricalDenoiser


@dataclass(frozen=True, slots=True)
class Model:
    """Everything between pixels and norm maps.

    denoiser: the trained network, which works in `space`. banks: the predictors of known cells, in the order
    of `Preset.banks`. One of all these at least is there.
    """

    extract: FeatureExtractor
    space: FeatureSpace
    denoiser: Denoiser | None
    banks: tuple[Bank, ...]
    settings: Preset

    def read(self, z_1Chw: Tensor) -> Tensor:
        """Raw features 1 x C x h x w to norm maps L x h x w, on the CPU; see `read_batch`."""
        return self.read_batch(z_1Chw)[0]

    @torch.inference_mode()
    def read_batch(self, z_BChw: Tensor) -> Tensor:
        """Raw features B x C x h x w to norm maps B x L x h x w, on the CPU.

        Those of the network come first, then those of the banks; of a fine bank the length of the noise in
        all the fine cells of a cell of the grid. With a region of interest only cells that count are there:
        B x L x 1 x n.
        """
        z = z_BChw.to(self.extract.device)
        maps = []
        if self.denoiser is not None:
            x = self.space(self.extract.learned(z))
            maps.append(read(self.settings.reading, self.denoiser.predict_noise, x, SCHEDULE))
        for bank in self.banks:
            x = bank.space(self.extract.known(z, bank.config))
            lengths = read(bank.config.reading, bank.empirical.predict_noise, x, SCHEDULE)
            blocks = lengths.view(*lengths.shape[:2], -1, *z.shape[2:])
            maps.append(torch.linalg.vector_norm(blocks, dim=2) if bank.config.fine else lengths)
        whole = torch.cat(maps, dim=1).float().cpu()
        inspected = self.extract.inspected
        return whole if inspected is None else inspected.counted(whole)

    @torch.inference_mode()
    def invert(self, z_1Chw: Tensor, timesteps: Sequence[int]) -> Trajectory:
        """The whole DDIM inversion of raw features, for evaluation protocols that need its latents.

        Raises ConfigError without a network.
        """
        x = self.space(self.extract.learned(z_1Chw.to(self.extract.device)))
        return invert(self.network.predict_noise, x, SCHEDULE, timesteps)

    @property
    def network(self) -> Denoiser:
        """The denoiser. Raises ConfigError where there is none."""
        if self.denoiser is None:
            raise ConfigError(
                "this model has no network, which the paper's scoring needs; train one with --preset dit"
            )
        return self.denoiser

    def to_device(self) -> "Model":
        """All parts where the backbone is, the networks in evaluation mode."""
        device = self.extract.device
        return replace(
            self,
            space=self.space.to(device),
            denoiser=None if self.denoiser is None else self.denoiser.to(device).eval(),
            banks=tuple(
                replace(bank, space=bank.space.to(device), empirical=bank.empirical.to(device).eval())
                for bank in self.banks
            ),
        )
