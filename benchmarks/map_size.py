"""Bytes of a kept map, as the service writes it, of pictures of 480 x 640 pixels.

python benchmarks/map_size.py BUNDLE IMAGES --output benchmarks/results/map_size.json
"""

import argparse
import json
from pathlib import Path

import numpy as np

from invad.data.preprocess import resize_map
from invad.detector.opening import AUTO, open_detector
from invad.evaluation.machine import facts
from invad.serve.pictures import encode_map


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    detector = open_detector(args.bundle, AUTO, None, 1)
    paths = sorted(args.images.iterdir())
    sizes = [
        len(encode_map(resize_map(one.cells, (480, 640))))
        for one in detector.predict(paths)
        if one.cells is not None
    ]
    made = {
        "machine": facts(),
        "images": len(sizes),
        "mean_bytes": round(float(np.mean(sizes))),
        "least_and_most_bytes": [min(sizes), max(sizes)],
    }
    args.output.write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
