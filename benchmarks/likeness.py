"""How many groups likeness finds among images that are independent, and among shots of known parts.

    python benchmarks/likeness.py mvtec_bottle kolektor_sdd --output benchmarks/results/likeness.json

`fast` learns from 60 drawn gaskets, or half the good training images of each folder. Of other ones, which are
independent as far as is known, 59 are drawn ten times. `maps`: groups by their norm maps, as in `calibrate`.
`features`: by their features, as in a training. `wide`: the same where distances are only compared with those
far away, as before random mixtures of the images were. `shots`: 20 gaskets, 10 times each (see `groups.py`).
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import groups as photographed
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from invad.data.images import read_image
from invad.data.synthetic import draw
from invad.detector.detector import Detector
from invad.evaluation.machine import facts
from invad.fit.features import COMPARED_VALUES
from invad.records import Sample
from invad.scoring import groups

NORMALS, OTHERS, DRAWN, TIMES, PARTS, SHOTS, SIDE = 60, 120, 59, 10, 20, 10, 256
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp")


def described(detector: Detector, pictures: list[NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """What likeness compares, N x K: logarithms of norm maps, and some of the features."""
    maps, features = [], []
    for picture in pictures:
        z = detector.model.extract(picture)
        maps.append(detector.model.read(z).log1p().flatten().numpy())
        some = np.sort(np.random.default_rng(0).choice(z.numel(), COMPARED_VALUES, replace=False))
        features.append(z.numpy().reshape(-1)[some])
    return {"maps": np.stack(maps), "features": np.stack(features)}


def count(x_NK: NDArray[np.float32], wide: bool) -> int:
    mixtures = groups._dimension_of_mixtures
    if wide:
        groups._dimension_of_mixtures = lambda x: float("inf")
    try:
        return len(set(groups.likely_groups(x_NK).tolist()))
    finally:
        groups._dimension_of_mixtures = mixtures


def of_independent(detector: Detector, pictures: list[NDArray[Any]]) -> dict[str, Any]:
    told: dict[str, Any] = {"drawn": DRAWN, "of": len(pictures)}
    for name, x_NK in described(detector, pictures).items():
        draws = [np.random.default_rng(i).permutation(len(x_NK))[:DRAWN] for i in range(TIMES)]
        told[name] = [count(x_NK[own], False) for own in draws]
        told[f"{name}, wide"] = [count(x_NK[own], True) for own in draws]
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    photographed.SIDE = SIDE
    options: dict[str, Any] = {"preset": "fast", "seed": 0, "device": "cpu"}
    with TemporaryDirectory() as scratch:
        for i in range(NORMALS):
            Image.fromarray(draw("gasket", seed=i, size=SIDE)[0]).save(Path(scratch, f"{i:03d}.png"))
        detector = Detector.fit(scratch, **options)
    others = [draw("gasket", seed=1000 + i, size=SIDE)[0] for i in range(OTHERS)]
    sets = {"drawn gaskets": of_independent(detector, others)}
    rng = np.random.default_rng(0)
    taken = [picture for i in range(PARTS) for picture in photographed.shots(3000 + i, SHOTS, rng)]
    found = {
        name: {"groups": count(x_NK, False), "groups, wide": count(x_NK, True)}
        for name, x_NK in described(detector, taken).items()
    }
    for folder in given.folders:
        files = sorted(path for path in (folder / "train").rglob("*") if path.suffix.lower() in ENDINGS)
        files = [files[i] for i in np.random.default_rng(0).permutation(len(files))]
        half = min(NORMALS, len(files) // 2)
        detector = Detector.fit([Sample(path=path, category=folder.name) for path in files[:half]], **options)
        others = [read_image(path) for path in files[half : half + OTHERS]]
        sets[folder.name] = of_independent(detector, others)
        print(folder.name, sets[folder.name], flush=True)
    made = {"sets": sets, "shots": {"parts": PARTS, "of each": SHOTS, **found}, "machine": facts()}
    given.output.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
