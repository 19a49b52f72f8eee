"""What decides at each station now: limits of the calibration revision in force, kept at hand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from invad.errors import NotCalibratedError
from invad.records import Decision
from invad.scoring.calibration import Calibration, decision_between, known_category
from invad.serve.store.stations import Revision


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A revision with its limits computed once. score, map: (review, bad). scores, weights, n: of the
    calibration, as arrays: a window of a line has thousands."""

    revision: int
    calibration: Calibration
    score: tuple[float, float]
    map: tuple[float, float]
    scores: NDArray[np.float64]
    weights: NDArray[np.float64]
    n: int

    @classmethod
    def of(cls, revision: Revision) -> "Limits":
        limits = revision.calibration
        return cls(
            revision=revision.revision,
            calibration=limits,
            score=limits.score_limits(),
            map=limits.map_limits(),
            scores=np.asarray(limits.scores),
            weights=limits.weights,
            n=limits.n,
        )

    def judge(self, score: float) -> tuple[float, Decision]:
        """(p-value, decision) of a score, as `Calibration.p_value` and `decide` say."""
        at_least = float(self.weights[self.scores >= score].sum())
        return (1 + at_least) / (self.n + 1), decision_between(score, *self.score)


class InForce:
    """Limits by station and category. A revision that takes force replaces all of them at once."""

    def __init__(self, revisions: Iterable[Revision] = ()):
        self._limits: Mapping[tuple[str, str], Limits] = {}
        self.replace(revisions)

    def replace(self, revisions: Iterable[Revision]) -> None:
        """Let these decide from the next part on."""
        self._limits = {(one.station, one.category): Limits.of(one) for one in revisions}

    def has(self, station: str) -> bool:
        """Whether there is such a station."""
        return any(name == station for name, _ in self._limits)

    def key(self, station: str, category: str | None) -> str:
        """The category as limits are kept under. Raises ConfigError for one without limits of its own."""
        own = {name: limits.calibration for (at, name), limits in self._limits.items() if at == station}
        return known_category(own, category)

    def limits(self, station: str, category: str) -> Limits:
        """Raises NotCalibratedError where nothing decides."""
        try:
            return self._limits[station, category]
        except KeyError:
            raise NotCalibratedError(f"station {station} has no limits; calibrate it") from None
