"""Posts every result to an address, from the outbox: at least once, in the order of storing where it can.

The body is the record; `X-Invad-Id` names it, so a receiver can drop what comes twice. `X-Invad-Signature`
is `t=SECONDS,sha256=` and the HMAC-SHA256 of `SECONDS.` and the body, by the shared secret.
"""

import hmac
import json
import logging
import threading
import time
from hashlib import sha256

import httpx
from sqlalchemy.exc import SQLAlchemyError

from invad.errors import DataError
from invad.serve.metrics import Metrics
from invad.serve.store import outbox
from invad.serve.store.database import Database, now_ms, said

LOG = logging.getLogger("invad.serve")
SINK = "webhook"
SECONDS = 5.0
AT_A_TIME = 32
LONGEST_PAUSE = 3600
"""Seconds between two tries at most; it is tried for ever."""


def signature(secret: str, body: bytes, now: int) -> str:
    """The value of `X-Invad-Signature` at `now`, in seconds since 1970."""
    digest = hmac.new(secret.encode(), str(now).encode() + b"." + body, sha256).hexdigest()
    return f"t={now},sha256={digest}"


def pause(attempts: int) -> int:
    """Seconds until the next try, after so many."""
    return int(min(LONGEST_PAUSE, 2 ** min(attempts, 12)))


class Webhook:
    """A thread that empties the outbox of one address."""

    def __init__(self, url: str, secret: str, database: Database, metrics: Metrics):
        self.url, self.secret, self.database, self.metrics = url, secret, database, metrics
        self.client = httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=False)
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="invad-webhook", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There are new results."""
        self._wake.set()

    def close(self) -> None:
        """Stop after the delivery that is under way; what waits is delivered after the next start."""
        self._closing = True
        self._wake.set()
        self._thread.join(1)  # a delivery that is cut is repeated
        self.client.close()

    def _work(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                busy = self._deliver_some()
            except (SQLAlchemyError, DataError) as error:
                LOG.error("the outbox cannot be read: %s", said(error))
                busy = False
            if not busy:
                self._wake.wait(1)

    def _deliver_some(self) -> bool:
        """Whether all that were due were taken and there may be more."""
        with self.database.read() as connection:
            found = outbox.due(connection, SINK, now_ms(), AT_A_TIME)
        taken, problem = [], None
        for one in found:
            if self._closing:
                break
            problem = self._post(one)
            if problem is not None:
                break
            taken.append(one.result.id)
        if not found:
            return False
        with self.database.write() as connection:
            if taken:
                outbox.delivered(connection, SINK, taken)
            if problem is not None:
                late = found[len(taken)]
                outbox.failed(connection, SINK, late.result.id, now_ms() + 1000 * pause(late.attempts))
        return bool(taken) and problem is None

    def _post(self, one: outbox.Due) -> str | None:
        """None when it was taken, else why not."""
        body = json.dumps(one.result.plain()).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Invad-Id": one.result.id,
            "X-Invad-Signature": signature(self.secret, body, int(time.time())),
        }
        try:
            answer = self.client.post(self.url, content=body, headers=headers)
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__} {error}"
        else:
            if answer.is_success:
                return None
            problem = f"status {answer.status_code}"
        self.metrics.errors.labels(SINK).inc()
        LOG.warning("%s did not take result %s: %s", self.url, one.result.id, problem)
        return problem
