"""A calibrated detector as one network of tensors alone, from pixels to decision, for any engine.

It says what `Detector.predict` says, for a batch of images of one size:

    image_BHW3  float32, the grey levels as the camera gave them       range_2     float32, black and white
    category_B  int64, row of the calibration; 0 is all categories

    score_B, p_value_B  float32      decision_B  int64, 0 good, 1 review, 2 bad
    anomaly_map_BHW  float32 in the frame of the image      grid_map_Bhw  float32 on the feature grid
    norms_BLhw  float32, before any comparison; limits for another region of interest are made of such maps
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invad.backbones.base import Backbone, Part
from invad.diffusion.base import Denoiser
from invad.diffusion.readings import ReadingConfig, read
from invad.diffusion.schedule import SCHEDULE
from invad.graph.fold import fuse_batch_norm
from invad.graph.inspected import Neutral, layers
from invad.graph.resample import (
    Enlarge,
    Matrices,
    Resize,
    antialias_weights,
    area_weights,
    bilinear_weights,
    centres,
)
from invad.model.inspected import Inspected
from invad.model.reading import Bank, FeatureExtractor, Model
from invad.model.space import SMALLEST_RMS, FeatureSpace
from invad.records import Hw
from invad.scoring.calibration import Calibration
from invad.scoring.rates import POOLED
from invad.scoring.typicality import PositionStats, ScoreStats, combined_scores, image_scores, less_floor

Net = TypeVar("Net", bound=nn.Module)

INPUTS = ("image", "range", "category")
OUTPUTS = ("score", "p_value", "decision", "anomaly_map", "grid_map", "norms")

Said: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class Graph(nn.Module):
    """Pixels to decision; see the top of the file for what goes in and out.

    size_hw: the one size of images it is for, which makes the resizing constant; None for any size.
    low: the type in which the backbone and the denoiser compute, float16 or bfloat16; all else stays float32.
    seen: what counts of pictures, one for all of them or one of each category by its number; none for a graph
    into which no region of interest can be put later.
    """

    def __init__(
        self,
        model: Model,
        stats: Mapping[str, PositionStats],
        calibrations: Mapping[str, Calibration],
        *,
        size_hw: Hw | None = None,
        low: torch.dtype | None = None,
        seen: Sequence[Inspected | None] = (),
    ) -> None:
        super().__init__()
        input_hw, inspected = model.extract.preprocess.input_hw, model.extract.inspected
        self.resize = Resize(input_hw, size_hw)
        seen = seen or ([] if inspected is None else [inspected])
        self.neutral = Neutral(seen, input_hw) if seen else None
        self.cells, self.on_grid, self.cut = layers(inspected)
        self.features = Extractor(model.extract, low)
        self.reader = Reader(model, low)
        self.judge = Judge(model, stats, calibrations)
        self.enlarge = Enlarge(model.extract.grid_hw, size_hw)
        self.to(model.extract.device).eval().requires_grad_(False)

    def forward(self, image_BHW3: Tensor, range_2: Tensor, category_B: Tensor) -> Said:
        norms_BLhw = self.read(image_BHW3, range_2, category_B)
        score, p_value, decision, map_Bhw = self.judge(self.cells(norms_BLhw), category_B)
        map_Bhw = self.on_grid(map_Bhw)
        map_BHW = self.cut(self.enlarge(map_Bhw, image_BHW3))
        return score, p_value, decision, map_BHW, map_Bhw, norms_BLhw

    def read(self, image_BHW3: Tensor, range_2: Tensor, category_B: Tensor) -> Tensor:
        """Norm maps of all cells: B x L x h x w."""
        x_B3HW = self.resize(image_BHW3, range_2)
        if self.neutral is not None:
            x_B3HW = self.neutral(x_B3HW, category_B)
        maps_BLhw: Tensor = self.reader(*self.features(x_B3HW))
        return maps_BLhw


class Extractor(nn.Module):
    """B x 3 x H x W in [0, 1] to tokens of the grid B x N x C and of the fine one, as `FeatureExtractor`."""

    def __init__(self, extract: FeatureExtractor, low: torch.dtype | None) -> None:
        super().__init__()
        fine = extract.fine is not None
        used = [part for part in extract.backbone.apart if part.on_grid or fine]
        self.parts = nn.ModuleList(PartMaps(extract, part, low) for part in used)

    def forward(self, x_B3HW: Tensor) -> tuple[Tensor, Tensor | None]:
        coarse, finer = [], []
        for part in self.parts:
            of_grid, of_fine = part(x_B3HW)
            coarse += of_grid
            finer += of_fine
        return _tokens(coarse), _tokens(finer) if finer else None


class PartMaps(nn.Module):
    """B x 3 x H x W to the maps of one network on the grid, at all scales, and on the fine grid."""

    def __init__(self, extract: FeatureExtractor, part: Part, low: torch.dtype | None) -> None:
        super().__init__()
        input_hw, area = extract.preprocess.input_hw, extract.pooling == "area"
        sizes, times = extract.seen_hw(input_hw, part), extract.fine
        self.backbone = FoldedBackbone(part.backbone, sizes[0], low)
        self.shrink = nn.ModuleList(_shrink(input_hw, hw) for hw in sizes)

        def on_grid(seen_hw: Hw, finer: int) -> list[nn.Module]:
            (h, w), (rows, columns) = extract.grid_hw, extract.cells_hw(part)
            cells_hw, grid_hw = (finer * rows, finer * columns), (finer * h, finer * w)
            pools = _pool(part.backbone, seen_hw, cells_hw, area)
            return [nn.Sequential(pool, _fit(cells_hw, grid_hw, area)) for pool in pools]

        coarse = [pool for hw in sizes for pool in on_grid(hw, 1)] if part.on_grid else []
        self.pools = nn.ModuleList(coarse)
        fine = on_grid(sizes[0], times) if part.on_fine and times is not None else []
        self.fine = nn.ModuleList(fine)

    def forward(self, x_B3HW: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        taps = [self.backbone(shrink(x_B3HW)) for shrink in self.shrink]
        maps = [m for of_scale in taps for m in of_scale] if len(self.pools) else []
        finer = taps[0] if len(self.fine) else []
        coarse = [pool(m) for pool, m in zip(self.pools, maps, strict=True)]
        return coarse, [pool(m) for pool, m in zip(self.fine, finer, strict=True)]


class FoldedBackbone(nn.Module):
    """A copy of a backbone with its batch norms in the convolutions."""

    def __init__(self, backbone: Backbone, input_hw: Hw, low: torch.dtype | None) -> None:
        super().__init__()
        example = torch.zeros(1, 3, *input_hw, device=backbone.mean.device)
        self.net = fuse_batch_norm(deepcopy(backbone), example)
        self.low = low
        if low is not None:
            self.net.to(low)

    def forward(self, x_B3HW: Tensor) -> list[Tensor]:
        x = x_B3HW if self.low is None else x_B3HW.to(self.low)
        return [m.float() for m in self.net(x)]


class Space(nn.Module):
    """`FeatureSpace` on tokens, standardisation and projection merged.

    Where contrast is normalised the length of the standardised features is needed, so these remain; the
    division by it comes after the projection, which has fewer channels.
    """

    def __init__(self, space: FeatureSpace) -> None:
        super().__init__()
        self.contrast = space.contrast
        scale = 1 / space.standardiser.std_C.double()
        shift = -space.standardiser.mean_C.double() * scale
        basis, offset = None, None
        if space.basis_CK is not None and space.offset_C is not None:
            basis = space.basis_CK.double()
            offset = -space.offset_C.double() @ basis
            if not space.contrast:
                basis, offset = scale[:, None] * basis, offset + shift @ basis
        merged = basis is not None and not space.contrast
        trivial = bool((scale == 1).all() and (shift == 0).all())
        kept = None if merged or trivial else (scale, shift)
        self._constant("scale", None if kept is None else kept[0])
        self._constant("shift", None if kept is None else kept[1])
        self._constant("basis", basis)
        self._constant("offset", offset)
        self.scale: Tensor | None
        self.shift: Tensor | None
        self.basis: Tensor | None
        self.offset: Tensor | None

    def _constant(self, name: str, value: Tensor | None) -> None:
        self.register_buffer(name, None if value is None else value.float().contiguous())

    def forward(self, z_BNC: Tensor) -> Tensor:
        s = z_BNC if self.scale is None or self.shift is None else z_BNC * self.scale + self.shift
        x = s if self.basis is None else s @ self.basis
        if self.contrast:
            rms = s.square().mean(dim=2, keepdim=True).sqrt().clamp_min(SMALLEST_RMS)
            x = x / (rms.sqrt() if self.contrast == 0.5 else rms**self.contrast)
        return x if self.offset is None else x + self.offset


class NoiseNorms(nn.Module):
    """Norm maps of a denoiser, read as `Model.read_batch` does: B x K x h x w to B x L x h x w.

    Levels are constants of the graph; what they alone decide becomes one when the graph is written.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        reading: ReadingConfig,
        low: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser if low is None else _lowered(denoiser, low)
        # Early readings do not depend on each other, and engines take longer for their levels in one batch.
        early = reading.kind == "early"
        self.readings = [replace(reading, timesteps=(t,)) for t in reading.timesteps] if early else [reading]

    def forward(self, x_BKhw: Tensor) -> Tensor:
        maps = [read(reading, self._predict, x_BKhw, SCHEDULE) for reading in self.readings]
        return torch.cat(maps, dim=1)

    def _predict(self, x_BKhw: Tensor, t_B: Tensor) -> Tensor:
        return self.denoiser.predict_noise(x_BKhw, t_B).float()


