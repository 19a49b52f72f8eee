"""Bootstrap intervals against a standard error from the literature and by hand."""

import numpy as np
import pytest

from invad.metrics.exact import IMAGE_METRICS, auroc, image_metrics
from invad.metrics.intervals import bootstrap_interval, bootstrap_intervals


def test_bootstrap_interval_covers_and_repeats() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([False, True], [120, 80])
    scores = rng.standard_normal(200) + labels
    low, high = bootstrap_interval(scores, labels, n=400)
    assert low < auroc(scores, labels) < high
    # Hanley and McNeil's standard error of this area is 0.035; a percentile interval is about 4 of them wide.
    assert 0.09 < high - low < 0.18
    assert (low, high) == bootstrap_interval(scores, labels, n=400)
    assert (low, high) != bootstrap_interval(scores, labels, n=400, seed=1)
    narrow = bootstrap_interval(scores, labels, n=400, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_bootstrap_keeps_class_counts_and_takes_any_metric() -> None:
    counts = set()

    def share(scores: np.ndarray, labels: np.ndarray) -> float:
        counts.add((int(labels.sum()), labels.size))
        assert set(scores[labels]) <= {5.0, 6.0}
        assert set(scores[~labels]) <= {1.0, 2.0, 3.0}
        return float(scores.mean())

    low, high = bootstrap_interval([5, 1, 2, 6, 3], [1, 0, 0, 1, 0], metric=share, n=50)
    assert counts == {(2, 5)}
    assert 2.6 <= low < high <= 4.2
    assert bootstrap_interval([1, 2], [0, 1], n=5) == (1.0, 1.0)
    assert bootstrap_interval([1, 2], [0, 1], metric=lambda *_: None) is None
    with pytest.raises(ValueError, match="n >= 1"):
        bootstrap_interval([1, 2], [0, 1], n=0)


def test_several_metrics_at_once_are_those_of_each_alone() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([False, True], [30, 20])
    scores = rng.standard_normal(50) + labels
    found = bootstrap_intervals(scores, labels, image_metrics, n=60)
    assert tuple(found) == IMAGE_METRICS
    assert found["image_auroc"] == bootstrap_interval(scores, labels, n=60)
    assert bootstrap_intervals(scores, np.ones(50, bool), image_metrics) == {}
    assert bootstrap_intervals(scores, labels, lambda *_: {"x": None}, n=3) == {}
