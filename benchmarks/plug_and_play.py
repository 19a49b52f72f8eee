"""Is the inversion score plug-and-play? One diffusion model of diffusers, read in several ways.

    python benchmarks/plug_and_play.py DATA/mvtec_bottle --work WORK \
        --output benchmarks/results/plug_and_play.json

For each seed a small UNet2DModel learns the good training images in pixels, all but a fifth, on which every
reading is calibrated in the same way. Nothing is chosen on test images. WORK keeps the trained pipelines, in
the layout of diffusers, and the rows of each seed, and a second call takes them from there. Speed is that of
single images on one thread, in processor time, all readings in turns, so that other work counts little.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor

from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.preprocess import Preprocess
from invad.diffusion.ddim import invert
from invad.diffusion.readings import ReadingConfig, norms, reconstruction_residual
from invad.diffusion.schedule import timesteps
from invad.evaluation.machine import facts
from invad.integrations.diffusers import NoiseModel, from_pipeline, noise_model
from invad.integrations.diffusers.detector import cell_lengths
from invad.metrics.exact import auroc
from invad.records import Sample
from invad.scoring.holding import hold_out
from invad.scoring.typicality import (
    ScoreRule,
    fit_position_stats,
    image_scores,
    judge,
    paper_fusion,
    paper_terms,
)

SIDE, WIDTHS, BATCH, RATE, WARMUP, AVERAGING = 32, (32, 64, 96), 8, 4e-4, 100, 0.995
TOGETHER, TIMED = 25, 12
"""Images at a time where only the score counts, and single images that are timed."""

RECONSTRUCTIONS = ((250, 10), (500, 3), (500, 10), (500, 50))
"""Level that images are noised to, and steps back."""

INVERSIONS = (3, 10)


def pixels(samples: Sequence[Sample]) -> Tensor:
    """N x 3 x SIDE x SIDE in [-1, 1]."""
    preprocess = Preprocess((SIDE, SIDE))
    return 2 * torch.stack([preprocess(read_image(sample.path)) for sample in samples]) - 1


def network() -> UNet2DModel:
    return UNet2DModel(
        sample_size=SIDE,
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
    )


def train(samples: Sequence[Sample], steps: int, seed: int) -> tuple[DDPMPipeline, float, list[float]]:
    """The pipeline with averaged weights, seconds of processor time, and the mean loss of each tenth."""
    torch.manual_seed(seed)
    x_N3HW, unet, scheduler = pixels(samples), network(), DDPMScheduler()
    unet.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(unet.parameters(), RATE, weight_decay=0.01)
    average = EMAModel(unet.parameters(), decay=AVERAGING)
    losses, began = [], time.process_time()
    for step in range(steps):
        share = min(1.0, (step + 1) / WARMUP) * 0.5 * (1 + np.cos(np.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = RATE * share
        x = x_N3HW[torch.randint(len(x_N3HW), (BATCH,))].contiguous(memory_format=torch.channels_last)
        noise, t = torch.randn_like(x), torch.randint(1000, (BATCH,))
        with torch.autocast("cpu", torch.bfloat16):
            predicted = unet(scheduler.add_noise(x, noise, t), t).sample
        loss = (predicted.float() - noise).square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        average.step(unet.parameters())
        losses.append(loss.item())
    average.copy_to(unet.parameters())
    tenths = [round(float(np.mean(part)), 4) for part in np.array_split(losses, 10)]
    return DDPMPipeline(unet=unet.eval(), scheduler=scheduler), time.process_time() - began, tenths


def trained(folder: Path, samples: Sequence[Sample], steps: int, seed: int) -> DDPMPipeline:
    if not (folder / "model_index.json").is_file():
        pipeline, seconds, losses = train(samples, steps, seed)
        pipeline.save_pretrained(folder)
        (folder / "training.json").write_text(json.dumps({"seconds": round(seconds), "losses": losses}))
    return DDPMPipeline.from_pretrained(folder, local_files_only=True)


@dataclass(frozen=True)
class Way:
    """A way to read an image. evaluations: of the network.

    maps: norm maps B x L x h x w of images in [0, 1]. plain: a score of these maps without a calibration.
    """

    name: str
    evaluations: int
    maps: Callable[[Tensor], Tensor]
    plain: Callable[[Tensor], Tensor]


def ways(pipe: DDPMPipeline, held: Sequence[Sample]) -> list[Way]:
    model, found = noise_model(pipe), []
    detector = from_pipeline(pipe, held)
    top, cell = detector.info.rule.top_fraction, detector.info.cell

    def largest(maps_NLhw: Tensor) -> Tensor:
        return image_scores(maps_NLhw.mean(dim=1), top)

    for level, steps in RECONSTRUCTIONS:
        name = f"reconstruction from level {level}, {steps} steps"
        found.append(Way(name, steps, partial(residual, model, cell, level, steps), largest))
    for steps in INVERSIONS:
        reading = ReadingConfig(kind="inversion", timesteps=timesteps("reference", steps))
        walked = from_pipeline(pipe, held, reading=reading)
        found.append(Way(f"inversion, {steps} steps", steps, walked.read_batch, largest))
    levels = len(detector.info.reading.timesteps)
    return [*found, Way("early reading", levels, detector.read_batch, largest)]


@torch.inference_mode()
def residual(model: NoiseModel, cell: int, level: int, steps: int, x_B3HW: Tensor) -> Tensor:
    """Length of what a reconstruction loses, B x 1 x h x w; the noise of an image is always the same."""
    z = model.encode(x_B3HW)
    noise = torch.randn(z.shape[1:], generator=torch.Generator().manual_seed(0)).expand_as(z)
    lost = reconstruction_residual(model.predict_noise, z, noise, model.schedule, level, steps)
    return cell_lengths(norms(lost)[:, None], cell)


@torch.inference_mode()
def published(model: NoiseModel, steps: int, x_N3HW: Tensor) -> Tensor:
    """The paper's score, NLL + Diff of the last latent, each scaled over all images given: N."""
    levels, terms = timesteps("reference", steps), []
    for x in x_N3HW.split(TOGETHER):
        walk = invert(model.predict_noise, model.encode(x), model.schedule, levels)
        terms.append(paper_terms(walk.latent)[1:])
    return paper_fusion(*(torch.cat(part) for part in zip(*terms, strict=True)))


