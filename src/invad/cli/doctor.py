"""invad doctor"""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import typer

from invad.cli.options import JsonOption
from invad.cli.voice import Voice

PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "scipy": "scipy",
    "pillow": "PIL",
    "tifffile": "tifffile",
    "typer": "typer",
    "rich": "rich",
    "jinja2": "jinja2",
}
"""What every installation has: distribution -> what it is imported as."""

ROOM = 5 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `ok` False means that invad will not work."""

    name: str
    ok: bool
    detail: str


def doctor(json: JsonOption = None) -> None:
    """Check this machine: Python, packages, torch with torchvision, devices, caches, shipped backbone.

    Exits with status 1 when something is broken.
    """
    voice = Voice(json)
    findings = [_look(name, check) for name, check in CHECKS.items()]
    voice.table([("ok" if f.ok else "BROKEN", f.name, f.detail) for f in findings])
    healthy = all(f.ok for f in findings)
    voice.say("Everything invad needs works." if healthy else "invad will not work until this is mended.")
    voice.hand_over({"ok": healthy, "checks": [asdict(f) for f in findings]})
    if not healthy:
        raise typer.Exit(1)


def _look(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:  # a broken installation fails in any way it likes
        return Finding(name, False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")


def _python() -> str:
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        raise RuntimeError(f"{platform.python_version()}, but invad is tested with 3.10 to 3.13")
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _packages() -> str:
    for module in PACKAGES.values():
        import_module(module)
    return ", ".join(f"{name} {version(name)}" for name in PACKAGES)


def _pair() -> str:
    """A torchvision built for another torch imports half and fails at its first own operator."""
    import torch

    torchvision, ops = import_module("torchvision"), import_module("torchvision.ops")
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    kept = ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    if kept != [0, 2]:
        raise RuntimeError(f"torchvision.ops.nms gave {kept} instead of [0, 2]")
    return f"torch {torch.__version__} and torchvision {torchvision.__version__} work together"


def _devices() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu (no CUDA GPU that torch can use)"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    torch.ones(2, device="cuda").sum().item()
    return f"cpu, cuda: {', '.join(names)}"


def _threads() -> str:
    import torch

    asked = os.environ.get("OMP_NUM_THREADS", "not set")
    used = torch.get_num_threads()
    return f"torch uses {used}, the machine has {os.cpu_count()}, OMP_NUM_THREADS is {asked}"


def _caches() -> str:
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = {"HF_HOME": Path(HF_HUB_CACHE), "TORCH_HOME": Path(torch.hub.get_dir())}
    return ", ".join(f"{name}: {_state(path)}" for name, path in folders.items())


def _state(path: Path) -> str:
    if path.parts[0] == "~":
        return "none, because this user has no home folder; set it to one where weights are to be fetched"
    return f"{path} ({'exists' if path.is_dir() else 'not there yet'})"


def _network() -> str:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set: weights come from the cache, --weights or the package only"
    return "weights may be fetched from the hub; HF_HUB_OFFLINE=1 forbids it"


def _room() -> str:
    with tempfile.TemporaryFile() as file:
        file.write(b"0")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    few = ", which may be too little for the features of a large set" if free < ROOM else ""
    return f"{folder} is writable, {free / 2**30:.0f} GB free{few}"


def _loads(name: str) -> str:
    import torch

    from invad.backbones.registry import load_backbone

    net = load_backbone(name)
    maps = net(torch.full((1, 3, 64, 64), 0.5))
    if not all(bool(torch.isfinite(m).all()) for m in maps):
        raise RuntimeError("its features are not finite numbers")
    return f"loads; {sum(m.shape[1] for m in maps)} channels at {len(maps)} strides; {net.info.licence}"


CHECKS: dict[str, Callable[[], str]] = {
    "python": _python,
    "packages": _packages,
    "torch pair": _pair,
    "devices": _devices,
    "threads": _threads,
    "caches": _caches,
    "network": _network,
    "temporary files": _room,
    **{name: partial(_loads, name) for name in ("invad-s", "efficientnet-lite2")},
}
