"""Norm maps of held-out good images in a bundle, of which limits for another region of interest are made.

What `detector/kept.py` keeps with a model, as arrays of one file; what a region makes of pictures and maps.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from invad.data.region import Region, cells_of, inside_of, untouched
from invad.errors import ArtifactError, DataError, in_one_line, reason
from invad.records import Hw
from invad.runtime.bundle import AGAIN, ExportInfo
from invad.scoring.norms import CellRule, CellStats, as_written_now
from invad.system.plain import from_plain, to_plain

HELD, LIMITS = "held.npz", "limits-{}.npz"
"""Files of a bundle: what it keeps, and the statistics that were made of it; {} is the start of a digest."""

TOLD, MEAN, MEAN_OF = "told", "mean.", "mean_of."

LARGEST = 65504.0
"""Of float16, in which maps are kept."""

EXPORT_AGAIN = "calibrate the trained model, and export it again"

Means = Mapping[Hw, NDArray[np.uint8]]
"""By height and width of pictures the mean good one as the network sees it, 3 x H' x W'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is no array; see `detector.kept.Kept`. by_category: whether the graph takes what is ignored, and
    what it gives way to, for each category by its number, in place of one for all."""

    rule: CellRule
    categories: tuple[str, ...]
    groups: tuple[int, ...]
    pictures: tuple[int, ...]
    region: Region | None
    by_category: bool
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """middle_Lhw, offsets_NLhw: as of `Kept`. stats: by category, by which the graph judges. means, means_of:
    mean pictures, of all and by category."""

    told: Told
    middle_Lhw: NDArray[np.float32]
    offsets_NLhw: NDArray[np.float16]
    stats: Mapping[str, CellStats]
    means: Means
    means_of: Mapping[str, Means] = field(default_factory=dict)

    @property
    def maps_NLhw(self) -> NDArray[np.float32]:
        """As they were read."""
        return self.middle_Lhw + self.offsets_NLhw.astype(np.float32)

    def of_category(self, name: str) -> "Held":
        """What is kept of the images of one category, with the mean picture of those, if there is one."""
        own = [i for i, one in enumerate(self.told.categories) if one == name]
        told = replace(
            self.told,
            categories=(name,) * len(own),
            groups=tuple(self.told.groups[i] for i in own),
            pictures=tuple(self.told.pictures[i] for i in own),
            parts=tuple(self.told.parts[i] for i in own) if self.told.parts else (),
        )
        return replace(
            self, told=told, offsets_NLhw=self.offsets_NLhw[own], means=self.means_of.get(name, self.means)
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What a region makes of pictures and maps, as `model.inspected.Inspected`.

    keep_HW: bool, pixels of the input that the backbone sees; fill_3HW: float32, what it sees in place of the
    others. cells_n: numbers of the cells that count in a grid row by row. inside_HW: bool, pixels that count.
    """

    region: Region
    keep_HW: NDArray[np.bool_]
    fill_3HW: NDArray[np.float32]
    cells_n: NDArray[np.intp]
    grid_hw: Hw
    inside_HW: NDArray[np.bool_]

    def counted(self, maps_BLhw: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps of all cells to those of the cells that count: B x L x 1 x n."""
        return maps_BLhw.reshape(*maps_BLhw.shape[:2], -1)[:, :, None, self.cells_n]

    def on_grid(self, map_1n: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of the cells that count to one of all, h x w, 0 in the others."""
        map_hw = np.zeros(self.grid_hw, np.float32)
        map_hw.reshape(-1)[self.cells_n] = map_1n[0]
        return map_hw


def look(region: Region | None, held: Held, input_hw: Hw, grid_hw: Hw) -> Look | None:
    """None without a region.

    Raises DataError when no cell counts, and without a mean picture of the region's frame.
    """
    if region is None:
        return None
    mean_3HW = held.means.get(region.size_hw)
    if mean_3HW is None or mean_3HW.shape[1:] != input_hw:
        sizes = " or ".join(f"{w} x {h}" for (h, w), one in held.means.items() if one.shape[1:] == input_hw)
        raise DataError(
            f"the region is drawn on pictures of {region.frame[0]} x {region.frame[1]} pixels, and the good "
            f"ones that are known here have {sizes or 'other sizes'}; draw it on one of these"
        )
    return Look(
        region,
        untouched(region, input_hw),
        mean_3HW.astype(np.float32) / np.float32(255),
        np.flatnonzero(cells_of(region, grid_hw)),
        grid_hw,
        inside_of(region),
    )


def maps_of(held: Held, seen: Look | None, grid_hw: Hw) -> NDArray[np.float32]:
    """The kept maps of the cells that count, N x L x h x w or N x L x 1 x n.

    Raises DataError when cells or pixels were ignored before that would count now.
    """
    maps_NLhw, before = held.maps_NLhw, held.told.region
    if before is None:
        return maps_NLhw if seen is None else seen.counted(maps_NLhw)
    if seen is not None and seen.region == before:
        return maps_NLhw
    had = np.flatnonzero(cells_of(before, grid_hw))
    if seen is None or not within(seen.region, before, seen.cells_n, had):
        raise DataError(
            "the new region counts what was ignored when the model's good images were read; give some to the "
            "trained model, invad calibrate MODEL NORMALS --roi FILE, and export it again"
        )
    return maps_NLhw[..., np.searchsorted(had, seen.cells_n)]


def within(region: Region, before: Region, wanted: NDArray[Any], had: NDArray[Any]) -> bool:
    """Whether neither pixels nor cells count that did not count before."""
    if region.frame != before.frame or not np.isin(wanted, had).all():
        return False
    return not (inside_of(region) & ~inside_of(before)).any()


def write_held(path: Path, held: Held) -> None:
    arrays: dict[str, NDArray[Any]] = {"middle": held.middle_Lhw, "offsets": held.offsets_NLhw}
    arrays |= {f"{MEAN}{h}x{w}": mean for (h, w), mean in held.means.items()}
    for name, means in held.means_of.items():
        arrays |= {f"{MEAN_OF}{h}x{w}.{name}": mean for (h, w), mean in means.items()}
    told = json.dumps(to_plain(held.told), allow_nan=False).encode()
    arrays |= {TOLD: np.frombuffer(told, np.uint8), **of_stats(held.stats)}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_held(path: Path) -> Held:
    """Raises ArtifactError when it cannot be read."""
    arrays = arrays_in(path)
    try:
        plain = json.loads(arrays[TOLD].tobytes())
        plain["rule"] = as_written_now(plain["rule"])
        means: dict[Hw, NDArray[np.uint8]] = {}
        means_of: dict[str, dict[Hw, NDArray[np.uint8]]] = {}
        for key, array in arrays.items():
            if key.startswith(MEAN):
                means[_size(key.removeprefix(MEAN))] = array
            elif key.startswith(MEAN_OF):
                size, _, name = key.removeprefix(MEAN_OF).partition(".")
                means_of.setdefault(name, {})[_size(size)] = array
        told = from_plain(Told, plain, str(path), ArtifactError, AGAIN)
        return Held(told, arrays["middle"], arrays["offsets"], stats_in(path, arrays), means, means_of)
    except (KeyError, TypeError, ValueError) as error:
        raise unreadable(path, error) from None


def write_stats(path: Path, stats: Mapping[str, CellStats]) -> None:
    """By category."""
    np.savez_compressed(path, **of_stats(stats))  # type: ignore[arg-type]


def read_stats(path: Path) -> dict[str, CellStats]:
    """Raises ArtifactError when it cannot be read."""
    return stats_in(path, arrays_in(path))


def limits_file(info: ExportInfo, stats: Mapping[str, CellStats]) -> str:
    """The name of the file of statistics that go with what a bundle says."""
    digest = hashlib.sha256(json.dumps(to_plain(info), sort_keys=True).encode())
    for name in sorted(stats):
        digest.update(name.encode() + stats[name].median_Lhw.tobytes() + stats[name].scale_Lhw.tobytes())
    return LIMITS.format(digest.hexdigest()[:12])


def of_stats(stats: Mapping[str, CellStats]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, own in stats.items():
        for what in fields(CellStats):
            if (array := getattr(own, what.name)) is not None:
                arrays[f"{what.name}.{name}"] = array
    return arrays


def stats_in(path: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, CellStats]:
    first, *_ = names = [what.name for what in fields(CellStats)]
    own = [key.removeprefix(f"{first}.") for key in arrays if key.startswith(f"{first}.")]
    try:
        return {
            name: CellStats(**{what: arrays[key] for what in names if (key := f"{what}.{name}") in arrays})
            for name in own
        }
    except TypeError as error:
        raise unreadable(path, error) from None


def arrays_in(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Those of these names, or all. Raises ArtifactError when they cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in (stored if names is None else names)}
    except OSError as error:
        raise ArtifactError(f"{path}: {reason(error, writing=False)}") from None
    except (ValueError, KeyError, EOFError, BadZipFile) as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{path}: unreadable ({in_one_line(error)}); {AGAIN}")


def _size(text: str) -> Hw:
    height, _, width = text.partition("x")
    return int(height), int(width)
