"""Names of results: ULIDs, 26 letters and digits that rise with the order in which they were given.

48 bits of milliseconds and 80 random bits in Crockford's base 32 (github.com/ulid/spec). A clock that is set
back does not make them fall: the milliseconds of the last one are then counted on. So do those of several
processes with clocks apart, as long as each is told the largest one before it gives the next.
"""

import secrets
import threading
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 26
RANDOM_BITS = 80


def text_of(number: int) -> str:
    """128 bits as 26 characters."""
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(5 * (LENGTH - 1), -1, -5))


def smallest_id(milliseconds: int) -> str:
    """The first ULID that may be given at a time since 1970."""
    return text_of(max(0, milliseconds) << RANDOM_BITS)


def number_of(text: str) -> int:
    """The reverse of `text_of`. Raises ValueError for what is no ULID."""
    if len(text) != LENGTH:
        raise ValueError(f"{text!r} is no ULID")
    number = 0
    for character in text:
        number = number << 5 | ALPHABET.index(character)
    return number


def time_of_id(text: str) -> int:
    """The milliseconds since 1970 that a ULID begins with. Raises ValueError for what is no ULID."""
    return number_of(text) >> RANDOM_BITS


class Ids:
    """Gives rising ULIDs; may be called from several threads."""

    def __init__(self, last: str | None = None):
        """last: the largest one that was given before, by another process."""
        self._last = number_of(last) if last else 0
        self._lock = threading.Lock()

    def follow(self, last: str | None) -> None:
        """Give larger ones than this from now on."""
        with self._lock:
            self._last = max(self._last, number_of(last) if last else 0)

    def new(self) -> str:
        """One that is larger than all before it."""
        now = time.time_ns() // 1_000_000
        with self._lock:
            drawn = now << RANDOM_BITS | secrets.randbits(RANDOM_BITS)
            # Within one millisecond, or after the clock was set back: a little above the last one.
            self._last = drawn if drawn > self._last else self._last + 1 + secrets.randbits(32)
            return text_of(self._last)
