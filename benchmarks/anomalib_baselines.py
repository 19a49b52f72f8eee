"""anomalib's own PatchCore and PaDiM on the same images, with an extractor that is available offline.

    python -m venv OTHER && OTHER/bin/pip install anomalib tifffile  # not into invad's environment
    PYTHONPATH=src OTHER/bin/python benchmarks/anomalib_baselines.py DATA/* --teachers FOLDER \
        --output benchmarks/results/anomalib.json

Their models, coresets, distances and image scores; only the extractor is replaced, by the teacher ResNet-50
of distill_invad_s.py: layers 2 and 3 for PatchCore, 1 to 3 for PaDiM, as is their default. 256 x 256
pixels, no crop. The coreset is 1 % (their default, 10 %, takes hours for 240 images on two cores). Image
AUROC of their `pred_score`, milliseconds an image of their forward pass, median of 20. Rows are kept.
"""

import argparse
import json
import os
import statistics
import time
from datetime import date
from pathlib import Path
from typing import Any

import anomalib
import numpy as np
import torch
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from distill_invad_s import load_teachers
from torch import Tensor, nn

from invad.backbones.base import Backbone
from invad.data.datasets import load_dataset
from invad.data.images import read_image
from invad.data.preprocess import Preprocess
from invad.metrics.exact import image_metrics
from invad.records import Sample

LAYERS = {"layer1": 4, "layer2": 8, "layer3": 16}
CORESET = 0.01


class Extractor(nn.Module):
    """A backbone in the shape of anomalib's: maps by layer name."""

    def __init__(self, backbone: Backbone, layers: list[str]):
        super().__init__()
        self.backbone, self.layers = backbone, layers
        self.out_dims = [self(torch.zeros(1, 3, 64, 64))[name].shape[1] for name in layers]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        by_stride = {x.shape[-1] // m.shape[-1]: m for m in self.backbone(x)}
        return {name: by_stride[LAYERS[name]] for name in self.layers}


def images(samples: tuple[Sample, ...]) -> list[Tensor]:
    preprocess = Preprocess((256, 256))
    return [preprocess(read_image(s.path))[None] for s in samples]


@torch.inference_mode()
def patchcore(backbone: Backbone, train: list[Tensor]) -> nn.Module:
    model = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False)
    model.feature_extractor = Extractor(backbone, ["layer2", "layer3"])
    model.train()
    model.feature_extractor.eval()
    for x in train:
        model(x)
    model.subsample_embedding(CORESET)
    return model.eval()


@torch.inference_mode()
def padim(backbone: Backbone, train: list[Tensor]) -> nn.Module:
    model = PadimModel(backbone="resnet18", layers=list(LAYERS), pre_trained=False, n_features=100)
    model.feature_extractor = Extractor(backbone, list(LAYERS))
    model.idx = torch.randperm(sum(model.feature_extractor.out_dims))[:100]
    model.train()
    model.feature_extractor.eval()
    for x in train:
        model(x)
    model.fit()
    return model.eval()


MODELS = {"anomalib PatchCore, 1 % coreset": patchcore, "anomalib PaDiM, 100 channels": padim}


def run(folder: Path, backbone: Backbone, name: str, seed: int) -> dict[str, Any]:
    dataset = load_dataset(folder)
    torch.manual_seed(seed)
    started = time.perf_counter()
    model = MODELS[name](backbone, images(dataset.train))
    trained = time.perf_counter() - started
    scores, times = [], []
    for x in images(dataset.test):
        started = time.perf_counter()
        with torch.inference_mode():
            scores.append(float(model(x).pred_score.max()))
        times.append(time.perf_counter() - started)
    labels = np.array([s.is_anomalous for s in dataset.test])
    return {
        "set": folder.name,
        "seed": seed,
        "configuration": name,
        "image_auroc": image_metrics(np.array(scores), labels)["image_auroc"],
        "train_seconds": round(trained, 1),
        "milliseconds": round(1000 * statistics.median(times[:20]), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--teachers", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    backbone = load_teachers(args.teachers, ["resnet50"])[0]
    for folder in (f for f in args.folders if f.is_dir()):
        for name in MODELS:
            if any((r["set"], r["seed"], r["configuration"]) == (folder.name, args.seed, name) for r in rows):
                continue
            rows.append(run(folder, backbone, name, args.seed))
            print(rows[-1], flush=True)
            means = {}
            for model in MODELS:
                values = [r["image_auroc"] for r in rows if r["configuration"] == model]
                means[model] = round(statistics.mean(values), 4) if values else None
            document = {
                "what": __doc__.strip().splitlines()[0],
                "date": date.today().isoformat(),
                "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
                "threads": torch.get_num_threads(),
                "versions": {"anomalib": anomalib.__version__, "torch": torch.__version__},
                "mean_image_auroc": means,
                "rows": rows,
            }
            args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
