"""PyTorch: exported programs (.pt2), and modules of this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from invad.errors import ArtifactError, in_one_line
from invad.runtime.engines import Array, Options, Outputs
from invad.system.devices import choose_device
from invad.system.waiting import sleep_beside_the_user


class TorchEngine:
    """A function of three tensors on one device."""

    name = "torch"

    def __init__(self, graph: Callable[..., Any], device: str | torch.device) -> None:
        sleep_beside_the_user()
        self.graph, self.device = graph, str(device)

    @torch.inference_mode()
    def run(self, image_BHW3: Array, range_2: Array | None, category_B: Array) -> Outputs:
        arrays = [array for array in (image_BHW3, range_2, category_B) if array is not None]
        return Outputs(*self._said(*arrays)[: len(Outputs._fields)])

    @torch.inference_mode()
    def norms(self, image_BHW3: Array, range_2: Array, category_B: Array) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._said(image_BHW3, range_2, category_B)[-1]
        return found

    def _said(self, *arrays: Array) -> list[Array]:
        given = (torch.from_numpy(array).to(self.device) for array in arrays)
        return [tensor.cpu().numpy() for tensor in self.graph(*given)]


def open_graph(path: Path, options: Options) -> TorchEngine:
    """Raises ConfigError for a device that is not there, ArtifactError for a graph it cannot run."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = str(choose_device(options.device))
    try:
        program = torch.export.load(path)
        for name, array in options.constants.items():
            program.state_dict[name].copy_(torch.from_numpy(array))
        if device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, device)
        return TorchEngine(program.module(), device)
    except Exception as error:  # archives fail in as many ways as there are parts in them
        line = in_one_line(error)
        raise ArtifactError(
            f"{path}: PyTorch {torch.__version__} cannot run it ({line}); export it again"
        ) from None
