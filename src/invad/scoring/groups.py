"""Which images are of one part, one patient or one burst, when nobody says so.

Among independent images the nearest neighbours of an image lie as in a Poisson process: with the distance
d_k to its k-th neighbour and the intrinsic dimension D, the nearest is closer than r d_k with the probability
1 - (1 - r^D)^(k-1) (the other k - 1 are uniform in that ball). A pair closer than chance explains is of one
group. D comes from ratios of distances (Levina and Bickel 2004, NIPS), but of which? Those of the k-th to the
2k-th neighbours lie beyond a group of at most k images. In most sets, however, images so far apart are hardly
alike, all nearly at one distance, which looks like a space of many dimensions, in which every neighbour that
is somewhat near is a surprise. So at first D is at most that of random mixtures of the images, from the first
to the k-th neighbour: these have the mean and the covariance of the images, and are independent.

Shots of one part may still lie further apart than two parts do: a shift by one pixel moves an image more than
another part does, in directions that all parts share. So where many images were joined, the directions in
which images of one group differ are taken away from all (nuisance attribute projection: Solomonoff, Campbell
and Boardman 2005, ICASSP), and neighbours are looked for again, until none are found. There are groups then,
and to miss some costs more than to join too many: D is that of the k-th to the 2k-th neighbours alone.
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
images are only nearly one: of 59 usually none to 2 are joined, which makes limits a little cautious."""

MANY = 0.1
"""Share of the images that were joined to others from which on the differences within groups are believed:
where the few pairs were joined by chance, their differences are those of different parts."""

MIXTURES = 300
"""Random mixtures whose neighbours are looked for at least."""

NUISANCE = 0.9
"""Share of the squared differences within groups that is taken away; 0.8 to 1 find nearly the same."""

DIFFERENCES = 1000
"""Images from which these directions are learned."""

PASSES = 10

BLOCK = 1000
"""Images whose distances to all are held at once."""


def groups_of_samples(
    samples: Sequence[Sample], describe: Callable[[Sequence[int]], NDArray[np.floating]]
) -> tuple[int, ...]:
    """For each sample the number of the first one that it is not independent of, its own where there is none.

    Samples of one category belong together by their `group`, else by their `sample_id`; where none of a
    category has either, by what `describe` says of those numbers (see `likely_groups`). Pictures that are
    members of parts belong together whatever their categories, which are their members.
    """
    found = np.arange(len(samples))
    for scope in dict.fromkeys(map(_scope, samples)):
        own = [i for i, sample in enumerate(samples) if _scope(sample) == scope]
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
        seen: set[int] = set()
        joined = [i for i in own if groups[i] in seen or seen.add(groups[i])]  # type: ignore[func-returns-value]
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


def _scope(sample: Sample) -> str | None:
    return None if sample.member is not None else sample.category


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
    near = _nearest(x, 2 * NEIGHBOURS)
    _join(labels, *near, min(_dimension(near[0]), _dimension_of_mixtures(x)))
    if (labels != np.arange(n)).sum() < MANY * n:
        return labels
    for _ in range(PASSES):
        before = labels.copy()
        near = _nearest(_without_nuisance(x, labels), 2 * NEIGHBOURS)
        _join(labels, *near, _dimension(near[0]))
        if (labels == before).all():
            break
    return labels


def _join(
    labels: NDArray[np.intp],
    distance_NJ: NDArray[np.float64],
    neighbour_NJ: NDArray[np.intp],
    dimension: float,
) -> None:
    """Give images that are nearer than chance explains one label, the smallest of theirs, in place."""
    n, k = len(labels), NEIGHBOURS
    kth = np.maximum(distance_NJ[:, k - 1], 1e-12)
    closest = (1 - (1 - CHANCE / n) ** (1 / (k - 1))) ** (1 / dimension)
    for i in range(n):
        for j in neighbour_NJ[i, distance_NJ[i] < closest * kth[i]]:
            one, other = sorted((labels[i], labels[j]))
            if one != other:
                labels[labels == other] = one


def _dimension(distance_NJ: NDArray[np.float64]) -> float:
    """From the k-th to the 2k-th neighbours, in the median of the images."""
    distance = np.maximum(distance_NJ[:, NEIGHBOURS - 1 :], 1e-12)
    ratios = np.log(distance[:, -1:] / distance[:, :-1]).mean(axis=1)
    return 1 / max(float(np.median(ratios)), 1e-12)


def _dimension_of_mixtures(x_NK: NDArray[np.float32]) -> float:
    """From the first to the k-th neighbours among as many sums of the images, with random weights."""
    n, k = len(x_NK), NEIGHBOURS
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(-(-MIXTURES // n)):
        y_NK = np.empty_like(x_NK)
        for first in range(0, n, BLOCK):
            rows = min(BLOCK, n - first)
            y_NK[first : first + rows] = rng.standard_normal((rows, n), dtype=np.float32) @ x_NK
        y_NK /= np.maximum(np.linalg.norm(y_NK, axis=1, keepdims=True), 1e-12)
        distance = np.maximum(_nearest(y_NK, k, MIXTURES)[0], 1e-12)
        ratios.append(np.log(distance[:, -1:] / distance[:, :-1]).mean())
    return 1 / max(float(np.mean(ratios)), 1e-12)


def _without_nuisance(x_NK: NDArray[np.float32], labels: NDArray[np.intp]) -> NDArray[np.float32]:
    """Unit vectors again, without the directions in which images of one group differ most."""
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(sizes[group] > 1)
    shared = shared[:: -(-len(shared) // DIFFERENCES)]
    sums = np.zeros((len(sizes), x_NK.shape[1]), dtype=np.float32)
    np.add.at(sums, group, x_NK)
    _, lengths, directions = np.linalg.svd(
        x_NK[shared] - sums[group[shared]] / sizes[group[shared], None], full_matrices=False
    )
    told = np.cumsum(lengths.astype(np.float64) ** 2)
    count = int(np.searchsorted(told, NUISANCE * told[-1])) + 1
    away = directions[:count][lengths[:count] > 1e-6]  # copies differ in none
    rest = x_NK - (x_NK @ away.T) @ away
    unit: NDArray[np.float32] = rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-12)
    return unit


def _nearest(
    x_NK: NDArray[np.float32], count: int, images: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distances to the `count` nearest others, rising, and which they are: N x count each.

    images: of so many from the first on; None for all.
    """
    distances, index = [], []
    end = len(x_NK) if images is None else min(images, len(x_NK))
    for first in range(0, end, BLOCK):
        part = x_NK[first : min(first + BLOCK, end)]
        squares = np.maximum(2 - 2 * (part @ x_NK.T).astype(np.float64), 0)
        rows = np.arange(len(part))
        squares[rows, first + rows] = np.inf
        near = np.argpartition(squares, count, axis=1)[:, :count]
        rising = np.argsort(np.take_along_axis(squares, near, axis=1), axis=1, kind="stable")
        near = np.take_along_axis(near, rising, axis=1)
        index.append(near)
        distances.append(np.sqrt(np.take_along_axis(squares, near, axis=1)))
    return np.concatenate(distances), np.concatenate(index)
