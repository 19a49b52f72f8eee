"""What systemd hears, by a socket that stands for its own."""

import os
import socket
import time

import pytest

from invad.system.supervisor import Supervisor


@pytest.fixture(params=["path", "abstract"])
def heard(request, tmp_path):
    """(address, a function that gives what has come)."""
    name = f"@invad-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0", 1))
        listening.setblocking(False)

        def come():
            found = []
            while True:
                try:
                    found.append(listening.recv(4096).decode())
                except BlockingIOError:
                    return found

        yield name, come


def test_it_hears_that_the_service_is_ready_alive_and_about_to_end(heard):
    address, come = heard
    told = Supervisor.of_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "90000"})
    told.ready()
    told.alive()
    assert come() == [f"READY=1\nMAINPID={os.getpid()}"]
    time.sleep(0.03)
    told.alive()
    told.stopping()
    assert come() == ["WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize(
    "watchdog", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}]
)
def test_without_a_watchdog_of_this_process_there_are_no_signs_of_life(watchdog, heard):
    address, come = heard
    told = Supervisor.of_environment({"NOTIFY_SOCKET": address, **watchdog})
    time.sleep(0.001)
    told.alive()
    assert come() == []


def test_without_a_supervisor_nothing_is_told_and_one_that_is_gone_holds_up_nothing(tmp_path, caplog):
    Supervisor.of_environment({}).ready()
    assert caplog.text == ""
    Supervisor(str(tmp_path / "gone"), 1).ready()
    assert f"NOTIFY_SOCKET {tmp_path / 'gone'}: " in caplog.text
