"""What can run a graph: the contract, the table of engines, and which one to take."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from invad.errors import ConfigError
from invad.runtime.cache import some_home
from invad.system.packages import importing, install

Array = NDArray[Any]


class Outputs(NamedTuple):
    """What a graph says of B images: B, B, B, B x H x W and B x h x w."""

    score: NDArray[np.float32]
    p_value: NDArray[np.float32]
    decision: NDArray[np.int64]
    anomaly_map: NDArray[np.float32]
    grid_map: NDArray[np.float32]


class Engine(Protocol):
    """A graph ready to run. `run` may be called from several threads."""

    name: str
    device: str

    def run(self, image_BHW3: Array, range_2: Array | None, category_B: Array) -> Outputs:
        """float32 grey levels, float32 black and white, int64 category numbers; or pixels of the type that
        has its range in the graph, and None."""
        ...

    def norms(self, image_BHW3: Array, range_2: Array, category_B: Array) -> NDArray[np.float32]:
        """Norm maps B x L x h x w alone, of a bundle that keeps some of held-out images."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """threads: of one image, None for the engine's choice. streams: images at the same time. device: as the
    engine names it, None for its choice. content: hash of the bundle, by which an engine may keep what it
    made of the graph; None keeps nothing. constants: arrays by name, in place of those of the graph."""

    threads: int | None = None
    streams: int = 1
    device: str | None = None
    content: str | None = None
    constants: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("threads", self.threads or 1), ("streams", self.streams)):
            if value < 1:
                raise ConfigError(f"{name} = {value}: give an integer of at least 1")


@dataclass(frozen=True, slots=True)
class Kind:
    """module: file of this package with `open_graph(path, options)`. package: what has to be installed.
    extra: what brings it, None for what invad always has. formats: what it runs."""

    module: str
    package: str
    extra: str | None
    formats: tuple[str, ...]

    def hint(self) -> str:
        """The command that installs it."""
        return install((), self.extra) if self.extra else "pip install invad"


ENGINES = {
    "onnxruntime": Kind("onnxruntime_engine", "onnxruntime", "onnx", ("onnx",)),
    "openvino": Kind("openvino_engine", "openvino", "openvino", ("openvino", "onnx")),
    "torch": Kind("torch_engine", "torch", None, ("torch",)),
}
AUTO = "auto"

NORMS = "norms"
"""Output of a graph that is asked for alone."""

UNREPORTED = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED")


def report_nothing() -> None:
    """Whoever is about to import an engine calls this first, else it tells its maker what runs where.

    ONNX Runtime does so from version 1.29 on, and keeps what it could not tell in the home folder; a variable
    that is set stays as it is. OpenVINO does when it is imported, by a package that it does without.
    """
    for name in UNREPORTED:
        os.environ.setdefault(name, "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def open_engine(name: str, format: str, graph: Path, options: Options) -> Engine:
    """The engine called `name`, or with `auto` the first installed one for this format of graph.

    Raises ConfigError when there is no such engine, when it is not installed, too old or broken, or cannot
    run the format.
    """
    fitting = fitting_engines(name, format, graph.parent)
    if name == AUTO:
        installed = [engine for engine in fitting if find_spec(ENGINES[engine].package)]
        if not installed:
            hints = " or ".join(ENGINES[engine].hint() for engine in fitting)
            raise ConfigError(f"no engine for an {format} bundle is installed; {hints}")
        name = installed[0]
    kind = ENGINES[name]
    if not find_spec(kind.package):
        raise ConfigError(f"engine {name} is not installed; {kind.hint()}")
    report_nothing()
    sound = importing((kind.package,), kind.extra, f"engine {name}") if kind.extra else nullcontext()
    with some_home(), sound:
        module = import_module(f"invad.runtime.{kind.module}")
    open_graph: Callable[[Path, Options], Engine] = module.open_graph
    return open_graph(graph, options)


def fitting_engines(name: str, format: str, bundle: Path) -> list[str]:
    """Those that run this format of graph. Raises ConfigError when `name` is not `auto` and none of them."""
    fitting = [engine for engine, kind in ENGINES.items() if format in kind.formats]
    if name not in (AUTO, *ENGINES):
        raise ConfigError(f"engine {name!r} is unknown; choose one of {', '.join((AUTO, *ENGINES))}")
    if name not in (AUTO, *fitting):
        raise ConfigError(
            f"engine {name} does not run the {format} bundle {bundle}; choose {' or '.join(fitting)}"
        )
    return fitting
