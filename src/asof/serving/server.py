"""The HTTP server: uvicorn on a thread of its own, with bounds on what a client can do before its request has arrived.

Uvicorn reads a head for as long as a client sends one, of any length, from any number of clients. Here a head has its time and its size,
and there are so many clients at a time; what comes after the head is bounded by `asof.serving.limits`.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from asof import __version__
from asof.config import ConfigError
from asof.serving.asgi import App
from asof.serving.tls import Tls

MOST_HEAD_SECONDS = 5.0
"""How long the head of a request may take to arrive."""
MOST_HEAD_BYTES = 1 << 17
"""Of a head: a query may name some ten thousand instruments."""
MOST_CLIENTS = 8192
"""Connections at the same time: a stream has one for each who follows it."""
MOST_FILES = 1 << 16
SWITCH_SECONDS = 0.0005
"""How long another thread may keep the interpreter from the one that answers: Python's own 5 ms are many requests' whole time."""
END_SECONDS = 5
"""How long requests that are under way may take once the server is to end."""


class Bounded(HttpToolsProtocol):
    """A connection whose requests arrive in time, or not at all."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there; one too many is turned away."""
        super().connection_made(transport)
        self._head = 0
        self._timer: asyncio.TimerHandle | None = None
        if len(self.connections) > MOST_CLIENTS:
            transport.abort()
        else:
            self._await_head()

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._head += len(data)
        super().data_received(data)
        if self._timer is not None and self._head > MOST_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._stop_waiting()
        super().on_headers_complete()

    def eof_received(self) -> None:
        """The client sends nothing more."""
        if self._timer is not None:
            self._refuse(HTTPStatus.BAD_REQUEST)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head = 0
        self._timer = self.loop.call_later(MOST_HEAD_SECONDS, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-length: 0\r\n\r\n" % (status, status.phrase.encode()))
            self.transport.close()


@contextlib.contextmanager
def answering(app: App, host: str, port: int, tls: Tls | None = None, before_end: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Have an app answer for the block; the port, which is a free one where `port` is 0. `before_end` is called in the server's thread.

    Raises `ConfigError` where the address cannot be had.
    """
    _allow_connections()
    with _listen(host, port) as listener:
        config = uvicorn.Config(
            app,
            http=Bounded,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            headers=[("server", f"asof/{__version__}")],
            timeout_graceful_shutdown=END_SECONDS,
        )
        config.load()
        if tls is not None:
            config.ssl = tls.context()
        server, before = uvicorn.Server(config), sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="asof-http", daemon=True)
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield int(listener.getsockname()[1])
        finally:
            _end(server, thread, before_end)
            sys.setswitchinterval(before)


def _end(server: Any, thread: threading.Thread, before_end: Callable[[], None]) -> None:  # noqa: ANN401  # uvicorn's own
    if thread.is_alive():
        with contextlib.suppress(RuntimeError, IndexError):  # it has ended by itself
            server.servers[0].get_loop().call_soon_threadsafe(before_end)
    server.should_exit = True
    thread.join(2 * END_SECONDS)


def _allow_connections() -> None:
    """Each connection is an open file, of which most systems allow a thousand until a process asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048)
    except OSError as error:
        mend = "choose others (HEALTH_HOST and HEALTH_PORT, or --host and --port; port 0 is any that is free)"
        raise ConfigError(f"the service cannot listen at {host}:{port}: {error.strerror or error}; {mend}") from None
