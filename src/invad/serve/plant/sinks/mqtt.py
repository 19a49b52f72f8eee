"""Each result as a message of MQTT 5, acknowledged by the broker; and, retained, how the station fares.

A broker may acknowledge a message and say that it refused it, so the client is paho itself: aiomqtt, which
stands on it, does not tell.
"""

import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from invad.errors import ConfigError, in_one_line, reason
from invad.serve.delivery import Sink, Unreachable, Unwanted
from invad.serve.payload import payload
from invad.serve.plant.outputs import MqttOutput
from invad.serve.records import Result
from invad.system.packages import importing

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage
    from paho.mqtt.reasoncodes import ReasonCode

LOG = logging.getLogger("invad.serve")
SECONDS = 5.0
"""For each answer of the broker."""

KEEP_ALIVE = 15
"""Seconds after which a silent connection is asked whether it is there."""

LOOK_EVERY = 1.0
"""Seconds between two looks at what is retained."""

CONNECTED = 0
"""In place of the number of a message, which begins with 1."""

OF_THE_BODY = ("Payload format invalid", "Packet too large")
"""Reasons that speak of one message alone."""

Retained = Callable[[], Mapping[str, Mapping[str, Any]]]


class Mqtt(Sink):
    """The results of one station at a broker."""

    kind = "mqtt"

    def __init__(self, output: MqttOutput, station: str, password: str, told: Retained = dict):
        """told: by topic below the station's, what is retained there, as JSON data. Raises ConfigError where
        the package is missing."""
        with importing(("paho-mqtt",), "line", "MQTT"):
            import paho.mqtt.client  # noqa: F401
        self.output, self.password, self.told = output, password, told
        self.topic = f"{output.prefix}/{output.site}/{station}"
        # The same after each start: the broker then ends the former connection, and tells its will, before
        # this one says that it is there.
        self.identifier = f"{output.prefix}-{output.site}-{station}-{output.name}".replace("/", "-")
        self.place = f"{output.url} {self.topic}"
        self._open: Connection | None = None
        self._retained: dict[str, bytes] = {}
        self._look_at = 0.0

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        for one in results:
            with self._connection() as opened:
                opened.publish(f"{self.topic}/result", _json(payload(one, self.output.address)))
            yield one.id

    def problems(self) -> Iterator[str]:
        try:
            Connection(self.output, self.password, "").close()
        except Unreachable as error:
            yield str(error)

    def idle(self) -> None:
        with self._connection() as opened:
            opened.require()

    def rest(self) -> None:
        if self._open is not None:
            self._open.close()  # whoever delivers now says what is retained
            self._open = None

    def close(self) -> None:
        if self._open is not None:
            try:
                self._open.publish(f"{self.topic}/online", b"offline", retain=True, seconds=1)
            except (Unreachable, Unwanted) as error:
                LOG.warning("the broker was not told of the end: %s", error)
            self._open.close()
            self._open = None

    @contextmanager
    def _connection(self) -> Iterator["Connection"]:
        """One that is open, with what is retained as it is now; it is dropped where it does not work."""
        try:
            if self._open is None:
                self._open = self._opened()
            if time.monotonic() >= self._look_at:
                self._retain(self._open)
                self._look_at = time.monotonic() + LOOK_EVERY
            yield self._open
        except Unreachable:
            if self._open is not None:
                self._open.drop()
                self._open = None
            raise

    def _opened(self) -> "Connection":
        opened = Connection(self.output, self.password, self.identifier, (f"{self.topic}/online", b"offline"))
        self._retained, self._look_at = {}, 0.0
        return opened

    def _retain(self, opened: "Connection") -> None:
        said = {"online": b"online", **{name: _json(one) for name, one in self.told().items()}}
        for name, content in said.items():
            if self._retained.get(name) != content:
                try:
                    opened.publish(f"{self.topic}/{name}", content, retain=True)
                except (Refusal, Unwanted) as error:  # whoever may write results alone still gets them
                    LOG.warning("%s", error)
                self._retained[name] = content


class Refusal(Unreachable):
    """A broker acknowledged a message and did not take it."""


class Lost(Unreachable):
    """A connection ended that we did not end."""


