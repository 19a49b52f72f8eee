"""Limits of parts from their held-out pictures, beside the limits of pictures in `calibrating`."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, as_tensor, float32

from invad.data.datasets import all_samples
from invad.data.layouts.base import Dataset
from invad.data.members import (
    Rule,
    member_samples,
    members_in_order,
    split_by_part,
    whole_parts,
    windows,
    with_windows,
)
from invad.detector.kept import Kept
from invad.errors import ConfigError
from invad.observer import Observer
from invad.records import Sample
from invad.runtime import part_limits
from invad.runtime.part_limits import PartPlan, require_scores
from invad.scoring.crossfit import CrossFitted, cross_fit
from invad.scoring.fusion import KINDS, Fusion, Kind, ScoreOf
from invad.scoring.rates import Rates
from invad.scoring.typicality import ScoreRule


def root_of(data: str | Path | Sequence[Sample] | None) -> Path | None:
    """The folder below which the files of data have their names."""
    return Path(data) if isinstance(data, str | Path) else None


def normals_of(dataset: Dataset, rule: str | None) -> tuple[Sample, ...]:
    """The normal training samples of a set, of parts those of their members."""
    return dataset.train if rule is None else split_by_part(dataset, Rule.parse(rule)).train


def samples_of(
    given: str | Path | Sequence[Sample], rule: str | None, read: Callable[[str | Path], Dataset]
) -> tuple[Sample, ...]:
    """Samples as they are given, or the normal training samples of a place, of parts those of their members.

    read: makes a set of a place. Raises DataError as that does, ConfigError for what are no samples.
    """
    if not isinstance(given, str | Path):
        return tuple(all_samples(given))
    return normals_of(read(given), rule)


def plan_parts(
    samples: Sequence[Sample],
    rule: str | None,
    kind: str,
    root: Path | None,
    region: object,
    observer: Observer,
) -> tuple[Sequence[Sample], PartPlan | None]:
    """Samples of the members of whole parts, and the plan for them; as they are, and None, without a rule.

    root: of the names that the rule looks at; None for the folder that holds all. Raises ConfigError for what
    is no rule or kind, and for a region of interest where cells are fused; DataError as `member_samples` and
    `whole_parts`.
    """
    if rule is None:
        if any(sample.member is not None for sample in samples):
            raise ConfigError("the samples are members of parts; say by which rule, such as parts='names'")
        return samples, None
    if kind not in KINDS:
        raise ConfigError(f"fusion = {kind!r}: give {' or '.join(KINDS)}")
    known: Kind = "cells" if kind == "cells" else "scores"
    require_scores(known, region)
    samples = whole_parts(as_members(samples, rule, root), observer)
    levels = windows(samples)
    return with_windows(samples, levels), PartPlan(rule, known, members_in_order(samples), levels)


def planned(
    samples: Sequence[Sample], plan: PartPlan, root: Path | None, observer: Observer
) -> tuple[Sample, ...]:
    """Samples of whole parts for a plan that stands."""
    own = whole_parts(as_members(samples, plan.rule, root), observer, plan.members)
    return with_windows(own, plan.windows)


def as_members(samples: Sequence[Sample], rule: str, root: Path | None) -> Sequence[Sample]:
    """The samples as members of parts, unless they are already."""
    if samples and all(sample.member is not None for sample in samples):
        return samples
    if root is None:
        root = Path(os.path.commonpath([str(sample.path.absolute().parent) for sample in samples] or ["."]))
    return member_samples(samples, Rule.parse(rule), root)


def fit_parts(maps_NLhw: Tensor, kept: Kept, *, plan: PartPlan, rule: ScoreRule, rates: Rates) -> Fusion:
    """How pictures of parts become one score, from the norm maps of held-out normals.

    kept: what each picture is of. Raises DataError when fewer than two of the parts have all members: a
    picture may have been left out as a copy.
    """

    def fit(own: list[int], member: str, groups: list[int]) -> CrossFitted:
        return cross_fit(maps_NLhw[own], rule, [member] * len(own), groups)

    score_of = None if rule.of_map is None else _score_by(rule.of_map)
    return part_limits.fit_parts(
        kept.categories, kept.groups, kept.parts, fit, plan=plan, rates=rates, score_of=score_of
    )


def _score_by(of_map: Callable[[Tensor], Tensor]) -> ScoreOf:
    return lambda map_hw: float(of_map(as_tensor(map_hw, dtype=float32)[None])[0])
