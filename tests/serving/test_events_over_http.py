"""The stream over real connections."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from asof.serving.events import Stream
from asof.serving.newest import Newest
from asof.serving.server import answering
from asof.telemetry.metrics import Metrics
from tests.jobs.streams import eventually
from tests.serving.test_events import put


@dataclass
class Served:
    """A stream that is served."""

    newest: Newest
    metrics: Metrics
    port: int

    def subscribe(self, *headers: str, query: str = "feature_set=fs") -> socket.socket:
        """A connection that asked, and has read nothing yet."""
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        head = "\r\n".join((f"GET /v1/features/stream?{query} HTTP/1.1", "Host: here", *headers, "", ""))
        connection.sendall(head.encode())
        return connection

    @property
    def subscribers(self) -> float:
        return self.metrics.value(self.metrics.subscribers)


@pytest.fixture
def served() -> Iterator[Served]:
    newest, metrics = Newest(kept=256), Metrics()
    newest.fill("fs", "1m", [])
    stream = Stream(newest, metrics)
    with answering(stream, "127.0.0.1", 0, before_end=stream.close) as port:
        yield Served(newest, metrics, port)


def text_until(connection: socket.socket, wanted: bytes) -> bytes:
    """What is read up to and with some bytes."""
    found = bytearray()
    while wanted not in found[-(1 << 16) - len(wanted) :]:
        got = connection.recv(1 << 16)
        assert got, found[-200:]
        found += got
    return bytes(found)


def numbers(text: bytes) -> list[int]:
    return [json.loads(line[6:])["n"] for line in text.decode().split("\n") if line.startswith('data: {"instrument_id"')]


def test_many_real_connections_are_all_told_of_everything_in_order(served: Served) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(served.subscribe()) for _ in range(50)]
        for client in clients:
            text_until(client, b"event: begin")
        for n in range(20):
            put(served.newest, ("A", n))
        for client in clients:
            assert numbers(text_until(client, b'"n": 19')) == list(range(20))
    eventually(lambda: served.subscribers == 0)


def test_one_who_reads_nothing_costs_others_nothing_and_is_brought_to_the_newest(served: Served) -> None:
    with served.subscribe() as slow, served.subscribe() as quick:
        text_until(quick, b"event: begin")
        pad = "x" * 20_000
        for n in range(0, 1000, 50):  # 20 MB, which no socket holds
            put(served.newest, *((f"{pad}{k % 50}", k) for k in range(n, n + 50)))
            text_until(quick, f'"n": {n + 49}'.encode())
        put(served.newest, ("end", 1000))
        assert b"event: reset" in text_until(slow, b'"n": 1000')
        assert served.subscribers == 2


def test_a_client_that_comes_back_is_sent_what_it_missed(served: Served) -> None:
    with served.subscribe() as client:
        put(served.newest, ("A", 1))
        eventually(lambda: served.subscribers == 1)
        put(served.newest, ("A", 2))
        last = text_until(client, b'"n": 2').rsplit(b"id: ", 1)[1].split(b"\n")[0].decode()
    eventually(lambda: served.subscribers == 0)
    put(served.newest, ("A", 3), ("A", 4))
    with served.subscribe(f"Last-Event-ID: {last}") as again:
        assert numbers(text_until(again, b'"n": 4')) == [3, 4]


def test_those_who_follow_are_let_go_when_the_server_ends() -> None:
    newest, metrics = Newest(), Metrics()
    newest.fill("fs", "1m", [])
    stream = Stream(newest, metrics)
    with answering(stream, "127.0.0.1", 0, before_end=stream.close) as port:
        client = Served(newest, metrics, port).subscribe()
        text_until(client, b"event: begin")
        began = time.monotonic()
    assert time.monotonic() - began < 4
    assert b"0\r\n\r\n" in client.recv(1 << 16)
    client.close()
