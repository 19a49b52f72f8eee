"""The presets against other detectors: one run, one machine, the same images, all in turns.

    python -m venv OTHER
    OTHER/bin/pip install "anomalib[cpu]>=2.7,<3" openvino onnx onnxscript onnxruntime typer jinja2
    PYTHONPATH=src OTHER/bin/python benchmarks/speed.py --output benchmarks/results/speed.json

The presets are trained on drawn parts for a few steps, all others have random weights: times do not depend on
them. Everything goes from 256 x 256 x 3 bytes in memory to score and map, one image at a time. In every round
each detector takes its turn, so that a slow moment meets all of them: a pause, in which the threads of the
engine before fall asleep, one image uncounted, then up to five. A ratio is taken within a round, and given as
its median and quartiles over the rounds. Detectors beyond a second an image join every third round, the
reference configuration two. An idle machine is needed for the times, hardly for the ratios.
Floor of a preset: its floating-point operations at the measured rate of matrix products, or its weights at
the measured bandwidth, whichever takes longer. A Markdown table is written beside the JSON.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import speed_peers as peers
import torch
from baselines import reconstruction_maps
from torch.utils.flop_counter import FlopCounterMode

import invad
from invad import runtime
from invad.backbones.registry import load_backbone
from invad.data.images import read_image
from invad.data.listing import list_images
from invad.data.preprocess import Preprocess
from invad.data.synthetic import write_dataset
from invad.detector.detector import Detector
from invad.diffusion.denoiser import build_denoiser
from invad.evaluation.speed import machine
from invad.export import ExportConfig, export
from invad.model.reading import FeatureExtractor, Model
from invad.model.settings import preset_named
from invad.model.space import FeatureSpace, Standardiser

PRESETS = ("fast", "standard")
REFERENCE = "reference configuration: EfficientNet-B4, DiT of 1,223 M, 3 steps"
RECONSTRUCTION = "DDIM reconstruction of standard's features, 10 steps"
SIDE = peers.SIDE
SLOW, VERY_SLOW = 1.0, 5.0
"""Seconds an image, beyond which a detector takes part in every third round, or in two."""

PAUSE = 0.2
"""Seconds before a turn: engines let their threads spin for a while, which takes cores from the next one."""

Detect = Callable[[Any], Any]


def parts(folder: Path, count: int) -> Path:
    """Normal images to train on."""
    return write_dataset(
        folder / "parts", categories=["gasket"], train=count, test_good=4, per_defect=1, size=SIDE
    )


def trained(data: Path, steps: int) -> dict[str, Detector]:
    return {name: Detector.fit(data, preset=name, steps=steps, device="cpu") for name in PRESETS}


def exported(
    detectors: dict[str, Detector], folder: Path, threads: int, precisions: list[str], calibration: Path
) -> dict[tuple[str, str], Detect]:
    """Each preset, folded, by each engine and in each precision."""
    made: dict[tuple[str, str], Detect] = {}
    for name, detector in detectors.items():
        folded = detector.compile(size_hw=(SIDE, SIDE))
        made[name, "PyTorch, folded"] = folded.predict
        for precision in precisions:
            bundle = folder / f"{name}-{precision}"
            config = ExportConfig(
                format="onnx",
                precision=precision,
                size_hw=(SIDE, SIDE),
                calibration=calibration if precision == "int8" else None,
                max_changed=1.0,
            )
            export(detector, bundle, config)
            for engine, shown in (("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")):
                label = shown if precision == "fp32" else f"{shown}, {precision}"
                made[name, label] = runtime.load(bundle, engine, threads=threads).predict
    return made


def reconstruction(detector: Detector) -> Detect:
    """Noised to level 500 and denoised in ten steps, with the network of the preset."""

    def detect(pixels: Any) -> float:
        features = detector.model.extract.split(detector.model.extract(pixels))[0].numpy()
        return float(reconstruction_maps(detector.model, features, 500, 10).max())

    return detect


def reference() -> Detect:
    """The published sizes, with random weights: pixels to the norms of the three steps."""
    settings = preset_named("paper")
    backbone = load_backbone(
        settings.backbone, strides=settings.strides, pretrained=False, image_size=settings.area_side
    ).freeze()
    grid = (SIDE // settings.grid_stride, SIDE // settings.grid_stride)
    extract = FeatureExtractor(
        Preprocess((SIDE, SIDE)), backbone, grid, settings.pooling, settings.scales, settings.fine
    )
    space = FeatureSpace(Standardiser.identity(extract.channels))
    denoiser = build_denoiser(settings.denoiser, extract.channels, grid)
    model = Model(extract, space, denoiser, (), settings).to_device()
    return lambda pixels: model.read(model.extract(pixels))


def competitors(threads: int, engines: tuple[str, ...]) -> dict[tuple[str, str], Detect]:
    made: dict[tuple[str, str], Detect] = {}
    for name, build in peers.MODELS.items():
        model = build()
        if "PyTorch" in engines:
            made[name, "PyTorch"] = peers.eager(model)
        if "OpenVINO" in engines:
            made[name, "OpenVINO"] = peers.openvino(model, threads)
    return made


def take_turns(
    detectors: dict[tuple[str, str], Detect], images: list[Any], seconds: float
) -> dict[tuple[str, str], list[float | None]]:
    """Milliseconds an image per round, None where a detector sat the round out."""
    once: dict[tuple[str, str], float] = {}
    for key, detect in detectors.items():
        detect(images[0])
        started = time.perf_counter()
        detect(images[0])
        once[key] = time.perf_counter() - started
    rounds: dict[tuple[str, str], list[float | None]] = {key: [] for key in detectors}
    deadline, number = time.perf_counter() + seconds, 0
    while number < 3 or time.perf_counter() < deadline:
        for key, detect in detectors.items():
            out = (once[key] > SLOW and number % 3) or (once[key] > VERY_SLOW and number > 3)
            rounds[key].append(None if out else turn(detect, images, once[key]))
        number += 1
    return rounds


def turn(detect: Detect, images: list[Any], seconds: float) -> float:
    """Median milliseconds of an image; seconds: what one takes about."""
    time.sleep(PAUSE)
    if seconds < SLOW:
        detect(images[-1])
    count = max(1, min(5, round(0.3 / seconds)))
    return 1000 * statistics.median(timed(detect, images[i % len(images)]) for i in range(count))


def timed(detect: Detect, image: Any) -> float:
    started = time.perf_counter()
    detect(image)
    return time.perf_counter() - started


def spread(values: list[float]) -> list[float]:
    """Median, lower and upper quartile."""
    cuts = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return [round(statistics.median(values), 3), round(cuts[0], 3), round(cuts[2], 3)]


def ratios(rounds: dict[tuple[str, str], list[float | None]]) -> list[dict[str, Any]]:
    """How many times the images per second of each other detector a preset reaches on the same engine."""
    rows = []
    for (name, engine), own in rounds.items():
        if name not in PRESETS:
            continue
        for (other, its), theirs in rounds.items():
            if other in PRESETS or its != engine:
                continue
            pairs = [b / a for a, b in zip(own, theirs, strict=True) if a and b]
            if pairs:
                rows.append({"preset": name, "engine": engine, "against": other, "times": spread(pairs)})
    return rows


def rates(threads: int) -> dict[str, float]:
    """Matrix products in GFLOP/s, float32, the best of several shapes; copying in GB/s, read and written."""
    best = 0.0
    for m, k, n in ((256, 384, 384), (1024, 256, 2000), (512, 512, 512), (1024, 1024, 1024)):
        a, b, out = torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)
        seconds = min(timed(lambda _: torch.mm(a, b, out=out), None) for _ in range(60))  # noqa: B023
        best = max(best, 2 * m * k * n / seconds / 1e9)
    source = torch.zeros(64 << 20)
    target = torch.empty_like(source)
    seconds = min(timed(lambda _: target.copy_(source), None) for _ in range(8))
    return {"gflops": round(best, 1), "gbytes": round(2 * 4 * source.numel() / seconds / 1e9, 1)}


def floor(detector: Detector, image: Any, rate: dict[str, float]) -> dict[str, Any]:
    """What an image costs at least, and how near the heavy parts come to the rate in eager PyTorch."""
    model = detector.model
    x = model.extract.preprocess(image)[None]
    counted = {}
    with FlopCounterMode(display=False) as counter:
        z = model.extract.features(x)
    counted["backbone"] = counter.get_total_flops() / 1e9
    with FlopCounterMode(display=False) as counter:
        model.read_batch(z)
    counted["inversion"] = counter.get_total_flops() / 1e9
    networks = [model.extract.backbone, model.denoiser, *(bank.empirical for bank in model.banks)]
    weights = sum(t.numel() * t.element_size() for n in networks if n for t in n.state_dict().values())
    times = {
        "backbone": statistics.median(timed(model.extract.features, x) for _ in range(20)),
        "inversion": statistics.median(timed(model.read_batch, z) for _ in range(20)),
    }
    arithmetic = 1000 * sum(counted.values()) / rate["gflops"]
    memory = 1000 * weights / 1e9 / rate["gbytes"]
    return {
        "gflop": {name: round(value, 3) for name, value in counted.items()},
        "weights_mb": round(weights / 2**20, 1),
        "floor_ms": round(max(arithmetic, memory), 2),
        "floor_ms_arithmetic": round(arithmetic, 2),
        "floor_ms_memory": round(memory, 2),
        "share_of_rate_eager": {
            name: round(counted[name] / times[name] / rate["gflops"], 3) for name in counted
        }
        | {"together": round(sum(counted.values()) / sum(times.values()) / rate["gflops"], 3)},
    }


def document(
    rounds: dict[tuple[str, str], list[float | None]], floors: dict[str, Any], **rest: Any
) -> dict[str, Any]:
    rows = []
    for (name, engine), values in rounds.items():
        milliseconds = spread([v for v in values if v])
        row = {"detector": name, "engine": engine, "milliseconds": milliseconds}
        if name in floors:
            row["times_the_floor"] = round(milliseconds[0] / floors[name]["floor_ms"], 2)
        rows.append(row | {"rounds": sum(v is not None for v in values)})
    return {**rest, "floors": floors, "rows": rows, "ratios": ratios(rounds)}


def markdown(made: dict[str, Any]) -> str:
    lines = ["| detector | engine | ms an image (quartiles) | times its floor |", "|---|---|---|---|"]
    for row in made["rows"]:
        middle, low, high = row["milliseconds"]
        lines.append(
            f"| {row['detector']} | {row['engine']} | {middle:.1f} ({low:.1f} to {high:.1f}) | "
            f"{row.get('times_the_floor', '')} |"
        )
    lines += ["", "| preset | engine | against | times the images per second |", "|---|---|---|---|"]
    for row in made["ratios"]:
        middle, low, high = row["times"]
        lines.append(
            f"| {row['preset']} | {row['engine']} | {row['against']} | "
            f"{middle:.1f} ({low:.1f} to {high:.1f}) |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--seconds", type=float, default=240, help="of the rounds; about four minutes go before"
    )
    parser.add_argument("--precisions", default="fp32", help="of the bundles: fp32,int8")
    parser.add_argument("--without", default="", help="words; detectors whose name has one are left out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    about = machine()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = parts(folder, 64)
        images = [read_image(path) for path in list_images(data / "gasket" / "test" / "good")]
        own = trained(data, 20)
        detectors: dict[tuple[str, str], Detect] = {(n, "PyTorch"): d.predict for n, d in own.items()}
        precisions = args.precisions.split(",")
        detectors |= exported(own, folder, args.threads, precisions, data / "gasket" / "train" / "good")
        detectors[RECONSTRUCTION, "PyTorch"] = reconstruction(
            Detector.fit(data, preset="paper-s", steps=20, device="cpu")
        )
        detectors |= competitors(args.threads, ("PyTorch", "OpenVINO"))
        words = [word for word in args.without.split(",") if word]
        if not any(word in REFERENCE for word in words):
            detectors[REFERENCE, "PyTorch"] = reference()
        detectors = {k: d for k, d in detectors.items() if not any(word in k[0] for word in words)}
        rate = rates(args.threads)
        floors = {name: floor(detector, images[0], rate) for name, detector in own.items()}
        rounds = take_turns(detectors, images, args.seconds)
    made = document(
        rounds,
        floors,
        what=__doc__.strip().splitlines()[0],
        date=date.today().isoformat(),
        machine=about,
        threads=args.threads,
        size=f"{SIDE}x{SIDE}",
        versions=versions(),
        rates=rate,
    )
    args.output.write_text(json.dumps(made, indent=1) + "\n")
    args.output.with_suffix(".md").write_text(markdown(made))
    print(markdown(made))


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "timm", "openvino", "onnxruntime", "anomalib")
    return {"invad": invad.__version__, "python": platform.python_version()} | {n: version(n) for n in names}


if __name__ == "__main__":
    main()
