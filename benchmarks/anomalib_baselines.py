"""anomalib's own PatchCore and PaDiM on the same images, with an extractor that is available offline.

    python -m venv OTHER && OTHER/bin/pip install anomalib tifffile  # not into invad's environment
    PYTHONPATH=src OTHER/bin/python benchmarks/anomalib_baselines.py DATA/* --teachers FOLDER \
        --output benchmarks/results/anomalib.json
    PYTHONPATH=src OTHER/bin/python benchmarks/anomalib_baselines.py DATA/aws_cookie DATA/brain_mri \
        --teachers FOLDER --models patchcore --coreset 0.1 --output benchmarks/results/anomalib.json

Their models, coresets, distances, maps and image scores; only the extractor is replaced, by the teacher
ResNet-50 of distill_invad_s.py: layers 2 and 3 for PatchCore, 1 to 3 for PaDiM, as is their default. 256 x
256 pixels, no crop. The coreset is 1 % unless `--coreset` says otherwise (their default, 10 %, is an hour of
selection for 240 images on two busy cores). Image AUROC is that of their `pred_score`. Their `anomaly_map`
is brought to the input frame of `standard` on that set, and judged there by the masks that judge ours.
Milliseconds an image are of their forward pass, the median; training is reading, features and selection.
Both are CPU time, so that other work on the machine does not count: with OMP_NUM_THREADS=1 what a core takes
that has nothing else to do. Rows of 2026-11-24 have the time of the clock (`train_seconds`, `milliseconds`).
Every model and set has a process of its own, whose peak memory is given, libraries and all. Rows are kept;
`--again` replaces those that were made without maps and memory.
"""

import argparse
import json
import os
import statistics
import time
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import anomalib
import numpy as np
import torch
from accuracy import masks_of
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from child import alone, peak_memory_mb
from distill_invad_s import load_teachers
from torch import Tensor, nn

from invad.backbones.base import Backbone
from invad.backbones.registry import load_backbone
from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.layouts.base import Dataset
from invad.data.preprocess import Preprocess, resize_map
from invad.fit.plan import plan
from invad.metrics.exact import image_metrics, pixel_metrics
from invad.model.settings import preset_named
from invad.records import Hw, Sample

LAYERS = {"layer1": 4, "layer2": 8, "layer3": 16}


class Extractor(nn.Module):
    """A backbone in the shape of anomalib's: maps by layer name."""

    def __init__(self, backbone: Backbone, layers: list[str]):
        super().__init__()
        self.backbone, self.layers = backbone, layers
        self.out_dims = [self(torch.zeros(1, 3, 64, 64))[name].shape[1] for name in layers]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        by_stride = {x.shape[-1] // m.shape[-1]: m for m in self.backbone(x)}
        return {name: by_stride[LAYERS[name]] for name in self.layers}


def image_of(sample: Sample) -> Tensor:
    return Preprocess((256, 256))(read_image(sample.path))[None]


@torch.inference_mode()
def patchcore(backbone: Backbone, train: tuple[Sample, ...], coreset: float) -> nn.Module:
    model = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False)
    model.feature_extractor = Extractor(backbone, ["layer2", "layer3"])
    model.train()
    model.feature_extractor.eval()
    for sample in train:
        model(image_of(sample))
    model.subsample_embedding(coreset)
    return model.eval()


@torch.inference_mode()
def padim(backbone: Backbone, train: tuple[Sample, ...]) -> nn.Module:
    model = PadimModel(backbone="resnet18", layers=list(LAYERS), pre_trained=False, n_features=100)
    model.feature_extractor = Extractor(backbone, list(LAYERS))
    model.idx = torch.randperm(sum(model.feature_extractor.out_dims))[:100]
    model.train()
    model.feature_extractor.eval()
    for sample in train:
        model(image_of(sample))
    model.fit()
    return model.eval()


def models(coreset: float) -> dict[str, str]:
    """Names in the rows, by those on the command line."""
    return {
        "patchcore": f"anomalib PatchCore, {100 * coreset:g} % coreset",
        "padim": "anomalib PaDiM, 100 channels",
    }


def frame_of(dataset: Dataset) -> Hw:
    """The input of `standard`, in which its maps are judged."""
    settings = preset_named("standard")
    network = load_backbone(settings.backbone, image_size=settings.area_side)
    return plan(dataset.train, settings, network, strict=True).preprocess.input_hw


def run(folder: Path, teachers: Path, name: str, coreset: float, seed: int) -> dict[str, Any]:
    dataset = load_dataset(folder)
    hw = frame_of(dataset)
    backbone = load_teachers(teachers, ["resnet50"])[0]
    fit = partial(patchcore, coreset=coreset) if name == "patchcore" else padim
    torch.manual_seed(seed)
    np.random.seed(seed)  # their random projection draws from the global generator
    started = time.process_time()
    model = fit(backbone, dataset.train)
    trained = time.process_time() - started
    scores, maps, times = [], [], []
    for x in map(image_of, dataset.test):
        started = time.process_time()
        with torch.inference_mode():
            said = model(x)
        times.append(time.process_time() - started)
        scores.append(float(said.pred_score.max()))
        maps.append(resize_map(said.anomaly_map[0, 0].numpy(), hw))
    peak = peak_memory_mb()
    masks = masks_of(dataset, hw)
    pixels = pixel_metrics([maps[i] for i in masks], list(masks.values())) if masks else {}
    labels = np.array([s.is_anomalous for s in dataset.test])
    return {
        "set": folder.name,
        "seed": seed,
        "configuration": models(coreset)[name],
        "date": date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "image_auroc": image_metrics(np.array(scores), labels)["image_auroc"],
        **{metric: pixels.get(metric) for metric in ("pixel_auroc", "pixel_aupro")},
        "map_frame": hw,
        "train_cpu_seconds": round(trained, 1),
        "cpu_milliseconds": round(1000 * statistics.median(times), 1),
        "peak_memory_mb": peak,
    }


def mean_of(rows: list[dict[str, Any]], configuration: str) -> dict[str, Any]:
    own = [r for r in rows if r["configuration"] == configuration]
    means: dict[str, Any] = {"sets": len({r["set"] for r in own})}
    for metric in ("image_auroc", "pixel_aupro"):
        values = [r[metric] for r in own if r.get(metric) is not None]
        means[metric] = round(statistics.mean(values), 4) if values else None
    return means


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--models", default="patchcore,padim")
    parser.add_argument("--coreset", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="replace rows that have no memory")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    before = json.loads(args.output.read_text()) if args.output.exists() else {"rows": []}
    rows = [{"date": before.get("date"), **row} for row in before["rows"]]
    for folder in (f for f in args.folders if f.is_dir()):
        for name in args.models.split(","):
            key = (folder.name, args.seed, models(args.coreset)[name])
            old = [r for r in rows if (r["set"], r["seed"], r["configuration"]) == key]
            if old and not (args.again and "peak_memory_mb" not in old[0]):
                continue
            row = alone(run, folder, args.teachers, name, args.coreset, args.seed)
            rows = [*(r for r in rows if r not in old), row]
            print(row, flush=True)
            document = {
                "what": __doc__.strip().splitlines()[0],
                "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
                "versions": {"anomalib": anomalib.__version__, "torch": torch.__version__},
                "means": {c: mean_of(rows, c) for c in dict.fromkeys(r["configuration"] for r in rows)},
                "rows": rows,
            }
            args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
