"""Waiting for what another thread or process does."""

import time


def waits(condition, seconds=60):
    """What `condition` gives once that is true. Fails when it does not become so; the machine may be busy."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.005)
    return found
