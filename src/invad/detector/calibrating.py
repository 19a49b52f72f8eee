"""Limits from good images, and what must hold of them.

A calibration divides by the spread of the images that it is given. Images that are not distinct have next to
none: everything is then so many spreads away that the limits end up where nothing is bad. Therefore copies
and near copies count once; and whatever is given, the controls, pictures that show nothing and pictures of
noise, must be bad after a calibration that were bad before it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from invad.data.content import SHORT, copies, copies_in_words, pixel_digest
from invad.data.preprocess import Preprocess
from invad.data.samples import read_sample
from invad.detector.fusing import fit_parts
from invad.detector.kept import Kept, maps_of
from invad.errors import DataError
from invad.model.inspected import Inspected
from invad.model.reading import Model
from invad.observer import Observer
from invad.records import Hw, Sample
from invad.runtime.limits import PLAIN, fitted_limits
from invad.runtime.limits import warnings_of as warnings_of
from invad.runtime.part_limits import PartPlan
from invad.scoring.calibration import Calibration, for_category
from invad.scoring.crossfit import cross_fit
from invad.scoring.fusion import Fusion
from invad.scoring.groups import groups_in_words, groups_of_samples, require_groups
from invad.scoring.likeness import near_copies
from invad.scoring.rates import POOLED, Rates
from invad.scoring.typicality import PositionStats, ScoreRule, judge

Decode: TypeAlias = Callable[[Sample], NDArray[Any]]
"""Pixels of an image; raises DataError for one that cannot be judged."""

UNRELATED = 2**0.5
"""Difference of two unrelated normals in units of the spread of one."""

LOOKED_AT, NEARLY = 16, 0.15
"""Normals that are compared with a control of one colour, and the share of the range that is like it."""

LEAST_TYPICAL = 3
"""Images that a refusal names."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Statistics and calibrations by category, POOLED among them; fusion: of parts."""

    stats: Mapping[str, PositionStats]
    calibrations: Mapping[str, Calibration]
    fusion: Fusion | None = None


@dataclass(frozen=True, slots=True)
class Readings:
    """Norm maps N x L x h x w of good images, their samples and the digests of their pixels."""

    maps_NLhw: Tensor
    samples: tuple[Sample, ...]
    pixels: tuple[str, ...]

    def without(self, left_out: Mapping[int, int]) -> "Readings":
        kept = [i for i in range(len(self.samples)) if i not in left_out]
        samples, pixels = tuple(self.samples[i] for i in kept), tuple(self.pixels[i] for i in kept)
        return Readings(self.maps_NLhw[kept], samples, pixels)


def score_maps(maps_Lhw: Tensor, stats: PositionStats, rule: ScoreRule) -> tuple[float, NDArray[np.float32]]:
    """Image score and h x w map of z-scores on the feature grid, from norm maps."""
    score, map_1hw = judge(maps_Lhw[None], stats, rule)
    return float(score), map_1hw[0].numpy().astype(np.float32)


def read_normals(
    samples: Sequence[Sample],
    read: Callable[[NDArray[Any]], Tensor],
    strict: bool,
    observer: Observer,
    decode: Decode = read_sample,
) -> Readings:
    """Norm maps of good images. Raises DataError for a defective one, and for an unreadable one if strict."""
    observer.stage("calibration", len(samples))
    maps, readable, pixels = [], [], []
    for sample in samples:
        if sample.is_anomalous:
            raise DataError(f"{sample.path}: is {sample.defect}; calibration takes normal images only")
        try:
            image = decode(sample)
            maps.append(read(image))
            readable.append(sample)
            pixels.append(pixel_digest(image))
        except DataError as error:
            if strict:
                raise
            observer.note(f"skipped: {error}")
        observer.advance()
    if len(maps) < 2:
        raise DataError(
            f"{len(maps)} readable normal images: calibration needs at least 2, 99 for a 1 % limit"
        )
    return Readings(torch.stack(maps), tuple(readable), tuple(pixels))


def untrained(given: Readings, trained: Iterable[str], observer: Observer) -> Readings:
    """Those that the networks were not trained on, whose scores would be too low; the others are named.

    trained: see `short_digests`. Raises DataError when fewer than two are left.
    """
    known = set(trained)
    seen = [i for i, mark in enumerate(given.pixels) if mark[:SHORT] in known]
    if not seen:
        return given
    first, several = given.samples[seen[0]].path, len(seen) > 1
    said = (
        f"{len(seen)} of {len(given.samples)} images, the first {first}, {'have' if several else 'has'} the "
        f"pixels of {'images' if several else 'an image'} that the model was trained on"
    )
    if len(given.samples) - len(seen) < 2:
        raise DataError(f"{said}: calibration needs at least 2 others; give good images of its own")
    observer.note(f"{said}: not counted")
    return given.without(dict.fromkeys(seen, 0))


