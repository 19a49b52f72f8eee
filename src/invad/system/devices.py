"""The device that PyTorch computes on."""

from typing import TYPE_CHECKING

from invad.errors import ConfigError

if TYPE_CHECKING:
    import torch


def choose_device(name: str | None) -> "torch.device":
    """The device called `name`; None is a CUDA GPU if there is one. Raises ConfigError if unusable."""
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        raise ConfigError(f"device {name!r} cannot be used here; give cpu, or cuda with a GPU") from None
    return device
