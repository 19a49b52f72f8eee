"""What a launcher of several processes (torchrun, accelerate) left in the environment. Loads no torch."""

import os
from datetime import timedelta

from invad.errors import ConfigError


def launched() -> int:
    """The number of processes of this job, this one among them."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"WORLD_SIZE = {text!r}: give a number of processes, or unset it")
    return int(text)


def first_to_fail() -> bool:
    """Whether this process is the first of its job to fail: one line is enough for all of them."""
    try:
        if launched() == 1:
            return True
    except ConfigError:
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # public in the manual

    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=timedelta(seconds=5),
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return bool(store.add(f"invad-failed-{attempt}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):  # no launcher that keeps a store, or it is gone
        return os.environ.get("RANK", "0") == "0"
