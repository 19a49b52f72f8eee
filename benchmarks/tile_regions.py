"""False alarms of a model of tiles by a date code that changes, with a region of interest that ignores it.

    python benchmarks/tile_regions.py --output benchmarks/results/tile_regions.json

30 drawn gaskets of 384 x 384 pixels with a lot number in their middle teach `fast` in tiles of 192. Then 16
new good ones with such numbers, 16 with codes of another form and 10 defective ones are judged: by no region,
and by one that `calibrate --roi` has set without pictures, from the kept maps of the held-out tiles, where so
many cells beside it do not count (`margin`; 1 is what the model does). `trained`: the region from the
beginning, painted over for the network.
"""

import argparse
import json
import sys
import tempfile
import time
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import regions
from numpy.typing import NDArray

from invad import TiledDetector, Tiling
from invad.data import tiling
from invad.data.region import Region
from invad.data.synthetic.categories import defects_of
from invad.evaluation.machine import facts
from invad.metrics.exact import image_metrics
from invad.scoring.rates import Rates
from invad.system.files import write_atomically

SIDE, TILE, NORMALS, NEW, PER_DEFECT, RATE = 384, 192, 30, 16, 2, 0.05
LEFT, TOP, RIGHT, BOTTOM = BOX = (156, 176, 228, 208)
REGION = Region(frame=(SIDE, SIDE), ignore=(((LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM), (LEFT, BOTTOM)),))


def row(detector: TiledDetector, pictures: dict[str, list[NDArray[np.uint8]]]) -> dict[str, Any]:
    found = {name: detector.predict(own) for name, own in pictures.items()}
    scores = {name: [one.score for one in own] for name, own in found.items()}
    labels = [0] * len(scores["same_codes"]) + [1] * len(scores["defective"])
    return {
        **{f"called_{name}": sum(one.decision != "good" for one in own) for name, own in found.items()},
        "image_auroc": image_metrics([*scores["same_codes"], *scores["defective"]], labels)["image_auroc"],
        "median_new_codes": round(float(np.median(scores["new_codes"])), 2),
        "review_limit": round(detector.calibrations[""].score_limits()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--kept", action="store_true", help="the other rows are those that the output has")
    given = parser.parse_args()
    regions.SIDE, regions.BOX = SIDE, BOX
    rng, options = np.random.default_rng(0), {"preset": "fast", "seed": 0, "device": "cpu"}
    rates = Rates(review=RATE, bad=0.02)
    with tempfile.TemporaryDirectory() as scratch:
        normals = regions.written(Path(scratch) / "normals", regions.parts(0, 0, NORMALS, rng, False))
        fitted = [
            TiledDetector.fit(normals, tiling=Tiling(tile_px=TILE, region=region), rates=rates, **options)
            for region in ((None,) if given.kept else (None, REGION))
        ]
    pictures = {
        "same_codes": regions.parts(0, 2500, NEW, rng, False),
        "new_codes": regions.parts(0, 2000, NEW, rng, True),
        "defective": [
            picture
            for k, defect in enumerate(defects_of(regions.CATEGORY))
            for picture in regions.parts(0, 3000 + 100 * k, PER_DEFECT, rng, False, defect)
        ],
    }
    if given.kept:
        rows: dict[str, Any] = json.loads(given.output.read_text())["regions"]
    else:
        rows = {name: row(one, pictures) for name, one in zip(("none", "trained"), fitted, strict=True)}
    for margin in (0, 1, 2):
        tiling.MARGIN = margin
        tiling._cut.cache_clear()
        kept = copy(fitted[0])
        started = time.process_time()
        kept.calibrate(region=REGION)
        seconds = {"cpu_seconds_to_calibrate": round(time.process_time() - started, 2)}
        rows[f"kept, margin {margin}"] = row(kept, pictures) | seconds
        print(margin, rows, file=sys.stderr, flush=True)
    counts = {name: len(own) for name, own in pictures.items()}
    result = {"pictures": counts, "review_rate": RATE, "regions": rows, "machine": facts()}
    write_atomically(given.output, (json.dumps(result, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
