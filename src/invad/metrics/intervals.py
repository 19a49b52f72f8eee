"""How far an image metric could move with another draw of test images: percentile bootstrap intervals."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from invad.metrics.exact import Bools, Floats, auroc, checked_scores

RESAMPLES = 1000


def resamples(scores: Floats, labels: Bools, n: int, seed: int) -> Iterator[tuple[Floats, Bools]]:
    """n draws of the set with replacement, within each class, so that both counts stay."""
    normal, anomalous = scores[~labels], scores[labels]
    drawn_labels = np.repeat([False, True], [normal.size, anomalous.size])
    rng = np.random.default_rng(seed)
    for _ in range(n):
        draw = [rng.choice(members, members.size) for members in (normal, anomalous)]
        yield np.concatenate(draw), drawn_labels


def bootstrap_intervals(
    scores_N: ArrayLike,
    labels_N: ArrayLike,
    metrics: Callable[[Floats, Bools], Mapping[str, float | None]],
    n: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap interval of each metric that `metrics` names, resampling within each class.

    Definition: the quantiles (1 -+ confidence) / 2 of the metric over n resamples of the set, drawn with
    replacement, that keep both class counts (Efron and Tibshirani 1993, chapter 13). It covers the choice of
    test images, not of training images or seeds. Same seed, same interval.

    Arguments and errors as in `auroc`. A metric that is None for some resample is left out; {} when a class
    is absent. Raises ValueError also for n < 1 or confidence outside (0, 1).
    """
    scores, labels = checked_scores(scores_N, labels_N)
    if n < 1 or not 0 < confidence < 1:
        raise ValueError(f"need n >= 1 and confidence in (0, 1); got n={n}, {confidence=}")
    if not labels.any() or labels.all():
        return {}
    drawn = [metrics(*draw) for draw in resamples(scores, labels, n, seed)]
    intervals = {}
    for name in drawn[0]:
        values = [value for row in drawn if (value := row[name]) is not None]
        if len(values) == n:
            low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
            intervals[name] = (float(low), float(high))
    return intervals


def bootstrap_interval(
    scores_N: ArrayLike,
    labels_N: ArrayLike,
    metric: Callable[[Floats, Bools], float | None] = auroc,
    n: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[float, float] | None:
    """The interval of one metric, as `bootstrap_intervals`; None when a class or the metric is absent."""

    def alone(scores: Floats, labels: Bools) -> dict[str, float | None]:
        return {"": metric(scores, labels)}

    return bootstrap_intervals(scores_N, labels_N, alone, n, seed, confidence).get("")
