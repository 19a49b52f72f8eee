"""One OPC UA server for all stations of a service, in a thread with a loop of its own."""

import asyncio
import contextlib
import hmac
import logging
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from invad.errors import ConfigError, DataError, InvadError, in_one_line
from invad.serve.plant.cycle import Signals
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.opcua.receipts import Receipts
from invad.serve.plant.opcua.settings import OpcUa
from invad.serve.records import Refused, Result
from invad.serve.service import Service
from invad.serve.store.results import Query
from invad.system import pauses
from invad.system.network import why_no_port
from invad.system.version import __version__

if TYPE_CHECKING:
    from asyncua import Server

    from invad.serve.plant.opcua.certificates import Identity
    from invad.serve.plant.opcua.nodes import StationNodes, Types
    from invad.serve.plant.opcua.signals import SignalNodes

LOG = logging.getLogger("invad.serve")
AGAIN_SECONDS = 2.0
"""Until a server that could not start tries again."""

MOST_CLIENTS, MOST_SUBSCRIPTIONS = 32, 128
LONGEST_SESSION_MS = 120_000.0
"""Without a word, before a session is closed; else clients that are gone fill the server."""

STARTING = "the OPC UA server is starting"
Made = TypeVar("Made")


class OpcUaServer:
    """Runs while it has stations, and comes back by itself from whatever kept it away.

    problem: why clients are not answered, of one line, or None. received, acknowledged: results that clients
    confirmed, by their stack or by a method.
    """

    def __init__(self, service: Service, settings: OpcUa, password: str):
        self.service, self.settings, self.password = service, settings, password
        self.problem: str | None = STARTING
        self.port = settings.port
        self.received, self.acknowledged = Receipts(), Receipts()
        self._users: dict[str, int] = {}
        self._handshakes: dict[str, Handshake] = {}
        self._nodes: dict[str, StationNodes] = {}
        self._signals: dict[str, SignalNodes] = {}
        self._shown: set[str] = set()  # stations that are kept up; others may have nodes, too
        self._running: tuple[Server, Types] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end = self._turn = None  # type: Any
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def place(self) -> str:
        """Where clients reach it."""
        return self.settings.endpoint

    def change(self, settings: OpcUa, password: str) -> None:
        """Begin anew with these, if they are others; clients have to connect again."""
        with self._lock:
            if (settings, password) != (self.settings, self.password):
                self.settings, self.password = settings, password
                self.problem, self.port = STARTING, settings.port
                self._stop()

    def add(self, station: str) -> None:
        """Show a station until it was removed as often as it was added."""
        with self._lock:
            self._users[station] = self._users.get(station, 0) + 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="invad-opcua", daemon=True)
                self._thread.start()
        self._ask(self._agree)

    def remove(self, station: str) -> None:
        """After the last one, all sessions are closed and the port is let go of."""
        with self._lock:
            self._users[station] -= 1
            if not self._users[station]:
                del self._users[station]
            if not self._users:
                self._stop()
        self._ask(self._agree)

    def control(self, handshake: Handshake) -> None:
        """Let controllers see and use the signals of a station, until it is released."""
        with self._lock:
            self._handshakes[handshake.station] = handshake
        handshake.away(self._serious())
        self.add(handshake.station)

    def release(self, handshake: Handshake) -> None:
        with self._lock:
            if self._handshakes.get(handshake.station) is handshake:
                del self._handshakes[handshake.station]
        self.remove(handshake.station)

    def signal(self, handshake: Handshake, signals: Signals) -> None:
        """The signals of a station have changed; returns at once."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._signal, handshake, signals)

    def show(self, result: Result) -> None:
        """As the newest one of its station, soon."""
        self._ask(lambda: self._show(result))

    def tell(self, station: str, results: Sequence[Result]) -> list[tuple[bool, bool]]:
        """Send events; see `StationNodes.tell`. Raises DataError of one line while it does not run."""
        return self._do(self._tell(station, results))

    # ------------------------------------------------------------------ what methods ask

    def latest(self, station: str) -> Result | None:
        """The newest result of a station."""
        found, _ = self.service.history(Query(station=station, limit=1))
        return found[0].result if found else None

    def by_id(self, station: str, id: str) -> Result | None:
        """A result of a station."""
        try:
            found = self.service.result(id).result
        except Refused:
            return None
        return found if found.station == station else None

    def acknowledge(self, station: str, ids: Sequence[str]) -> list[bool]:
        """A client has dealt with these; whether each is a result of the station."""
        known = [self.by_id(station, id) is not None for id in ids]
        for id, is_known in zip(ids, known, strict=True):
            if is_known:
                self.confirm(id)
        return known

    def confirm(self, id: str) -> None:
        """A client has dealt with it."""
        self.acknowledged.confirm(id)

    # ------------------------------------------------------------------ the loop, from other threads

    def _stop(self) -> None:
        """End what runs now; the lock is held."""
        self._changed.set()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end.set)

    def _ask(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do something in its turn, if the server runs."""
        with self._lock:
            if self._loop is not None:
                asyncio.run_coroutine_threadsafe(call(), self._loop)

    def _do(self, call: Coroutine[Any, Any, Made]) -> Made:
        with self._lock:
            if self._loop is None or self.problem is not None:
                call.close()
                raise DataError(self.problem or STARTING)
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        return future.result(30)

    # ------------------------------------------------------------------ the thread

    def _work(self) -> None:
        while True:
            with self._lock:
                self._changed.clear()
                if not self._users:
                    self._thread, self.problem = None, STARTING
                    return
            try:
                asyncio.run(self._live())
                continue
            except InvadError as error:
                self._trouble(str(error))
            except Exception as error:  # a fault of ours must not end it without a word
                LOG.exception("the OPC UA server failed")
                self._trouble(in_one_line(error))
            self._changed.wait(AGAIN_SECONDS)

    async def _live(self) -> None:
        """Answer clients until it is to end. Raises ConfigError or DataError for what keeps it away."""
        from invad.serve.plant.opcua.certificates import usable_identity

        settings, password = self.settings, self.password
        identity = usable_identity(settings.certificate, settings.private_key)
        require_port(settings)
        server = await _server(settings, password, identity)
        from invad.serve.plant.opcua.nodes import add_types

        self._running = server, await add_types(server)
        self._nodes, self._signals, self._shown = {}, {}, set()
        with self._lock:
            self._loop, self._end, self._turn = asyncio.get_running_loop(), asyncio.Event(), asyncio.Lock()
            if not self._users or settings is not self.settings:
                self._end.set()
        try:
            await self._agree()
            await server.start()
            pauses.grown()
            self.port = server.bserver.port if server.bserver is not None else 0
            self._trouble(None)
            await self._guard(identity)
        except OSError as error:
            raise DataError(_taken(settings, error)) from None
        finally:
            with self._lock:
                self._running = self._loop = None
                self.problem = self.problem or STARTING
            with contextlib.suppress(Exception):
                await server.stop()

    async def _guard(self, identity: "Identity | None") -> None:
        """Until it is to end, or its certificate has. Raises ConfigError then."""
        while not self._end.is_set():
            if identity is not None and (problem := identity.problem(str(self.settings.certificate))):
                raise ConfigError(problem)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._end.wait(), 10)

    async def _agree(self) -> None:
        """Let the stations that are shown be those that are wanted."""
        from invad.serve.plant.opcua.nodes import StationNodes
        from invad.serve.plant.opcua.signals import SignalNodes

        async with self._turn:
            wanted = set(self._users)
            if self._running is None:
                return
            handshakes = dict(self._handshakes)
            for name in sorted(self._shown - wanted):
                self._nodes[name].retire()
            for name in sorted(wanted - self._shown):
                if name not in self._nodes:
                    self._nodes[name] = StationNodes(*self._running, name, self)
                    await self._nodes[name].add()
                nodes = self._nodes[name]
                latest = await asyncio.to_thread(self.latest, name)
                if latest is not None:
                    nodes.show(latest)
            self._shown = wanted
            for name in sorted(set(handshakes) & wanted - set(self._signals)):
                self._signals[name] = SignalNodes(self._nodes[name])
                await self._signals[name].add()
            for name, signals in self._signals.items():
                if handshakes.get(name) is not signals.handshake:
                    signals.belong(handshakes.get(name))

    def _signal(self, handshake: Handshake, signals: Signals) -> None:
        """In one step of the loop, because a controller waits for it."""
        shown = self._signals.get(handshake.station)
        if shown is not None and shown.handshake is handshake:
            shown.show(signals)

    async def _show(self, result: Result) -> None:
        async with self._turn:
            if result.station in self._nodes:
                self._nodes[result.station].show(result)

    async def _tell(self, station: str, results: Sequence[Result]) -> list[tuple[bool, bool]]:
        async with self._turn:
            if station not in self._nodes:
                raise DataError(STARTING)
            return [await self._nodes[station].tell(one, self.received) for one in results]

    def _trouble(self, problem: str | None) -> None:
        if problem != self.problem:
            if problem is None:
                LOG.info("OPC UA clients are answered at %s", self.place)
            else:
                LOG.error("OPC UA clients are not answered: %s", problem)
        self.problem = problem
        for handshake in list(self._handshakes.values()):
            handshake.away(self._serious())

    def _serious(self) -> str | None:
        """The problem, if it does not pass by itself."""
        return None if self.problem == STARTING else self.problem


