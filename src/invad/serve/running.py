"""A service on a port, until a signal ends it."""

import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from invad.errors import ConfigError, DataError, reason
from invad.serve.app import application
from invad.serve.connections import protocol
from invad.serve.options import is_loopback
from invad.serve.plant.plant import Plant
from invad.serve.records import utc
from invad.serve.service import Service
from invad.system.signals import answering

GRACE_SECONDS = 14
"""From the signal until connections that still wait are cut; whoever sent it may kill after 20."""

SWITCH_SECONDS = 0.0005
"""How long a thread may go on in Python while others wait."""

CLOSE_SECONDS = 2.0
"""For parts whose connections were cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """port: 0 lets the system choose. certificate, key: files, for TLS. prefix: path that a proxy puts before
    all others. without_keys: everybody on this machine may do everything."""

    host: str = "127.0.0.1"
    port: int = 8000
    certificate: Path | None = None
    key: Path | None = None
    prefix: str = ""
    without_keys: bool = False

    def __post_init__(self) -> None:
        if self.without_keys and not is_loopback(self.host):
            raise ConfigError(f"without keys the service listens on 127.0.0.1 alone, not on {self.host}")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("TLS needs two files: the certificate and its key")
        if self.prefix and not (self.prefix.startswith("/") and not self.prefix.endswith("/")):
            raise ConfigError(f"prefix {self.prefix!r}: begin with a slash and end without one")


class Lines(logging.Formatter):
    """A JSON object a line: time, level, message, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": utc(round(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_standard_error() -> None:
    """For a process that is the service's own."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    for name in ("invad.serve", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)


class _Server(uvicorn.Server):
    """Leaves signals to `run`, which answers them from before the address is said to the very end."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def run(service: Service, address: Address, said: Callable[[str], None], plant: Plant | None = None) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then take no more, answer those under way, close the service.

    said: told the address when the port is open. plant: sources that are started then and ended before the
    service; SIGHUP has them read their file again. Raises DataError for a port that cannot be had.
    """
    listening = _listening(address)
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if address.certificate is None else "https"
    server = server_of(service, address)
    # A run that comes back from the engine waits for the interpreter; by default up to 5 ms a time.
    sys.setswitchinterval(SWITCH_SECONDS)
    with ExitStack() as ends:
        ends.enter_context(
            answering((signal.SIGINT, signal.SIGTERM), lambda: server.handle_exit(signal.SIGTERM, None))
        )
        ends.callback(service.close, CLOSE_SECONDS)
        ends.callback(listening.close)
        if plant is not None:
            ends.enter_context(answering((signal.SIGHUP,), plant.ask_reload))
            ends.callback(plant.close)
            plant.start()
        said(f"{scheme}://{shown}:{port}{address.prefix}")
        server.run([listening])


def server_of(service: Service, address: Address) -> uvicorn.Server:
    """A server that was not started; it leaves signals alone."""
    configuration = uvicorn.Config(
        application(service, without_keys=address.without_keys, prefix=address.prefix),
        http=protocol(service.options.head_seconds),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    return _Server(configuration)


def _listening(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With the protocol named, asyncio sends small packets at once; else each answer waits 40 ms for an ACK.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address.host, address.port))
        opened.listen(1024)
    except OSError as error:
        opened.close()
        raise DataError(
            f"{address.host}:{address.port}: {reason(error)}; is the port taken? choose another with --port"
        ) from None
    return opened
