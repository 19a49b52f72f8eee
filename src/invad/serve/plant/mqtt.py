"""A controller that asks for parts by messages of MQTT 5, and finds the signals of its station retained.

What was sent while we were away is never done late: each session is clean and ends with its connection, and
retained commands are left alone.
"""

import json
import logging
import threading
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from invad.errors import DataError, InvadError, in_one_line
from invad.serve.delivery import Unreachable
from invad.serve.plant.controllers import Link, MqttController
from invad.serve.plant.cycle import Cycle, Signals, signals
from invad.serve.plant.handshake import Handshake
from invad.serve.plant.sinks.mqtt import Connection
from invad.serve.records import LONGEST_WORD

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

LOG = logging.getLogger("invad.serve")
AGAIN = 2.0
"""Seconds until a broker that is away is tried again."""

LOOK_EVERY = 0.25
"""Seconds between two looks whether a silent connection was closed."""

LARGEST = 4096
"""Bytes of a command; more is none."""


class MqttLink(Link):
    """One station at a broker."""

    def __init__(self, handshake: Handshake, controller: MqttController, password: str):
        self.handshake, self.password, self.broker = handshake, password, controller.broker
        station = handshake.station
        self.topic = f"{controller.prefix}/{controller.site}/{station}"
        # The same after each start and in each process: the broker ends the former connection, so nothing
        # that its owner still has to say overtakes what we say.
        self.identifier = f"{controller.prefix}-{controller.site}-{station}-controller".replace("/", "-")
        self._newest = b""
        self._waiting: deque[bytes] = deque()
        self._changed, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._work, name=f"invad-mqtt-{station}", daemon=True)

    def start(self) -> None:
        self.handshake.listen(self._show)
        self._thread.start()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(5)

    def _show(self, now: Signals) -> None:
        content = message(now)
        with self._changed:
            if content != self._newest:  # a heartbeat alone is no message
                self._newest = content
                self._waiting.append(content)
                self._changed.notify_all()

    def _work(self) -> None:
        while not self._closed:
            try:
                self._talk()
            except Exception as error:  # a fault of ours must not leave a station without its controller
                if not isinstance(error, InvadError):
                    LOG.exception("MQTT to %s failed", self.broker.url)
                self.handshake.away(in_one_line(error))
            with self._changed:
                self._changed.wait_for(lambda: self._closed, AGAIN)

    def _talk(self) -> None:
        """Until it is closed. Raises Unreachable or Unwanted when the broker does not do as it should."""
        gone = message(signals(Cycle(fault="stopping"), self.handshake.terms))
        end = (f"{self.topic}/signals", gone)
        opened = Connection(self.broker, self.password, self.identifier, end)
        try:
            # Before anybody reads that the station is ready, so that no trigger of theirs is lost.
            opened.subscribe([f"{self.topic}/cmd/{one}" for one in ("inspect", "acknowledge")], self._hear)
            with self._changed:
                self._waiting = deque([self._newest])  # what was while we were away, nobody asks for
            while (content := self._next()) is not None:
                if content:
                    opened.publish(f"{self.topic}/signals", content, retain=True)
                    self.handshake.away(None)
                else:
                    opened.require()
        except BaseException:
            opened.drop()
            raise
        opened.close()

    def _next(self) -> bytes | None:
        """To publish; empty where nothing has changed for a while, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed, LOOK_EVERY)
            if self._waiting:
                return self._waiting.popleft()
            return None if self._closed else b""

    def _hear(self, one: "MQTTMessage") -> None:
        """A command, in the thread of the connection."""
        try:
            if one.retain:
                raise DataError("retained, so left over from before; publish it without retain")
            part_id, lot = command(bytes(one.payload))
            now = self.handshake.signals
            if one.topic.endswith("/acknowledge"):
                if part_id not in (None, now.part_id):
                    raise DataError(f"it names part {part_id}, and {now.part_id or 'none'} is shown")
                self.handshake.acknowledge()
            elif part_id is not None and part_id == now.part_id and (now.busy or one.dup):
                raise DataError(f"part {part_id} came before, so this is the same trigger again")
            elif self.handshake.terms.triggered:
                self.handshake.trigger(part_id, lot)
            else:
                raise DataError("the station has trigger = false")
        except DataError as error:
            LOG.warning(
                "station %s: a message at %s is ignored: %s", self.handshake.station, one.topic, error
            )
        except Exception:  # it would end the thread of the connection
            LOG.exception("a message at %s failed", one.topic)


def message(now: Signals) -> bytes:
    """The signals as JSON; what is of a result is null where none is shown."""
    result = now.result
    plain: dict[str, Any] = {
        "ready": now.ready,
        "busy": now.busy,
        "results_ready": now.results_ready,
        "ok": now.ok,
        "ng": now.ng,
        "review": now.review,
        "error": now.error,
        "drift": now.drift,
        "error_code": now.error_code,
        "counter": now.counter,
        "part_id": now.part_id,
        "lot": now.lot,
        "result_id": None if result is None else result.id,
        "score": None if result is None else result.score,
        "p_value": None if result is None else result.p_value,
    }
    return json.dumps(plain, allow_nan=False).encode()


def command(payload: bytes) -> tuple[str | None, str | None]:
    """The part id and lot of a command, None where it names none. Raises DataError for what is none."""
    if len(payload) > LARGEST:
        raise DataError(f"it has {len(payload)} bytes; give at most {LARGEST}")
    if not payload.strip():
        return None, None
    shown = f"{payload[:60]!r}"[1:]
    try:
        plain = json.loads(payload)
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict) or not plain.keys() <= {"part_id", "lot"}:
        raise DataError(f'{shown}: give nothing, or JSON such as {{"part_id": "P-1", "lot": "7"}}')
    return _word(plain, "part_id"), _word(plain, "lot")


def _word(plain: dict[str, Any], key: str) -> str | None:
    word = plain.get(key)
    if word is None:
        return None
    if not isinstance(word, str) or not word.isprintable() or len(word) > LONGEST_WORD:
        raise DataError(f"{key}: give text of at most {LONGEST_WORD} characters that can be printed")
    return word.strip() or None


def problems(controller: MqttController, password: str) -> Iterator[str]:
    """Try it; what is wrong, a line each."""
    try:
        Connection(controller.broker, password, "").close()
    except Unreachable as error:
        yield str(error)
