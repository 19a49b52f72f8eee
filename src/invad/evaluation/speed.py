"""How fast a detector is on this machine: latency, throughput, and where the time goes.

Images are measured from pixels in memory to prediction and map, one call after the other, after a warm-up;
on a GPU a call ends when its results have arrived. A bundle is measured without PyTorch.
"""

import io
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from invad.data.images import read_image
from invad.errors import ConfigError
from invad.records import Hw
from invad.runtime import ENGINES, ExportedDetector, is_bundle, load
from invad.runtime.detector import grey_levels

if TYPE_CHECKING:
    from invad.detector.detector import Detector

EVERY = "every"
EAGER, FOLDED = "torch", "torch-folded"
LEAST_RUNS, MOST_BATCH = 10, 64
FEW_RUNS = 3
"""Of a batch of several images, of which the images per second count, not the percentiles."""

WORTH = 1.05
"""A larger batch is tried as long as the last doubling gave so many times the images per second."""

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One engine, precision and batch.

    latency_ms_*: of one call with `batch` images. images_per_second: batch over the median. runs: calls that
    were measured. split_ms: medians of the parts of one image, of rows with batch 1 alone; the parts of a
    graph that an engine runs in one piece are one part, `graph`.
    """

    engine: str
    precision: str
    device: str
    threads: int
    batch: int
    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_p99: float
    images_per_second: float
    runs: int
    size: str
    split_ms: dict[str, float] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


class Subject(Protocol):
    """Something to be measured. batches: None for any number of images at a time."""

    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def batch(self) -> int | None: ...

    def run(self, pixels: Sequence[Pixels]) -> object:
        """Predict, and wait for the result."""
        ...

    def parts(self, size_hw: Hw) -> dict[str, Callable[[Any], Any]]:
        """The steps of one image by name; each takes what the last one gave, the first an encoded image."""
        ...


def bench(
    folder: str | Path,
    *,
    engine: str = EVERY,
    size_hw: Hw | None = None,
    threads: int | None = None,
    seconds: float = 3.0,
    device: str | None = None,
) -> list[Row]:
    """Measure a model folder (PyTorch as it is, and folded) or a bundle (each engine that can run it).

    engine: one of them alone. size_hw: of the images, by default that of the network's input. threads: by
    default all cores this process may use. seconds: for each row. Batches are doubled while that pays
    and a call fits into the time of a row.
    Raises ConfigError for an engine that cannot run the folder, ArtifactError for a folder that is damaged.
    """
    if seconds <= 0:
        raise ConfigError(f"seconds = {seconds}: give a positive number")
    folder, count = Path(folder), threads or cores()
    rows: list[Row] = []
    with _threads(count, torch=not is_bundle(folder)):
        for subject, own_hw in _subjects(folder, engine, size_hw, count, device):
            pictures = [_picture(seed, own_hw) for seed in range(4)]
            rows += _measured(subject, pictures, count, seconds)
    return rows


def cores() -> int:
    """That this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What the numbers depend on, in words; `load` says how busy the machine was just before."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": _cpu(), "cores": cores(), "system": platform.platform(terse=True), "load": load}


def call_times(run: Callable[[], object], seconds: float, least: int = LEAST_RUNS) -> NDArray[np.float64]:
    """Seconds that calls take one after the other, after a warm-up of a quarter of the time."""
    for budget, fewest in ((seconds / 4, 2), (seconds, least)):
        times: list[float] = []
        while len(times) < fewest or sum(times) < budget:
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
    return np.array(times)


def _measured(subject: Subject, pictures: Sequence[bytes], threads: int, seconds: float) -> Iterator[Row]:
    decoded = [read_image(picture) for picture in pictures]
    size_hw = (decoded[0].shape[0], decoded[0].shape[1])
    batch, best = subject.batch or 1, 0.0
    while True:
        group = [decoded[i % len(decoded)] for i in range(batch)]
        least = LEAST_RUNS if batch == 1 else FEW_RUNS
        times = call_times(lambda group=group: subject.run(group), seconds, least)  # type: ignore[misc]
        p50, p95, p99 = (1000 * float(q) for q in np.percentile(times, (50, 95, 99)))
        speed = 1000 * batch / p50
        yield Row(
            engine=subject.engine,
            precision=subject.precision,
            device=subject.device,
            threads=threads,
            batch=batch,
            latency_ms_p50=round(p50, 3),
            latency_ms_p95=round(p95, 3),
            latency_ms_p99=round(p99, 3),
            images_per_second=round(speed, 2),
            runs=len(times),
            size="{}x{}".format(*size_hw),
            split_ms=_split(subject, pictures[0], size_hw, seconds) if batch == 1 else {},
        )
        too_long = 2 * p50 > 1000 * seconds
        if subject.batch is not None or batch >= MOST_BATCH or speed < WORTH * best or too_long:
            return
        batch, best = 2 * batch, max(best, speed)


