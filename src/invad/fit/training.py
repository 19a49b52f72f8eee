"""Training of a denoiser on cached features, and nothing else.

Loss (eps-prediction): E || eps_theta(sqrt(abar_t) z + sqrt(1 - abar_t) eps, t) - eps ||^2, the mean over
elements. Every random number of a step comes from a generator seeded by (seed, step), so that a run that was
interrupted and resumed walks exactly the path of one that was not.

Of several processes each draws the same batch and takes its part of it; gradients are averaged by
DistributedDataParallel, updated weights sent around by their owners (see state.py). Loss and path are
those of one process but for rounding.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from invad.diffusion.base import Denoiser, over_channels
from invad.diffusion.schedule import SCHEDULE
from invad.errors import ConfigError, TrainingError
from invad.fit.distributed import Solo, Workers
from invad.fit.state import Checkpoint, State, fingerprint
from invad.model.settings import TrainConfig
from invad.system.signals import INTERRUPT, answering, is_unanswered

__all__ = ["Checkpoint", "Execution", "draw", "fingerprint", "train_denoiser"]

EARLY_LEVELS = (20, 400)
"""Levels, from and below, around those a detector reads; most of the others are nearly Gaussian anyway."""

POOL = 4
"""Where cells are drawn: images read for each one that a batch has room for. Cells of one image are alike."""

PRECISIONS = ("fp32", "bf16")

QUICK = 3.0
"""Seconds that a checkpoint may take; one that takes k times as long is written k times more rarely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How the steps are computed; it changes time and memory, and the result only by rounding.

    accumulate: parts of a process's images of a step that pass the network one after the other.
    precision: of the matrix products, `fp32` or `bf16`; None for bf16 on a GPU. checkpointing: keep only the
    input of each transformer block and compute the rest again for the gradient.
    """

    accumulate: int = 1
    precision: str | None = None
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ConfigError(f"accumulate = {self.accumulate}: give an integer of at least 1")
        if self.precision not in (None, *PRECISIONS):
            raise ConfigError(f"precision = {self.precision!r}: give {' or '.join(PRECISIONS)}")

    def precision_on(self, device: torch.device) -> str:
        return self.precision or ("bf16" if device.type == "cuda" else "fp32")

    def parts(self, batch: int, workers: Workers) -> list[slice]:
        """Which images of a batch this process takes, part by part."""
        count = self.accumulate * workers.size
        if batch < count:
            raise ConfigError(
                f"train.batch = {batch}: fewer images than {workers.size} processes x {self.accumulate} "
                "parts; raise --batch or lower --accumulate"
            )
        numbers = (part * workers.size + workers.rank for part in range(self.accumulate))
        return [slice(n * batch // count, (n + 1) * batch // count) for n in numbers]


OnStep = Callable[[int, float], None]
PLAIN = Execution()
ALONE = Solo()


def train_denoiser(
    net: Denoiser,
    z_NChw: NDArray[np.float32],
    index: NDArray[np.intp],
    config: TrainConfig,
    *,
    device: torch.device,
    on_step: OnStep = lambda step, loss: None,
    checkpoint: Checkpoint | None = None,
    execution: Execution = PLAIN,
    workers: Workers = ALONE,
) -> float:
    """Train `net` in place on the images `index` of the features z_NChw; returns its last loss.

    That is the mean over the last tenth of the steps. In the end `net` holds the averaged weights, in
    evaluation mode. An existing checkpoint is continued; one is written every minute (more rarely where that
    takes long), on Ctrl-C (which waits for the end of a step) and at the end. All workers call this with the
    same arguments. Raises TrainingError for a loss that is not a number, when memory runs out, and for a
    checkpoint that cannot be written or belongs to something else; ConfigError for a batch of fewer images
    than workers.
    """
    parts = execution.parts(config.batch, workers)
    if config.draw == "cells" and not net.cellwise:
        raise ConfigError(
            "train.draw = cells: the cells of an image influence each other in this network; give images"
        )
    net.to(device).train()
    net.recompute_activations(execution.checkpointing)
    steps = config.steps_for(len(index))
    state = State(net, config, steps, workers)
    if checkpoint is not None:
        state.load(checkpoint)
    model = workers.wrap(net)
    abar = torch.tensor(SCHEDULE.alphas_cumprod, dtype=torch.float32)
    bf16 = execution.precision_on(device) == "bf16"
    clock = _Clock(checkpoint)
    asked = stop = False
    try:
        with _interrupts_kept() as interrupted:
            while state.step < steps:
                z, t, noise = draw(z_NChw, index, SCHEDULE.T, config, state.step)
                batch = [part.to(device) for part in (z, t, noise, abar[t])]
                loss = state.update(_backward(model, batch, parts, bf16, workers))
                try:
                    on_step(state.step, loss)
                    asked = interrupted()
                except KeyboardInterrupt:
                    asked = True
                stop, due = workers.any(asked, clock.due)
                if stop:
                    raise KeyboardInterrupt
                if due and checkpoint is not None:
                    clock.time(lambda: state.save(checkpoint))
    except KeyboardInterrupt:
        # Several processes write together: only when all know of it.
        if checkpoint is not None and state.whole and (stop or workers.size == 1):
            state.save(checkpoint)
        raise
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _is_out_of_memory(error):
            raise
        raise TrainingError(f"step {state.step + 1}: out of memory; {_RELIEF}") from None
    finally:
        net.recompute_activations(False)
    state.require_finite()
    if checkpoint is not None:
        state.save(checkpoint)
    state.keep_average()
    net.eval()
    return float(np.mean(state.losses))


class _Clock:
    """Tells when the next checkpoint is due."""

    def __init__(self, checkpoint: Checkpoint | None):
        self.every = self.pause = math.inf if checkpoint is None else checkpoint.every_seconds
        self.last = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self.last > self.pause

    def time(self, save: Callable[[], None]) -> None:
        started = time.monotonic()
        save()
        self.last = time.monotonic()
        self.pause = self.every * max(1.0, (self.last - started) / QUICK)


@contextmanager
def _interrupts_kept() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only marks that it was pressed, so that no step is torn; a second one interrupts at once."""
    pressed: list[bool] = []

    def keep() -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    # Whoever answers it already, as the command line does, has a way of its own to end between two steps.
    with answering([INTERRUPT] if is_unanswered(INTERRUPT) else [], keep):
        yield lambda: bool(pressed)


