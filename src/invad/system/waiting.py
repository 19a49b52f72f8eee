"""How the threads that share a computation wait for each other: asleep.

PyTorch computes with OpenMP, whose threads, unless told otherwise, spin for some milliseconds at the end of
every parallel loop before they sleep. Beside another process a spinning thread holds a core while the one it
waits for has none, hundreds of times in a step. Asleep it gives the core back. The number of threads stays,
and with it every bit of a result. What this costs and brings: benchmarks/busy.py.
"""

import ctypes
import os
import threading
from functools import cache

CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user chooses; a choice is left alone."""


def sleep_in_this_process() -> None:
    """For a process that is invad's own. OpenMP reads its environment once, when torch is loaded."""
    if not _is_chosen():
        os.environ["OMP_WAIT_POLICY"] = "passive"


def sleep_beside_the_user() -> None:
    """For a process whose user may have loaded torch long ago, and whose environment is not ours to change.

    GNU's OpenMP hardly spins while its threads outnumber the processors (the manual says so under
    GOMP_SPINCOUNT): so as many as there are processors are started here, and sleep. Other OpenMPs, which
    PyTorch has on macOS and Windows, are left as they are.
    """
    if not _is_chosen():
        _outnumber()


def _is_chosen() -> bool:
    return any(name in os.environ for name in CHOICES)


@cache
def _outnumber() -> bool:
    """Whether there are threads now that outnumber the processors; those of two loops do."""
    import torch

    try:
        openmp = ctypes.CDLL(torch._C.__file__)  # which finds what it was linked with
        loop, nothing = openmp.GOMP_parallel, openmp.omp_get_thread_num
        processors: int = openmp.omp_get_num_procs()
    except (AttributeError, OSError):
        return False
    if hasattr(openmp, "kmp_set_blocktime") or processors < 2:
        return False
    started = threading.Event()

    def keep() -> None:
        loop(nothing, None, processors, 0)
        started.set()
        threading.Event().wait()  # they would end with this thread

    threading.Thread(target=keep, name="invad-waiting", daemon=True).start()
    return started.wait(timeout=10)
