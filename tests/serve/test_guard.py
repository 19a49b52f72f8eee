"""Bounds on requests that take too long or are too many, without waiting for them."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from invad.serve.records import Refused
from invad.serve.web.guard import Guard


def called(pieces, *, seconds=0.1, limit=100, held=1000, before=0, headers=(), path="/"):
    """(body that the application read, or the Refused it met; reasons). pieces: None never comes."""
    reasons, outcome = [], []

    async def app(scope, receive, send):
        body = b""
        try:
            more = True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
            outcome.append(body)
        except Refused as refused:
            outcome.append(refused)

    waiting = list(pieces)

    async def receive():
        if not waiting or waiting[0] is None:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message):
        raise AssertionError(message)

    guard = Guard(
        app,
        max_body=limit,
        body_seconds=seconds,
        held=held,
        rejected=reasons.append,
        only_loopback=False,
        uploads=re.compile("/upload"),
        max_upload=300,
    )
    guard.held = before
    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}
    with ThreadPoolExecutor(1) as pool:  # in this one the tests of the pages may have left a loop that runs
        pool.submit(asyncio.run, guard(scope, receive, send)).result()
    assert guard.held == before
    return outcome[0], reasons


def test_a_body_is_passed_on():
    assert called([b"a", b"", b"b"]) == (b"ab", [])


@pytest.mark.parametrize(
    ("pieces", "options", "status", "reason"),
    [
        ([b"a", None], {}, 408, "slow"),
        ([None], {}, 408, "slow"),
        ([b"a" * 60, b"b" * 60], {}, 413, "large"),
        ([b"a"], {"headers": [(b"content-length", b"101")]}, 413, "large"),
        ([b"a" * 60], {"before": 950}, 503, "bodies"),
        ([b"a" * 200, b"b" * 200], {"path": "/upload"}, 413, "large"),
        ([b"a" * 200, None], {"path": "/upload"}, 408, "slow"),
        ([b"a" * 60, b"b" * 60], {"path": "/upload/x"}, 413, "large"),
    ],
)
def test_what_is_too_slow_too_large_or_too_much_is_refused(pieces, options, status, reason):
    refused, reasons = called(pieces, **options)
    assert (refused.status, reasons) == (status, [reason])


def test_one_body_is_taken_however_large_the_others_may_be():
    assert called([b"a" * 60], held=10) == (b"a" * 60, [])


def test_an_upload_may_be_larger_and_is_not_held():
    assert called([b"a" * 200, b"b"], path="/upload", before=950) == (b"a" * 200 + b"b", [])
