"""The state of a training: weights, their average, optimiser, progress; and its checkpoint.

Of several processes each keeps AdamW's moments and the averaged weights of its share of the parameters (what
is called ZeRO stage 1): no moment and no average exists twice. The checkpoint is that of one process all the
same, so that a training may be continued by another number of processes.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from invad.errors import TrainingError, in_one_line, reason
from invad.fit.distributed import Workers
from invad.model.settings import TrainConfig
from invad.system.digests import plain_sha256
from invad.system.files import take_place, writing
from invad.system.tensors import save_tensors


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the state of an unfinished training lies, and the fingerprint of what it belongs to."""

    path: Path
    fingerprint: str
    every_seconds: float = 60.0


_CURE = "check the images for damaged ones or lower train.lr"


class State:
    """Weights, their average, the optimiser, the last losses and the step count of a training.

    Moments and averages are those of this process's share. whole: no update is under way.
    """

    def __init__(self, net: nn.Module, config: TrainConfig, steps: int, workers: Workers):
        self.net, self.config, self.steps, self.workers = net, config, steps, workers
        self.step, self.whole = 0, True
        weights = net.state_dict()
        self.owner = _owners({name: weight.numel() for name, weight in weights.items()}, workers.size)
        mine = [p for name, p in net.named_parameters() if self.owner[name] == workers.rank]
        # As a group, which may be empty where there are more processes than tensors.
        self.optimizer = torch.optim.AdamW(
            [{"params": mine}], lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.average = {k: v.detach().clone() for k, v in weights.items() if self.owner[k] == workers.rank}
        self.losses: deque[float] = deque(maxlen=max(1, steps // 10))

    def update(self, loss: Tensor) -> float:
        """One step along the gradients of `loss`; returns its value."""
        config, value = self.config, loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"step {self.step + 1}: the loss is {value}; {_CURE} ({config.lr})")
        self.whole = False
        rise = min(1.0, (self.step + 1) / max(1, config.warmup, config.warmup_share * self.steps))
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * rise * 0.5 * (1 + math.cos(math.pi * self.step / self.steps))
        nn.utils.clip_grad_norm_(self.net.parameters(), config.grad_clip)
        self.optimizer.step()
        self.step += 1
        # The average forgets the initial weights faster while it is young.
        decay = min(config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            self._share(dict(self.net.named_parameters()))
            for name, weight in self.net.state_dict().items():
                if name in self.average:
                    self.average[name].lerp_(weight, 1 - decay)
        self.losses.append(value)
        self.whole = True
        return value

    def require_finite(self) -> None:
        bad = not all(bool(v.isfinite().all()) for v in self.average.values())
        if self.workers.any(bad)[0]:
            raise TrainingError(
                f"step {self.step}: a weight is not a finite number; {_CURE} ({self.config.lr})"
            )

    def keep_average(self) -> None:
        """Make the averaged weights those of the network."""
        with torch.no_grad():
            weights = self.net.state_dict()
            for name, average in self.average.items():
                weights[name].copy_(average)
            self._share(weights)

    def _share(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite each by that of the process that owns it."""
        for rank in range(self.workers.size):
            self.workers.share([t for name, t in tensors.items() if self.owner[name] == rank], rank)

    def save(self, checkpoint: Checkpoint) -> None:
        """All processes hand what they hold to the leading one, tensor by tensor; it writes."""
        tensors = {}
        for name, tensor in self._tensors():
            if self.workers.rank == 0:
                tensors[name] = tensor.detach().cpu().contiguous().clone()
        if self.workers.rank != 0:
            return
        tensors["losses"] = torch.tensor(list(self.losses), dtype=torch.float64)
        meta = {"step": str(self.step), "fingerprint": checkpoint.fingerprint}
        path = checkpoint.path
        # Of one name always: whatever ends the process here, one unfinished checkpoint stays at most.
        partial = path.with_name(f".{path.name}.partial")
        with writing(path, TrainingError):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                save_tensors(partial, tensors, meta)
                take_place(partial, path)
            finally:
                partial.unlink(missing_ok=True)

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that a checkpoint holds but the losses, the same names in every process."""
        weights = self.net.state_dict()
        for name, weight in weights.items():
            yield f"net.{name}", weight
            yield f"average.{name}", self._from_owner(name, self.average.get(name), weight)
        for i, (name, weight) in enumerate(self.net.named_parameters()):
            entry = self.optimizer.state.get(weight, {})
            for key in MOMENTS if self.step else ():
                yield f"optimizer.{i}.{key}", self._from_owner(name, entry.get(key), weight.detach())
            if self.step:
                yield f"optimizer.{i}.step", torch.tensor(float(self.step))

    def _from_owner(self, name: str, own: Tensor | None, like: Tensor) -> Tensor:
        tensor = torch.empty_like(like) if own is None else own
        self.workers.share([tensor], self.owner[name])
        return tensor

    def load(self, checkpoint: Checkpoint) -> None:
        """Read what belongs to this process; others' moments stay on disk."""
        if not checkpoint.path.exists():
            return
        try:
            with safe_open(checkpoint.path, framework="pt") as file:
                meta = file.metadata() or {}
                if meta.get("fingerprint") != checkpoint.fingerprint:
                    raise TrainingError(
                        f"{checkpoint.path}: the checkpoint belongs to other data or options; repeat the "
                        "same command or choose an empty output folder"
                    )
                self.step = int(meta["step"])
                self.losses.extend(file.get_tensor("losses").tolist())
                self._load(file.get_tensor)
        except OSError as error:
            raise TrainingError(f"{checkpoint.path}: {reason(error, writing=False)}") from None
        except SafetensorError as error:
            raise TrainingError(
                f"{checkpoint.path}: unreadable checkpoint ({in_one_line(error)}); delete it and train anew"
            ) from None

    def _load(self, read: Callable[[str], Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.net.state_dict().items():
                weight.copy_(read(f"net.{name}"))
                if name in self.average:
                    self.average[name].copy_(read(f"average.{name}"))
        for i, (name, weight) in enumerate(self.net.named_parameters()):
            if self.step and self.owner[name] == self.workers.rank:
                entry = {key: read(f"optimizer.{i}.{key}").to(weight.device) for key in MOMENTS}
                self.optimizer.state[weight] = {"step": read(f"optimizer.{i}.step"), **entry}


MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of a parameter, beside the number of steps."""


def _owners(sizes: dict[str, int], processes: int) -> dict[str, int]:
    """The process that keeps moments and average of each tensor: the largest first, to who has least."""
    held = [0] * processes
    owner = {}
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        owner[name] = held.index(min(held))
        held[owner[name]] += sizes[name]
    return owner


def fingerprint(*parts: object) -> str:
    """A short hash of plain data, to tell whether a checkpoint belongs to a command."""
    return plain_sha256(parts, default=str)[:16]
