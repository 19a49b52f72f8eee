"""The paper's method trained as the paper trains it, in everything but size, and read along the training.

    python benchmarks/paper_m.py DATA/mvtec_bottle DATA/kolektor_sdd DATA/magnetic_tile \
        --work work --output benchmarks/results/paper_m.json

One training of the preset `paper-m` for each set and kind of features (published, or standardised), stopped
after so many passes to read the averaged weights there: the inversion and the reconstruction at S = 1 to 50
under all scorings of `invad paper ablate`, the loss by level on held-out normals, and what the walk does to
norms. Beside them, on the same features, the exact predictor of a Gaussian with their mean and covariance,
which knows its noise at every level. Rows already in the output are kept and trainings are continued, so the
same command goes on after an interruption.
"""

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.layouts.base import Dataset
from invad.diffusion.base import Denoiser
from invad.diffusion.ddim import invert, q_sample
from invad.diffusion.schedule import SCHEDULE, timesteps
from invad.evaluation.machine import facts
from invad.fit.distributed import Solo
from invad.fit.fit import train_apart
from invad.fit.run import Run
from invad.fit.training import Execution, fingerprint
from invad.model.reading import Model
from invad.model.settings import Preset, preset_named
from invad.observer import Silent
from invad.paper.ablation.run import BATCH, Tests, measured, read_tests, reader
from invad.paper.ablation.scorings import CALIBRATED, PAPER
from invad.paper.ablation.studies import Variant, inversion, reconstruction
from invad.records import Sample
from invad.system.plain import to_plain

PRESETS = {"published": "paper-m", "standardised": "paper-m-standardised"}
STEPS = (1, 2, 3, 5, 10, 50)
LEVELS = (200, 500, 800)
SHOWN = ("NLL", "Diff", PAPER, CALIBRATED)
EARLY = (0, 100, 200, 300, 500, 700)
LOSS_AT = (0, 10, 50, 100, 200, 300, 500, 700, 999)
WALKED = (3, 10)
COVERED = 0.1
"""Share of a cell; cracks fill hardly any."""

BRIEFLY = (3, 10)
"""Steps of the reconstructions before the end of a training; those of all steps take longer than the rest."""


class Compiled(Solo):
    """One process whose network is compiled for training: a step takes two thirds of the time."""

    def wrap(self, net: nn.Module) -> nn.Module:
        compiled: nn.Module = torch.compile(net)
        return compiled


class InBf16(Denoiser):
    """A trained network read in bf16, as a GPU reads it by default, compiled for one size of batch.

    Tensors outside stay float32.
    """

    def __init__(self, net: Denoiser):
        super().__init__()
        self.net = torch.compile(net, dynamic=False)

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        images = len(x_BChw)
        x = torch.cat([x_BChw, x_BChw.new_zeros(BATCH - images, *x_BChw.shape[1:])])
        with torch.autocast(x.device.type, torch.bfloat16):
            # All images of a walk are at one level.
            noise: Tensor = self.net(x, t_B[:1])
        return noise[:images].float()


class Gaussian(Denoiser):
    """The exact noise predictor of cells x ~ N(m, V), V = Q diag(v) Q^T:

    E[eps | x_t] = sqrt(1 - a) (a V + 1 - a)^-1 (x_t - sqrt(a) m)
    """

    def __init__(self, x_NChw: Tensor):
        super().__init__()
        cells = x_NChw.transpose(0, 1).flatten(1).double()
        self.mean = cells.mean(dim=1)
        self.v, self.q = torch.linalg.eigh(torch.cov(cells))
        self.v = self.v.clamp_min(0)

    def forward(self, x_BChw: Tensor, t_B: Tensor) -> Tensor:
        a = SCHEDULE.abar(int(t_B[0]))
        centred = x_BChw.double() - a**0.5 * self.mean.view(1, -1, 1, 1)
        filtered = (1 - a) ** 0.5 / (a * self.v + 1 - a)
        matrix = (self.q * filtered) @ self.q.T
        return torch.einsum("dc,bchw->bdhw", matrix, centred).float()


@dataclass(frozen=True, slots=True)
class Stop:
    """A recorder that ends a training after a step as Ctrl-C would, which keeps its state; prints losses."""

    last: int
    every: int = 100

    def record(self, stage: str, step: int, values: dict[str, float]) -> None:
        if step % self.every == 0:
            print(f"{time.strftime('%H:%M:%S')} {stage} {step} {values['loss']:.4f}", flush=True)
        if step >= self.last:
            raise KeyboardInterrupt


