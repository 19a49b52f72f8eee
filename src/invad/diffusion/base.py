"""What every denoiser is: a torch module that predicts noise, and knows how it is trained and loaded."""

from abc import abstractmethod
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from invad.records import Hw


class Denoiser(nn.Module):
    """A noise predictor. Images of a batch do not influence each other.

    All that is learned or measured lies in parameters and buffers: `state_dict` is what a model folder keeps.
    """

    @property
    def cellwise(self) -> bool:
        """Whether the cells of an image do not influence each other either.

        Then `forward` also takes levels B x h x w, a cell its own, or B x h x 1, a row of cells its own.
        """
        return False

    @abstractmethod
    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        """See predict_noise, which tools that wrap a module know by this name."""

    def predict_noise(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        """The noise in float features x_BChw at levels t_B (int64, B entries, 0..T-1), in x_BChw's shape."""
        noise: Tensor = self(x_BChw, t_B)
        return noise

    def before_training(self, moments: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """Called once, with a function that measures mean and variance of each channel of the clean features.

        Measuring reads all of them, so that only a denoiser that needs the moments asks for them.
        """

    def recompute_activations(self, on: bool) -> None:
        """Whether activations are computed again for the gradient instead of kept, where it can do that."""

    def before_loading(self, weights: Mapping[str, Tensor], grid_hw: Hw) -> None:
        """Called with the state dict that is loaded next, for tensors whose shape only the weights tell.

        grid_hw: cells of the feature grid.
        """


def over_channels(values: Tensor) -> Tensor:
    """One value for each level (B, B x h x w or B x h x 1), shaped to go with features B x C x h x w."""
    return values.view(-1, 1, 1, 1) if values.ndim == 1 else values[:, None]