def distinct(given: Readings, before: Mapping[str, PositionStats], observer: Observer) -> Readings:
    """Each picture of a category once; copies and near copies are named. before: what tells near from far.

    Raises DataError when fewer than two pictures differ.
    """
    copied = copies([(s.category, mark) for s, mark in zip(given.samples, given.pixels, strict=True)])
    told = []
    if copied:
        words = copies_in_words(copied, [s.path for s in given.samples])
        told.append(f"{words}: they have the same pixels, or show one colour only, and count once")
    used = given.without(copied)
    if before:
        near = _near(used, before)
        if near:
            words = copies_in_words(near, [s.path for s in used.samples], "are nearly copies")
            told.append(f"{words}, as frames of a camera that stands still, and count once")
        used = used.without(near)
    different = len(set(used.pixels))
    if different < 2:
        raise DataError(
            f"{len(given.samples)} normal images, but only {different} distinct picture: {'; '.join(told)}; "
            "calibration needs at least 2 that differ, 99 for a 1 % limit"
        )
    for line in told:
        observer.note(line)
    return used


def _near(given: Readings, before: Mapping[str, PositionStats]) -> dict[int, int]:
    originals: dict[int, int] = {}
    for category in dict.fromkeys(s.category for s in given.samples):
        own = [i for i, s in enumerate(given.samples) if s.category == category]
        # Of a category that is not known each might be the like: the smallest spread is the safe one.
        known = [before[category]] if category in before else [*before.values()]
        scale_Lhw = torch.stack([stats.scale_Lhw for stats in known]).amin(dim=0)
        z_NK = (given.maps_NLhw[own] / scale_Lhw).flatten(1).numpy()
        originals |= {own[i]: own[first] for i, first in near_copies(z_NK, UNRELATED).items()}
    return originals


def groups_of(given: Readings) -> tuple[int, ...]:
    """For each image the first one that it is not independent of, by its norm maps where nobody says it."""

    def describe(own: Sequence[int]) -> NDArray[np.float32]:
        maps: NDArray[np.float32] = given.maps_NLhw[list(own)].log1p().flatten(1).numpy()
        return maps

    return groups_of_samples(given.samples, describe)


def fit_limits(
    maps_NLhw: Tensor,
    categories: Sequence[str],
    pixels: Sequence[object],
    groups: Sequence[int],
    rule: ScoreRule,
    rates: Rates,
) -> Limits:
    """As `fitted_limits`, by PyTorch."""

    def fit(
        maps: Tensor, categories: Sequence[str], groups: Sequence[int]
    ) -> tuple[tuple[float, ...], tuple[float, ...], PositionStats]:
        fitted = cross_fit(maps, rule, categories, groups)
        return fitted.scores, fitted.peaks, fitted.stats

    stats, calibrations = fitted_limits(maps_NLhw, categories, pixels, groups, rates, fit)
    return Limits(stats, calibrations)


def limits_of(
    maps_NLhw: Tensor, kept: Kept, rule: ScoreRule, rates: Rates, plan: PartPlan | None = None
) -> Limits:
    """As `fit_limits`, of images that are kept; plan: of parts, whose limits are then fitted, too."""
    limits = fit_limits(maps_NLhw, kept.categories, kept.pictures, kept.groups, rule, rates)
    if plan is None:
        return limits
    return replace(limits, fusion=fit_parts(maps_NLhw, kept, plan=plan, rule=rule, rates=rates))


def limits_of_kept(
    kept: Kept | None, inspected: Inspected | None, grid_hw: Hw, rule: ScoreRule, rates: Rates
) -> Limits:
    """Statistics and limits of the cells that count, from the kept maps. Raises DataError as `maps_of`."""
    maps_NLhw = maps_of(kept, inspected, grid_hw)
    assert kept is not None
    return limits_of(maps_NLhw, kept, rule, rates)


def stats_of_kept(
    kept: Kept | None, inspected: Inspected | None, grid_hw: Hw, rule: ScoreRule, rates: Rates
) -> Mapping[str, PositionStats]:
    """Statistics of the cells that count, which tell near pictures from far; empty where none can be had."""
    with suppress(DataError):
        return limits_of_kept(kept, inspected, grid_hw, rule, rates).stats
    return {}


def chosen(
    samples: Sequence[Sample],
    read: Callable[[NDArray[Any]], Tensor],
    before: Mapping[str, PositionStats],
    *,
    trained: Iterable[str],
    strict: bool,
    observer: Observer,
    decode: Decode = read_sample,
) -> tuple[Readings, tuple[int, ...]]:
    """The images that count of those given, and for each the first one that it is not independent of.

    The arguments are those of `recalibrated`; before: what tells near from far. Raises DataError as
    `read_normals`, `untrained`, `distinct` and `require_groups` do.
    """
    given = untrained(read_normals(samples, read, strict, observer, decode), trained, observer)
    used = distinct(given, before, observer)
    groups = groups_of(used)
    require_groups(groups)
    for words in groups_in_words(used.samples, groups):
        observer.note(words)
    return used, groups


