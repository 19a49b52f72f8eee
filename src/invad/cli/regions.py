"""--roi of train and calibrate: the part of the pictures that counts, for all and for single categories."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from invad.errors import ConfigError

if TYPE_CHECKING:
    from invad.data.region import Region

HELP = (
    "Part of the pictures that counts: polygons (JSON, see 'invad roi draw') or a mask picture, white where "
    "it does; CATEGORY=FILE for one category alone, as often as there are."
)

NONE: Literal["none"] = "none"


def asked_regions(
    given: "Sequence[str] | None",
) -> "tuple[Region | Literal['none'] | None, dict[str, Region | Literal['none']]]":
    """The region of all, None where none is given, and those of single categories; `none` takes one away.

    Raises ConfigError for two of one category, DataError for a file that is no region.
    """
    from invad.data.region import read_region

    found: dict[str, Region | Literal["none"]] = {}
    for text in given or ():
        category, file = _parted(text)
        if category in found:
            which = f"category {category}" if category else "all categories"
            raise ConfigError(f"--roi {text}: there are two of {which}; give one")
        found[category] = NONE if file == NONE else read_region(file)
    of_all = found.pop("", None)
    return of_all, found


def given_regions(given: "Sequence[str] | None") -> "tuple[Region | None, dict[str, Region]]":
    """As `asked_regions`, for a training, which has nothing to take away: there none is as if not given."""
    of_all, found = asked_regions(given)
    own = {name: one for name, one in found.items() if not isinstance(one, str)}
    return None if isinstance(of_all, str) else of_all, own


def _parted(text: str) -> tuple[str, str]:
    """Category, "" for all of them, and file."""
    category, equals, file = text.partition("=")
    if not equals or Path(text).exists():
        return "", text
    if not category or not file:
        raise ConfigError(f"--roi {text}: give FILE, or CATEGORY=FILE for one category")
    return category, file
