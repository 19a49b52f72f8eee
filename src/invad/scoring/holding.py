"""Which normals are held out, so that what a model says of them is what it says of new ones."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEW_GROUPS = 60
"""Below this many independent groups of normals, four fifths would be too few to learn from: the model that
is kept learns from all."""

MANY_GROUPS = 2500
"""From this many independent groups of every category on, a fifth of them is enough for the limits."""

WHOLE = "denoiser"
"""The name of the only model of a training, and of that which learns from all."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Who reads which normals. parts: (kept, held) indices; a model learns from the first and reads the
    second. whole: whether one that learns from all is kept in the end; else the last of these is.
    """

    parts: tuple[tuple[NDArray[np.intp], NDArray[np.intp]], ...]
    whole: bool = False

    def name(self, number: int) -> str:
        """Of the model of a part, counted from 1: progress, records and checkpoints have it."""
        return f"fold {number} of {len(self.parts)}" if self.whole or len(self.parts) > 1 else WHOLE

    @property
    def unlearned(self) -> NDArray[np.intp]:
        """What the model that is kept did not learn from; of what was held out it is the last."""
        return self.parts[-1][1][: 0 if self.whole else None]


def turns(categories: Sequence[str], groups: Sequence[Hashable], seed: int, *, once: bool) -> Turns:
    """How a training holds its normals out (docs/method.md, "Held-out normals").

    Of fewer than FEW_GROUPS groups, or one of each category, each is held out by one of four models, and one
    that learns from all is kept. Of more each is held out by one of five, and the last of these is kept. But
    some are held out for good, as `apart` says, where every category has MANY_GROUPS, and where a model is to
    be made `once`, because five, or reading all normals, would take too long. The only group of a category is
    always kept. categories, groups: of each item; a group is never divided.
    """
    own: dict[str, set[Hashable]] = {}
    for kind, group in zip(categories, groups, strict=True):
        own.setdefault(kind, set()).add(group)
    only = {group for those in own.values() if len(those) == 1 for group in those}
    if len(set(groups)) < FEW_GROUPS or only == set(groups):
        return Turns(tuple(folds(categories, 4, seed, groups)), whole=True)
    if once or min(map(len, own.values())) >= MANY_GROUPS:
        return Turns((apart(categories, groups, seed),))
    some = np.array([i for i, group in enumerate(groups) if group not in only])
    parts = folds([categories[i] for i in some], 5, seed, [groups[i] for i in some])
    everything = np.arange(len(groups))
    return Turns(tuple((np.setdiff1d(everything, some[out]), some[out]) for _, out in parts))


def apart(
    categories: Sequence[str], groups: Sequence[Hashable], seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(kept, held) indices: the share of `hold_out` of the groups of every category is held out for good."""
    first = np.array(_categories_of_groups(categories, groups))
    kept, held = [], []
    for kind in dict.fromkeys(first.tolist()):
        own = np.flatnonzero(first == kind)
        a, b = hold_out([groups[i] for i in own.tolist()], seed)
        kept.append(own[a])
        held.append(own[b])
    return np.concatenate(kept), np.concatenate(held)


def _categories_of_groups(categories: Sequence[str], groups: Sequence[Hashable]) -> list[str]:
    """Of each item that of the first of its group: a group goes with its first, whose category may be another
    than that of its others."""
    first: dict[Hashable, str] = {}
    return [first.setdefault(group, own) for group, own in zip(groups, categories, strict=True)]


def folds(
    categories: Sequence[str], count: int, seed: int, groups: Sequence[Hashable] | None = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """(rest, fold) index pairs: a seeded shuffle dealt into `count` near-equal folds (at most one per group).

    categories: of each item; every one is spread over as many folds as it can fill. groups: of each item,
    None for one each; a group is never divided (one that spans categories goes with its first).
    """
    members = members_of(groups or range(len(categories)))
    first_of = np.asarray([categories[own[0]] for own in members])
    order = np.random.default_rng(seed).permutation(len(members))
    order = order[np.argsort(first_of[order], kind="stable")]
    for first in range(min(count, len(members))):
        part = np.concatenate([members[unit] for unit in order[first::count]])
        yield np.setdiff1d(np.arange(len(categories)), part), np.sort(part)


def hold_out(
    groups: int | Sequence[Hashable], seed: int, *, share: float = 0.2, minimum: int = 8
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(kept, held) indices: a seeded random `share` of the groups, at least `minimum` of them, is held out.

    groups: of each item, or the number of items where each is one. Of fewer than twice the minimum it is
    half: a category has to be learned, too.
    """
    members = members_of(range(groups) if isinstance(groups, int) else groups)
    n = len(members)
    held = min(max(minimum, round(share * n)), n // 2)
    order = np.random.default_rng(seed).permutation(n)
    kept_held = (np.concatenate([members[u] for u in p] or [[]]) for p in (order[held:], order[:held]))
    kept, out = (np.sort(part.astype(np.intp)) for part in kept_held)
    return kept, out


def members_of(groups: Sequence[Hashable]) -> list[NDArray[np.intp]]:
    """The items of each group, in the order of their first ones."""
    own: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        own.setdefault(group, []).append(i)
    return [np.array(items, dtype=np.intp) for items in own.values()]
