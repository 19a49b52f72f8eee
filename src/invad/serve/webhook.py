"""Posts every result to an address, from the outbox: at least once, in the order of storing where it can.

The body is the record; `X-Invad-Id` names it, so a receiver can drop what comes twice. `X-Invad-Signature`
is `t=SECONDS,sha256=` and the HMAC-SHA256 of `SECONDS.` and the body, by the shared secret.
"""

import hmac
import json
import re
import socket
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256

import httpx

from invad.errors import in_one_line
from invad.serve.delivery import Sink, Unreachable, Unwanted
from invad.serve.records import Result

NAME = "webhook"
"""Of the sink that takes the results of all stations."""

SECONDS = 5.0
ABOUT_ONE = (400, 413, 415, 422)
"""Statuses that speak of the body; any other refusal is of the receiver as a whole."""


def signature(secret: str, body: bytes, now: int) -> str:
    """The value of `X-Invad-Signature` at `now`, in seconds since 1970."""
    digest = hmac.new(secret.encode(), str(now).encode() + b"." + body, sha256).hexdigest()
    return f"t={now},sha256={digest}"


class Webhook(Sink):
    """Whoever listens at an address."""

    kind = "webhook"

    def __init__(self, url: str, secret: str):
        self.url, self.secret, self.address = url, secret, httpx.URL(url)
        self.place = str(self.address.copy_with(userinfo=b"", query=None))
        self.client = httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=False)

    def deliver(self, results: Sequence[Result]) -> Iterator[str]:
        for one in results:
            self._post(one)
            yield one.id

    def problems(self) -> Iterator[str]:
        try:
            with socket.create_connection((self.address.host, _port(self.address)), SECONDS):
                pass
        except OSError as error:
            why = error.strerror or in_one_line(error)
            yield f"{self.place}: {why}; check the address, and whether the receiver runs"

    def close(self) -> None:
        self.client.close()

    def _post(self, one: Result) -> None:
        body = json.dumps(one.plain()).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Invad-Id": one.id,
            "X-Invad-Signature": signature(self.secret, body, int(time.time())),
        }
        try:
            answer = self.client.post(self.url, content=body, headers=headers)
        except httpx.HTTPError as error:
            said = re.sub(r"^\[Errno -?\d+\] ", "", str(error)) or type(error).__name__
            raise Unreachable(f"{self.place}: {said}") from None
        if answer.status_code in ABOUT_ONE:
            raise Unwanted(f"{self.place}: status {answer.status_code}")
        if not answer.is_success:
            raise Unreachable(f"{self.place}: status {answer.status_code}")


def _port(address: httpx.URL) -> int:
    return address.port or (443 if address.scheme == "https" else 80)
