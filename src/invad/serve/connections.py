"""How long a connection may be silent before its request is there.

uvicorn waits for ever for the head of a request, and a client that sends a byte a minute, or none, keeps its
connection. Here a head has so many seconds from its first moment, however many bytes come meanwhile. Bodies
are bounded by the guard of the application.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s"
)
TEXT = b'{"error": "the head of the request was not there in time; send it faster"}'


class Connection(H11Protocol):
    """uvicorn's own, with a timer from the first byte of a head, or from the connection, to its last."""

    head_seconds = 10.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_timer()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """The timer runs while a head is due: at first, and when one has begun and is not complete."""
        if not self._is_due():
            self._end_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._late)

    def _is_due(self) -> bool:
        if self.transport.is_closing() or self.conn.their_state is not h11.IDLE:
            return False
        # Between requests the time-out of idle connections holds.
        is_first = self.cycle is None
        return is_first or bool(self.conn.trailing_data[0])

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self._is_due():
            self.transport.write(LATE % (len(TEXT), TEXT))
            self.transport.close()


def protocol(head_seconds: float) -> type[Any]:
    """The class that uvicorn makes a connection of."""
    return type("Connection", (Connection,), {"head_seconds": head_seconds})