def variants(final: bool, brief: bool) -> list[Variant]:
    read = [
        Variant(str(s), "inversion", s, partial(inversion, timesteps("reference", s)))
        for s in STEPS
        if final or s <= max(BRIEFLY)
    ]
    # What the detector of this package reads: no walk, the noise in the clean features at a level.
    read += [Variant(str(t), f"clean features at {t}", 1, partial(inversion, (t,))) for t in EARLY]
    return read + [
        Variant(str(s), f"reconstruction from {level}", s, partial(reconstruction, level, s))
        for level in LEVELS
        for s in (STEPS if final and not brief else BRIEFLY)
        if s <= max(BRIEFLY) or level == min(LEVELS)
    ]


def trained_until(
    dataset: Dataset, settings: Preset, passes: int, steps: int, work: Path, cache: Path, precision: str
) -> tuple[dict[str, Tensor], float, float]:
    """Averaged weights after so many passes of a training, its last loss, and CPU seconds spent here."""
    kept, spent = work / f"at-{passes}.safetensors", work / f"at-{passes}.seconds"
    if not kept.exists():
        last = max(1, round(steps * passes / settings.train.epochs))
        run = Run(
            work=work,
            cache=cache,
            workers=Compiled(),
            execution=Execution(precision=precision),
            recorder=Stop(last),
        )
        started = time.process_time()
        with suppress(KeyboardInterrupt):
            train_apart(dataset.train, settings, settings.load_backbone(), run=run)
        spent.write_text(f"{time.process_time() - started:.0f}")
        (work / "denoiser.safetensors").rename(kept)
        # The training goes on from a copy.
        (work / "denoiser.safetensors").write_bytes(kept.read_bytes())
    tensors = load_file(kept)
    weights = {k.removeprefix("average."): v for k, v in tensors.items() if k.startswith("average.")}
    return weights, float(tensors["losses"].mean()), float(spent.read_text())


def rows_of(
    model: Model, held: NDArray[np.float32], tests: Tests, final: bool, brief: bool
) -> list[dict[str, Any]]:
    """Metrics of every reading under every scoring."""
    # Masks are for the mechanism; pixel metrics of so many readings would take hours.
    tests = replace(tests, masks=(None,) * len(tests.samples))
    rows = []
    for variant in variants(final, brief):
        read = reader(model, variant)
        for row in measured(read(tests.z_NChw), read(held), tests, model.settings):
            short = {"S": variant.evaluations, "series": variant.series, "scoring": row["scoring"]}
            rows.append(short | {"image_auroc": row["image_auroc"]})
    return rows


@torch.inference_mode()
def mechanism(model: Model, held: NDArray[np.float32], tests: Tests) -> dict[str, Any]:
    """The loss by level on held-out normals, and root mean squares along the walk by kind of image and cell.

    Of defective images also of the cells inside a defect, of held-out ones also of those places.
    """
    bad = np.array([s.is_anomalous for s in tests.samples])
    kinds = {"held out": held, "good": tests.z_NChw[~bad], "defective": tests.z_NChw[bad]}
    x = {kind: model.space(torch.from_numpy(z)) for kind, z in kinds.items()}
    grid_hw = x["held out"].shape[2:]
    inside = torch.stack([defect_cells(tests.masks[i], grid_hw) for i in np.flatnonzero(bad)])
    predict = model.denoiser.predict_noise
    walks = {}
    for steps in WALKED:
        levels = timesteps("reference", steps)
        walk = {kind: invert_all(predict, one, levels) for kind, one in x.items()}
        walks[str(steps)] = {
            "levels": list(levels),
            **{kind: walked(one) for kind, one in walk.items()},
            "inside defects": walked(walk["defective"], inside),
            "held out, same places": walked(walk["held out"], inside.sum(dim=0)),
            "terminal norm inside defects below the median of the same place": below(walk, inside),
        }
    return {
        "loss": losses(predict, x["held out"]),
        "cells inside defects": int(inside.sum()),
        "walks": walks,
    }


def defect_cells(mask: NDArray[np.bool_] | None, grid_hw: Sequence[int]) -> Tensor:
    """Cells of which a defect covers at least COVERED: h x w bool."""
    if mask is None:
        return torch.zeros(*grid_hw, dtype=torch.bool)
    return F.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), tuple(grid_hw))[0] >= COVERED


