"""The preset `paper` on this machine: seconds a training step, images a second, share of the matrix floor.

    python benchmarks/paper_step.py --output benchmarks/results/paper_step.json

Of an image and a step the matrix products alone are 0.42 TFLOP (forward and backward, as FlopCounterMode
counts them). The floor is the time they take at the rate this device reaches on one large product, measured
in the same process and precision. Needs a GPU of about 40 GB; `--cpu` measures forward and backward of one
image without optimiser or average, in fp32, which needs 12 GB of memory.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from invad.diffusion.denoiser import build_denoiser
from invad.diffusion.dit import DiT
from invad.fit.training import Execution, train_denoiser
from invad.model.settings import preset_named

CHANNELS, GRID = 272, (16, 16)
SIDE = 8192


def clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def matrix_rate(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """TFLOP a second of one large matrix product, the best of five."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        started = clock(device)
        a @ a
        best = min(best, clock(device) - started)
    return 2 * side**3 / best / 1e12


def backward_flops(net: torch.nn.Module, device: torch.device) -> Callable[[], float]:
    x = torch.randn(1, CHANNELS, *GRID, device=device)

    def once() -> float:
        net.zero_grad(set_to_none=True)
        with FlopCounterMode(display=False) as counter:
            net(x, torch.tensor([300], device=device)).square().mean().backward()
        return counter.get_total_flops() / 1e12

    return once


def on_gpu(steps: int, checkpointing: bool) -> dict[str, Any]:
    device = torch.device("cuda")
    settings = preset_named("paper")
    net = build_denoiser(settings.denoiser, CHANNELS, GRID).to(device)
    flops = backward_flops(net, device)()
    config = type(settings.train)(steps=steps + 3, batch=settings.train.batch)
    times: list[float] = []
    torch.cuda.reset_peak_memory_stats()
    train_denoiser(
        net,
        np.random.default_rng(0).normal(size=(64, CHANNELS, *GRID)).astype(np.float32),
        np.arange(64),
        config,
        device=device,
        on_step=lambda step, loss: times.append(clock(device)),
        execution=Execution(checkpointing=checkpointing),
    )
    step = statistics.median(np.diff(times[2:]))
    rate = matrix_rate(device, torch.bfloat16, SIDE)
    return {
        "device": torch.cuda.get_device_name(),
        "what_is_timed": "a whole training step: bf16 autocast, AdamW, averaged weights",
        "batch": config.batch,
        "checkpointing": checkpointing,
        "seconds_a_step": round(step, 4),
        "images_per_second": round(config.batch / step, 2),
        "tflop_an_image": round(flops, 4),
        "matrix_tflop_per_second": round(rate, 1),
        "share_of_floor": round(flops * config.batch / rate / step, 3),
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }


def on_cpu() -> dict[str, Any]:
    device = torch.device("cpu")
    net = build_denoiser(preset_named("paper").denoiser, CHANNELS, GRID)
    assert isinstance(net, DiT)
    once = backward_flops(net, device)
    once()
    started = time.perf_counter()
    flops = once()
    step = time.perf_counter() - started
    rate = matrix_rate(device, torch.float32, 2048)
    return {
        "device": f"CPU, {torch.get_num_threads()} threads",
        "what_is_timed": "forward and backward of one image in fp32; no optimiser, no average",
        "batch": 1,
        "seconds_a_step": round(step, 2),
        "images_per_second": round(1 / step, 4),
        "tflop_an_image": round(flops, 4),
        "matrix_tflop_per_second": round(rate, 4),
        "share_of_floor": round(flops / rate / step, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="Forward and backward of one image on the CPU.")
    args = parser.parse_args()
    if not args.cpu and not torch.cuda.is_available():
        sys.exit("error: no CUDA GPU here; run this on one, or give --cpu for forward and backward alone")
    found = on_cpu() if args.cpu else on_gpu(args.steps, args.checkpointing)
    parameters = sum(p.numel() for p in build_on_meta().parameters())
    document = {
        "what": (__doc__ or "").strip().splitlines()[0],
        "command": " ".join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "parameters": parameters,
        **found,
    }
    args.output.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


def build_on_meta() -> torch.nn.Module:
    with torch.device("meta"):
        return build_denoiser(preset_named("paper").denoiser, CHANNELS, GRID)


if __name__ == "__main__":
    main()
