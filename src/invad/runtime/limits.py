"""How limits come of the norm maps of good images, alike with and without PyTorch."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

from invad.data.content import copies
from invad.data.region import Region
from invad.records import Hw
from invad.scoring.calibration import Calibration, known_category, numbered
from invad.scoring.rates import POOLED, Rates

Stats = TypeVar("Stats")

Fit: TypeAlias = Callable[
    [Any, Sequence[str], Sequence[int]], tuple[tuple[float, ...], tuple[float, ...], Stats]
]
"""Scores, peaks and statistics of norm maps N x L x h x w of images of these categories and groups."""

GIVE_PICTURES = "give good images: invad calibrate MODEL NORMALS"

OF_PARTS = "a region of one category goes with models of single pictures; give one for all of them"

PLAIN = {"a black picture": 0, "a white picture": 255, "a grey picture": 128}
"""Controls of one colour, and their 8-bit level."""

Regions: TypeAlias = Mapping[str, Region | Literal["none"]]
"""By category, "none" for that of all."""


def fitted_limits(
    maps_NLhw: Any,
    categories: Sequence[str],
    pixels: Sequence[object],
    groups: Sequence[int],
    rates: Rates,
    fit: Fit[Stats],
) -> tuple[dict[str, Stats], dict[str, Calibration]]:
    """Statistics and limits of each category with two or more independent groups, and of all together.

    A picture that stands in several categories counts once among all; the images of a group count as one.
    maps_NLhw: arrays or tensors.
    """
    stats, calibrations = {}, {}
    repeated = copies(pixels)
    for category in (POOLED, *sorted(set(categories))):
        index = [
            i for i, c in enumerate(categories) if c == category or (category == POOLED and i not in repeated)
        ]
        own = [groups[i] for i in index]
        if len(set(own)) < 2:
            continue
        scores, peaks, stats[category] = fit(maps_NLhw[index], [categories[i] for i in index], own)
        numbers = numbered(own)
        # Sorted, and the peaks with their scores: what is saved does not tell the order of the images.
        order = sorted(range(len(scores)), key=lambda i: scores[i])
        calibrations[category] = Calibration(
            scores=tuple(scores[i] for i in order),
            peaks=tuple(peaks[i] for i in order),
            rates=rates,
            groups=tuple(numbers[i] for i in order) if len(set(own)) < len(own) else (),
        )
    return stats, calibrations


def wanted_regions(
    of_all: Region | None,
    before: Mapping[str, Region],
    asked: Regions,
    known: Mapping[str, Calibration],
    pictured: Mapping[str, Collection[Hw]],
) -> dict[str, Region]:
    """The regions of categories that are to be. Raises ConfigError for a category that is not known.

    of_all: the region of all that is to be; before: of categories, that differ from the one of all that was.
    pictured: categories of which the mean pictures are known, with their sizes, where the images that set the
    limits were read with all in sight. Then each gets the region of all as its own, with the mean picture of
    its own in that place: that of all categories looks like none of them, and would be found in each picture.
    """
    regions = dict(before)
    for category, own in asked.items():
        name = known_category(known, category)
        regions.pop(name, None)
        if own != "none":
            regions[name] = own
    if of_all is not None:
        for name, sizes in pictured.items():
            if name in known and of_all.size_hw in sizes:
                regions.setdefault(name, of_all)
    return dict(sorted(regions.items()))


def warnings_of(calibrations: Mapping[str, Calibration]) -> list[str]:
    """What the calibrations cannot promise, one line each; of a single category those of the pooled one."""
    lines: list[str] = []
    for category, calibration in calibrations.items():
        if len(calibrations) > 2 or category == POOLED:
            prefix = f"{category}: " if category else ""
            lines += [prefix + line for line in calibration.warnings()]
    return lines


def doubts_of(before: Region | None, region: Region | None) -> tuple[str, ...]:
    """What limits do not know of a region whose good images were read with another one, in one line."""
    if before == region:
        return ()
    return (
        "the good images that set the limits were read with what the region ignores in sight, so beside it "
        "maps of new ones lie higher and p-values are too low; 'invad calibrate MODEL NORMALS' mends it",
    )


WITHOUT_CATEGORY = (
    "what is ignored of a picture without a category is replaced by the mean of all categories, which looks "
    "like none of them and may be found; name the category, or give good images"
)


def advised(region: Region | str | None, min_area: float | str | None) -> str:
    """What to do about limits by which a picture that shows nothing passes, by what of them was changed."""
    ways = ["let the region count more of the picture"] if isinstance(region, Region) else []
    ways += ["take a smaller min_area"] if isinstance(min_area, int | float) else []
    ways = [*(ways or ["take a larger rate"]), "give more good images"]
    said = f"{', '.join(ways[:-1])} or {ways[-1]}"
    return said[0].upper() + said[1:]
