"""What folding is worth: exported graphs as they are written, against graphs with a part of it left out.

    python benchmarks/folding.py --output benchmarks/results/folding.json

For each preset (a few training steps on noise: only the time is read) one process opens every variant on
every engine and runs them in turns, so that a machine that slows down slows all alike. A ratio is taken
inside one turn; its median and quartiles over the turns are written. Above 1, folding gains.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from invad.detector.detector import Detector
from invad.evaluation.machine import facts
from invad.export.formats import traced, write_onnx
from invad.export.int8 import feeds, quantise_onnx
from invad.graph import graph
from invad.model.settings import PRESETS
from invad.records import Sample
from invad.runtime.engines import Engine, Options, open_engine
from invad.runtime.torch_engine import TorchEngine

SIDE = 256
ENGINES = (("onnxruntime", "fp32"), ("openvino", "fp32"), ("onnxruntime", "int8"), ("openvino", "int8"))


VARIANTS: dict[str, dict[str, Any]] = {
    "folded": {},
    "batch norms unfused": {"fuse_batch_norm": lambda net, *example: net},
}
"""What stands in for a function of `invad.graph.graph` in each."""


@contextmanager
def standing_in(others: dict[str, Any]) -> Iterator[None]:
    usual = {name: getattr(graph, name) for name in others}
    for name, other in others.items():
        setattr(graph, name, other)
    try:
        yield
    finally:
        for name, own in usual.items():
            setattr(graph, name, own)


def noise(folder: Path, count: int = 24) -> list[Sample]:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(count):
        path = folder / f"{i:03d}.png"
        coarse = rng.integers(0, 255, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
        samples.append(Sample(path=path, category="noise", defect="good"))
    return samples


def opened(detector: Detector, folder: Path, images: list[Any], threads: int) -> dict[str, dict[str, Engine]]:
    """Engine and precision -> variant -> ready to run."""
    ready: dict[str, dict[str, Engine]] = {"torch fp32": {}}
    for name, others in VARIANTS.items():
        with standing_in(others):
            compiled = detector.compile(size_hw=(SIDE, SIDE))
        engine = compiled.engine
        assert isinstance(engine, TorchEngine)
        assert isinstance(engine.graph, graph.Graph)
        ready["torch fp32"][name] = engine
        place = folder / name.replace(" ", "-")
        place.mkdir()
        paths = {"fp32": place / "model.onnx", "int8": place / "int8.onnx"}
        write_onnx(traced(engine.graph, (SIDE, SIDE), 1), paths["fp32"])
        quantise_onnx(paths["fp32"], paths["int8"], feeds(images, compiled.info.window, 1))
        for runner, precision in ENGINES:
            made = open_engine(runner, "onnx", paths[precision], Options(threads=threads))
            ready.setdefault(f"{runner} {precision}", {})[name] = made
        print(name, {k: round(p.stat().st_size / 1e6, 2) for k, p in paths.items()}, "MB", flush=True)
    return ready


def in_turns(ready: dict[str, Callable[[], Any]], turns: int, runs: int) -> dict[str, list[float]]:
    """Milliseconds of one run, the fastest of `runs`, for each turn."""
    taken: dict[str, list[float]] = {name: [] for name in ready}
    for turn in range(turns + 1):
        names = list(ready) if turn % 2 else list(reversed(ready))
        for name in names:
            best = float("inf")
            for _ in range(runs):
                start = time.perf_counter()
                ready[name]()
                best = min(best, time.perf_counter() - start)
            if turn:  # the first warms up
                taken[name].append(1000 * best)
    return taken


def rows_of(preset: str, folder: Path, turns: int, runs: int, threads: int) -> list[dict[str, Any]]:
    settings = PRESETS[preset]
    short = replace(settings, train=replace(settings.train, steps=2, epochs=1))
    samples = noise(folder)
    detector = Detector.fit(samples, preset=short, device="cpu")
    images = [np.asarray(Image.open(sample.path)) for sample in samples]
    rows = []
    for engine, variants in opened(detector, folder, images, threads).items():
        given = next(feeds(images, (0.0, 1.0), 1))
        tensors = (given["image"], given["range"], given["category"])
        ready: dict[str, Callable[[], Any]] = {n: partial(e.run, *tensors) for n, e in variants.items()}
        taken = in_turns(ready, turns, runs)
        for name, values in taken.items():
            ratio = np.quantile(np.divide(values, taken["folded"]), [0.25, 0.5, 0.75])
            row: dict[str, Any] = {"preset": preset, "engine": engine, "variant": name}
            row |= {"ms_median": round(float(np.median(values)), 3), "ratio": [round(r, 3) for r in ratio]}
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", default="dit,paper-s")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--runs", type=int, default=3, help="in a turn, of which the fastest counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for preset in args.presets.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows += rows_of(preset, Path(folder), args.turns, args.runs, args.threads)
    document = {"machine": facts(), "threads": args.threads, "side": SIDE, "rows": rows}
    args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
