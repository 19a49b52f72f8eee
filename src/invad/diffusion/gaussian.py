"""A network that learns only what the closed-form noise predictor of Gaussian features leaves over.

For features z ~ N(m, diag(v)), uncorrelated as principal directions are, and x = sqrt(a) z + sqrt(1 - a) eps:

    E[eps | x] = sqrt(1 - a) (x - sqrt(a) m) / (a v + 1 - a),    Var[eps | x] = a v / (a v + 1 - a)

The network sees x scaled to unit variance and predicts the remainder in units of that standard deviation.
An untrained network is thus the exact Gaussian predictor. Far from the normal features, where a network says
anything, the linear part grows with the distance: an outlier cannot look typical.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from invad.diffusion.base import Denoiser, over_channels
from invad.diffusion.schedule import SCHEDULE
from invad.records import Hw

SMALLEST_VARIANCE = 1e-4
"""Of a channel, in units of standardised features: what varies less is rounding."""


class GaussianPreconditioned(Denoiser):
    """A noise predictor around `net`, which must predict zero when untrained. `set_gaussian` comes first."""

    abar: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, net: Denoiser, channels: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("abar", torch.tensor(SCHEDULE.alphas_cumprod, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def set_gaussian(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Mean and variance of each channel of the clean features, any float dtype."""
        self.mean.copy_(mean_C)
        self.variance.copy_(variance_C.clamp_min(SMALLEST_VARIANCE))

    def before_training(self, moments: Callable[[], tuple[Tensor, Tensor]]) -> None:
        self.set_gaussian(*moments())

    @property
    def cellwise(self) -> bool:
        return self.net.cellwise

    def recompute_activations(self, on: bool) -> None:
        self.net.recompute_activations(on)

    def before_loading(self, weights: Mapping[str, Tensor], grid_hw: Hw) -> None:
        own = {name.removeprefix("net."): w for name, w in weights.items() if name.startswith("net.")}
        self.net.before_loading(own, grid_hw)

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        a = over_channels(self.abar[t_B])
        v, m = self.variance.view(1, -1, 1, 1), self.mean.view(1, -1, 1, 1)
        total = a * v + 1 - a
        unit = (x_BChw - a.sqrt() * m) * total.rsqrt()
        noise: Tensor = ((1 - a) / total).sqrt() * unit + (a * v / total).sqrt() * self.net(unit, t_B)
        return noise
