"""Signals such as that of Ctrl-C, answered by a function as long as a block runs."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

INTERRUPT = signal.SIGINT
"""Ctrl-C."""


def is_unanswered(number: int) -> bool:
    """Whether a signal does what it does in a program that says nothing of it."""
    return signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def answering(numbers: Iterable[int], answer: Callable[[], None]) -> Iterator[None]:
    """Call `answer` for these signals, whose handlers come back afterwards.

    Python hands signals to the main thread alone: in another one this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: answer()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def keeping(number: int) -> Iterator[None]:
    """Give a signal its handler back after a block, in which a library may take it for itself."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        is_main = threading.current_thread() is threading.main_thread()
        # None stands for a handler that Python does not know and cannot set.
        if is_main and before is not None and signal.getsignal(number) is not before:
            signal.signal(number, before)
