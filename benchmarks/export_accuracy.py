"""What an exported engine and its precision cost in image AUROC, against the PyTorch detector it was made of.

    python benchmarks/export_accuracy.py DATA/* --output benchmarks/results/export_accuracy.json

Seed 0, a model for each set, of `fast` or another `--preset`; int8 is fitted to its training images. Rows
already in the output are kept.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from invad import runtime
from invad.data.datasets import load_dataset
from invad.detector.detector import Detector
from invad.errors import InvadError
from invad.evaluation.machine import facts
from invad.export import ExportConfig, export
from invad.metrics.exact import image_metrics

VARIANTS = (("onnx", "fp32"), ("onnx", "int8"), ("openvino", "int8"))


VNNI = ("avx512_vnni", "avx_vnni")
"""Instructions that sum 8-bit products in 32 bits; without one they are summed in 16."""


def flags() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().split() if path.exists() else []


def auroc(predictions: list[Any], labels: Any) -> float:
    return image_metrics(np.array([p.score for p in predictions]), labels)["image_auroc"]


def rows_of(folder: Path, preset: str) -> list[dict[str, Any]]:
    dataset = load_dataset(folder)
    paths, labels = [s.path for s in dataset.test], np.array([s.is_anomalous for s in dataset.test])
    detector = Detector.fit(dataset.train, preset=preset, seed=0, device="cpu")
    usual = list(detector.predict(paths))
    own = {"preset": preset, "set": folder.name}
    row = own | {"engine": "torch", "precision": "fp32"}
    rows = [row | {"image_auroc": auroc(usual, labels)}]
    with tempfile.TemporaryDirectory() as place:
        for form, precision in VARIANTS:
            bundle = Path(place) / f"{form}-{precision}"
            config = ExportConfig(
                format=form,
                precision=precision,
                calibration=dataset.train[0].path.parent if precision == "int8" else None,
                max_changed=1.0,
            )
            row = own | {"engine": form, "precision": precision}
            try:
                export(detector, bundle, config)
            except InvadError as error:
                rows.append(row | {"refused": str(error)})
                continue
            found = list(runtime.load(bundle).predict(paths))
            changed = sum(p.decision != q.decision for p, q in zip(found, usual, strict=True))
            row |= {"image_auroc": auroc(found, labels), "decisions_changed": changed, "images": len(paths)}
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    rows = json.loads(args.output.read_text())["rows"] if args.output.exists() else []
    for folder in args.folders:
        if folder.is_dir() and folder.name not in {r["set"] for r in rows if r["preset"] == args.preset}:
            rows += rows_of(folder, args.preset)
            machine = {**facts(), "byte_products": [name for name in VNNI if name in flags()]}
            document = {"machine": machine, "rows": rows}
            args.output.write_text(json.dumps(document, indent=1) + "\n")
            print(
                [(r["engine"], r["precision"], r.get("image_auroc", "refused")) for r in rows[-4:]],
                flush=True,
            )


if __name__ == "__main__":
    main()
