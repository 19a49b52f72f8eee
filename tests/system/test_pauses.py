"""In a process of their own, because these change the whole of it."""

import subprocess
import sys

import pytest

OWN = """
import gc, sys
from invad.system import pauses

pauses.grown()
assert gc.get_freeze_count() == 0, "a user's process"
pauses.shorten()
assert sys.getswitchinterval() < 0.001
frozen = gc.get_freeze_count()
assert frozen > 1000
made = [[] for _ in range(2000)]
assert any(one is made[0] for one in gc.get_objects())
pauses.grown()
assert gc.get_freeze_count() >= frozen + 2000
assert len(gc.get_objects()) < 500
"""

SERVICE = """
import gc
from invad.serve.listening import Address, ended_by_signals, server_for

with ended_by_signals(server_for(None, Address(), 5)):
    assert gc.get_freeze_count() > 1000
"""


@pytest.mark.parametrize("program", [OWN, SERVICE], ids=["both", "service"])
def test_what_stays_is_left_out_of_the_search_for_garbage(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
