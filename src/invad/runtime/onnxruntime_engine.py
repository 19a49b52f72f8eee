"""ONNX Runtime: on TensorRT or CUDA where the installed build has them, else on the CPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from invad.errors import ArtifactError, ConfigError, in_one_line
from invad.runtime.engines import NORMS, Array, Options, Outputs

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}


class OnnxRuntimeEngine:
    """A session; its runs may overlap."""

    name = "onnxruntime"

    def __init__(self, session: ort.InferenceSession, constants: Sequence[ort.OrtValue] = ()) -> None:
        """constants: that it uses where they are."""
        self.session, self.constants = session, constants
        by_name = {provider: name for name, provider in PROVIDERS.items()}
        self.device = by_name.get(session.get_providers()[0], "cpu")

    def run(self, image_BHW3: Array, range_2: Array | None, category_B: Array) -> Outputs:
        feed = {"image": image_BHW3, "range": range_2, "category": category_B}
        given = {name: array for name, array in feed.items() if array is not None}
        return Outputs(*self.session.run(list(Outputs._fields), given))

    def norms(self, image_BHW3: Array, range_2: Array, category_B: Array) -> NDArray[np.float32]:
        given = {"image": image_BHW3, "range": range_2, "category": category_B}
        found: NDArray[np.float32] = self.session.run([NORMS], given)[0]
        return found


def open_graph(path: Path, options: Options) -> OnnxRuntimeEngine:
    """Raises ConfigError for a device that is not there, ArtifactError for a graph it cannot run."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    # Threads that spin hold the cores of those that work, beside any other process: see invad.system.waiting.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    constants = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in options.constants.items()}
    for name, value in constants.items():
        settings.add_initializer(name, value)
    providers = _providers(options.device)
    try:
        session = ort.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # its errors have no common base
        line = in_one_line(error)
        raise ArtifactError(
            f"{path}: ONNX Runtime {ort.__version__} cannot run it ({line}); export it in another precision "
            "or use another engine"
        ) from None
    return OnnxRuntimeEngine(session, tuple(constants.values()))


def _providers(device: str | None) -> list[str]:
    available = ort.get_available_providers()
    if device is None:
        return [name for name in PROVIDERS.values() if name in available]
    if PROVIDERS.get(device) not in available:
        usable = ", ".join(name for name, provider in PROVIDERS.items() if provider in available)
        raise ConfigError(f"device {device!r}: this ONNX Runtime has {usable}; choose one of these")
    return [PROVIDERS[device], "CPUExecutionProvider"] if device != "cpu" else [PROVIDERS["cpu"]]
