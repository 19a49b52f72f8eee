"""OpenVINO on an Intel CPU, GPU or NPU. Compiled graphs are kept in the user's cache."""

import hashlib
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.properties as properties
from numpy.typing import NDArray
from openvino.properties import hint

from invad.errors import ArtifactError, ConfigError, in_one_line
from invad.runtime.cache import cache_folder, keep, kept, key_of, some_home
from invad.runtime.engines import NORMS, Array, Options, Outputs
from invad.runtime.processor import processor


class OpenVinoEngine:
    """A compiled graph with one request per thread that uses it."""

    name = "openvino"

    def __init__(self, compiled: ov.CompiledModel, device: str) -> None:
        self.compiled, self.device = compiled, device
        self.local = threading.local()

    def run(self, image_BHW3: Array, range_2: Array | None, category_B: Array) -> Outputs:
        feed = {"image": image_BHW3, "range": range_2, "category": category_B}
        given = {name: array for name, array in feed.items() if array is not None}
        results = self._request().infer(given, share_inputs=True)
        # Copied, because the request writes its next results to the same place.
        return Outputs(*(results[name].copy() for name in Outputs._fields))

    def norms(self, image_BHW3: Array, range_2: Array, category_B: Array) -> NDArray[np.float32]:
        given = {"image": image_BHW3, "range": range_2, "category": category_B}
        found: NDArray[np.float32] = self._request().infer(given, share_inputs=True)[NORMS].copy()
        return found

    def _request(self) -> ov.InferRequest:
        request = getattr(self.local, "request", None)
        if request is None:
            request = self.local.request = self.compiled.create_infer_request()
        return request


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
            # Else the threads of each process stay on the same first cores, and a second one gains nothing.
            settings[hint.enable_cpu_pinning] = False
    if device == "CPU":
        # Else machines with bfloat16 units use them unasked, and the numbers are others.
        settings[hint.inference_precision] = ov.Type.f32
    folder = cache_folder("openvino") if options.content else None
    try:
        compiled = _compiled(core, path, device, settings, options, folder)
        return OpenVinoEngine(compiled, device.lower())
    except RuntimeError as error:
        line = in_one_line(error)
        raise ArtifactError(
            f"{path}: OpenVINO {ov.__version__} cannot run it ({line}); export it again or use another engine"
        ) from None


def _compiled(
    core: ov.Core, path: Path, device: str, settings: dict[Any, Any], options: Options, folder: Path | None
) -> ov.CompiledModel:
    """The graph for this device: from `folder` if a whole one is kept there, else made, and kept there.

    OpenVINO's own cache is read unchecked: a page of zeros in it changes scores without a word.
    """
    if folder is None:
        return core.compile_model(_read(core, path, options), device, settings)
    name = core.get_property(device, properties.device.full_name)
    given = sorted((str(key), str(value)) for key, value in settings.items())
    put = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in options.constants.items()}
    key = key_of(options.content, ov.__version__, device, name, processor(), given, put or None)
    blob = folder / f"{key}.blob"
    known = kept(blob)
    if known is not None:
        try:
            return core.import_model(known, device, settings)
        except RuntimeError:  # by a driver that was replaced
            blob.unlink(missing_ok=True)
    compiled = core.compile_model(_read(core, path, options), device, settings)
    with suppress(RuntimeError):  # a device that cannot give its graph away
        keep(blob, compiled.export_model().getvalue())
    return compiled


def _read(core: ov.Core, path: Path, options: Options) -> ov.Model:
    """The graph, with the constants that are given in the place of its own; it then says norm maps alone."""
    if path.suffix == ".onnx":
        # As read, a graph of any number of images asks the CPU for a sum that it refuses, and one of one
        # image compiles for longer than converting and compiling take together.
        with some_home():
            model = ov.convert_model(path)
    else:
        model = core.read_model(path)
    if not options.constants:
        return model
    own = {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Constant"}
    for name, array in options.constants.items():
        if name not in own:
            raise RuntimeError(f"has no constant {name}")
        own[name].output(0).replace(ov.opset13.constant(array).output(0))
    norms = next(one for one in model.outputs if NORMS in one.names)
    return ov.Model([norms.get_node()], model.get_parameters(), path.stem)