class Connection:
    """An open connection to a broker; every call waits for its answer. Raises Unreachable of one line."""

    def __init__(
        self, output: MqttOutput, password: str, identifier: str, will: tuple[str, bytes] | None = None
    ):
        """will: a topic, and what the broker retains there when this connection is lost."""
        from paho.mqtt.client import Client, MQTTv5
        from paho.mqtt.enums import CallbackAPIVersion

        self.place, self.output = output.url, output
        self._said: SimpleQueue[tuple[int | None, ReasonCode]] = SimpleQueue()
        self._largest: int | None = None
        self._client = client = Client(
            CallbackAPIVersion.VERSION2, client_id=identifier, protocol=MQTTv5, reconnect_on_failure=False
        )
        client.connect_timeout = SECONDS
        client.on_connect = self._on_connect
        client.on_publish = lambda client, data, number, said, properties: self._said.put((number, said))
        client.on_subscribe = lambda client, data, number, said, properties: self._said.put(
            (number, max(said, key=lambda one: one.value))
        )
        client.on_disconnect = lambda client, data, flags, said, properties: self._said.put((None, said))
        if output.user is not None:
            client.username_pw_set(output.user, password or None)
        if output.is_encrypted:
            client.tls_set_context(self._context())
        if will is not None:
            client.will_set(*will, 1, True)
        try:
            client.connect(output.host, output.port, KEEP_ALIVE, clean_start=True)
        except ssl.SSLCertVerificationError as error:
            raise Unreachable(
                f"{self.place}: its certificate is not accepted ({error.verify_message}); renew it, or check "
                "ca_file"
            ) from None
        except TimeoutError:
            raise Unreachable(f"{self.place}: no answer; check the address and the network") from None
        except (OSError, ValueError) as error:  # ValueError: a host name that cannot be
            why = getattr(error, "strerror", None) or in_one_line(error)
            raise Unreachable(
                f"{self.place}: {why}; check the address, and whether the broker runs"
            ) from None
        client.loop_start()
        try:
            said = self._first_answer()
            if said.is_failure:
                raise Unreachable(f"{self.place}: {said}{_advice(said, output)}")
        except Unreachable:
            self.drop()
            raise

    def publish(
        self, topic: str, content: bytes, *, retain: bool = False, seconds: float | None = None
    ) -> None:
        """Returns when the broker has it. Raises Unwanted for what is larger than it takes."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        if self._largest is not None and len(content) + len(topic) + 64 > self._largest:
            raise Unwanted(f"{self.place}: takes {self._largest} bytes, a message has {len(content)}")
        described = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        described.ContentType = "application/json" if content[:1] == b"{" else "text/plain"
        number = self._client.publish(topic, content, 1, retain, described).mid
        said = self._answer(number, SECONDS if seconds is None else seconds)
        if said.is_failure:
            if str(said) in OF_THE_BODY:
                raise Unwanted(f"{self.place}: {said}")
            raise Refusal(f"{self.place}: does not take {topic}: {said}{_advice(said, self.output)}")

    def subscribe(self, topics: Sequence[str], heard: Callable[["MQTTMessage"], None]) -> None:
        """Call heard, in a thread of the connection, with each message that comes there from now on, with
        QoS 1. What comes while the connection is lost is lost."""
        from paho.mqtt.subscribeoptions import SubscribeOptions

        self._client.on_message = lambda client, data, message: heard(message)
        _, number = self._client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])
        said = self._answer(number or 0, SECONDS)
        if said.is_failure:
            raise Refusal(f"{self.place}: gives no {topics[0]}: {said}{_advice(said, self.output)}")

    def require(self) -> None:
        """Raises Unreachable where it was closed."""
        while not self._said.empty():
            self._next(0)

    def close(self) -> None:
        """End it in order: the broker does not say that it was lost."""
        self._client.disconnect()
        self._client.loop_stop()

    def drop(self) -> None:
        """End it as one that was lost."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.reasoncodes import ReasonCode

        self._client.disconnect(ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
        self._client.loop_stop()

    def _on_connect(
        self, client: "Client", data: Any, flags: Any, said: "ReasonCode", properties: Any
    ) -> None:
        self._largest = getattr(properties, "MaximumPacketSize", None)
        self._said.put((CONNECTED, said))

    def _first_answer(self) -> "ReasonCode":
        """A broker that refuses our certificate says nothing; it ends the connection."""
        try:
            return self._answer(CONNECTED, SECONDS)
        except Lost as error:
            if not self.output.is_encrypted:
                raise
            raise Lost(f"{error}; does it ask for a certificate, or for another one?") from None

    def _answer(self, number: int, seconds: float) -> "ReasonCode":
        until = time.monotonic() + seconds
        while True:
            answered, said = self._next(max(0.0, until - time.monotonic()))
            if answered == number:
                return said

    def _next(self, seconds: float) -> "tuple[int | None, ReasonCode]":
        try:
            number, said = self._said.get(timeout=seconds)
        except Empty:
            raise Unreachable(
                f"{self.place}: is there and acknowledges nothing for {SECONDS:g} s; restart the broker"
            ) from None
        if number is None:
            why = (
                "lost" if str(said) == "Unspecified error" else f"closed: {said}{_advice(said, self.output)}"
            )
            raise Lost(f"{self.place}: the connection was {why}")
        return number, said

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.output.ca_file)
        except ssl.SSLError:
            raise Unreachable(
                f"{self.output.ca_file}: holds no certificate in PEM form; check ca_file"
            ) from None
        except OSError as error:
            raise Unreachable(f"{self.output.ca_file}: {reason(error, writing=False)}") from None
        if self.output.certificate is not None and self.output.private_key is not None:
            _identify(context, self.output.certificate, self.output.private_key)
        return context


def _identify(context: ssl.SSLContext, certificate: str, private_key: str) -> None:
    """Say by these files who we are. Raises Unreachable for those that cannot be used now."""
    from invad.serve.plant.opcua.certificates import expiry_problem, read_certificate

    try:
        problem = expiry_problem(read_certificate(certificate), certificate)
        if problem is None:
            context.load_cert_chain(
                certificate, private_key, password=""
            )  # else it would ask at the terminal
    except ConfigError as error:
        problem = str(error)
    except ssl.SSLError:
        problem = (
            f"{private_key}: is not the key of {certificate}, in PEM form without a password; give the two "
            "that belong together"
        )
    except OSError as error:
        problem = f"{private_key}: {reason(error, writing=False)}"
    if problem is not None:
        raise Unreachable(problem)


def _advice(said: "ReasonCode", output: MqttOutput) -> str:
    words = str(said)
    if words in ("Not authorized", "Bad user name or password", "Bad authentication method"):
        known = f"user {output.user} and {output.password_variable}" if output.user else "user"
        return f"; check {known}, and what the broker allows there"
    if words == "Session taken over":
        return "; another program has the same site, station and output: give each site a name of its own"
    return ""


def _json(plain: Mapping[str, Any]) -> bytes:
    return json.dumps(plain, allow_nan=False).encode()