def draw(
    z_NChw: NDArray[np.float32], index: NDArray[np.intp], levels: int, config: TrainConfig, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The batch of a step, a function of (seed, step): features, levels, noise B x C x h x w.

    Of whole images the levels are B. Of cells they are B x h x 1: each cell stays in its place, comes from
    one of POOL * B images, and shares its level with the others of its row, which come from other images.
    """
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    B, h, w = config.batch, *z_NChw.shape[2:]
    cells = config.draw == "cells"
    images = POOL * B if cells else B
    chosen = index[torch.randint(len(index), (images,), generator=generator).numpy()]
    z = torch.from_numpy(np.ascontiguousarray(z_NChw[chosen]))
    if cells:
        source = torch.randint(images, (B, 1, h, w), generator=generator)
        z = z.gather(0, source.expand(-1, z.shape[1], -1, -1))
    shape = (B, h, 1) if cells else (B,)
    t = torch.randint(levels, shape, generator=generator)
    early = torch.randint(*EARLY_LEVELS, shape, generator=generator)
    t = torch.where(torch.rand(shape, generator=generator) < config.early_share, early, t)
    return z, t, torch.randn(z.shape, generator=generator)


def _backward(
    model: nn.Module, batch: list[Tensor], parts: list[slice], bf16: bool, workers: Workers
) -> Tensor:
    """Gradients of the mean loss of the whole batch, averaged over the processes; returns that loss."""
    model.zero_grad(set_to_none=True)
    images = len(batch[0])
    own = torch.zeros((), device=batch[0].device)
    for number, part in enumerate(parts, start=1):
        with nullcontext() if number == len(parts) else workers.apart(model):
            share = (part.stop - part.start) / images
            loss = _loss(model, *(tensor[part] for tensor in batch), bf16=bf16) * share
            # The processes' gradients are averaged, their losses add up.
            (loss * workers.size).backward()
        own += loss.detach()
    return workers.total(own)


def _loss(
    net: nn.Module, z_BChw: Tensor, t: Tensor, noise_BChw: Tensor, abar: Tensor, *, bf16: bool
) -> Tensor:
    a = over_channels(abar)
    x = a.sqrt() * z_BChw + (1 - a).sqrt() * noise_BChw
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
        predicted = net(x, t)
    return F.mse_loss(predicted.float(), noise_BChw)


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


_RELIEF = "lower --batch, or try --accumulate 2 or --checkpointing"