def invert_all(predict: Any, x_NChw: Tensor, levels: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """Latents and noises, each of all images: one pair for each step; the last latent is the last noise."""
    parts = [invert(predict, part, SCHEDULE, levels) for part in x_NChw.split(BATCH)]
    return [
        (torch.cat([p.latents[i] for p in parts]), torch.cat([p.noises[i] for p in parts]))
        for i in range(len(levels))
    ]


def walked(steps: Sequence[tuple[Tensor, Tensor]], weights: Tensor | None = None) -> dict[str, list[float]]:
    """Root mean square of latents and noises and the mean cosine between them, step by step."""

    def mean(values_Nhw: Tensor) -> float:
        w = torch.ones_like(values_Nhw) if weights is None else weights.expand_as(values_Nhw).float()
        return float((values_Nhw * w).sum() / w.sum().clamp_min(1e-9))

    return {
        "latent": [round(mean(x.square().mean(dim=1)) ** 0.5, 5) for x, _ in steps],
        "noise": [round(mean(e.square().mean(dim=1)) ** 0.5, 5) for _, e in steps],
        "cosine": [round(mean(F.cosine_similarity(x, e, dim=1)), 4) for x, e in steps],
    }


def below(walk: dict[str, list[tuple[Tensor, Tensor]]], inside: Tensor) -> float | None:
    """Share of the cells inside defects whose last noise is shorter than half of the held-out normals'."""
    lengths = {kind: torch.linalg.vector_norm(steps[-1][1], dim=1) for kind, steps in walk.items()}
    shorter = lengths["defective"] < lengths["held out"].median(dim=0).values
    return round(float(shorter[inside].float().mean()), 4) if inside.any() else None


def losses(predict: Any, x_NChw: Tensor) -> dict[str, float]:
    """Mean square error of the noise predicted on noised held-out normals; predicting nothing gives 1."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x_NChw.shape, generator=generator)
    found = {}
    for t in LOSS_AT:
        noised = q_sample(x_NChw, noise, t, SCHEDULE)
        level = torch.full((1,), t)
        made = torch.cat([predict(part, level.expand(len(part))) for part in noised.split(BATCH)])
        found[str(t)] = round(float(F.mse_loss(made, noise)), 5)
    return found


def joined(datasets: Sequence[Dataset]) -> Dataset:
    """One set whose categories are those of all, each under the name of its own folder."""

    def named(d: Dataset, samples: Sequence[Sample]) -> list[Sample]:
        return [replace(s, category=d.root.name) for s in samples]

    train = [s for d in datasets for s in named(d, d.train)]
    test = [s for d in datasets for s in named(d, d.test)]
    return replace(datasets[0], train=tuple(train), test=tuple(test))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--features", default="published,standardised")
    parser.add_argument("--total", type=int, help="passes of the whole training; 300 unless given")
    parser.add_argument("--passes", default="25,75,150,300,gaussian", help="where to read, up to the total")
    parser.add_argument("--width", type=int, help="of another network; 256 unless given")
    parser.add_argument("--unified", action="store_true", help="one network for all sets")
    parser.add_argument("--brief", action="store_true", help="few reconstructions at the end, too")
    parser.add_argument("--precision", default="bf16", help="of training and reading")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder of trainings and features")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    groups = [args.data] if args.unified else [[folder] for folder in args.data]
    for folders in groups:
        for features in args.features.split(","):
            run(folders, features, args)


def run(folders: Sequence[Path], features: str, args: argparse.Namespace) -> None:
    base = preset_named(PRESETS[features])
    settings = replace(
        base, train=replace(base.train, epochs=args.total or base.train.epochs, seed=args.seed)
    )
    if args.width:
        settings = replace(settings, denoiser=replace(settings.denoiser, width=args.width))
    sets = [load_dataset(folder) for folder in folders]
    dataset = joined(sets) if len(sets) > 1 else sets[0]
    name = "+".join(folder.name for folder in folders)
    work = args.work / fingerprint(to_plain(settings), name, args.precision)
    cache = args.work / "features"
    # Everything but the training: the space, the held-out share, an untrained network of the same shape.
    brief = replace(settings, train=replace(settings.train, steps=1))
    empty, held = train_apart(dataset.train, brief, settings.load_backbone(), run=Run(cache=cache))
    steps = settings.train.steps_for(len(dataset.train) - len(held))
    test_of = {s.root.name if len(sets) > 1 else name: s.test for s in sets}
    # What was held out is told apart from the rest by its features alone.
    features_of = {s.root.name if len(sets) > 1 else name: raw_features(empty, s.train) for s in sets}
    known = {z.tobytes() for z in held}
    held_of = {one: np.array([z for z in held if z.tobytes() in own]) for one, own in features_of.items()}
    kept = [z for own in features_of.values() for mark, z in own.items() if mark not in known]
    gaussian = Gaussian(torch.stack([empty.space(z[None])[0] for z in kept]))
    tests: dict[str, Tests] = {}
    for passes in [int(p) if p.isdecimal() else p for p in args.passes.split(",")]:
        key = {
            "set": name,
            "features": features,
            "width": settings.denoiser.width,
            "total_passes": settings.train.epochs,
            "seed": args.seed,
            "passes": passes,
        }
        if key in [{k: row[k] for k in key} for row in rows_in(args.output)]:
            continue
        seconds, loss = 0.0, None
        if passes == "gaussian":
            model = replace(empty, denoiser=gaussian)
        else:
            weights, loss, seconds = trained_until(
                dataset, settings, passes, steps, work, cache, args.precision
            )
            empty.denoiser.load_state_dict(weights)
            net = empty.denoiser.eval()
            model = replace(empty, denoiser=InBf16(net) if args.precision == "bf16" else net)
        started = time.process_time()
        found = {}
        for one, samples in test_of.items():
            if one not in tests:
                tests[one] = read_tests(model, samples, True, Silent())
            final = passes in (settings.train.epochs, "gaussian")
            found[one] = {
                "readings": rows_of(model, held_of[one], tests[one], final, args.brief),
                "mechanism": mechanism(model, held_of[one], tests[one]),
            }
        row = key | {
            "steps": steps,
            "images": len(dataset.train) - len(held),
            "held_out": len(held),
            "channels": empty.space.channels,
            "parameters": sum(p.numel() for p in empty.denoiser.parameters()),
            "training_loss": loss and round(loss, 5),
            "cpu_seconds": round(seconds),
            "reading_cpu_seconds": round(time.process_time() - started),
            "sets": found,
            "machine": facts(),
        }
        write(args.output, [*rows_in(args.output), row])
        print(f"{time.strftime('%H:%M:%S')} read {key}, training {seconds:.0f} s", flush=True)


def raw_features(model: Model, samples: Sequence[Sample]) -> dict[bytes, Tensor]:
    """Raw features C x h x w of images, by their bytes."""
    z_NChw = [model.extract(read_image(sample.path))[0].cpu() for sample in samples]
    return {z.numpy().tobytes(): z for z in z_NChw}


def rows_in(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    return rows


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    command = "python benchmarks/paper_m.py DATA/mvtec_bottle DATA/kolektor_sdd DATA/magnetic_tile"
    document = {"what": (__doc__ or "").splitlines()[0], "command": command, "rows": list(rows)}
    path.write_text(json.dumps(document, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(rows))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Image AUROC of every reading: a table for each set, kind of features and network."""
    lines = ["Image AUROC, seed 0; made by `benchmarks/paper_m.py`, everything else is in paper_m.json.", ""]
    tables: dict[str, dict[tuple[str, str, str], dict[int, float]]] = {}
    for row in rows:
        for one, found in row["sets"].items():
            title = f"{one}, {row['features']} features, width {row['width']}, {row['images']} images"
            table = tables.setdefault(title + (", unified" if "+" in row["set"] else ""), {})
            passes = (
                row["passes"] if row["passes"] == "gaussian" else f"{row['passes']}/{row['total_passes']}"
            )
            for reading in found["readings"]:
                if reading["scoring"] in SHOWN:
                    line = table.setdefault((passes, reading["series"], reading["scoring"]), {})
                    line[reading["S"]] = reading["image_auroc"]
    for title, table in tables.items():
        lines += [f"**{title}**", "", f"| passes | reading | scoring | {' | '.join(map(str, STEPS))} |"]
        lines += ["|---" * (3 + len(STEPS)) + "|"]
        for key, line in table.items():
            cells = [f"{line[s]:.3f}" if s in line else "" for s in STEPS]
            lines.append(f"| {' | '.join((*key, *cells))} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
