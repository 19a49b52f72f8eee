import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[1] / "src"
gnu_openmp = pytest.mark.skipif(
    sys.platform != "linux" or (os.cpu_count() or 1) < 2,
    reason="threads spin on Linux with several processors",
)

LIBRARY = """
import time, torch
from invad.runtime.torch_engine import TorchEngine

torch.set_num_threads(2)

def awake():
    x = torch.zeros(1 << 18)
    x.add_(1)
    before = time.process_time()
    for _ in range(40):
        x.add_(1)
        time.sleep(0.004)
    return time.process_time() - before

first = awake()
TorchEngine(lambda *given: given, "cpu")
print(first, awake(), torch.get_num_threads())
"""

COMMAND = """
import os, sys
from invad.cli.app import main

try:
    main()
except SystemExit:
    print(os.environ.get("OMP_WAIT_POLICY"), "torch" in sys.modules)
"""


def outside(code, *arguments, **chosen):
    """What a fresh process prints whose environment says of OpenMP only what is chosen."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_", "KMP_"))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**kept, "PYTHONPATH": str(SRC), **chosen},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.split()


@gnu_openmp
def test_threads_sleep_where_torch_was_loaded_before_and_their_number_stays():
    before, after, threads = map(float, outside(LIBRARY))
    assert after < before / 5
    assert threads == 2


@gnu_openmp
def test_a_fitted_detector_lets_no_thread_spin(detector):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.zeros(1 << 18)
        x.add_(1)
        used = time.process_time()
        for _ in range(20):
            x.add_(1)
            time.sleep(0.004)
        assert time.process_time() - used < 20 * 0.002
    finally:
        torch.set_num_threads(before)


def test_the_command_has_threads_sleep_before_torch_is_loaded():
    *_, policy, loaded = outside(COMMAND, "--version")
    assert (policy, loaded) == ("passive", "False")


@pytest.mark.parametrize("choice", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_user_who_chose_is_obeyed(choice, monkeypatch):
    from invad.system import waiting

    for name in waiting.CHOICES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(choice, "active" if choice == "OMP_WAIT_POLICY" else "100")
    before = dict(os.environ)
    waiting.sleep_in_this_process()
    assert dict(os.environ) == before
