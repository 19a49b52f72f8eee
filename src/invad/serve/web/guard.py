"""Around every request: bounds on its body and its time, headers of the answer, a line in the log.

It counts bytes as they come, before anything is parsed.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from invad.serve.options import MIB, is_loopback
from invad.serve.records import Refused
from invad.serve.web.problems import told

LOG = logging.getLogger("invad.serve.access")
SECURITY = (
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'; form-action 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
UNLOGGED = ("/live/stations",)
"""Asked for each second by every open page."""

DRAINED = 128 * MIB
"""Bytes that are read and thrown away so that a sender comes to read the answer."""


class Guard:
    """ASGI middleware.

    uploads: paths where a POST may have `max_upload` bytes; they are not held, and no piece may be late.
    rejected: told why a request was not taken. only_loopback: there are no keys, so a page of the web must
    not reach the service through somebody's browser.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_body: int,
        body_seconds: float,
        held: int,
        rejected: Callable[[str], None],
        only_loopback: bool,
        uploads: re.Pattern[str] | None = None,
        max_upload: int = 0,
    ):
        self.app, self.max_body, self.body_seconds = app, max_body, body_seconds
        self.uploads, self.max_upload = uploads, max_upload
        self.held_limit, self.held = held, 0
        self.rejected, self.only_loopback = rejected, only_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Watched(self, scope, receive, send)
        try:
            if self._is_foreign(scope):
                self.rejected("host")
                answer = told(403, "without keys, requests come from this machine and its own pages alone")
                await answer(scope, receive, request.send)
                return
            await self.app(scope, request.receive, request.send)
        except Exception:
            # Starlette raises what it has answered with 500, and a server would then close the connection.
            if not request.answered:
                raise
            LOG.exception("a request failed")
        finally:
            self.held -= request.held
            request.log()

    def _is_foreign(self, scope: Scope) -> bool:
        """Whether, without keys, a request was made for another site, or by one."""
        if not self.only_loopback:
            return False
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        is_own = origin is None or origin.partition("://")[2] == host
        return not (is_loopback(_without_port(host)) and is_own)


class _Watched:
    """One request: its `receive` and `send` with bounds."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        self.guard, self.scope = guard, scope
        self._receive, self._send = receive, send
        self.started = time.monotonic()
        self.read = self.held = self.status = 0
        self.whole = self.answered = False
        self.is_upload = (
            guard.uploads is not None
            and scope["method"] == "POST"
            and guard.uploads.fullmatch(scope["path"]) is not None
        )
        self.most = guard.max_upload if self.is_upload else guard.max_body
        declared = dict(scope["headers"]).get(b"content-length", b"")
        self.declared = int(declared) if declared.isdigit() else 0

    async def receive(self) -> Message:
        """The next piece of the body. Raises Refused (408, 413, 503) when a bound is reached."""
        if self.whole:
            return await self._receive()
        if self.declared > self.most:
            raise await self._too_large()
        # Of an upload each piece has so long, of another request the whole.
        begun = time.monotonic() if self.is_upload else self.started
        left = begun + self.guard.body_seconds - time.monotonic()
        try:
            message = await asyncio.wait_for(self._receive(), max(left, 0.001))
        except (TimeoutError, asyncio.TimeoutError):
            self.guard.rejected("slow")
            text = f"the request was not there after {self.guard.body_seconds:g} s; send it faster"
            raise Refused(text, 408) from None
        if message["type"] != "http.request":
            return message
        grown = len(message.get("body", b""))
        self.read += grown
        self.whole = not message.get("more_body", False)
        if self.read > self.most:
            raise await self._too_large()
        if self.is_upload:
            return message
        if self.guard.held and self.guard.held + grown > self.guard.held_limit:
            self.guard.rejected("bodies")
            raise Refused("too many requests at a time; send it again", 503, 1)
        self.held += grown
        self.guard.held += grown
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*SECURITY, *message.get("headers", [])]}
        await self._send(message)
        self.answered = message["type"] == "http.response.body" and not message.get("more_body", False)

    def log(self) -> None:
        if self.status < 400 and self.scope["path"].endswith(UNLOGGED):
            return
        fields = {
            "method": self.scope["method"],
            "path": self.scope["path"],
            "status": self.status,
            "ms": round((time.monotonic() - self.started) * 1000, 1),
            "bytes": self.read,
            "client": (self.scope.get("client") or ["?"])[0],
            "key": self.scope.get("state", {}).get("key"),
        }
        LOG.info("request", extra={"fields": fields})

    async def _too_large(self) -> Refused:
        self.guard.rejected("large")
        await self._drain()
        return Refused(f"the request is larger than the limit of {self.most} bytes", 413)

    async def _drain(self) -> None:
        """Read on for a while: who is still sending does not look for an answer."""
        if any(name == b"expect" for name, _ in self.scope["headers"]):
            return
        until = time.monotonic() + 10
        drained = 0
        while not self.whole and drained < DRAINED and time.monotonic() < until:
            try:
                message = await asyncio.wait_for(self._receive(), 1)
            except (TimeoutError, asyncio.TimeoutError):
                return
            if message["type"] != "http.request":
                return
            drained += len(message.get("body", b""))
            self.whole = not message.get("more_body", False)


def _without_port(host: str) -> str:
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
