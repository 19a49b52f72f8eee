"""Which images are of one part, one patient or one burst, when nobody says so.

Among independent images the nearest neighbours of an image lie as in a Poisson process: with the distance
d_k to its k-th neighbour and the intrinsic dimension D, the nearest is closer than r d_k with the probability
1 - (1 - r^D)^(k-1) (the other k - 1 are uniform in that ball). D comes from the distances of the k-th to the
2k-th neighbours (Levina and Bickel 2004, NIPS), which lie beyond a group of at most k images. A pair closer
than chance explains is of one group.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from invad.errors import DataError
from invad.records import Sample

NEIGHBOURS = 10
"""k above: larger than the groups that are looked for."""

LEAST = 3 * NEIGHBOURS
"""Images below which distances tell too little of their distribution."""

CHANCE = 0.05
"""Probability of any false pair in a Poisson process (each image has its share of it). Real independent
images are only nearly one: of 60 simulated ones 1 or 2 were joined, which makes limits a little cautious."""

BLOCK = 1000
"""Images whose distances to all are held at once."""


def groups_of_samples(
    samples: Sequence[Sample], describe: Callable[[Sequence[int]], NDArray[np.floating]]
) -> tuple[int, ...]:
    """For each sample the number of the first one that it is not independent of, its own where there is none.

    Samples of one category belong together by their `group`, else by their `sample_id`; where none of a
    category has either, by what `describe` says of those numbers (see `likely_groups`).
    """
    found = np.arange(len(samples))
    for category in dict.fromkeys(sample.category for sample in samples):
        own = [i for i, sample in enumerate(samples) if sample.category == category]
        said = [_said(samples[i]) for i in own]
        if any(said):
            first: dict[str, int] = {}
            for i, name in zip(own, said, strict=True):
                found[i] = first.setdefault(name, i) if name else i
        else:
            found[own] = np.array(own)[likely_groups(describe(own))]
    return tuple(found.tolist())


def require_groups(groups: Sequence[int]) -> None:
    """Raises DataError when all images are of one group: nothing tells what another one would look like."""
    if len(set(groups)) < 2:
        raise DataError(
            f"all {len(groups)} images are of one group, and limits need at least 2 independent ones; give "
            "images of more parts, or another --group-by"
        )


def groups_in_words(samples: Sequence[Sample], groups: Sequence[int]) -> Iterator[str]:
    """What is to be said of each category whose images are not all independent."""
    for category in dict.fromkeys(sample.category for sample in samples):
        own = [i for i, sample in enumerate(samples) if sample.category == category]
        joined = [i for i in own if groups[i] != i]
        if not joined:
            continue
        count, last = len(own) - len(joined), joined[-1]
        why = "as given"
        if not _said(samples[last]):
            first = samples[groups[last]].path
            why = f"some are nearer than chance explains, such as {samples[last].path} and {first}"
        yield (
            f"{category}: {len(own)} images are {count} independent groups, {why}; a group is held out as a "
            "whole, and limits count groups"
        )


def _said(sample: Sample) -> str | None:
    return sample.group or sample.sample_id


def likely_groups(x_NK: NDArray[np.floating]) -> NDArray[np.intp]:
    """For each image the number of its group, that of its first image.

    x_NK: a description of each image in K coordinates. The mean of each coordinate is taken away, then each
    image's own mean, and the rest is brought to unit length, so that exposure and contrast do not count.
    """
    n = len(x_NK)
    labels = np.arange(n)
    if n < LEAST:
        return labels
    x = np.asarray(x_NK, dtype=np.float32)
    x = x - x.mean(axis=0)
    x = x - x.mean(axis=1, keepdims=True)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    k = NEIGHBOURS
    distance, neighbour = _nearest(x, 2 * k)
    kth = np.maximum(distance[:, k - 1], 1e-12)
    ratios = np.log(distance[:, -1:] / np.maximum(distance[:, k - 1 : -1], 1e-12)).mean(axis=1)
    dimension = 1 / max(float(np.median(ratios)), 1e-12)
    closest = (1 - (1 - CHANCE / n) ** (1 / (k - 1))) ** (1 / dimension)
    for i in range(n):
        for j in neighbour[i, distance[i] < closest * kth[i]]:
            one, other = sorted((labels[i], labels[j]))
            labels[labels == other] = one
    return labels


def _nearest(x_NK: NDArray[np.float32], count: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distances to the `count` nearest others, rising, and which they are: N x count each."""
    distances, index = [], []
    for first in range(0, len(x_NK), BLOCK):
        part = x_NK[first : first + BLOCK]
        squares = np.maximum(2 - 2 * (part @ x_NK.T).astype(np.float64), 0)
        rows = np.arange(len(part))
        squares[rows, first + rows] = np.inf
        near = np.argpartition(squares, count, axis=1)[:, :count]
        rising = np.argsort(np.take_along_axis(squares, near, axis=1), axis=1, kind="stable")
        near = np.take_along_axis(near, rising, axis=1)
        index.append(near)
        distances.append(np.sqrt(np.take_along_axis(squares, near, axis=1)))
    return np.concatenate(distances), np.concatenate(index)
