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
    """A revision, by its id, with its limits computed once. score, map: (review, bad). scores, weights, n: of
    the calibration, as arrays: a window of a line has thousands."""

    id: int
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
            id=revision.id,
            revision=revision.revision,
            calibration=limits,
            score=limits.score_limits(),
            map=limits.map_limits(),
            scores=np.asarray(limits.scores),
            weights=limits.weights,
            n=limits.n,
        )

    def judge(self, score: float, against: str = "") -> tuple[float, Decision]:
        """(p-value, decision) of a score, as `Calibration.p_value` and `decide` say. against: what was wrong
        with the pictures of a part, which then is not good."""
        at_least = float(self.weights[self.scores >= score].sum())
        decision = decision_between(score, *self.score)
        return (1 + at_least) / (self.n + 1), "review" if against and decision == "good" else decision


class InForce:
    """Limits by station, version and category. What takes force replaces all of them at once."""

    def __init__(self) -> None:
        self._limits: Mapping[tuple[str, str, str], Limits] = {}
        self._active: Mapping[str, str] = {}

    def replace(self, revisions: Iterable[Revision], active: Mapping[str, str]) -> None:
        """Let these decide from the next part on. active: by station, the version that judges there.

        Those of versions that are used no more stay, for the parts that were admitted under them.
        """
        known = {one.id: one for one in self._limits.values()}
        new = {
            (one.station, one.model_version, one.category): known.get(one.id) or Limits.of(one)
            for one in revisions
        }
        self._limits = {**self._limits, **new}
        self._active = dict(active)

    def key(self, station: str, category: str | None, version: str | None = None) -> str:
        """The category as limits are kept under. version: the active one unless given.

        Raises ConfigError for a category without limits of its own.
        """
        version = version or self._active.get(station)
        own = {
            key[2]: limits.calibration
            for key, limits in self._limits.items()
            if key[:2] == (station, version)
        }
        return known_category(own, category)

    def limits(self, station: str, category: str, version: str | None = None) -> Limits:
        """Raises NotCalibratedError where nothing decides. version: the active one unless given."""
        try:
            return self._limits[station, version or self._active[station], category]
        except KeyError:
            raise NotCalibratedError(f"station {station} has no limits; calibrate it") from None
