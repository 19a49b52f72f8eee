"""Connections whose request does not come."""

import http.client
import socket
import threading
import time

import pytest

from greys import Greys, png
from invad.serve import Options, Service
from invad.serve.listening import Address, open_port

HEAD_SECONDS = 1.0
FAULT = 6
"""The grey level at which the engine fails."""


@pytest.fixture(scope="module")
def place(served, tmp_path_factory):
    """(host, port) of a service that gives a head a second."""
    options = Options(reserve=0, batch=1, head_seconds=HEAD_SECONDS)
    with (
        Service(Greys(fails=FAULT), tmp_path_factory.mktemp("heads") / "line", options=options) as service,
        served(service, without_keys=True) as url,
    ):
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


def ended(connection, pieces=()):
    """What the service says until it closes, and after how long, while pieces are sent a tenth apart."""
    started, stopping = time.monotonic(), threading.Event()

    def send():
        for piece in pieces:
            try:
                connection.sendall(piece)
            except OSError:
                return
            if stopping.wait(0.1):
                return

    thread = threading.Thread(target=send)
    thread.start()
    said = b""
    try:
        while piece := connection.recv(4096):
            said += piece
    except ConnectionResetError:
        pass
    took = time.monotonic() - started
    stopping.set()
    thread.join()
    return said, took


HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
SLOW = [HEAD, *[b"X: 1\r\n"] * 100]


@pytest.mark.parametrize("pieces", [(), [b"G"], SLOW, [HEAD[i : i + 1] for i in range(40)]])
def test_a_head_that_does_not_come_ends_its_connection(place, pieces):
    with socket.create_connection(place, timeout=20) as connection:
        said, took = ended(connection, pieces)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b'{"error": "the head of the request was not there in time' in said
    assert HEAD_SECONDS * 0.9 < took < 5


def test_nor_does_a_later_one_on_a_connection_that_is_kept(place):
    with socket.create_connection(place, timeout=20) as connection:
        connection.sendall(HEAD + b"\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(4096)
        said, took = ended(connection, SLOW)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert took < 5


def test_a_body_that_comes_slowly_has_its_own_time(place):
    body = png(5)
    head = (
        b"POST /api/v1/stations/default/inspect HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    step = len(body) // 14 + 1
    pieces = [body[i : i + step] for i in range(0, len(body), step)]
    with socket.create_connection(place, timeout=20) as connection:
        said, took = ended(connection, [head, *pieces])
    assert said.startswith(b"HTTP/1.1 200 ")
    assert took > HEAD_SECONDS


def test_others_are_answered_beside_many_that_are_silent(place):
    silent = [socket.create_connection(place, timeout=20) for _ in range(50)]
    with socket.create_connection(place, timeout=20) as connection:
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")
        said, _ = ended(connection)
    assert b"alive" in said
    for one in silent:
        assert ended(one)[0].startswith(b"HTTP/1.1 408 ")
        one.close()


def test_a_fault_of_the_engine_does_not_end_the_connection(place, caplog):
    connection = http.client.HTTPConnection(*place, timeout=20)
    connection.connect()
    connection.auto_open = False  # so that what was closed is not opened again
    seen = []
    for level in (FAULT, 5, FAULT, 5):
        words = {"Content-Type": "image/png"}
        connection.request("POST", "/api/v1/stations/default/inspect", png(level), words)
        answer = connection.getresponse()
        answer.read()
        seen.append((answer.status, answer.will_close))
    connection.close()
    assert seen == [(500, False), (200, False)] * 2
    assert "the engine has a fault" in caplog.text


def test_answers_do_not_wait_for_each_other():
    """asyncio turns Nagle's algorithm off where a socket says that it is of TCP: 40 ms of each answer."""
    with (
        open_port(Address(port=0)) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.proto == socket.IPPROTO_TCP
