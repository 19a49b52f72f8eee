"""Which rows of two results are of one part, although other folders stand before their names.

One run named `/data/plates/dent/003.png` and another, from another working folder, `plates/dent/003.png`. So
one exchange of what stands before is looked for, the one that gives the most names of A a name of B, from the
end of the names on. Where it takes nothing away from one of the two, it is the same file, named from
elsewhere. Where both lose a folder, as `monday/003.png` and `tuesday/003.png` do, it may as well be another
part of the same number, which only people know.
"""

import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

Name = tuple[str, ...]

SAMPLED = 64
"""Names of A by which exchanges are looked for."""

TRIED = 20
"""Of them, the most frequent, that are tried on all names."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What stands before the common ends of names: folders of A, and of B."""

    a: Name
    b: Name

    @property
    def is_one_file(self) -> bool:
        """Whether both names can be of one file."""
        return not self.a or not self.b

    @property
    def words(self) -> tuple[str, str]:
        """The two as text; `nothing` where there is none."""
        return "/".join(self.a) or "nothing", "/".join(self.b) or "nothing"


@dataclass(frozen=True, slots=True)
class Match:
    """pairs: numbers of rows of A and of B, by the exchange. Without pairs, exchange is what could be taken
    for one, None where nothing can; rival: another that gives as many, so that neither was taken."""

    pairs: tuple[tuple[int, int], ...] = ()
    exchange: Exchange | None = None
    rival: Exchange | None = None


def match(a: Sequence[str], b: Sequence[str], same_parts: bool = False) -> Match:
    """The pairs of names that differ in nothing, or by one exchange of the folders before them.

    same_parts: also by one of which `is_one_file` is false. No name has two partners.
    """
    of_b = _index(b)
    found: dict[Exchange, tuple[tuple[int, int], ...]] = {}
    names = [_split(name) for name in a]
    for exchange in _exchanges(names, of_b):
        found[exchange] = tuple(_pairs(names, of_b, exchange))
    ranked = sorted(found, key=lambda one: (-len(found[one]), len(one.a) + len(one.b)))
    allowed = [one for one in ranked if same_parts or one.is_one_file]
    if not allowed:
        return Match(exchange=ranked[0]) if ranked else Match()
    ranked, best = allowed, allowed[0]
    if len(ranked) > 1 and len(found[ranked[1]]) == len(found[best]) and (best.a or best.b):
        return Match(exchange=best, rival=ranked[1])
    return Match(found[best], best)


def _split(name: str) -> Name:
    parts = posixpath.normpath(name).split("/")
    return tuple(part for part in parts if part not in ("", ".", ".."))


def _index(names: Sequence[str]) -> dict[Name, int]:
    """Number of each name; without those that two have, such as `x.png` and `../x.png`."""
    made: dict[Name, list[int]] = defaultdict(list)
    for number, name in enumerate(names):
        made[_split(name)].append(number)
    return {name: numbers[0] for name, numbers in made.items() if len(numbers) == 1}


def _exchanges(names: Sequence[Name], of_b: Mapping[Name, int]) -> Iterator[Exchange]:
    by_last: dict[str, list[Name]] = defaultdict(list)
    for name in of_b:
        by_last[name[-1] if name else ""].append(name)
    seen: Counter[Exchange] = Counter()
    for name in names[:: max(1, len(names) // SAMPLED)]:
        for other in by_last.get(name[-1] if name else "", ()):
            length = _common(name, other)
            seen[Exchange(name[: len(name) - length], other[: len(other) - length])] += 1
    yield from (exchange for exchange, _ in seen.most_common(TRIED))


def _common(one: Name, other: Name) -> int:
    """How many of the last words are alike."""
    for length, (x, y) in enumerate(zip(one[::-1], other[::-1], strict=False)):
        if x != y:
            return length
    return min(len(one), len(other))


def _pairs(names: Sequence[Name], of_b: Mapping[Name, int], exchange: Exchange) -> Iterator[tuple[int, int]]:
    taken = set()
    for number, name in enumerate(names):
        if name[: len(exchange.a)] == exchange.a:
            other = of_b.get(exchange.b + name[len(exchange.a) :])
            if other is not None and other not in taken:
                taken.add(other)
                yield number, other
