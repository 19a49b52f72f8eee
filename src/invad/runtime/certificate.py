"""Whether an engine says of the probe images in a bundle what PyTorch said when the bundle was made."""

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from invad.data.images import read_image
from invad.errors import ArtifactError, in_one_line, reason
from invad.records import Decision, Prediction
from invad.runtime.bundle import AGAIN, CERTIFICATE
from invad.runtime.detector import ExportedDetector
from invad.runtime.engines import ENGINES
from invad.runtime.predictor import Predictor
from invad.runtime.processor import processor
from invad.runtime.tiled import TiledPredictor
from invad.scoring.calibration import Calibration
from invad.scoring.rates import POOLED
from invad.system.plain import from_plain, read_json, read_plain, to_plain

PROBES = "probes"
EXPECTED, MAPS = "expected.json", "maps.npz"
SUMMARY = (
    "passed",
    "largest_score_difference",
    "largest_map_difference",
    "largest_p_value_difference",
    "changed_decisions",
)
"""What a certificate says beside its fields; it follows from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """score, map: largest difference allowed, in shares of 1 + |what PyTorch said|, of a map of 1 + its
    largest value or the limit of such values for bad, whichever is larger. changed: share of images whose
    decision may be another one. steps: how many calibration images a p-value may be off by."""

    score: float
    map: float
    steps: int
    changed: float = 0.0

    def allows(self, changed: int, images: int) -> bool:
        """Whether so many of the images compared may have another decision.

        One image of 60 is more than 1 %, and says little about the share. So a number is too large when, at
        the share that is allowed, chance would bring as many in less than one export of twenty (CHANCE).
        """
        return _at_least(changed, images, self.changed) >= CHANCE


CHANCE = 0.05

KEPT = 0.999
"""Share of the pixels of a map whose difference counts. Rounding decides which of two known cells one that
lies between them is compared with: of 5,500 cells of a picture in tiles 14 differed by more than 1e-3, one of
them by 1 % of the peak, and the rest by 1e-4. Of a picture of few cells, one is more than is left away."""

TOLERANCES = {
    "fp32": Tolerance(score=1e-3, map=1e-2, steps=1),
    "fp16": Tolerance(score=2e-2, map=5e-2, steps=3),
    "bf16": Tolerance(score=0.2, map=0.4, steps=10),
    # Integers end at what normal images reach: the scores of gross anomalies are cut off.
    "int8": Tolerance(score=0.6, map=0.7, steps=1_000_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One probe: what PyTorch and the engine said, and the largest difference of their maps, both where they
    are above zero, in all but a few pixels (KEPT). map_limit: above it the largest value of a map is called
    bad; 0 where the invad that made the bundle did not note it."""

    probe: str
    category: str
    score: float
    score_found: float
    p_value: float
    p_value_found: float
    decision: Decision
    decision_found: Decision
    map_difference: float
    map_peak: float
    n: int
    map_limit: float = 0.0

    @property
    def changed(self) -> bool:
        return self.decision != self.decision_found

    def problem(self, allowed: Tolerance) -> str | None:
        """What is over tolerance, if anything; a value that is not a number is."""
        score = abs(self.score - self.score_found) / (1 + abs(self.score))
        steps = abs(self.p_value - self.p_value_found) * (self.n + 1)
        if not score <= allowed.score:
            return f"score {self.score_found:.6g} for {self.score:.6g}"
        # A map that lies far below its limit is nearly black, and what matters is how far.
        if not self.map_difference / (1 + max(self.map_peak, self.map_limit)) <= allowed.map:
            return (
                f"map off by {self.map_difference:.3g} at a peak of {self.map_peak:.3g} "
                f"(bad above {self.map_limit:.3g})"
            )
        if not steps <= allowed.steps + 0.5:
            return f"p-value {self.p_value_found:.4g} for {self.p_value:.4g}"
        return None


