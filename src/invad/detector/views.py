"""Categories that look at a part of the pictures of their own: what judges each, by the networks of all.

Its limits are of the cells that count for it alone, made of good images that were read without what it
ignores, or of the maps that the model keeps of them.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from invad.data.datasets import normal_set
from invad.data.region import Region
from invad.detector.fusing import normals_of
from invad.detector.kept import doubts_of, of_category
from invad.detector.parts import Parts, was_read_alone
from invad.detector.renewing import others, renewed
from invad.errors import ConfigError, DataError
from invad.observer import Observer
from invad.records import Sample
from invad.runtime.limits import OF_PARTS, WITHOUT_CATEGORY, wanted_regions
from invad.runtime.limits import Regions as Regions
from invad.scoring.rates import POOLED, Rates


def require_regions(regions: Mapping[str, object], samples: Sequence[Sample], parts: str | None) -> None:
    """Raises ConfigError, before a training, for regions of categories that there are not, or of members."""
    if regions and parts is not None:
        raise ConfigError(OF_PARTS)
    known = sorted({sample.category for sample in samples})
    for name in regions:
        if name not in known:
            raise ConfigError(f"no category {name!r} to give a region; choose from {', '.join(known)}")


def calibrated(
    before: Parts,
    doubts: tuple[str, ...],
    normals: str | Path | Sequence[Sample] | None,
    *,
    rates: Rates,
    region: Region | Literal["none"] | None,
    regions: Regions | None,
    min_area: float | Literal["none"] | None,
    strict: bool,
    observer: Observer,
) -> tuple[Parts, tuple[str, ...]]:
    """What `Detector.calibrate` makes of a detector, and the controls that then pass, in words.

    doubts: those that pass before.
    """
    asked = regions or {}
    if isinstance(normals, str | Path) and (before.views or asked):
        normals = normals_of(normal_set(normals), None)
    wanted = _wanted(before, asked, region, from_kept=normals is None)
    more = (normals, region, min_area) != (None, None, None) or rates != _rates_of(before)
    # A region of one category leaves the limits of the others alone; one that goes gives it those of all.
    anew = regions is None or more or "none" in asked.values()
    changed = before
    if anew:
        changed, doubts = renewed(
            before,
            normals,
            rates=rates,
            region=region,
            min_area=min_area,
            strict=strict,
            observer=observer,
            without=wanted,
        )
    views = {}
    for name, own in wanted.items():
        view = before.views.get(name)
        if view is None or view.info.region != own or anew:
            assert not isinstance(normals, str | Path)
            try:
                view = _view(changed, name, own, normals, rates, min_area, strict, observer)
            except DataError as error:
                raise DataError(f"category {name}: {error}") from None
        views[name] = view
    means_of = {**changed.means_of, **{name: view.means for name, view in views.items()}}
    changed = replace(
        changed,
        info=replace(changed.info, regions=wanted),
        stats=others(changed.stats, views),
        calibrations=others(changed.calibrations, views),
        views=views,
        means_of=means_of,
    )
    return changed, doubts


def _wanted(
    before: Parts, asked: Regions, region: Region | Literal["none"] | None, *, from_kept: bool
) -> dict[str, Region]:
    """As `wanted_regions`. Raises ConfigError for a category that is not known, and for a model of parts.

    from_kept: whether limits come of kept maps.
    """
    if asked and before.fusion is not None:
        raise ConfigError(OF_PARTS)
    of_all = before.info.region if region is None else None if region == "none" else region
    regions = {name: one for name, one in before.info.regions.items() if one != before.info.region}
    in_sight = from_kept and before.fusion is None and before.kept is not None and before.kept.region is None
    pictured = before.means_of if in_sight else {}
    return wanted_regions(of_all, regions, asked, before.all_calibrations, pictured)


def _rates_of(parts: Parts) -> Rates | None:
    known = parts.calibrations.get(POOLED)
    return None if known is None else known.rates


def doubts_of_views(parts: Parts) -> tuple[str, ...]:
    """What limits from kept maps do not know of the regions of categories, a line each."""
    region = parts.info.region
    own = tuple(
        f"category {name}: {line}"
        for name, view in parts.views.items()
        if view.info.region != region
        for line in doubts_of(view.kept, view.info.region)
    )
    if region is None or not parts.means_of or parts.fusion is not None or not doubts_of(parts.kept, region):
        return own
    return (*own, WITHOUT_CATEGORY)


def _view(
    whole: Parts,
    name: str,
    region: Region,
    normals: Sequence[Sample] | None,
    rates: Rates,
    min_area: float | Literal["none"] | None,
    strict: bool,
    observer: Observer,
) -> Parts:
    before = whole.views.get(name)
    kept = None if whole.kept is None else of_category(whole.kept, name)
    own = None if normals is None else [one for one in normals if one.category == name]
    if own is not None and len(own) < 2:
        raise DataError(
            f"looks at a region of its own, and {len(own)} of the images are of it; give at least 2, or take "
            f"its region away: --roi {name}=none"
        )
    if own is None and kept is not None and len(set(kept.groups)) < 2:
        raise DataError(
            "the model keeps maps of fewer than 2 independent good images of it; give good images: invad "
            f"calibrate MODEL NORMALS --roi {name}=FILE"
        )
    start = replace(_as_a_view(whole, name) if before is None else before, kept=kept)
    # Of a model that knows no pictures of the category those that are given tell what it looks like.
    start = replace(start, means=whole.means_of.get(name, whole.means if normals is None else {}))

    def made(of: Parts) -> Parts:
        found, _ = renewed(
            of, own, rates=rates, region=region, min_area=min_area, strict=strict, observer=observer
        )
        return found

    if own is None and before is not None and was_read_alone(before, whole):
        with suppress(DataError):  # another region may count what these were read without
            return made(replace(start, kept=before.kept))
    return made(start)


def _as_a_view(whole: Parts, name: str) -> Parts:
    """A category of a detector as if it had a region of its own, which is that of all so far."""
    stats = whole.stats.get(name, whole.stats[POOLED])
    limits = whole.calibrations.get(name, whole.calibrations[POOLED])
    return replace(
        whole,
        info=replace(whole.info, regions={}),
        stats={POOLED: stats, name: stats},
        calibrations={POOLED: limits, name: limits},
        views={},
        means_of={},
    )
