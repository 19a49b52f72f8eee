"""A service on a port, until a signal ends it."""

import signal
from collections.abc import Callable
from contextlib import ExitStack

from invad.serve.app import application
from invad.serve.listening import (
    Address,
    Server,
    ended_by_signals,
    log_to_standard_error,
    open_port,
    server_for,
    url_of,
)
from invad.serve.plant.plant import Plant
from invad.serve.service import Service
from invad.system.signals import answering

__all__ = ["Address", "log_to_standard_error", "run", "server_of"]

CLOSE_SECONDS = 2.0
"""For parts whose connections were cut."""


def run(service: Service, address: Address, said: Callable[[str], None], plant: Plant | None = None) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then take no more, answer those under way, close the service.

    said: told the address when the port is open. plant: sources that are started then and ended before the
    service; SIGHUP has them read their file again. Raises DataError for a port that cannot be had.
    """
    opened = open_port(address)
    server = server_of(service, address)
    with ExitStack() as ends:
        ends.enter_context(ended_by_signals(server))
        ends.callback(service.close, CLOSE_SECONDS)
        ends.callback(opened.close)
        if plant is not None:
            ends.enter_context(answering((signal.SIGHUP,), plant.ask_reload))
            ends.callback(plant.close)
            plant.start()
        said(url_of(opened, address))
        server.run([opened])


def server_of(service: Service, address: Address) -> Server:
    """A server that was not started; it leaves signals alone."""
    app = application(service, without_keys=address.without_keys, prefix=address.prefix)
    return server_for(app, address, service.options.head_seconds)
