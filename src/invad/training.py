"""Training of a denoiser on cached features, and nothing else.

Loss (eps-prediction): E || eps_theta(sqrt(abar_t) z + sqrt(1 - abar_t) eps, t) - eps ||^2, the mean over
elements. Every random number of a step comes from a generator seeded by (seed, step), so that a run that was
interrupted and resumed walks exactly the path of one that was not.
"""

import hashlib
import json
import math
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from invad.diffusion.schedule import NoiseSchedule
from invad.errors import ConfigError, TrainingError

EARLY_LEVELS = (20, 400)
"""Levels, from and below, around those a detector reads; most of the others are nearly Gaussian anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """How a denoiser is trained.

    steps: optimiser steps; None for `epochs` passes over the images, at least `min_steps` of them. batch:
    images a step. lr: peak learning rate, reached after `warmup` steps or after `warmup_share` of all of
    them, whichever is later; cosine to zero. ema: decay of the averaged weights that are kept in the end.
    grad_clip: largest gradient norm. early_share: share of the levels drawn from EARLY_LEVELS, where the
    detector reads; the rest is uniform over all. seed: of initial weights, batches, levels and noise.
    """

    steps: int | None = None
    epochs: int = 25
    min_steps: int = 150
    batch: int = 8
    lr: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 50
    warmup_share: float = 0.0
    ema: float = 0.995
    grad_clip: float = 1.0
    early_share: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        rules = {
            "steps": (self.steps is None or self.steps >= 1, "an integer of at least 1"),
            "epochs": (self.epochs >= 1, "an integer of at least 1"),
            "min_steps": (self.min_steps >= 1, "an integer of at least 1"),
            "early_share": (0 <= self.early_share <= 1, "a share from 0 to 1"),
            "batch": (self.batch >= 1, "an integer of at least 1"),
            "lr": (0 < self.lr <= 1e30, "a positive number such as 0.001"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "a number of at least 0"),
            "warmup": (self.warmup >= 0, "an integer of at least 0"),
            "warmup_share": (0 <= self.warmup_share < 1, "a share from 0 to below 1"),
            "ema": (0 <= self.ema < 1, "a number from 0 to below 1, such as 0.99"),
            "grad_clip": (self.grad_clip > 0, "a positive number such as 1"),
            "seed": (0 <= self.seed < 2**32, "an integer from 0 to 4294967295"),
        }
        for name, (holds, wanted) in rules.items():
            if not holds:
                raise ConfigError(f"train.{name} = {getattr(self, name)}: give {wanted}")

    def steps_for(self, images: int) -> int:
        """Optimiser steps for a training on this many images."""
        return self.steps or max(self.min_steps, round(self.epochs * images / self.batch))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the state of an unfinished training lies, and the fingerprint of what it belongs to."""

    path: Path
    fingerprint: str
    every_seconds: float = 60.0


OnStep = Callable[[int, float], None]


def train_denoiser(
    net: nn.Module,
    z_NChw: NDArray[np.float32],
    index: NDArray[np.intp],
    schedule: NoiseSchedule,
    config: TrainConfig,
    *,
    device: torch.device,
    on_step: OnStep = lambda step, loss: None,
    checkpoint: Checkpoint | None = None,
) -> float:
    """Train `net` in place on the images `index` of the features z_NChw; returns its last loss.

    That is the mean over the last tenth of the steps. In the end `net` holds the averaged weights, in
    evaluation mode. An existing checkpoint is continued; one is written every minute, on Ctrl-C (which waits
    for the end of a step) and at the end. Raises TrainingError for a loss that is not a number, and for a
    checkpoint that cannot be written or belongs to something else.
    """
    net.to(device).train()
    steps = config.steps_for(len(index))
    state = _State(net, config, steps)
    if checkpoint is not None:
        state.load(checkpoint)
    abar = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32)
    saved = time.monotonic()
    try:
        with _interrupts_kept() as interrupted:
            while state.step < steps:
                z, t, noise = draw(z_NChw, index, schedule.T, config, state.step)
                loss = state.update(
                    _loss(net, z.to(device), t.to(device), noise.to(device), abar[t].to(device))
                )
                on_step(state.step, loss)
                if interrupted():
                    raise KeyboardInterrupt
                if checkpoint is not None and time.monotonic() - saved > checkpoint.every_seconds:
                    state.save(checkpoint)
                    saved = time.monotonic()
    except KeyboardInterrupt:
        if checkpoint is not None and state.whole:
            state.save(checkpoint)
        raise
    state.require_finite()
    if checkpoint is not None:
        state.save(checkpoint)
    net.load_state_dict(state.average)
    net.eval()
    return float(np.mean(state.losses))


