"""The highest cells of a map and the spread of a few scores, for images, parts and tiles alike."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Numbers = TypeVar("Numbers")

SHRINKAGE, SPREAD = 5, 0.25
"""Scores that the usual spread counts for, and that spread as a share of their centre."""


def shrunk_variance(variance: Numbers, centre: Numbers, count: int) -> Numbers:
    """The variance of `count` scores about their centre, averaged with the usual one: arrays or tensors.

        (n variance + SHRINKAGE (SPREAD centre)^2) / (n + SHRINKAGE)

    A few scores show little of their spread.
    """
    own: Any = variance
    usual: Any = (SPREAD * centre) ** 2  # type: ignore[operator]
    shrunk: Numbers = (count * own + SHRINKAGE * usual) / (count + SHRINKAGE)
    return shrunk


def top_mean(cells: NDArray[Any], count: int) -> float:
    """Mean of the `count` largest cells, of all where there are fewer, in float64."""
    flat = np.asarray(cells, np.float64).ravel()
    least = max(flat.size - count, 0)
    # Sorted, so that the order of the cells does not change the last digit.
    return float(np.sort(np.partition(flat, least)[least:]).mean())
