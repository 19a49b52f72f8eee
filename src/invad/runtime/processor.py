"""Which processor this is, as far as arithmetic may depend on it."""

import hashlib
import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

LIMITS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_CPU_ISA_HINTS", "DNNL_CPU_ISA_HINTS")
"""Variables by which OpenVINO's kernels are kept from instruction sets."""

FACTS = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
ARM_FACTS = ("CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features")


@cache
def processor() -> str:
    """`AMD EPYC (x86_64, 0f3a9c21)`: name, and a digest of model, instruction sets and their limits."""
    facts = _linux() or {"model name": platform.processor(), "version": platform.version()}
    name = facts.get("model name") or "processor"
    limits = [os.environ.get(variable) for variable in LIMITS]
    told = repr((platform.system(), platform.machine(), sorted(facts.items()), limits))
    return f"{name} ({platform.machine()}, {hashlib.sha256(told.encode()).hexdigest()[:8]})"


def _linux() -> dict[str, str]:
    """What Linux says of the first core."""
    facts = {}
    with suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
        for line in file:
            key, colon, value = line.partition(":")
            if not colon:
                break
            if key.strip() in FACTS + ARM_FACTS:
                facts[key.strip()] = value.strip()
    return facts
