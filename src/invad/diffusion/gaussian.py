"""The closed-form noise predictor of Gaussian features, and a network that learns only what it leaves over.

For features z ~ N(m, V diag(v) V^T) and x = sqrt(a) z + sqrt(1 - a) eps, in the eigenbasis V:

    E[eps | x] = sqrt(1 - a) (x - sqrt(a) m) / (a v + 1 - a),    Var[eps | x] = a v / (a v + 1 - a)

The network sees x scaled to unit variance and predicts the remainder in units of that standard deviation.
An untrained network is thus the exact Gaussian predictor. Far from the normal features, where a network says
anything, the linear part grows with the distance: an outlier cannot look typical.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invad.diffusion.schedule import linear_schedule

SMALLEST_VARIANCE = 1e-4
"""Of an eigenvector, in units of standardised features: directions flatter than this are rounding."""


class GaussianPreconditioned(nn.Module):
    """A noise predictor around `net`, which must predict zero when untrained. `set_gaussian` comes first."""

    abar: Tensor
    mean: Tensor
    variance: Tensor
    basis: Tensor

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("abar", torch.tensor(linear_schedule().alphas_cumprod, dtype=torch.float32))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("basis", torch.eye(channels))

    def set_gaussian(self, mean_C: Tensor, covariance_CC: Tensor) -> None:
        """Mean and covariance of the clean features, any float dtype."""
        values, vectors = torch.linalg.eigh(covariance_CC.double())
        self.mean.copy_(vectors.T @ mean_C.double())
        self.variance.copy_(values.clamp_min(SMALLEST_VARIANCE))
        self.basis.copy_(vectors)

    def predict_noise(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        """x_BChw float, t_B int64 levels; returns the predicted noise, B x C x h x w."""
        noise: Tensor = self(x_BChw, t_B)
        return noise

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        a, v, m = (
            self.abar[t_B].view(-1, 1, 1, 1),
            self.variance.view(1, -1, 1, 1),
            self.mean.view(1, -1, 1, 1),
        )
        total = a * v + 1 - a
        centred = F.conv2d(x_BChw, self.basis.T[:, :, None, None]) - a.sqrt() * m
        remainder = self.net(centred * total.rsqrt(), t_B)
        noise = (1 - a).sqrt() / total * centred + (a * v / total).sqrt() * remainder
        return F.conv2d(noise, self.basis[:, :, None, None])
