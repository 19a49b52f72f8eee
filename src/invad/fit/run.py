"""Where and how a training runs, and who is told of it."""

import math
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from invad.fit.cache import require_room
from invad.fit.distributed import Solo, Workers
from invad.fit.training import Execution
from invad.observer import NO_RECORD, Observer, Recorder, Silent

MEMORY_LIMIT = 1 << 30
"""Arrays larger than this many bytes are memory-mapped files. Several processes share such a file always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Where and how a training runs, and who is told of it; the result is the same but for rounding.

    work: a folder that keeps checkpoints until the training succeeds, so that the same call continues an
    interrupted one. cache: a folder whose features outlive the training, for others on the same images.
    Without both, what does not fit into memory goes to a temporary folder. workers: the processes that share
    the work (see `invad.fit.distributed.workers`); all make the same call, see the same folders and get the
    same result. execution: parts of a step, precision. observer: told how it goes. recorder: told the loss of
    every step.
    """

    work: Path | None = None
    cache: Path | None = None
    workers: Workers = field(default_factory=Solo)
    execution: Execution = field(default_factory=Execution)
    observer: Observer = field(default_factory=Silent)
    recorder: Recorder = NO_RECORD

    def in_memory(self, shape: tuple[int, ...]) -> bool:
        return self.workers.size == 1 and 4 * math.prod(shape) <= MEMORY_LIMIT

    def keeps(self, shape: tuple[int, ...]) -> bool:
        """Whether features of this shape are written where another run finds them."""
        return self.cache is not None or (self.work is not None and not self.in_memory(shape))

    def empty(self, shape: tuple[int, ...], stack: ExitStack) -> NDArray[np.float32]:
        """An array to fill that all workers see, until the stack is left."""
        if self.in_memory(shape):
            return np.empty(shape, np.float32)
        folder = self.temporary(stack)
        path = folder / "array.npy"
        if self.workers.rank == 0:
            # Asked before: a memory map that finds the disk full kills the process.
            require_room(folder, 4 * math.prod(shape))
            np.lib.format.open_memmap(path, "w+", np.float32, shape)
        self.workers.wait()
        return np.lib.format.open_memmap(path, "r+")

    def temporary(self, stack: ExitStack) -> Path:
        """A new folder, the same for all workers, that goes when the stack is left."""
        own = {}
        if self.workers.rank == 0:
            if self.work is not None:
                self.work.mkdir(parents=True, exist_ok=True)
            made = tempfile.TemporaryDirectory(prefix="invad-features-", dir=self.work)
            own[0] = stack.enter_context(made)
        return Path(self.workers.gather(own)[0])

    def mine(self, items: int) -> range:
        """The numbers of this worker's share."""
        return range(self.workers.rank, items, self.workers.size)
