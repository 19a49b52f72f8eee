"""A network that learns only what the closed-form noise predictor of Gaussian features leaves over.

For features z ~ N(m, diag(v)), uncorrelated as principal directions are, and x = sqrt(a) z + sqrt(1 - a) eps:

    E[eps | x] = sqrt(1 - a) (x - sqrt(a) m) / (a v + 1 - a),    Var[eps | x] = a v / (a v + 1 - a)

The network sees x scaled to unit variance and predicts the remainder in units of that standard deviation.
An untrained network is thus the exact Gaussian predictor. Far from the normal features, where a network says
anything, the linear part grows with the distance: an outlier cannot look typical.
"""

import torch
from torch import Tensor, nn

from invad.diffusion.schedule import SCHEDULE

SMALLEST_VARIANCE = 1e-4
"""Of a channel, in units of standardised features: what varies less is rounding."""


class GaussianPreconditioned(nn.Module):
    """A noise predictor around `net`, which must predict zero when untrained. `set_gaussian` comes first."""

    abar: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("abar", torch.tensor(SCHEDULE.alphas_cumprod, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def set_gaussian(self, mean_C: Tensor, variance_C: Tensor) -> None:
        """Mean and variance of each channel of the clean features, any float dtype."""
        self.mean.copy_(mean_C)
        self.variance.copy_(variance_C.clamp_min(SMALLEST_VARIANCE))

    def predict_noise(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        """x_BChw float, t_B int64 levels; returns the predicted noise, B x C x h x w."""
        noise: Tensor = self(x_BChw, t_B)
        return noise

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        a = self.abar[t_B].view(-1, 1, 1, 1)
        v, m = self.variance.view(1, -1, 1, 1), self.mean.view(1, -1, 1, 1)
        total = a * v + 1 - a
        unit = (x_BChw - a.sqrt() * m) * total.rsqrt()
        noise: Tensor = ((1 - a) / total).sqrt() * unit + (a * v / total).sqrt() * self.net(unit, t_B)
        return noise