@contextmanager
def _interrupts_kept() -> Iterator[Callable[[], bool]]:
    """Ctrl-C only marks that it was pressed, so that no step is torn; a second one interrupts at once."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pressed = threading.Event()

    def keep(number: int, frame: object) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    signal.signal(signal.SIGINT, keep)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def draw(
    z_NChw: NDArray[np.float32], index: NDArray[np.intp], levels: int, config: TrainConfig, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The batch of a step, a function of (seed, step): features, levels B, noise B x C x h x w."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
    chosen = index[torch.randint(len(index), (config.batch,), generator=generator).numpy()]
    z = torch.from_numpy(np.ascontiguousarray(z_NChw[chosen]))
    t = torch.randint(levels, (config.batch,), generator=generator)
    early = torch.randint(*EARLY_LEVELS, (config.batch,), generator=generator)
    t = torch.where(torch.rand(config.batch, generator=generator) < config.early_share, early, t)
    return z, t, torch.randn(z.shape, generator=generator)


def _loss(net: nn.Module, z_BChw: Tensor, t_B: Tensor, noise_BChw: Tensor, abar_B: Tensor) -> Tensor:
    a = abar_B.view(-1, 1, 1, 1)
    x = a.sqrt() * z_BChw + (1 - a).sqrt() * noise_BChw
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
        predicted = net(x, t_B)
    return F.mse_loss(predicted.float(), noise_BChw)


class _State:
    """Weights, their average, the optimiser, the last losses and the step count of a training.

    whole: no update is under way.
    """

    def __init__(self, net: nn.Module, config: TrainConfig, steps: int):
        self.net, self.config, self.steps, self.step, self.whole = net, config, steps, 0, True
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.losses: deque[float] = deque(maxlen=max(1, steps // 10))

    def update(self, loss: Tensor) -> float:
        """One step down `loss`; returns its value."""
        config, value = self.config, loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"step {self.step + 1}: the loss is {value}; {_CURE} ({config.lr})")
        self.whole = False
        rise = min(1.0, (self.step + 1) / max(1, config.warmup, config.warmup_share * self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * rise * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(self.net.parameters(), config.grad_clip)
        self.optimizer.step()
        self.step += 1
        # The average forgets the initial weights faster while it is young.
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, weight in self.net.state_dict().items():
                self.average[name].lerp_(weight, 1 - decay)
        self.losses.append(value)
        self.whole = True
        return value

    def require_finite(self) -> None:
        if not all(bool(v.isfinite().all()) for v in self.average.values()):
            raise TrainingError(
                f"step {self.step}: a weight is not a finite number; {_CURE} ({self.config.lr})"
            )

    def save(self, checkpoint: Checkpoint) -> None:
        tensors = {f"net.{k}": v for k, v in self.net.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.items()}
        for i, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in entry.items()}
        tensors["losses"] = torch.tensor(list(self.losses), dtype=torch.float64)
        own = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        meta = {"step": str(self.step), "fingerprint": checkpoint.fingerprint}
        path = checkpoint.path
        partial = path.with_name(f".{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(own, partial, metadata=meta)
            partial.replace(path)
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{path}: the checkpoint could not be written ({error}); free space or choose another folder"
            ) from None
        finally:
            if partial.is_file():
                partial.unlink()

    def load(self, checkpoint: Checkpoint) -> None:
        if not checkpoint.path.exists():
            return
        try:
            with safe_open(checkpoint.path, framework="pt") as file:
                meta = file.metadata() or {}
                tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise TrainingError(
                f"{checkpoint.path}: unreadable checkpoint ({error}); delete it and train anew"
            ) from None
        if meta.get("fingerprint") != checkpoint.fingerprint:
            raise TrainingError(
                f"{checkpoint.path}: the checkpoint belongs to other data or options; repeat the same "
                "command or choose an empty output folder"
            )
        self.step = int(meta["step"])
        self.losses.extend(tensors["losses"].tolist())
        self.net.load_state_dict(_part(tensors, "net."))
        device = next(self.net.parameters()).device
        self.average = {k: v.to(device) for k, v in _part(tensors, "average.").items()}
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in _part(tensors, "optimizer.").items():
            i, key = name.split(".", 1)
            entries.setdefault(int(i), {})[key] = value
        if entries:
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": entries, "param_groups": groups})


_CURE = "check the images for damaged ones or lower train.lr"


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def fingerprint(*parts: object) -> str:
    """A short hash of plain data, to tell whether a checkpoint belongs to a command."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]
