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


def shrunk(covariance_CC: Tensor, cells: int) -> Tensor:
    """The covariance drawn towards a multiple of the identity, the more the fewer cells it comes from.

    Oracle approximating shrinkage (Chen et al. 2010, arXiv 0907.4698, Eq. 23). Fewer cells than channels span
    no volume: every new cell would lie infinitely far off. With tens of thousands it changes nothing.
    """
    size = len(covariance_CC)
    trace, squares = covariance_CC.diagonal().sum(), covariance_CC.square().sum()
    above = (1 - 2 / size) * squares + trace**2
    below = (cells + 1 - 2 / size) * (squares - trace**2 / size)
    share = 1.0 if below <= above else float(above / below)
    eye = torch.eye(size, dtype=covariance_CC.dtype, device=covariance_CC.device)
    return (1 - share) * covariance_CC + share * trace / size * eye


class GaussianDenoiser(nn.Module):
    """The closed form alone. `set_gaussian` comes first."""

    abar: Tensor
    mean: Tensor
    variance: Tensor
    basis: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
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
        return F.conv2d(self.in_eigenbasis(x_BChw, t_B), self.basis[:, :, None, None])

    def in_eigenbasis(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        """The predicted noise before it is rotated back: its length is the same, at half the cost."""
        a, v, m = (
            self.abar[t_B].view(-1, 1, 1, 1),
            self.variance.view(1, -1, 1, 1),
            self.mean.view(1, -1, 1, 1),
        )
        total = a * v + 1 - a
        centred = F.conv2d(x_BChw, self.basis.T[:, :, None, None]) - a.sqrt() * m
        noise = (1 - a).sqrt() / total * centred
        return noise + self.remainder(centred * total.rsqrt(), (a * v / total).sqrt(), t_B)

    def remainder(self, unit_BChw: Tensor, deviation_BC11: Tensor, t_B: Tensor) -> Tensor | float:
        """What a Gaussian leaves over, in the eigenbasis. unit: x at unit variance; deviation: of eps."""
        del unit_BChw, deviation_BC11, t_B
        return 0.0


class GaussianPreconditioned(GaussianDenoiser):
    """A noise predictor around `net`, which must predict zero when untrained. `set_gaussian` comes first."""

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__(channels)
        self.net = net

    def remainder(self, unit_BChw: Tensor, deviation_BC11: Tensor, t_B: Tensor) -> Tensor | float:
        remainder: Tensor = self.net(unit_BChw, t_B)
        return deviation_BC11 * remainder
