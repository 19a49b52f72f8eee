"""Samples that are not independent: frames of a camera that stands still, burst shots, re-encoded files."""

import numpy as np
from numpy.typing import NDArray

NEAR = 0.2
"""Of the distance of two unrelated images: of ten independent directions one pair in 400,000 is nearer."""

FEW = 0.25
"""Share of images that may be near another one by chance: distances have few directions where light rules."""


def near_copies(x_NK: NDArray[np.floating], typical: float) -> dict[int, int]:
    """The earlier item that each item nearly repeats; none where they are FEW.

    typical: root mean square difference, over the K coordinates, of two unrelated items.
    """
    x = np.asarray(x_NK, dtype=np.float64)
    squares = np.square(x).mean(axis=1)
    kept_x, kept = np.empty_like(x), np.empty(len(x), dtype=np.intp)
    count, originals = 0, {}
    for i, own in enumerate(x):
        before = kept[:count]
        distances = squares[before] + squares[i] - 2 / x.shape[1] * (kept_x[:count] @ own)
        if count and distances.min() < (NEAR * typical) ** 2:
            originals[i] = int(before[distances.argmin()])
        else:
            kept_x[count], kept[count] = own, i
            count += 1
    return originals if len(originals) > FEW * len(x) else {}