def _split(subject: Subject, encoded: bytes, size_hw: Hw, seconds: float) -> dict[str, float]:
    """Milliseconds of each part, medians over rounds of all parts, so that a slow moment meets all alike."""
    parts = subject.parts(size_hw)
    times: dict[str, list[float]] = {name: [] for name in parts}
    deadline = time.perf_counter() + seconds
    while len(times["decode"]) < LEAST_RUNS or time.perf_counter() < deadline:
        value: Any = encoded
        for name, part in parts.items():
            started = time.perf_counter()
            value = part(value)
            times[name].append(time.perf_counter() - started)
    return {name: round(1000 * float(np.median(values)), 3) for name, values in times.items()}


class _Eager:
    """A detector as it is: every step of its own."""

    engine, precision, batch = EAGER, "fp32", None

    def __init__(self, detector: "Detector") -> None:
        self.detector, self.device = detector, str(detector.model.extract.device)

    def run(self, pixels: Sequence[Pixels]) -> object:
        return self.detector.judge(pixels)

    def parts(self, size_hw: Hw) -> dict[str, Callable[[Any], Any]]:
        detector, extract = self.detector, self.detector.model.extract
        return {
            "decode": read_image,
            "preprocess": lambda pixels: extract.preprocess(pixels)[None],
            "backbone": lambda x_13HW: self.finished(extract.features(x_13HW)),
            "inversion": detector.model.read_batch,
            "post": lambda maps_1Lhw: detector.predictions(maps_1Lhw, [size_hw]),
        }

    def finished(self, features: Any) -> Any:
        """Features that are there, not only asked for."""
        if features.device.type == "cuda":
            import torch

            torch.cuda.synchronize(features.device)
        return features


class _Graph:
    """One graph, run by an engine in one piece."""

    def __init__(self, detector: ExportedDetector, engine: str | None = None) -> None:
        self.detector, self.engine = detector, engine or detector.engine.name
        self.precision, self.device = detector.info.precision, detector.engine.device
        self.batch = detector.info.batch

    def run(self, pixels: Sequence[Pixels]) -> object:
        return self.detector.judge(pixels)

    def parts(self, size_hw: Hw) -> dict[str, Callable[[Any], Any]]:
        window, category = self.detector.info.window, np.zeros(1, np.int64)
        return {
            "decode": read_image,
            "preprocess": lambda pixels: grey_levels([pixels], window),
            "graph": lambda given: self.detector.engine.run(given[0], given[1], category),
        }


def _subjects(
    folder: Path, engine: str, size_hw: Hw | None, threads: int, device: str | None
) -> Iterator[tuple[Subject, Hw]]:
    """What to measure, with the size of the images."""
    if is_bundle(folder):
        for name in _engines(folder, engine):
            exported = load(folder, name, threads=threads, device=device)
            if not isinstance(exported, ExportedDetector):
                raise ConfigError(
                    f"{folder}: cuts pictures into tiles; measure the model with 'invad predict'"
                )
            yield _Graph(exported), _size(exported.info.size_hw, size_hw, exported.info.input_hw)
        return
    if engine not in (EVERY, EAGER, FOLDED):
        raise ConfigError(
            f"engine {engine!r} runs exported bundles and {folder} is none; choose {EAGER} or {FOLDED}, or "
            f"make one with 'invad export {folder} --output BUNDLE'"
        )
    from invad.detector.detector import Detector

    detector = Detector.load(folder, device=device)
    own = size_hw or detector.info.input_hw
    if engine in (EVERY, EAGER):
        yield _Eager(detector), own
    if engine in (EVERY, FOLDED):
        yield _Graph(detector.compile(size_hw=own), FOLDED), own


def _engines(folder: Path, engine: str) -> list[str]:
    from invad.runtime.bundle import read_bundle

    if engine != EVERY:
        return [engine]
    form = read_bundle(folder)[0].format
    fitting = [name for name, kind in ENGINES.items() if form in kind.formats]
    installed = [name for name in fitting if find_spec(ENGINES[name].package)]
    if not installed:
        raise ConfigError(f"{folder}: nothing installed runs it; {ENGINES[fitting[0]].hint()}")
    return installed


def _size(taken: Hw | None, asked: Hw | None, own: Hw) -> Hw:
    if taken is not None and asked not in (None, taken):
        raise ConfigError("size = {}x{}: the bundle takes {}x{} alone".format(*(asked or own), *taken))
    return taken or asked or own


def _picture(seed: int, size_hw: Hw) -> bytes:
    """A part on a ground with grain, as JPEG."""
    rng, (h, w) = np.random.default_rng(seed), size_hw
    y, x = (np.arange(h)[:, None] + 0.5) / h, (np.arange(w)[None] + 0.5) / w
    shape = 90 * (np.hypot(x - 0.5, y - 0.5) < 0.35) + 20 * np.sin(30 * x + seed) * y + 70
    grey = (shape + rng.normal(0, 4, size_hw)).clip(0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(grey).convert("RGB").save(stream, "JPEG", quality=90)
    return stream.getvalue()


@contextmanager
def _threads(count: int, torch: bool) -> Iterator[None]:
    """PyTorch's number of threads for a while; other engines are told when they are opened."""
    if not torch:
        yield
        return
    from torch import get_num_threads, set_num_threads

    before = get_num_threads()
    set_num_threads(count)
    try:
        yield
    finally:
        set_num_threads(before)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
