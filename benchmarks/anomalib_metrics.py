"""invad in anomalib's Engine, and anomalib's own metrics beside invad's on the same predictions.

    python -m venv OTHER && OTHER/bin/pip install '.[anomalib]'
    OTHER/bin/python benchmarks/anomalib_metrics.py DATA/mvtec_bottle DATA/aws_cookie \
        --output benchmarks/results/anomalib_metrics.json

The images of each set are linked under names that anomalib's `Folder` pairs with their masks; it reads them
and resizes both to 256 x 256. `Engine.fit` fits `invad.integrations.anomalib.InvAD` with the preset `fast`,
`Engine.predict` gives scores and maps of the test part. Both sides then measure these: anomalib's AUROC,
AUPR, F1Max and AUPRO, as they stand, and `invad.metrics.exact`. Beside them are the labels by the limits of
held-out normal images.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import anomalib
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.metrics import AUPR, AUPRO, AUROC, F1Max
from torchvision.transforms.v2 import Resize

from invad.data.datasets import load_dataset
from invad.integrations.anomalib import InvAD
from invad.metrics.exact import image_metrics, pixel_metrics

SIDE = 256
THEIRS = {"auroc": AUROC, "ap": AUPR, "f1max": F1Max}


def measure(root: Path, stack: ExitStack) -> dict[str, Any]:
    """One row: what both sides say of the same predictions."""
    dataset = load_dataset(root)
    links = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for sample, place in [(s, "train") for s in dataset.train] + [(s, "test") for s in dataset.test]:
        folder = links / place / ("bad" if sample.is_anomalous else "good")
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{len(list(folder.iterdir())):05d}"
        (folder / f"{name}{sample.path.suffix}").symlink_to(sample.path.resolve())
        if sample.mask_path is not None:
            (links / "masks").mkdir(exist_ok=True)
            (links / "masks" / f"{name}{sample.mask_path.suffix}").symlink_to(sample.mask_path.resolve())
    data = Folder(
        name=root.name,
        root=links,
        normal_dir="train/good",
        normal_test_dir="test/good",
        abnormal_dir="test/bad",
        mask_dir="masks",
        train_batch_size=8,
        eval_batch_size=8,
        num_workers=0,
        augmentations=Resize((SIDE, SIDE)),
        val_split_mode="same_as_test",
    )
    started = time.process_time()
    results = stack.enter_context(tempfile.TemporaryDirectory())
    engine = Engine(default_root_dir=results, logger=False, accelerator="cpu", enable_progress_bar=False)
    model = InvAD(preset="fast", visualizer=False)
    engine.fit(model=model, datamodule=data)
    batches = engine.predict(model=model, dataloaders=data.test_dataloader())
    fields = {
        "image": (["pred_score", "gt_label"], {**THEIRS}),
        "pixel": (["anomaly_map", "gt_mask"], {**THEIRS, "aupro": AUPRO}),
    }
    theirs = {}
    print(root.name, "predicted", round(time.process_time() - started), "s", file=sys.stderr)
    for where, (names, metrics) in fields.items():
        for name, kind in metrics.items():
            metric = kind(fields=names)
            for batch in batches:
                metric.update(batch)
            theirs[f"{where}_{name}"] = float(metric.compute())
    scores = torch.cat([batch.pred_score for batch in batches]).numpy()
    labels = torch.cat([batch.gt_label for batch in batches]).numpy().astype(bool)
    called = torch.cat([batch.pred_label for batch in batches]).numpy().astype(bool)
    maps = [one.numpy().squeeze() for batch in batches for one in batch.anomaly_map]
    truth = [one.numpy().squeeze().astype(bool) for batch in batches for one in batch.gt_mask]
    ours = image_metrics(scores, labels) | pixel_metrics(maps, truth)
    return {
        "set": root.name,
        "normals": len(data.train_data),
        "test_good": int((~labels).sum()),
        "test_defective": int(labels.sum()),
        "called_bad_of_good": int(called[~labels].sum()),
        "called_bad_of_defective": int(called[labels].sum()),
        "invad": {name: round(float(ours[name]), 8) for name in theirs},
        "anomalib": {name: round(value, 8) for name, value in theirs.items()},
        "largest_difference": max(abs(ours[name] - value) for name, value in theirs.items()),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    rows = []
    for root in chosen.sets:
        with ExitStack() as stack:
            rows.append(measure(root, stack))
    result = {
        "what": (__doc__ or "").splitlines()[0],
        "date": date.today().isoformat(),
        "versions": {"anomalib": anomalib.__version__, "torch": torch.__version__},
        "rows": rows,
    }
    chosen.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