def require_port(settings: OpcUa) -> None:
    """Raises DataError of one line for a port that cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        try:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((settings.host, settings.port))  # without listening, which would let clients in
        except OSError as error:
            raise DataError(_taken(settings, error)) from None


def _taken(settings: OpcUa, error: OSError) -> str:
    taken = "choose another endpoint if something else listens there"
    return f"{settings.endpoint}: {why_no_port(settings.host, error, taken)}"


async def _server(settings: OpcUa, password: str, identity: "Identity | None") -> "Server":
    """One that has the standard nodes and was not started."""
    from datetime import datetime, timezone

    from asyncua import Server, ua

    from invad.serve.plant.opcua.certificates import default_uri
    from invad.serve.plant.opcua.channels import guard
    from invad.serve.plant.opcua.confirming import ConfirmedSubscriptions

    server = Server(user_manager=_users(settings.user, password))
    inner = server.iserver
    inner.max_connections, inner.max_subscriptions = MOST_CLIENTS, MOST_SUBSCRIPTIONS
    inner.max_session_timeout_ms = LONGEST_SESSION_MS
    inner.subscription_service = ConfirmedSubscriptions(inner.aspace, inner)
    inner.isession.subscription_service = inner.subscription_service
    server.application_type = ua.ApplicationType.Server
    server.name = "invad"
    await server.init()
    await server.set_application_uri(default_uri() if identity is None else identity.uri)
    await server.set_build_info("urn:invad", "invad", "invad", __version__, "0", datetime.now(timezone.utc))
    server.set_endpoint(settings.endpoint)
    policies = []
    if identity is not None:
        inner.certificate, inner.private_key = identity.certificate, identity.key
        policies.append(ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt)
    if identity is None or settings.insecure:
        policies.append(ua.SecurityPolicyType.NoSecurity)
    server.set_security_policy(policies)
    if identity is not None:
        guard(server, identity, settings.require_trusted(), insecure=settings.insecure)
    server.set_identity_tokens(
        [ua.AnonymousIdentityToken if settings.user is None else ua.UserNameIdentityToken]
    )
    return server


def _users(name: str | None, secret: str) -> Any:
    """Who may connect; asyncua's own lets everybody in who says "admin", to change what they like."""
    from asyncua.crypto.permission_rules import User, UserRole

    class Users:
        def get_user(
            self,
            server: Any,
            username: str | None = None,
            password: str | None = None,
            certificate: Any = None,
        ) -> User | None:
            if name is None:
                return User(role=UserRole.User) if username is None else None
            given, expected = f"{username}\0{password}".encode(), f"{name}\0{secret}".encode()
            return User(role=UserRole.User, name=name) if hmac.compare_digest(given, expected) else None

    return Users()