def compare(probe: str, limits: Calibration, expected: Prediction, actual: Prediction) -> Comparison:
    """limits: those that both were judged by."""
    return Comparison(
        probe=probe,
        category=expected.category or "",
        score=expected.score,
        score_found=actual.score,
        p_value=expected.p_value,
        p_value_found=actual.p_value,
        decision=expected.decision,
        decision_found=actual.decision,
        map_difference=_largest_kept(actual.anomaly_map, expected.anomaly_map),
        map_peak=max(0.0, float(expected.anomaly_map.max())),
        n=limits.n,
        map_limit=limits.map_limits()[1],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The comparisons of one engine on one machine, and what was allowed.

    processor: None where the invad that made the bundle did not note it. earlier: of a comparison that was
    repeated, what was compared when the bundle was made and is not in it; it counts among the decisions.
    """

    engine: str
    engine_version: str
    device: str
    processor: str | None = None
    precision: str
    tolerance: Tolerance
    rows: tuple[Comparison, ...]
    earlier: tuple[Comparison, ...] = ()

    @property
    def problems(self) -> list[str]:
        """One line per probe over tolerance, and one for too many changed decisions."""
        judged = ((row, row.problem(self.tolerance)) for row in self.rows)
        lines = [f"probe {row.probe}: {problem}" for row, problem in judged if problem]
        if not self.tolerance.allows(len(self.changed), self.decisions):
            row = self.changed[0]
            lines.append(
                f"{len(self.changed)} of {self.decisions} decisions changed, more than chance makes of "
                f"{self.tolerance.changed:.2%}, the first: probe {row.probe}, {row.decision_found} for "
                f"{row.decision}"
            )
        return lines

    @property
    def changed(self) -> list[Comparison]:
        """Those whose decision is another one."""
        return [row for row in (*self.rows, *self.earlier) if row.changed]

    @property
    def decisions(self) -> int:
        """How many were compared."""
        return len(self.rows) + len(self.earlier)

    def to_plain(self) -> dict[str, Any]:
        """As JSON data, with what SUMMARY names; a value that is not a number becomes null."""
        summary = (
            not self.problems,
            max(abs(r.score - r.score_found) for r in self.rows),
            max(r.map_difference for r in self.rows),
            max(abs(r.p_value - r.p_value_found) for r in self.rows),
            len(self.changed),
        )
        return dict(_finite({**asdict(self), **dict(zip(SUMMARY, summary, strict=True))}))


def certify(
    detector: ExportedDetector | TiledPredictor, folder: Path, tolerance: Tolerance | None = None
) -> Certificate:
    """Run the stored probes of a bundle, by its own certificate if no tolerance is given.

    Raises ArtifactError when probes or certificate cannot be read.
    """
    rows = tuple(_asked(detector, folder, name, told) for name, told in _stored(folder / PROBES))
    earlier: tuple[Comparison, ...] = ()
    if tolerance is None:
        before, probes = stored_certificate(folder), {row.probe for row in rows}
        tolerance, earlier = before.tolerance, tuple(r for r in before.rows if r.probe not in probes)
    return Certificate(
        **made_by(detector),
        precision=detector.info.precision,
        tolerance=tolerance,
        rows=rows,
        earlier=earlier,
    )


def short_proof(detector: Predictor, folder: Path) -> str | None:
    """What the engine says otherwise here than where the certificate was made, if anything.

    Each stored picture is run once, by the limits over all categories. Its decision has to be the one that
    the engine gave then, and its score and map within what the export allowed.
    """
    made = stored_certificate(folder)
    decided = {(row.probe, row.category): row.decision_found for row in made.rows}
    for name, told in _stored(folder / PROBES):
        if told.category is not None:
            continue
        row = _asked(detector, folder, name, told)
        before = decided.get((name, ""), row.decision)
        if row.decision_found != before:
            return f"probe {name}: {row.decision_found} for {before}"
        problem = row.problem(made.tolerance)
        if problem:
            return f"probe {name}: {problem}"
    return None


def made_by(detector: ExportedDetector | TiledPredictor) -> dict[str, str]:
    """On what a detector's arithmetic depends: fields of Certificate."""
    engine = detector.engine
    return {
        "engine": engine.name,
        "engine_version": _version(ENGINES[engine.name].package),
        "device": engine.device,
        "processor": processor(),
    }


def _asked(detector: Predictor, folder: Path, name: str, told: Prediction) -> Comparison:
    actual = detector.predict(read_image(folder / PROBES / name), category=told.category)
    return compare(name, detector.calibrations[told.category or POOLED], told, actual)


def stored_certificate(folder: Path) -> Certificate:
    """That of a bundle. Raises ArtifactError when it cannot be read."""
    path = folder / CERTIFICATE
    plain = read_json(path, ArtifactError, AGAIN)
    told = {key: value for key, value in plain.items() if key not in SUMMARY}
    return from_plain(Certificate, told, str(path), ArtifactError, AGAIN)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What PyTorch said of a probe; its map is in a file beside."""

    probe: str
    category: str | None
    score: float
    p_value: float
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class _Expected:
    probes: tuple[_Told, ...]


def store_probes(folder: Path, told: Sequence[tuple[str, Prediction]]) -> None:
    """What PyTorch said of the probe images, which are in folder/probes already."""
    rows = tuple(
        _Told(probe=name, category=p.category, score=p.score, p_value=p.p_value, decision=p.decision)
        for name, p in told
    )
    text = json.dumps(to_plain(_Expected(probes=rows)), indent=1, allow_nan=False) + "\n"
    (folder / PROBES / EXPECTED).write_text(text, encoding="utf-8")
    maps = {str(number): p.anomaly_map for number, (_, p) in enumerate(told)}
    np.savez_compressed(folder / PROBES / MAPS, **maps)  # type: ignore[arg-type]


def _stored(folder: Path) -> list[tuple[str, Prediction]]:
    """Probes and what PyTorch said of them. Raises ArtifactError when they cannot be read."""
    rows = read_plain(_Expected, folder / EXPECTED, ArtifactError, AGAIN).probes
    try:
        with np.load(folder / MAPS, allow_pickle=False) as maps:
            return [(row.probe, _told(row, maps[str(i)])) for i, row in enumerate(rows)]
    except OSError as error:
        raise ArtifactError(f"{folder / MAPS}: {reason(error, writing=False)}") from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{folder / MAPS}: unreadable ({in_one_line(error)}); {AGAIN}") from None


def _told(row: _Told, anomaly_map: NDArray[np.float32]) -> Prediction:
    return Prediction(
        path=None,
        category=row.category,
        score=row.score,
        p_value=row.p_value,
        decision=row.decision,
        anomaly_map=anomaly_map,
    )


def _at_least(k: int, n: int, rate: float) -> float:
    """Probability of k or more among n, each with probability `rate`."""
    return 1.0 if k == 0 else sum(math.comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(k, n + 1))


def _largest_kept(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if actual.shape != expected.shape or not np.isfinite(actual - expected).all():
        return float("inf")
    # Below zero a cell is more typical than those of half of the normals; by how much, nothing shows.
    off = np.abs(np.maximum(actual, 0) - np.maximum(expected, 0))
    return float(np.quantile(off, KEPT))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _version(package: str) -> str:
    for name in (package, f"{package}-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"
