"""One writer at a time, between real processes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from invad.errors import DataError
from invad.system.lock import LOCK, sole_writer

SRC = Path(__file__).resolve().parents[2] / "src"
HOLD = """
import sys
from pathlib import Path
from invad.system.lock import sole_writer
with sole_writer(Path(sys.argv[1]), "training"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    with process:
        yield process
        process.kill()


def test_another_process_is_told(tmp_path, holder):
    refused = pytest.raises(DataError, match=f"{tmp_path}: another training is writing here; wait")
    with refused, sole_writer(tmp_path, "training"):
        pass
    holder.stdin.close()
    assert holder.wait(10) == 0
    with sole_writer(tmp_path, "training"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_stops_nobody(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with sole_writer(tmp_path, "training"):
        pass


def test_who_waits_goes_on_when_the_other_ends(tmp_path, holder):
    with sole_writer(tmp_path, "training", waiting=lambda: holder.stdin.close()):
        assert holder.wait(10) == 0
        assert (tmp_path / LOCK).exists()  # its own, not that of the process before


def test_one_process_holds_a_folder_once(tmp_path):
    with sole_writer(tmp_path, "run"):
        again = pytest.raises(DataError, match="another run")
        with again, sole_writer(tmp_path, "run"):
            pass


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be written"), sole_writer(tmp_path / "none", "run"):
        pass