class Reader(nn.Module):
    """Tokens of raw features to norm maps B x L x h x w, in the order of `Model.read`."""

    def __init__(self, model: Model, low: torch.dtype | None) -> None:
        super().__init__()
        settings, self.grid_hw = model.settings, model.extract.grid_hw
        self.network: NoiseNorms | None = None
        if model.denoiser is not None:
            self.learned = model.space.standardiser.mean_C.shape[0]
            self.space = Space(model.space)
            self.network = NoiseNorms(model.denoiser, settings.reading, low)
        times = model.extract.fine or 1
        self.banks = nn.ModuleList(
            BankNorms(bank, self.grid_hw, times, model.extract.span(bank.config)) for bank in model.banks
        )

    def forward(self, z_BNC: Tensor, fine_BMC: Tensor | None) -> Tensor:
        maps = (
            []
            if self.network is None
            else [self.network(_cells(self.space(z_BNC[:, :, : self.learned]), self.grid_hw))]
        )
        maps += [bank(z_BNC, fine_BMC) for bank in self.banks]
        return torch.cat(maps, dim=1)


class BankNorms(nn.Module):
    """Norm maps of a bank on the grid, from tokens of raw features of the grid and of the fine one."""

    def __init__(self, bank: Bank, grid_hw: Hw, times: int, span: tuple[int, int]) -> None:
        super().__init__()
        self.span = slice(*span)
        self.fine = bank.config.fine
        self.times = times if self.fine else 1
        self.cells_hw = (self.times * grid_hw[0], self.times * grid_hw[1])
        self.space = Space(bank.space)
        self.norms = NoiseNorms(bank.empirical, bank.config.reading)

    def forward(self, z_BNC: Tensor, fine_BMC: Tensor | None) -> Tensor:
        tokens = fine_BMC if self.fine and fine_BMC is not None else z_BNC
        lengths: Tensor = self.norms(_cells(self.space(tokens[:, :, self.span]), self.cells_hw))
        if not self.fine:
            return lengths
        return (self.times**2 * F.avg_pool2d(lengths.square(), self.times)).sqrt()


