"""A controller that is an OPC UA server: its commands are read, and our signals written into its nodes."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from asyncua import Client, Node, ua
from asyncua.crypto import uacrypto
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from invad.errors import ConfigError, DataError, InvadError, in_one_line
from invad.serve.plant.controllers import COMMAND_NODES, Link, OpcUaController
from invad.serve.plant.cycle import Signals
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.opcua.certificates import default_uri, usable_identity

LOG = logging.getLogger("invad.serve")
AGAIN = 2.0
"""Seconds until a controller that is away is tried again."""

ANSWER = 2.0
"""Seconds that a controller has for an answer."""

LOOK = 0.25
"""Seconds between two looks at a controller that says when something changes, should a word of it be lost."""

SESSION_MS = 30_000
"""After which a controller may forget a session of ours that it hears nothing of."""


class OpcUaClient(Link):
    """One session at the server of a controller, and never a second one before the first is closed."""

    def __init__(self, handshake: Handshake, controller: OpcUaController, password: str):
        self.handshake, self.controller, self.password = handshake, controller, password
        self._signals = handshake.signals
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._closing = threading.Event()
        self._met = False
        self._heartbeat: Any = None
        self._thread = threading.Thread(
            target=self._work, name=f"invad-opcua-{handshake.station}", daemon=True
        )

    def start(self) -> None:
        self.handshake.listen(self._show)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(2 * ANSWER)

    def _show(self, signals: Signals) -> None:
        self._signals = signals
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # of a loop that ends
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._changed.set)

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                asyncio.run(self._talk())
            except InvadError as error:
                self.handshake.away(in_one_line(error))
            except Exception as error:  # a fault of ours must not leave a station without its controller
                LOG.exception("OPC UA to %s failed", self.controller.place)
                self.handshake.away(in_one_line(error))
            self._closing.wait(AGAIN)

    async def _talk(self) -> None:
        """Until it is closed. Raises DataError when the controller does not answer as it should."""
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with Session(self.controller, self.password) as session:
            await session.find()
            # Its bits come first, so that it never sees ready while a trigger is left over.
            self._look(await session.read())
            is_told = await session.subscribe(self._changed.set)
            seconds = max(LOOK, self.controller.poll) if is_told else self.controller.poll
            while not self._closing.is_set():
                self._changed.clear()
                await session.write(self._signals)
                self.handshake.away(None)
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), seconds)
                self._look(await session.read())
            await session.write(self._signals)  # that nobody is there any more

    def _look(self, said: Mapping[str, Any]) -> None:
        trigger, acknowledge = bool(said.get("trigger")), bool(said.get("acknowledge"))
        if said.get("alive") != self._heartbeat or self.controller.nodes.alive is None:
            self._heartbeat = said.get("alive")
            self.handshake.alive()
        if not self._met:
            self._met = True
            self.handshake.found(trigger=trigger, acknowledge=acknowledge)
            return
        part_id, lot = (str(said[name]) if said.get(name) else None for name in ("part_id", "lot"))
        self.handshake.levels(trigger=trigger, acknowledge=acknowledge, part_id=part_id, lot=lot)


class Session:
    """A connection to a controller, and the nodes that were agreed on.

    Raises DataError or ConfigError, of one line, for whatever the controller does not do.
    """

    def __init__(self, controller: OpcUaController, password: str):
        self.controller = controller
        self.client = Client(str(controller.url), timeout=ANSWER)
        self.client.session_timeout = SESSION_MS
        self.client.application_uri = default_uri()
        if controller.user is not None:
            self.client.set_user(controller.user)
            self.client.set_password(password)
        self._inputs: dict[str, Node] = {}
        self._outputs: dict[str, tuple[Node, ua.VariantType]] = {}
        self._written: dict[str, Any] = {}

    async def __aenter__(self) -> "Session":
        try:
            await self._secure()
            await self.client.connect()
        except (OSError, asyncio.TimeoutError, ua.UaError) as error:
            raise DataError(
                f"{self.controller.url}: {_said(error)}; check url, user and certificate"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        # A session that is not closed takes one of the few that a controller has.
        with suppress(Exception):
            await asyncio.wait_for(self.client.disconnect(), ANSWER)

    async def find(self) -> None:
        """The nodes. Raises DataError for the first that is not there."""
        for problem in await self.missing():
            raise DataError(problem)

    async def missing(self) -> list[str]:
        """A line for each node that is not there."""
        problems = []
        for name, text in self.controller.nodes.given.items():
            try:
                node = self.client.get_node(ua.NodeId.from_string(text))
                if name in COMMAND_NODES:
                    await self._value(node.read_value())
                    self._inputs[name] = node
                else:
                    kind = await self._value(node.read_data_type_as_variant_type())
                    self._outputs[name] = node, kind
            except ua.UaStatusCodeError as error:
                problems.append(
                    f"{self.controller.url}: {name} = {text!r}: {_word(error)}; check the node id"
                )
            except (ua.UaError, ValueError):
                problems.append(f"{name} = {text!r}: is no node id; give one such as 'ns=3;s=Camera.{name}'")
        return problems

    async def subscribe(self, changed: Callable[[], None]) -> bool:
        """Have it called as soon as a command may have changed; False where the controller does not tell, or
        not as often as we would look."""

        class Told:
            def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
                changed()

        period = 1000 * self.controller.poll
        try:
            made = await self._value(self.client.create_subscription(period, Told()))
            if made.parameters.RequestedPublishingInterval <= period:
                nodes = list(self._inputs.values())
                found = await self._value(made.subscribe_data_change(nodes, sampling_interval=period))
                if all(isinstance(one, int) for one in found):
                    return True
            await self._value(made.delete())
        except ua.UaStatusCodeError as error:
            LOG.info("%s: %s; its nodes are looked at instead", self.controller.url, _word(error))
        return False

    async def read(self) -> dict[str, Any]:
        """The commands of the controller."""
        values = await self._value(self.client.read_values(list(self._inputs.values())))
        return dict(zip(self._inputs, values, strict=True))

    async def write(self, signals: Signals) -> None:
        """What has changed, in one request; results_ready after all others, and before them when it falls."""
        now = {name: value for name, value in output_values(signals).items() if name in self._outputs}
        new = [name for name in now if self._written.get(name, self) != now[name]]
        new.sort(key=lambda name: (name == "results_ready") == signals.results_ready)
        if not new:
            return
        nodes = [self._outputs[name][0] for name in new]
        values = [ua.DataValue(_variant(now[name], self._outputs[name][1])) for name in new]
        codes = await self._value(self.client.write_values(nodes, values, raise_on_partial_error=False))
        for name, code in zip(new, codes, strict=True):
            if not code.is_good():
                text = getattr(self.controller.nodes, name)
                raise DataError(f"{self.controller.url}: {name} = {text!r} cannot be written: {code.name}")
        self._written.update({name: now[name] for name in new})

    async def _secure(self) -> None:
        identity = usable_identity(self.controller.certificate, self.controller.private_key)
        if identity is None:
            return
        pem = identity.certificate.public_bytes(Encoding.PEM)
        key = identity.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.client.application_uri = identity.uri
        await self.client.set_security(
            SecurityPolicyBasic256Sha256,
            uacrypto.CertProperties(pem, "pem"),
            uacrypto.CertProperties(key, "pem"),
            server_certificate=self.controller.server_certificate,
        )

    async def _value(self, call: Any) -> Any:
        """Raises DataError where the connection is lost."""
        try:
            return await call
        except ua.UaStatusCodeError:
            raise
        except (OSError, asyncio.TimeoutError, ua.UaError) as error:
            raise DataError(f"{self.controller.url}: {_said(error)}") from None


def output_values(signals: Signals) -> dict[str, Any]:
    """By the names of `OpcUaNodes`."""
    names = ("ready", "busy", "ok", "ng", "review", "error", "drift", "error_code", "counter", "heartbeat")
    result = signals.result
    return {
        **{name: getattr(signals, name) for name in names},
        "result_id": "" if result is None else result.id,
        "score": 0.0 if result is None else result.score,
        "p_value": 0.0 if result is None else result.p_value,
        "results_ready": signals.results_ready,
    }


def problems(controller: OpcUaController, password: str) -> Iterator[str]:
    """Try it while no service runs; a line for each thing that is wrong."""

    async def tried() -> list[str]:
        async with Session(controller, password) as session:
            return await session.missing()

    # A thread of its own, since the caller's may run a loop already, as that of a notebook does.
    with ThreadPoolExecutor(1) as alone:
        try:
            yield from alone.submit(lambda: asyncio.run(tried())).result()
        except (ConfigError, DataError) as error:
            yield str(error)


def _variant(value: Any, kind: ua.VariantType) -> ua.Variant:
    """A value as the controller keeps it; numbers that count wrap where its are smaller."""
    bits = _WIDTHS.get(kind)
    if bits is not None:
        return ua.Variant(int(value) % 2**bits, kind)
    return ua.Variant(value, kind)


_WIDTHS = {
    ua.VariantType.Byte: 8,
    ua.VariantType.SByte: 7,
    ua.VariantType.UInt16: 16,
    ua.VariantType.Int16: 15,
    ua.VariantType.UInt32: 32,
    ua.VariantType.Int32: 31,
    ua.VariantType.UInt64: 64,
    ua.VariantType.Int64: 63,
}


def _word(error: ua.UaStatusCodeError) -> str:
    """Of the standard, without its explanation."""
    return type(error).__name__


def _said(error: BaseException) -> str:
    if isinstance(error, ua.UaStatusCodeError):
        return _word(error)
    if isinstance(error, asyncio.TimeoutError):
        return "does not answer"
    if isinstance(error, ConnectionError):
        return "cannot be reached"
    return in_one_line(error) or type(error).__name__
