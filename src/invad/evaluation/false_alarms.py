"""How many good images were not passed, beside how many were to be expected."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from invad.metrics.alarms import count_interval

NOT_PASSED = {"review": ("review", "bad"), "bad": ("bad",)}
"""Decisions at or above each limit."""


def false_alarms(
    decisions: Sequence[str], asked: Mapping[str, float], judged: Iterable[tuple[int, int | None]]
) -> dict[str, Any]:
    """Of normal images, at each limit: the rate asked, the realised one, the count and its 95 % interval.

    decisions: of all normal images. asked: false-alarm rates by limit. judged: see `count_interval`.
    """
    calibrations = list(judged)
    return {
        name: {
            "asked": asked[name],
            "realised": realised_rate(decisions, called),
            "count": sum(decision in called for decision in decisions),
            "expected_count_95": list(count_interval(calibrations, asked[name])),
        }
        for name, called in NOT_PASSED.items()
    }


def realised_rate(decisions: Sequence[str], called: tuple[str, ...] = NOT_PASSED["review"]) -> float | None:
    """Share of the decisions that are among `called`, by default of those that did not pass an image."""
    return sum(decision in called for decision in decisions) / len(decisions) if decisions else None
