"""Limits of a trained detector made anew: from good images, or from the maps that it keeps."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

import torch

from invad.data.datasets import normal_set
from invad.data.preprocess import Preprocess
from invad.data.region import Region
from invad.data.samples import read_sample
from invad.detector import calibrating
from invad.detector.fusing import planned, root_of, samples_of
from invad.detector.kept import keep, looking_at, maps_of
from invad.detector.parts import Parts, now
from invad.detector.sizing import advised, require_room, sized, smallest_of
from invad.observer import Observer
from invad.records import Hw, Sample
from invad.runtime.part_limits import PartPlan
from invad.scoring.rates import Rates
from invad.scoring.typicality import ScoreRule

Value = TypeVar("Value")


def renewed(
    before: Parts,
    normals: str | Path | Sequence[Sample] | None,
    *,
    rates: Rates,
    region: Region | Literal["none"] | None,
    min_area: float | Literal["none"] | None,
    strict: bool,
    observer: Observer,
    without: Collection[str] = (),
) -> tuple[Parts, tuple[str, ...]]:
    """What `Detector.calibrate` makes of a detector, and the controls that then pass, in words.

    without: categories that get limits elsewhere.
    """
    plan = None if before.fusion is None else PartPlan.of(before.fusion, region)
    parts = None if plan is None else plan.rule
    samples: Sequence[Sample] | None = None
    if normals is not None:
        samples = samples_of(normals, parts, normal_set)
        if plan is not None:
            samples = planned(samples, plan, root_of(normals), observer)
    model, info = before.model, before.info
    means: Mapping[Hw, torch.Tensor] = before.means
    if region is not None:
        info = replace(info, region=None if region == "none" else region)
        whole = Preprocess(info.input_hw, info.window, info.other_hw)
        model, means = looking_at(model, whole, info.region, means, samples or ())
    if min_area is not None:
        info = replace(info, smallest=smallest_of(min_area, means, info.region, model))
    require_room(None if info.smallest is None else info.smallest.area, info.region)
    inspected = model.extract.inspected
    rule = sized(info.settings.score_rule, info.smallest, inspected)
    so_far, kept, given = calibrating.Limits(before.stats, before.calibrations), before.kept, None
    if samples is None:
        maps_NLhw = maps_of(kept, inspected, info.grid_hw)
    else:
        known = so_far.stats
        if region is not None:
            known = calibrating.stats_of_kept(kept, inspected, info.grid_hw, rule, rates)
        given, groups = calibrating.chosen(
            samples,
            lambda pixels: model.read(model.extract(pixels)),
            known,
            trained=info.fit.trained,
            strict=strict,
            observer=observer,
            decode=lambda sample: read_sample(sample, model.extract.decode),
        )
        maps_NLhw = given.maps_NLhw
        kept = keep(maps_NLhw, given.samples, groups, given.pixels, inspected)
    assert kept is not None
    after = calibrating.limits_of(maps_NLhw, kept, rule, rates, plan)
    after = replace(
        after, stats=others(after.stats, without), calibrations=others(after.calibrations, without)
    )
    read = calibrating.read_controls(model)
    if so_far.calibrations:
        read_before = read if region is None else calibrating.read_controls(before.model)
        named = given if (region, min_area) == (None, None) else None
        passed = calibrating.passing(so_far, read_before, rule_of(before))
        advice = advised(region, min_area)
        calibrating.require_controls(so_far, after, passed, read, named, rule, advice)
    changed = replace(
        before,
        info=replace(info, recalibrated=info.recalibrated if samples is None else now()),
        model=model,
        stats=dict(after.stats),
        calibrations=dict(after.calibrations),
        kept=kept,
        means=dict(means),
        fusion=after.fusion,
    )
    return changed, tuple(calibrating.passing(after, read, rule).values())


def others(every: Mapping[str, Value], names: Collection[str]) -> dict[str, Value]:
    """What there is of the categories that are not among these names."""
    return {name: one for name, one in every.items() if name not in names}


def rule_of(parts: Parts) -> ScoreRule:
    """How norm maps become anomaly map and score."""
    return sized(parts.info.settings.score_rule, parts.info.smallest, parts.model.extract.inspected)
