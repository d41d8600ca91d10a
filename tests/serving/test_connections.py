"""The server is told off by no client: too long, too slow, too many, or not HTTP at all."""

from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus

import pytest

from asof.config import ConfigError
from asof.serving import connections
from asof.serving.connections import Answer, answering

LONG = b"x" * 30_000_000


def broken() -> Answer:
    raise RuntimeError("password=hunter2")


ROUTES = {
    "/here": lambda: Answer(HTTPStatus.OK, b"here\n"),
    "/long": lambda: Answer(HTTPStatus.OK, LONG),
    "/broken": broken,
}


@pytest.fixture
def port():
    with answering(ROUTES, "127.0.0.1", 0) as found:
        yield found


def ask(port: int, request: bytes, *, then: bytes = b"", half_close: bool = False) -> bytes:
    """All that the server sends to a client that sends this."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(request)
        if then:
            client.sendall(then)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        parts = []
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def test_a_path_is_answered_whatever_its_query(port):
    for path in ("/here", "/here?verbose=1"):
        head, _, body = ask(port, get(path)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b"here\n"


def test_head_is_answered_without_the_body(port):
    answer = ask(port, get("/here", "HEAD"))
    assert b"\r\nContent-Length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/", "/here/", "/../here", "/%68ere", "//here", "/metrics"])
def test_any_other_path_is_not_found(port, path):
    assert status(ask(port, get(path))) == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_any_other_method_is_refused_with_those_that_are_allowed(port, method):
    answer = ask(port, get("/here", method))
    assert status(answer) == 405
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


def test_a_client_that_posts_gets_its_answer_though_nobody_reads_what_it_posts(port):
    request = b"POST /here HTTP/1.1\r\nContent-Length: 100000\r\n\r\n"
    assert status(ask(port, request, then=b"y" * 100_000)) == 405


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"GET /here\r\n\r\n", b"GET /here HTTP/2\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"get /here HTTP/1.1\r\n\r\n"]
)
def test_what_is_not_http_is_refused(port, request_):
    assert status(ask(port, request_)) == 400


def test_a_request_without_an_end_is_refused(port):
    assert status(ask(port, b"GET /here HTTP/1.1\r\n", half_close=True)) == 400


def test_a_request_that_is_too_long_is_refused(port):
    assert status(ask(port, b"GET /here HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n")) == 431


def test_an_answer_that_is_longer_than_any_buffer_arrives_whole(port):
    for half_close in (False, True):
        assert ask(port, get("/long"), half_close=half_close).endswith(b"\r\n\r\n" + LONG)


def test_what_breaks_is_told_to_the_log_and_not_to_the_client(port, caplog):
    with caplog.at_level(logging.ERROR):
        answer = ask(port, get("/broken"))
    assert status(answer) == 500
    assert b"hunter2" not in answer
    assert b"Traceback" not in answer
    assert caplog.records[0].exc_info


def test_a_slow_request_ends_and_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(connections, "MOST_SECONDS", 0.5)
    with answering(ROUTES, "127.0.0.1", 0) as port:
        slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(100)]
        for client in slow:
            client.sendall(b"GET /here HTTP/1.1\r\n")
        began = time.monotonic()
        assert status(ask(port, get("/here"))) == 200
        assert time.monotonic() - began < 0.4
        for client in slow:
            assert status(client.recv(65536)) == 408
            client.close()


def test_a_client_that_does_not_take_its_answer_is_left(monkeypatch):
    monkeypatch.setattr(connections, "MOST_SECONDS", 0.3)
    with answering(ROUTES, "127.0.0.1", 0) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(get("/long"))
        time.sleep(1.0)
        assert taken(client) < len(LONG)


def taken(client: socket.socket) -> int:
    """How many bytes there are to be had until the end or a reset."""
    total = 0
    with suppress(ConnectionResetError):
        while part := client.recv(1 << 20):
            total += len(part)
    return total


def test_clients_beyond_the_most_are_turned_away_until_others_have_gone(monkeypatch):
    monkeypatch.setattr(connections, "MOST_CLIENTS", 3)
    with answering(ROUTES, "127.0.0.1", 0) as port:
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        time.sleep(0.2)
        with pytest.raises((ConnectionError, IndexError)):
            status(ask(port, get("/here")))
        for client in waiting:
            client.close()
        time.sleep(0.2)
        assert status(ask(port, get("/here"))) == 200


def test_many_ask_at_once(port):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: status(ask(port, get("/here"))), range(400)))
    assert answers == [200] * 400


def test_it_ends_with_its_block_though_clients_are_there(caplog):
    before = threading.active_count()
    with answering(ROUTES, "127.0.0.1", 0) as port:
        silent, answered = (socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(2))
        answered.sendall(get("/here"))
        time.sleep(0.1)
    with silent, answered:
        assert not silent.recv(1)
        assert status(answered.recv(65536)) == 200
    assert not caplog.records
    assert threading.active_count() == before
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_is_taken_is_told_with_the_mend(port):
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}: .*in use.*HEALTH_PORT"), answering(ROUTES, "127.0.0.1", port):
        pass
