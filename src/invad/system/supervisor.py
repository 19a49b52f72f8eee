"""What systemd wants to hear of a service of `Type=notify`: that it is ready, alive, about to end.

The protocol is a datagram of text to the socket that NOTIFY_SOCKET names; man sd_notify has it.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping

LOG = logging.getLogger("invad.system")
TIMES = 3
"""Signs of life in the time that the watchdog allows."""


class Supervisor:
    """Tells a supervisor; without one, each call does nothing."""

    def __init__(self, address: str | None, watchdog_seconds: float | None):
        """address: of a datagram socket, a path or, behind @, an abstract name. watchdog_seconds: how long it
        may hear nothing, None for ever."""
        self.address = address
        self._pause = None if watchdog_seconds is None else watchdog_seconds / TIMES
        self._told = 0.0

    @classmethod
    def of_environment(cls, variables: Mapping[str, str] = os.environ) -> "Supervisor":
        """That which started this process, if it asks to be told."""
        micros, process = variables.get("WATCHDOG_USEC", ""), variables.get("WATCHDOG_PID", "")
        # The variables are inherited, and a child is not the one that is watched.
        is_watched = micros.isdecimal() and int(micros) > 0 and process in ("", str(os.getpid()))
        return cls(variables.get("NOTIFY_SOCKET") or None, int(micros) / 1e6 if is_watched else None)

    def ready(self) -> None:
        """Requests are taken from now on."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}")
        self._told = time.monotonic()

    def alive(self) -> None:
        """Called often; tells as often as the watchdog needs."""
        if self._pause is not None and time.monotonic() - self._told >= self._pause:
            self._tell("WATCHDOG=1")
            self._told = time.monotonic()

    def stopping(self) -> None:
        """No more requests are taken."""
        self._tell("STOPPING=1")

    def _tell(self, text: str) -> None:
        if self.address is None:
            return
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)  # a supervisor that does not listen must not hold up requests
                sender.sendto(text.encode(), name)
        except OSError as error:
            LOG.warning("NOTIFY_SOCKET %s: %s", self.address, error)
