"""Read a file of weights that another program wrote, without running any code in it."""

import re
from collections.abc import Mapping
from errno import EINVAL
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from invad.errors import WeightsError, in_one_line, reason

PICKLED = (".pth", ".pt", ".ckpt", ".bin")
SUFFIXES = (".safetensors", *PICKLED)
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "denoiser")
"""Where training scripts put the tensors; of several the averaged ones win."""

PREFIXES = ("module.", "_orig_mod.")

_REFUSED = re.compile("unsupported (global|class)", re.IGNORECASE)
"""What torch says of objects. An unsupported operand is no pickle's at all: the file is damaged."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from .safetensors, or from .pth, .pt, .ckpt, .bin restricted to tensors.

    Raises WeightsError when the file is missing, damaged, of another kind, or holds objects whose loading
    could run code.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file; check the path")
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(f"{path}: not a file of weights; give one of {', '.join(SUFFIXES)}")
    try:
        content = _content(path)
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged bytes raise whatever comes to hand
        raise WeightsError(f"{path}: {_reason(error)}") from None
    state = {_bare_name(name): t for name, t in _unwrapped(content).items() if isinstance(t, Tensor)}
    if not state:
        raise WeightsError(f"{path}: holds no tensors by name; save the network's state_dict")
    return state


def _content(path: Path) -> Any:
    if path.suffix.lower() == ".safetensors":
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    # By name: the unpickler's own module has no other use here.
    if type(error).__name__ == "UnpicklingError" and _REFUSED.search(str(error)):
        return (
            "refused, it holds objects other than tensors, and loading them could run code; "
            "save its state_dict alone"
        )
    if isinstance(error, OSError) and error.errno not in (None, EINVAL):  # torch's, of a cut file
        return reason(error, writing=False)
    return f"not readable as weights ({in_one_line(error, most=120)}); fetch or save the file again"


def _unwrapped(content: Any) -> Mapping[str, Any]:
    while isinstance(content, Mapping):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            return {str(name): value for name, value in content.items()}
        content = inner[0]
    return {}


def _bare_name(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.split(".", 1)[1]
    return name