class Judge(nn.Module):
    """Norm maps to score, p-value, decision and map: `scoring/`, per category."""

    def __init__(
        self, model: Model, stats: Mapping[str, PositionStats], calibrations: Mapping[str, Calibration]
    ) -> None:
        super().__init__()
        names = categories(calibrations)
        settings = model.settings
        self.rule = settings.score_rule
        judged = [stats.get(name, stats[POOLED]) for name in names]
        self._constant("median", torch.stack([s.median_Lhw for s in judged]))
        self._constant("factor", torch.stack([1 / s.scale_Lhw.double() for s in judged]))
        self._constant("weights", torch.tensor(self.rule.weights)[:, None, None])
        rows = [calibrations[name] for name in names]
        most = max(len(row.scores) for row in rows)
        scores = [[-np.inf] * (most - len(row.scores)) + [_below(s) for s in row.scores] for row in rows]
        limits = [[_below(limit) for limit in row.score_limits()] for row in rows]
        self._constant("scores", torch.tensor(scores))
        self._constant("limits", torch.tensor(limits))
        shares = [[0.0] * (most - len(row.scores)) + row.weights.tolist() for row in rows]
        self._constant("shares", torch.tensor(shares))
        self._constant("counts", torch.tensor([[row.n + 1.0] for row in rows]))
        own = [s.scores for s in judged if s.scores is not None]
        if own:
            self._constant("score_mean", torch.stack([s.mean_P for s in own]))
            self._constant("score_std", torch.stack([s.std_P for s in own]))
        self.median: Tensor
        self.factor: Tensor
        self.weights: Tensor
        self.scores: Tensor
        self.limits: Tensor
        self.shares: Tensor
        self.counts: Tensor
        self.score_mean: Tensor
        self.score_std: Tensor

    def _constant(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value.float())

    def forward(self, maps_BLhw: Tensor, category_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z_BLhw = (maps_BLhw - self.median[category_B]) * self.factor[category_B]
        map_Bhw = less_floor((z_BLhw * self.weights).sum(dim=1), self.rule.floor)
        score_B = self._scores(z_BLhw, map_Bhw, category_B)
        reached = (self.scores[category_B] >= score_B[:, None]).float()
        at_least = (reached * self.shares[category_B]).sum(dim=1)
        p_value_B = (1 + at_least) / self.counts[category_B][:, 0]
        limits = self.limits[category_B]
        review = (score_B > limits[:, 0]).long()
        # A score that is not a number is below no limit, and bad.
        decision_B = torch.where(score_B <= limits[:, 1], review, torch.full_like(review, 2))
        return score_B, p_value_B, decision_B, map_Bhw

    def _scores(self, z_BLhw: Tensor, map_Bhw: Tensor, category_B: Tensor) -> Tensor:
        """As `scoring.typicality.judge`."""
        if self.rule.top_fractions is None:
            return image_scores(map_Bhw, self.rule.top_fraction)
        own = [
            image_scores(less_floor(z_BLhw[:, list(part)].mean(dim=1), self.rule.floor), share)
            for part, share in zip(self.rule.predictors, self.rule.top_fractions, strict=True)
        ]
        stats = ScoreStats(self.score_mean[category_B], self.score_std[category_B])
        return combined_scores(torch.stack(own, dim=1), stats)


def categories(calibrations: Mapping[str, Calibration]) -> tuple[str, ...]:
    """The names behind the numbers of `category`; POOLED is 0."""
    return (POOLED, *sorted(name for name in calibrations if name != POOLED))


def _below(value: float) -> float:
    """The largest float32 that is not above: comparing a float32 with it is comparing it with `value`."""
    near = np.float32(value)
    # numpy would round `value` to float32 before it compares.
    return float(near if float(near) <= value else np.nextafter(near, np.float32(-np.inf)))


def _shrink(from_hw: Hw, to_hw: Hw) -> nn.Module:
    if from_hw == to_hw:
        return nn.Identity()
    return Matrices(*(antialias_weights(centres(a), b) for a, b in zip(from_hw, to_hw, strict=True)))


def _pool(backbone: Backbone, input_hw: Hw, grid_hw: Hw, area: bool) -> nn.ModuleList:
    """What brings each tap of an input to a grid, as `pool_to_grid` or, without `area`, bilinear sampling."""
    return nn.ModuleList(_fit((h, w), grid_hw, area) for _, h, w in backbone.probe(input_hw))


def _fit(from_hw: Hw, to_hw: Hw, area: bool) -> nn.Module:
    if from_hw == to_hw:
        return nn.Identity()
    if area and all(a >= b for a, b in zip(from_hw, to_hw, strict=True)):
        if all(a % b == 0 for a, b in zip(from_hw, to_hw, strict=True)):
            return nn.AvgPool2d((from_hw[0] // to_hw[0], from_hw[1] // to_hw[1]))
        return Matrices(*(area_weights(a, b) for a, b in zip(from_hw, to_hw, strict=True)))
    rows, columns = (bilinear_weights(centres(b), a) for a, b in zip(from_hw, to_hw, strict=True))
    return Matrices(rows, columns)


def _tokens(maps: Sequence[Tensor]) -> Tensor:
    """B x C_i x h x w each to B x h w x C."""
    return torch.cat(list(maps), dim=1).flatten(2).transpose(1, 2)


def _cells(x_BNC: Tensor, grid_hw: Hw) -> Tensor:
    """The inverse of `_tokens`, of one map."""
    return x_BNC.transpose(1, 2).reshape(x_BNC.shape[0], -1, *grid_hw)


def _lowered(net: Net, low: torch.dtype) -> Net:
    """A copy with weights of the type `low`. Buffers keep theirs: noise levels need their digits."""
    net = deepcopy(net)
    for weight in net.parameters():
        weight.data = weight.data.to(low)
    return net
