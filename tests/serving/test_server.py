"""The server is told off by no client: too long, too slow, too many, or not HTTP at all."""

from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from asof.config import ConfigError
from asof.serving import server
from asof.serving.asgi import Receive, Scope, Send
from asof.serving.server import answering

LONG = b"x" * 30_000_000


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers `here`, or something long."""
    while scope["path"] == "/reads" and (await receive()).get("more_body"):
        pass
    body = LONG if scope["path"] == "/long" else b"here\n"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def port():
    with answering(app, "127.0.0.1", 0) as found:
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
        with suppress(ConnectionResetError):
            while part := client.recv(65536):
                parts.append(part)
    return b"".join(parts)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def test_head_is_answered_without_the_body(port):
    answer = ask(port, get("/here", "HEAD"))
    assert b"\r\ncontent-length: 5\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_one_connection_serves_many_requests_one_after_another(port):
    request = b"GET /here HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert ask(port, request * 30 + get("/here")).count(b"here\n") == 31


@pytest.mark.parametrize("request_", [b"\r\n\r\nX\r\n\r\n", b"\x16\x03\x01\r\n\r\n", b"get /here HTTP/1.1\r\n\r\n"])
def test_what_is_not_http_is_refused(port, request_):
    assert status(ask(port, request_)) == 400


def test_a_request_without_an_end_is_refused(port):
    assert status(ask(port, b"GET /here HTTP/1.1\r\n", half_close=True)) == 400


def test_a_request_that_is_too_long_is_refused(port):
    assert status(ask(port, b"GET /here HTTP/1.1\r\nX: " + b"x" * 200_000)) == 431
    assert status(ask(port, b"GET /" + b"x" * 200_000)) == 431


def test_an_answer_that_is_longer_than_any_buffer_arrives_whole(port):
    assert ask(port, get("/long")).endswith(b"\r\n\r\n" + LONG)


def test_a_body_may_take_its_time_and_the_next_head_may_not(monkeypatch):
    monkeypatch.setattr(server, "MOST_HEAD_SECONDS", 0.4)
    with answering(app, "127.0.0.1", 0) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(b"POST /reads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(0.8)
        client.sendall(b"cd")
        assert status(client.recv(65536)) == 200
        client.sendall(b"GET /here HT")
        assert status(client.recv(65536)) == 408
        assert not client.recv(1)


def test_a_slow_request_ends_and_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(server, "MOST_HEAD_SECONDS", 0.5)
    with answering(app, "127.0.0.1", 0) as port:
        slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(100)]
        for client in slow:
            client.sendall(b"GET /here HTTP/1.1\r\n")
        assert status(ask(port, get("/here"))) == 200
        for client in slow:
            assert status(client.recv(65536)) == 408
            client.close()


def test_clients_beyond_the_most_are_turned_away_until_others_have_gone(monkeypatch):
    monkeypatch.setattr(server, "MOST_CLIENTS", 3)
    with answering(app, "127.0.0.1", 0) as port:
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
    with caplog.at_level(logging.WARNING), answering(app, "127.0.0.1", 0) as port:
        silent = socket.create_connection(("127.0.0.1", port), timeout=5)
        time.sleep(0.1)
    with silent:
        assert not silent.recv(1)
    assert not caplog.records
    assert threading.active_count() == before
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_port_that_is_taken_is_told_with_the_mend(port):
    with pytest.raises(ConfigError, match=rf"127.0.0.1:{port}: .*in use.*HEALTH_PORT"), answering(app, "127.0.0.1", port):
        pass
