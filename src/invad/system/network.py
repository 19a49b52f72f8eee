"""Whether a server can be reached, said within seconds."""

import socket
import threading
import urllib.request
from urllib.parse import urlsplit

PATIENCE = 4.0
"""Seconds to wait for a connection."""

PORTS = {"http": 80}


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
