"""An application on a port, until a signal ends it."""

import json
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from invad.errors import ConfigError, DataError
from invad.serve.connections import protocol
from invad.serve.options import is_loopback
from invad.serve.records import utc
from invad.system import pauses
from invad.system.network import why_no_port
from invad.system.signals import answering
from invad.system.supervisor import Supervisor

GRACE_SECONDS = 14
"""From the signal until connections that still wait are cut; whoever sent it may kill after 20."""


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
    # Each try to reach a controller; what is wrong with one is said once, by its station.
    for name in ("asyncua", "pymodbus"):
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False


class Server(uvicorn.Server):
    """Leaves signals to `ended_by_signals`, and tells a supervisor how it fares."""

    supervisor = Supervisor(None, None)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.supervisor = Supervisor.of_environment()
        if not self.should_exit:
            self.supervisor.ready()

    async def on_tick(self, counter: int) -> bool:
        # It comes from the loop that answers requests, so it stops where that does.
        self.supervisor.alive()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.supervisor.stopping()
        await super().shutdown(sockets)


def server_for(app: ASGIApp, address: Address, head_seconds: float) -> Server:
    """A server that was not started. head_seconds: until the head of a request has to be there."""
    configuration = uvicorn.Config(
        app,
        http=protocol(head_seconds),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )
    return Server(configuration)


def ended_by_signals(server: Server) -> AbstractContextManager[None]:
    """SIGTERM and Ctrl-C let it take no more requests and answer those under way, from now on. The process is
    the service's own from then on; see `invad.system.pauses`."""
    pauses.shorten()
    return answering((signal.SIGINT, signal.SIGTERM), lambda: server.handle_exit(signal.SIGTERM, None))


def url_of(opened: socket.socket, address: Address) -> str:
    """Where a port that was opened is reached."""
    host, port = opened.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if address.certificate is None else "https"
    return f"{scheme}://{shown}:{port}{address.prefix}"


def open_port(address: Address) -> socket.socket:
    """Raises DataError for a port that cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With the protocol named, asyncio sends small packets at once; else each answer waits 40 ms for an ACK.
    opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((address.host, address.port))
        opened.listen(1024)
    except OSError as error:
        opened.close()
        why = why_no_port(address.host, error, "is the port taken? choose another with --port")
        raise DataError(f"{address.host}:{address.port}: {why}") from None
    return opened
