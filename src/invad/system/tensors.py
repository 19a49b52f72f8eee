"""Tensors as a safetensors file, with the errors and the rights of any other file."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, "Tensor"], meta: dict[str, str] | None = None) -> None:
    """Write tensors, on whatever device, to `path`. Raises OSError."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.touch()
    rights = path.stat().st_mode
    try:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, metadata=meta)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(str(error)) from None
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None
    path.chmod(rights)  # safetensors makes files that their owner alone can read
