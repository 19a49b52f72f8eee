"""What a model of parts is worth: its fused scores beside those of each picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from invad.data.layouts.base import Dataset
from invad.data.members import Rule, split_by_part, with_windows
from invad.detector.fusing import as_members
from invad.evaluation.false_alarms import false_alarms, realised_rate
from invad.metrics.exact import image_metrics
from invad.records import GOOD, Decision, Sample, ScoredSample
from invad.runtime.smallest import map_score_of
from invad.scoring.fusion import Fusion, ScoreOf, decide, fuse
from invad.scoring.sizes import Smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPart:
    """One evaluated part. defect: that of its pictures, GOOD where all are. missing: members that could not
    be judged; decision and p_value are of the others, as in `PartPrediction`."""

    part: str
    defect: str
    score: float
    p_value: float | None
    decision: Decision
    seen_by: str
    missing: tuple[str, ...]


def split_of(data: Dataset, fusion: Fusion) -> Dataset:
    """The set with samples of members, its test part as the training left it; as it is where it has them."""
    if data.test and all(sample.member is not None for sample in data.test):
        return data
    return split_by_part(data, Rule.parse(fusion.rule))


def members_of(samples: Sequence[Sample], fusion: Fusion) -> tuple[Sample, ...]:
    """Samples of members with their windows. Raises DataError as `member_samples`."""
    return with_windows(as_members(samples, fusion.rule, None), fusion.by_member)


def scored_parts(
    scored: Sequence[ScoredSample], fusion: Fusion, smallest: Smallest | None = None
) -> tuple[ScoredPart, ...]:
    """The parts of scored pictures, in the order of their first ones. smallest: area of a defect."""
    parts: dict[str, dict[str, ScoredSample]] = {}
    for one in scored:
        if one.sample.member in fusion.members:
            parts.setdefault(one.sample.sample_id or "", {})[one.sample.member] = one
    score_of = map_score_of(smallest)
    return tuple(_part(part, own, fusion, score_of) for part, own in parts.items())


def _part(part: str, own: Mapping[str, ScoredSample], fusion: Fusion, score_of: ScoreOf | None) -> ScoredPart:
    cells = {member: one.cells for member, one in own.items() if one.cells is not None}
    scores = {member: one.score for member, one in own.items()}
    fused = fuse(fusion.kind, fusion.scales, scores, cells, fusion.top_cells, score_of)
    missing = tuple(member for member in fusion.members if member not in own)
    p_value, decision = decide(fusion, fused.score, ", ".join(missing))
    defects = [one.sample.defect for one in own.values() if one.sample.is_anomalous]
    return ScoredPart(
        part=part,
        defect=defects[0] if defects else GOOD,
        score=fused.score,
        p_value=p_value,
        decision=decision,
        seen_by=max(fused.above, key=lambda member: fused.above[member]),
        missing=missing,
    )


def part_metrics(parts: Sequence[ScoredPart], fusion: Fusion) -> dict[str, Any]:
    """Metrics of parts, by the keys of `invad evaluate --json`; good parts that lack a picture are no alarm.

    seen_by: of the defective parts that are not good, how many each member lies highest in.
    """
    labels = np.array([part.defect != GOOD for part in parts])
    whole = [part.decision for part in parts if part.defect == GOOD and not part.missing]
    found = [part.seen_by for part in parts if part.defect != GOOD and part.decision != "good"]
    return {
        **image_metrics(np.array([part.score for part in parts]), labels),
        "n_normal": len(whole),
        "n_anomalous": int(labels.sum()),
        "false_alarm_rate": realised_rate(whole),
        "false_alarms": false_alarms(
            whole, asdict(fusion.calibration.rates), [(len(whole), fusion.calibration.n)]
        ),
        "calibration_n": fusion.calibration.n,
        "seen_by": {member: found.count(member) for member in fusion.members},
        "incomplete": [part.part for part in parts if part.missing],
    }
