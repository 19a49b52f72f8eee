"""Another region of interest for an exported bundle, by limits of the norm maps that it keeps.

Graph, probes and certificate stay as they were exported. What counts is put into the graph when it is read,
and statistics, score and limits behind it are made here, in numpy.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from invad.data.region import Region, region_of, regions_of
from invad.errors import ConfigError, DataError
from invad.records import Hw
from invad.runtime import kept_tiles, limits, tile_changing
from invad.runtime.bundle import BUNDLE, ExportInfo, changed, named_files, write_bundle
from invad.runtime.detector import ExportedDetector
from invad.runtime.held import EXPORT_AGAIN, LIMITS, Held, Look, limits_file, maps_of, write_stats
from invad.runtime.judging import score_of
from invad.runtime.limits import OF_PARTS, PLAIN, Regions, advised, fitted_limits, wanted_regions, warnings_of
from invad.runtime.loading import looking, looks_of, require_unseen
from invad.runtime.part_limits import PartPlan, fit_parts
from invad.runtime.predictor import Predictor
from invad.runtime.smallest import require_room, smallest_in
from invad.runtime.tiled import TiledPredictor
from invad.scoring.calibration import Calibration
from invad.scoring.fusion import Fusion
from invad.scoring.norms import CellsFitted, CellStats, cross_fit
from invad.scoring.rates import POOLED, Rates
from invad.system.arguments import require

NOT_COMPARED = (
    "the certificate of this int8 bundle compared decisions as it was exported; with these limits they were "
    "not compared"
)

Made: TypeAlias = ExportedDetector | TiledPredictor
"""A bundle with other limits than it was exported with."""


def calibrated(
    before: Predictor,
    *,
    region: Region | str | Path | None = None,
    regions: Mapping[str, Region | str | Path] | None = None,
    min_area: float | Literal["none"] | None = None,
    rates: Rates | None = None,
) -> Made:
    """The detector of a bundle with another region, rates or smallest area, as `Detector.calibrate` without
    normals makes it of a model; `save` writes it.

    Raises ConfigError for a bundle that keeps no maps of held-out images, DataError where they do not show
    what the region counts or a control that was bad would not be any more, ArtifactError for an engine that
    does not take a region.
    """
    require(rates=(rates, Rates | None))
    region, regions = region_of(region), regions_of(regions)
    require_held(before)
    if isinstance(before, TiledPredictor):
        return tile_changing.calibrated(
            before, region=region, regions=regions, min_area=min_area, rates=rates
        )
    assert isinstance(before, ExportedDetector)
    assert before.source is not None
    held = before.held
    assert isinstance(held, Held)
    info, asked = before.info, regions or {}
    plan = None if info.parts is None else PartPlan.of(info.parts, region)
    of_all = info.region if region is None else None if region == "none" else region
    wanted = _wanted(info, held, of_all, asked)
    rates_before = info.calibrations[POOLED].rates
    more = (region, min_area) != (None, None) or rates not in (None, rates_before)
    # A region of one category leaves the limits of the others alone; one that goes gives it those of all.
    anew = not asked or more or "none" in asked.values()
    smallest = info.smallest
    if min_area is not None:
        sizes = [of_all.size_hw] if of_all is not None else [*held.means]
        smallest = smallest_in(min_area, sizes, info.grid_hw)
    require_room(None if smallest is None else smallest.area, of_all)
    after = replace(info, region=of_all, regions=wanted, smallest=smallest)
    looks = looks_of(held, {name: wanted.get(name, of_all) for name in info.calibrations}, after)
    stats = dict(held.stats if before.judging is None else before.judging.stats)
    calibrations, rates = info.calibrations, rates or rates_before
    if anew:
        stats, calibrations = _fitted(held, looks[POOLED], after, rates)
    differing = [name for name, one in wanted.items() if anew or info.regions.get(name) != one]
    stats, calibrations = _of_categories(differing, held, looks, after, rates, (stats, calibrations))
    names = list(info.as_exported.calibrations)
    if missing := [name for name in names if name not in stats]:
        raise DataError(f"the bundle keeps too few good images of {', '.join(missing)}; {EXPORT_AGAIN}")
    after = replace(
        after,
        calibrations={name: calibrations[name] for name in names},
        parts=None if plan is None else _fused(held, looks[POOLED], after, rates, plan),
        limits=limits_file(after, stats),
        exported=info.in_graph,
    )
    made = looking(before.source, after, held, stats)
    require_unseen(made)
    _require_controls(before, made, advised(of_all if region is not None else None, min_area))
    return made


def require_held(detector: Predictor) -> None:
    """Raises ConfigError for a bundle that cannot be given another region."""
    if isinstance(detector, TiledPredictor):
        tile_changing.require_kept(detector)
    elif not isinstance(detector, ExportedDetector) or detector.held is None or detector.source is None:
        raise ConfigError(
            "the bundle keeps no maps of held-out good images, of which limits are made anew: an older invad "
            "exported it, or its model has none, or has a category that was read with a region of its own; "
            f"{EXPORT_AGAIN}"
        )


def warnings_about(made: Made) -> tuple[str, ...]:
    """What the limits cannot promise, one line each, as `Detector.warnings`."""
    if made.fusion is not None:
        return (*made.fusion.calibration.warnings("normal parts"), *doubts_of(made))
    return (*warnings_of(made.calibrations), *doubts_of(made))


def doubts_of(made: Made) -> tuple[str, ...]:
    """What the limits do not know of the region, one line each."""
    return (*_unread_by(made), *([NOT_COMPARED] if made.info.precision == "int8" else []))


def _unread_by(made: Made) -> tuple[str, ...]:
    """What was in sight when the good images were read, and what was not."""
    if isinstance(made, TiledPredictor):
        return kept_tiles.doubts_of(made.tiled)
    assert isinstance(made.held, Held)
    before, info = made.held.told.region, made.info
    lines = [*limits.doubts_of(before, info.region)]
    for name, own in info.regions.items():
        if own != info.region:
            lines += [f"category {name}: {line}" for line in limits.doubts_of(before, own)]
    if made.held.means_of and made.fusion is None and info.region is not None and info.region != before:
        lines.append(limits.WITHOUT_CATEGORY)
    return tuple(lines)


def save(made: Made, folder: Path) -> str:
    """Write the bundle with its new limits; returns its content hash, which the detector then has.

    folder: that of the bundle, which then is another one, or a new one. Raises ArtifactError when it cannot
    be written.
    """
    inside = made.inside if isinstance(made, TiledPredictor) else made
    assert isinstance(inside, ExportedDetector)
    assert inside.source is not None
    assert inside.judging is not None
    assert inside.info.limits is not None
    source, info, stats = inside.source.folder, inside.info, inside.judging.stats

    def fill(staging: Path) -> None:
        write_stats(staging / str(info.limits), stats)

    def fill_all(staging: Path) -> None:
        for name in named_files(source):
            if name != BUNDLE and not _is_limits(name):
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, staging / name)
        fill(staging)

    if folder.resolve() == source.resolve():
        content_hash = changed(folder, info, fill, _is_limits)
    else:
        content_hash = write_bundle(folder, info, fill_all)
    made.content_hash = inside.content_hash = content_hash
    return content_hash


def _is_limits(name: str) -> bool:
    start, end = LIMITS.split("{}")
    return name.startswith(start) and name.endswith(end)


Limits: TypeAlias = tuple[dict[str, CellStats], dict[str, Calibration]]
"""By category, POOLED among them."""


def _of_categories(
    names: Sequence[str],
    held: Held,
    looks: Mapping[str, Look | None],
    info: ExportInfo,
    rates: Rates,
    so_far: Limits,
) -> Limits:
    """With limits of these categories by regions of their own."""
    stats, calibrations = dict(so_far[0]), dict(so_far[1])
    for name in names:
        own = held.of_category(name)
        if len(set(own.told.groups)) < 2:
            raise DataError(
                f"category {name}: the bundle keeps maps of fewer than 2 independent good images of it; "
                f"{EXPORT_AGAIN}"
            )
        try:
            found = _fitted(own, looks[name], info, rates)
        except DataError as error:
            raise DataError(f"category {name}: {error}") from None
        stats[name], calibrations[name] = found[0][name], found[1][name]
    return stats, calibrations


def _fitted(held: Held, seen: Look | None, info: ExportInfo, rates: Rates) -> Limits:
    of_map = score_of(info.smallest, seen)

    def fit(
        maps: NDArray[np.float32], categories: Sequence[str], groups: Sequence[int]
    ) -> tuple[tuple[float, ...], tuple[float, ...], CellStats]:
        fitted = cross_fit(maps, held.told.rule, categories, groups, of_map)
        return fitted.scores, fitted.peaks, fitted.stats

    told, maps_NLhw = held.told, maps_of(held, seen, info.grid_hw)
    return fitted_limits(maps_NLhw, told.categories, told.pictures, told.groups, rates, fit)


def _fused(held: Held, seen: Look | None, info: ExportInfo, rates: Rates, plan: PartPlan) -> Fusion:
    """How pictures of parts become one score, of the maps that are kept."""
    told, maps_NLhw, of_map = held.told, maps_of(held, seen, info.grid_hw), score_of(info.smallest, seen)

    def fit(own: list[int], member: str, groups: list[int]) -> CellsFitted:
        return cross_fit(maps_NLhw[own], told.rule, [member] * len(own), groups, of_map)

    return fit_parts(told.categories, told.groups, told.parts, fit, plan=plan, rates=rates, score_of=of_map)


def _wanted(info: ExportInfo, held: Held, of_all: Region | None, asked: Regions) -> dict[str, Region]:
    """The regions of categories that are to be. Raises ConfigError for what the bundle cannot take."""
    if asked and info.parts is not None:
        raise ConfigError(OF_PARTS)
    own = {name: one for name, one in info.regions.items() if one != info.region}
    pictured = held.means_of if held.told.region is None and info.parts is None else {}
    wanted = wanted_regions(of_all, own, asked, info.calibrations, pictured)
    _require_size(info, [one for one in (of_all, *wanted.values()) if one is not None])
    if wanted and not held.told.by_category:
        raise ConfigError("the bundle has one region for all of its pictures; give --roi FILE, no category")
    return wanted


def _require_size(info: ExportInfo, regions: Sequence[Region]) -> None:
    """Raises ConfigError for regions of several sizes, and of pictures that the graph does not take."""
    sizes = sorted({f"{one.frame[0]} x {one.frame[1]}" for one in regions})
    if len(sizes) > 1:
        raise ConfigError(
            f"the regions of a bundle are of pictures of one size, and these are of {' and '.join(sizes)}; "
            "export a bundle for each size"
        )
    for one in regions:
        if info.size_hw not in (None, one.size_hw):
            assert info.size_hw is not None
            raise ConfigError(
                f"the region is drawn on pictures of {one.frame[0]} x {one.frame[1]} pixels, and the bundle "
                f"takes {info.size_hw[1]} x {info.size_hw[0]} alone; draw it on one of these"
            )


def _require_controls(before: ExportedDetector, after: ExportedDetector, advice: str) -> None:
    """Raises DataError when a picture that shows nothing, or noise, was bad and would not be any more."""
    passed = _passing(before)
    for key, words in _passing(after).items():
        if key not in passed:
            raise DataError(
                f"with these limits {words}, which it was not so far; the bundle stays as it was. {advice}: "
                f"{EXPORT_AGAIN}"
            )


def _passing(detector: ExportedDetector) -> dict[tuple[str, int], str]:
    """The controls that are not bad, in words, by category and number."""
    found = {}
    shown = list(_controls(detector.info.input_hw, detector.info.size_hw))
    for category, calibration in detector.calibrations.items():
        for number, (name, pixels) in enumerate(shown):
            score = _score(detector, pixels, category)
            decision = calibration.decide(score)
            if decision != "bad":
                of = f"{category}: " if category and len(detector.calibrations) > 2 else ""
                limit = calibration.score_limits()[1]
                found[category, number] = (
                    f"{of}{name} would be {decision} (score {score:.3g}, bad above {limit:.3g})"
                )
    return found


def _score(detector: ExportedDetector, pixels: NDArray[np.uint8], category: str) -> float:
    """Of a picture that need not have the size of the region."""
    if detector.judging is None:
        return detector.judge([pixels], category or None)[0].score
    (norms_Lhw,) = detector.norms([pixels], [category])
    return detector.judging.reading(norms_Lhw, category)[0]


def _controls(input_hw: Hw, size_hw: Hw | None) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Pictures that are no good part anywhere, as `detector.calibrating.controls`; all of `size_hw`, if the
    graph takes no other."""
    rng, (h, w) = np.random.default_rng(0), input_hw
    for name, level in PLAIN.items():
        yield name, np.full((*(size_hw or input_hw), 3), level, np.uint8)
    for rows, columns in ((h, w), (h, w), (2 * h, 2 * w), (h // 2, w // 2)):
        noise = rng.integers(0, 256, (rows, columns, 3), np.uint8)
        if size_hw is not None:
            noise = noise[np.arange(size_hw[0]) * rows // size_hw[0]]
            noise = noise[:, np.arange(size_hw[1]) * columns // size_hw[1]]
        yield "a picture of noise", noise
