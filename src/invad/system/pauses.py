"""Pauses of the interpreter, for which a part under way would wait."""

import gc
import sys

SWITCH_SECONDS = 0.0005
"""How long a thread may go on in Python while others wait."""


def shorten() -> None:
    """For a process that is invad's own, when what it holds for good is there.

    A thread that comes back from the engine or the disk waits for the interpreter, by default up to 5 ms a
    time. And now and then Python looks through every object there is for cycles without users, while all
    threads stand still: 75 ms beside a model, 170 ms with the nodes of an OPC UA server. What is there now is
    left out from now on. It is freed as ever, unless it is in a cycle.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    _leave_out()


def grown() -> None:
    """Much was made that stays: leave it out, too, where `shorten` was called before."""
    if gc.get_freeze_count():
        _leave_out()


def _leave_out() -> None:
    gc.collect()
    gc.freeze()
