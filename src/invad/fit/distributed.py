"""One process or many: who am I, what do the others hold, how do we agree.

`workers()` reads what torchrun, `accelerate launch` or Slurm's launcher left in the environment. One process
needs no package beside torch; several use accelerate, which finds each one's device and the way to talk.
Everything that a job does differently in many processes goes through the methods of `Workers`.
"""

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from invad.errors import ConfigError, TrainingError, in_one_line
from invad.fit.launch import launched
from invad.system.devices import choose_device
from invad.system.packages import importing
from invad.system.signals import answering

T = TypeVar("T")

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others; a launcher notices one that died at once."""

BUCKET = 32 << 20
"""Bytes of the largest message made of several tensors."""

LOST = (
    "another process of this training ended; what it wrote last is kept: repeat the command with --resume "
    "(with fewer processes or a smaller --batch if memory ran out)"
)


class Workers(Protocol):
    """The processes of a job, of which this is number `rank` of `size`; 0 leads: it writes and speaks."""

    rank: int
    size: int
    device: torch.device | None

    def wrap(self, net: nn.Module) -> nn.Module:
        """The network to call in training; its gradients become the mean over the processes."""

    def apart(self, net: nn.Module) -> AbstractContextManager[None]:
        """Inside, a backward pass through a wrapped network leaves gradients unshared."""

    def total(self, value: Tensor) -> Tensor:
        """The sum over the processes."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag, whether some process holds it."""

    def share(self, tensors: Sequence[Tensor], owner: int) -> None:
        """Overwrite `tensors` by those of process `owner`, which have the same shapes and dtypes."""

    def gather(self, own: Mapping[int, T]) -> dict[int, T]:
        """What all processes hold by key, in the order of the keys; each key belongs to one process."""

    def wait(self) -> None:
        """Until all are here."""


class Solo:
    """The only process. device: None for the default."""

    rank, size = 0, 1

    def __init__(self, device: torch.device | None = None):
        self.device = device

    def wrap(self, net: nn.Module) -> nn.Module:
        return net

    def apart(self, net: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()

    def total(self, value: Tensor) -> Tensor:
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        return flags

    def share(self, tensors: Sequence[Tensor], owner: int) -> None: ...

    def gather(self, own: Mapping[int, T]) -> dict[int, T]:
        return dict(sorted(own.items()))

    def wait(self) -> None: ...


class Team:
    """One of several processes that a launcher started."""

    def __init__(self, cpu: bool):
        # Its functions keep, as a default argument, the group there is when it is imported, which DDP does:
        # a group that outlives `destroy_process_group` can abort the process as it exits.
        import torch.distributed.nn.functional

        with importing(("accelerate",), "distributed", "training in several processes"):
            from accelerate import PartialState

        try:
            self._state = PartialState(cpu=cpu, timeout=PATIENCE)
        except RuntimeError as error:  # also of torch.distributed
            line = in_one_line(error)
            raise TrainingError(
                f"the processes of this training cannot reach each other ({line}); repeat the command "
                "with --resume"
            ) from None
        self.rank, self.size = self._state.process_index, self._state.num_processes
        self.device: torch.device | None = self._state.device

    def wrap(self, net: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)

    def apart(self, net: nn.Module) -> AbstractContextManager[None]:
        assert isinstance(net, nn.parallel.DistributedDataParallel)
        return net.no_sync()

    def total(self, value: Tensor) -> Tensor:
        value = value.clone()
        torch.distributed.all_reduce(value)
        return value

    def any(self, *flags: bool) -> tuple[bool, ...]:
        held = torch.tensor(flags, dtype=torch.int32, device=self.device)
        torch.distributed.all_reduce(held, torch.distributed.ReduceOp.MAX)
        return tuple(bool(flag) for flag in held.tolist())

    def share(self, tensors: Sequence[Tensor], owner: int) -> None:
        # A message each would cost more than what it carries.
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.detach().reshape(-1) for tensor in bucket])
            torch.distributed.broadcast(flat, owner)
            if self.rank != owner:
                for tensor, part in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
                    tensor.detach().copy_(part.view_as(tensor))

    def gather(self, own: Mapping[int, T]) -> dict[int, T]:
        from accelerate.utils import gather_object

        items: list[tuple[int, T]] = gather_object(list(own.items()))
        return dict(sorted(items, key=lambda item: item[0]))

    def wait(self) -> None:
        self._state.wait_for_everyone()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, in groups of one dtype that hold at most BUCKET bytes or one tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        held = sum(t.nbytes for t in bucket)
        if bucket and (held + tensor.nbytes > BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def workers(device: str | None = None) -> Iterator[Workers]:
    """The processes of this job; leaving it they part. device: `cpu`, or None for a GPU each if there is one.

    Raises ConfigError without accelerate and for one device for all, and TrainingError, in those that are
    left, when one of several processes ends before its time.
    """
    if launched() == 1:
        yield Solo()
        return
    if device not in (None, "cpu", "cuda"):
        raise ConfigError(f"device {device!r}: each of {launched()} processes takes its own; leave it out")
    team = Team(cpu=device == "cpu" or choose_device(None).type == "cpu")
    with _ended_by_launcher():
        try:
            yield team
            team.wait()
        except RuntimeError as error:
            if _is_lost_peer(error):
                raise TrainingError(LOST) from None
            raise
    torch.distributed.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.distributed.DistError) or "gloo" in text or "nccl" in text


@contextmanager
def _ended_by_launcher() -> Iterator[None]:
    """A launcher ends all when one died, with SIGTERM; that is an error like others, not a silent death."""

    def ended() -> None:
        raise TrainingError(LOST)

    with answering([signal.SIGTERM], ended):
        yield
