"""OpenVINO on an Intel CPU, GPU or NPU. Compiled graphs are kept in the user's cache."""

import os
import sys
import threading
from pathlib import Path
from typing import Any

import openvino as ov
import openvino.properties as properties
from openvino.properties import hint

from invad.errors import ArtifactError, ConfigError
from invad.runtime.engines import Array, Options, Outputs


class OpenVinoEngine:
    """A compiled graph with one request per thread that uses it."""

    name = "openvino"

    def __init__(self, compiled: ov.CompiledModel, device: str) -> None:
        self.compiled, self.device = compiled, device
        self.local = threading.local()

    def run(self, image_BHW3: Array, range_2: Array, category_B: Array) -> Outputs:
        request = getattr(self.local, "request", None)
        if request is None:
            request = self.local.request = self.compiled.create_infer_request()
        found = request.infer({"image": image_BHW3, "range": range_2, "category": category_B})
        # Copied, because the request writes its next results to the same place.
        return Outputs(*(found[name].copy() for name in Outputs._fields))


def open_graph(path: Path, options: Options) -> OpenVinoEngine:
    """Raises ConfigError for a device that is not there, ArtifactError for a graph it cannot run."""
    core = ov.Core()
    device = (options.device or "CPU").upper()
    if device.split(".")[0] not in {name.split(".")[0] for name in core.available_devices}:
        raise ConfigError(f"device {device!r}: OpenVINO finds {', '.join(core.available_devices)} here")
    mode = hint.PerformanceMode.LATENCY if options.streams == 1 else hint.PerformanceMode.THROUGHPUT
    settings: dict[Any, Any] = {hint.performance_mode: mode}
    if options.streams > 1:
        settings[properties.num_streams] = options.streams
    if options.threads is not None:
        settings[properties.inference_num_threads] = options.threads
    if device == "CPU":
        # Else machines with bfloat16 units use them unasked, and the numbers are others.
        settings[hint.inference_precision] = ov.Type.f32
    cache = cache_folder()
    if cache is not None:
        settings[properties.cache_dir] = str(cache)
    try:
        return OpenVinoEngine(core.compile_model(str(path), device, settings), device.lower())
    except RuntimeError as error:
        line = " ".join(str(error).split())[:200]
        raise ArtifactError(
            f"{path}: OpenVINO {ov.__version__} cannot run it ({line}); export it again or use another engine"
        ) from None


def cache_folder() -> Path | None:
    """The user's cache folder for compiled graphs, made if need be; None where none can be written."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "invad" / "openvino"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
