"""What is pure code is tested without torch: metrics, limits, regions and likeness."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
PURE = (
    "metrics/test_exact.py",
    "metrics/test_intervals.py",
    "metrics/test_sampled.py",
    "scoring/test_calibration.py",
    "scoring/test_likeness.py",
    "scoring/test_regions.py",
)


def test_pure_code_is_collected_and_tested_without_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is blocked')")
    chosen = "interval or regions or likeness or p_value_by_brute_force or by_hand"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *PURE]
    done = subprocess.run(
        [*command, "-k", chosen],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{TESTS.parent / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert " passed" in done.stdout