def recalibrated(
    samples: Sequence[Sample],
    read: Callable[[NDArray[Any]], Tensor],
    before: Limits,
    controls_read: Sequence[tuple[str, Tensor]],
    rule: ScoreRule,
    rates: Rates,
    *,
    trained: Iterable[str] = (),
    strict: bool = False,
    observer: Observer,
) -> Limits:
    """Statistics and limits from these good images, in place of those before (empty ones for the first time).

    read: norm maps of the pixels of an image. controls_read: names and norm maps of the controls. trained:
    see `untrained`. Raises DataError as `read_normals`, `untrained`, `distinct` and `require_controls` do.
    """
    used, groups = chosen(samples, read, before.stats, trained=trained, strict=strict, observer=observer)
    categories = [sample.category for sample in used.samples]
    after = fit_limits(used.maps_NLhw, categories, used.pixels, groups, rule, rates)
    if before.calibrations:
        require_controls(before, after, passing(before, controls_read, rule), controls_read, used, rule)
    return after


def controls(preprocess: Preprocess) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Pictures that are no good part anywhere, for each input size: of one colour, and of noise."""
    rng = np.random.default_rng(0)
    for h, w in (preprocess.input_hw, *preprocess.other_hw):
        for name, level in PLAIN.items():
            yield name, np.full((h, w, 3), level, np.uint8)
        # Finer and coarser than the input, for what resizing makes of noise.
        for rows, columns in ((h, w), (h, w), (2 * h, 2 * w), (h // 2, w // 2)):
            yield "a picture of noise", rng.integers(0, 256, (rows, columns, 3), np.uint8)


def passing(
    limits: Limits, read: Sequence[tuple[str, Tensor]], rule: ScoreRule
) -> dict[tuple[str, int], str]:
    """The controls that are not bad, in words, by category and number. read: their names and norm maps."""
    passed = {}
    for category, calibration in limits.calibrations.items():
        for number, (name, maps_Lhw) in enumerate(read):
            score, _ = score_maps(maps_Lhw, limits.stats[category], rule)
            decision = calibration.decide(score)
            if decision != "bad":
                of = f"{category}: " if category != POOLED and len(limits.calibrations) > 2 else ""
                limit = calibration.score_limits()[1]
                passed[category, number] = (
                    f"{of}{name} would be {decision} (score {score:.3g}, bad above {limit:.3g})"
                )
    return passed


def require_unlike(doubts: Iterable[str], samples: Sequence[Sample]) -> None:
    """Raises DataError when a picture of one colour would be good though the normals are not like it.

    For normals of which some are copies: limits from too few that differ lie where nothing is bad. Of
    distinct ones the doubt stays a warning, since a network that was hardly trained, or that is read as the
    paper reads it, may give black a low score on any normals. So it does where most of the pixels of the
    normals have that colour. doubts: what `passing` says.
    """
    for name, level in PLAIN.items():
        said = [line for line in doubts if f"{name} would be good" in line]
        if said and _share_near(level, samples) < 0.5:
            raise DataError(
                f"with limits learned from these images {said[0]}, though they are not like it; give more "
                "good images, and such as show different parts"
            )


def _share_near(level: int, samples: Sequence[Sample]) -> float:
    """The median, over some of the images, of the share of their pixels that are nearly of this level."""
    shares = []
    for i in np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_AT)).round().astype(int):
        with suppress(DataError):
            pixels = read_sample(samples[i])
            whole = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1.0
            shares.append(float((np.abs(pixels / whole - level / 255) < NEARLY).mean()))
    return float(np.median(shares)) if shares else 0.0


def read_controls(model: Model) -> list[tuple[str, Tensor]]:
    """The controls and what the networks say of them."""
    return [(name, model.read(model.extract(pixels))) for name, pixels in controls(model.extract.preprocess)]


def require_controls(
    before: Limits,
    after: Limits,
    passed: Mapping[tuple[str, int], str],
    read: Sequence[tuple[str, Tensor]],
    given: Readings | None,
    rule: ScoreRule,
    advice: str = "",
) -> None:
    """Raises DataError when a control that was bad before a calibration is not bad after it.

    passed: those that were not, see `passing`. given: the good images, the least typical of which are named;
    None where `before` cannot judge them. advice: what to do then, a sentence.
    """
    for (category, number), words in passing(after, read, rule).items():
        judged = category if category in before.calibrations else POOLED
        if (judged, number) in passed:
            continue
        if given is None:
            raise DataError(
                f"with these limits {words}, which it was not so far; the model stays as it was. {advice}"
            )
        scores = [score_maps(maps_Lhw, before.stats[judged], rule)[0] for maps_Lhw in given.maps_NLhw]
        worst = np.argsort(scores)[::-1][:LEAST_TYPICAL]
        names = ", ".join(f"{given.samples[i].path} ({scores[i]:.3g})" for i in worst)
        limit = for_category(before.calibrations, judged).score_limits()[1]
        raise DataError(
            f"with limits learned from these {len(given.samples)} images {words}; the model stays as it was. "
            f"Give more good images, or a larger rate; the least typical so far (bad above {limit:.3g}) are "
            f"{names}: leave them out if they are not good, or train a new model if all look so"
        )
