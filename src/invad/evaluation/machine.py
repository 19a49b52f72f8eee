"""The machine a figure was measured on, and how much memory a piece of work needed."""

import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from invad.system.version import __version__

PACKAGES = ("torch", "numpy", "scipy", "timm")
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def facts() -> dict[str, Any]:
    """What belongs beside a measured figure: date, processor, cores, threads, versions; plain data."""
    torch = sys.modules.get("torch")
    return {
        "date": date.today().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch is not None else None,
        "gpu": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {"invad": __version__, **{name: _version(name) for name in PACKAGES}},
    }


def in_words(facts: Mapping[str, Any]) -> str:
    """`AMD EPYC, 2 cores, 1 thread` of what `facts` says."""
    threads = facts["threads"]
    return f"{facts['gpu'] or facts['cpu']}, {facts['cores']} cores, {threads} thread{'s' * (threads != 1)}"


class PeakMemory:
    """Largest memory in MB since it was made: of the GPU if `device` is one, else of this process.

    The peak of a process can be reset on Linux only; elsewhere it is that of its whole life, or None.
    """

    def __init__(self, device: str = "cpu"):
        self.device = device
        if self.on_gpu:
            sys.modules["torch"].cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):
                CLEAR.write_text("5")

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")

    def megabytes(self) -> float | None:
        if self.on_gpu:
            allocated: int = sys.modules["torch"].cuda.max_memory_allocated(self.device)
            return round(allocated / 2**20, 1)
        with suppress(OSError):
            for line in STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return round(int(line.split()[1]) / 1024, 1)
        try:
            import resource
        except ImportError:
            return None
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
