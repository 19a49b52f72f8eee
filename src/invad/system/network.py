"""Whether a server can be reached, said within seconds, and why a port cannot be had."""

import errno
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

PATIENCE = 4.0
"""Seconds to wait for a connection."""

PORTS = {"http": 80}


def why_no_port(host: str, error: OSError, taken: str = "is the port taken?") -> str:
    """What the system says of a port of this machine that cannot be had, and what to do about it.

    host: the one that was given, which may be of another machine. taken: what to do where something else has
    the port.
    """
    said = error.strerror or type(error).__name__
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        every = "::" if ":" in host else "0.0.0.0"
        return (
            f"{said}; {host} is no address of this machine: give one of its own, or {every} for all of them"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{said}; it takes a right to open ports below 1024"
    return f"{said}; {taken}"


def is_reachable(address: str) -> bool:
    """Whether the server of an http or https address takes a connection within PATIENCE.

    Behind a proxy only the client itself can tell, and the answer is yes.
    """
    url = urlsplit(address)
    if url.scheme in urllib.request.getproxies():
        return True
    return _answers(str(url.hostname), url.port or PORTS.get(url.scheme, 443))


def _answers(host: str, port: int) -> bool:
    answered = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
            answered.set()
        except OSError:
            pass
        finally:
            done.set()

    done = threading.Event()
    # A thread, because looking up a name has no time limit of its own.
    threading.Thread(target=connect, daemon=True).start()
    done.wait(PATIENCE)
    return answered.is_set()