def seconds_each(found: Sequence[Way], x_N3HW: Tensor) -> list[float]:
    """Median processor time of one image for each way, taken in turns."""
    times = []
    for x in x_N3HW[: TIMED + 1].split(1):
        row = []
        for way in found:
            began = time.process_time()
            way.maps(x)
            row.append(time.process_time() - began)
        times.append(row)
    return np.median(times[1:], axis=0).tolist()


def rows_of(
    pipe: DDPMPipeline, held: Sequence[Sample], test: Sequence[Sample], seed: int
) -> list[dict[str, Any]]:
    found, labels = ways(pipe, held), [sample.is_anomalous for sample in test]
    x_held, x_test = ((pixels(samples) + 1) / 2 for samples in (held, test))
    rows = []
    for way, seconds in zip(found, seconds_each(found, x_test), strict=True):
        held_NLhw, test_NLhw = (
            torch.cat([way.maps(x) for x in xs.split(TOGETHER)]) for xs in (x_held, x_test)
        )
        rule = ScoreRule.of((held_NLhw.shape[1],), floor=0.5)
        scores, _ = judge(test_NLhw, fit_position_stats(held_NLhw), rule)
        rows.append(
            {
                "seed": seed,
                "way": way.name,
                "evaluations": way.evaluations,
                "calibrated": round(auroc(scores.numpy(), labels), 4),
                "plain": round(auroc(way.plain(test_NLhw).numpy(), labels), 4),
                "published": None,
                "images_per_second": round(1 / seconds, 2),
            }
        )
    for row, steps in ((rows[len(RECONSTRUCTIONS) + i], steps) for i, steps in enumerate(INVERSIONS)):
        row["published"] = round(auroc(published(noise_model(pipe), steps, x_test).numpy(), labels), 4)
    for row in rows:
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    dataset, rows, trainings = load_dataset(options.data), [], {}
    for seed in options.seeds:
        kept, held = hold_out(len(dataset.train), seed)
        folder = options.work / f"{options.data.name}-{seed}"
        pipe = trained(folder, [dataset.train[i] for i in kept], options.steps, seed)
        trainings[seed] = json.loads((folder / "training.json").read_text())
        read = folder / "rows.json"
        if not read.is_file():
            found = rows_of(pipe, [dataset.train[i] for i in held], dataset.test, seed)
            read.write_text(json.dumps(found))
        rows += json.loads(read.read_text())
    made = {
        "machine": facts(),
        "diffusers": diffusers.__version__,
        "data": options.data.name,
        "images": {"trained": len(kept), "held out": len(held), "test": len(dataset.test)},
        "network": {
            "side": SIDE,
            "widths": WIDTHS,
            "parameters": sum(p.numel() for p in network().parameters()),
            "steps": options.steps,
            "batch": BATCH,
        },
        "trainings": trainings,
        "rows": rows,
    }
    options.output.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
