"""A small HTTP server for what is read and never written: answers by path, on a thread of its own.

1. One thread runs an event loop, so that a client that is slow costs a socket and nobody waits for it.
2. Each connection is one request, of bounded size and time, and gets one answer.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus

from asof.config import ConfigError

MOST_HEAD_BYTES = 8192
MOST_SECONDS = 5.0
"""How long a client may take for its request, and again for taking the answer."""
MOST_CLIENTS = 256

REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1\.[01]\r\n")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a client gets."""

    status: HTTPStatus
    body: bytes
    kind: str = "text/plain; charset=utf-8"
    more: str = ""

    def head(self) -> bytes:
        """The answer's lines up to its body."""
        lines = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Connection: close",
        )
        return "\r\n".join((*lines, *filter(None, [self.more]), "", "")).encode()


Routes = Mapping[str, Callable[[], Answer]]
"""What answers each path."""


def _says(status: HTTPStatus, text: str, more: str = "") -> Answer:
    return Answer(status, f"{text}\n".encode(), more=more)


def answer(head: bytes, routes: Routes) -> Answer:
    """The answer to a request, by its head."""
    request = REQUEST_LINE.match(head)
    if not request:
        return _says(HTTPStatus.BAD_REQUEST, "this is not an HTTP/1.1 request")
    path = request[2].decode("latin-1").partition("?")[0]
    if path not in routes:
        return _says(HTTPStatus.NOT_FOUND, f"there is nothing here; there is {' and '.join(routes)}")
    if request[1] not in (b"GET", b"HEAD"):
        return _says(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", more="Allow: GET, HEAD")
    try:
        return routes[path]()
    except Exception:  # the outermost edge: what went wrong is for the log, not for the client
        log.exception("request failed", extra={"path": path})
        return _says(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong; the log says what")


class _Connections:
    """Answers each connection, as many at a time as are allowed."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        if len(self._tasks) >= MOST_CLIENTS:
            writer.transport.abort()
            return
        self._tasks.add(task)
        writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until all is with the kernel
        try:
            with suppress(TimeoutError, ConnectionError, asyncio.CancelledError):  # cancelled by `close`, which asyncio would log
                async with asyncio.timeout(2 * MOST_SECONDS):
                    await self._converse(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await _read(reader)
        answered = answer(head, self._routes) if isinstance(head, bytes) else head
        bodiless = isinstance(head, bytes) and head.startswith(b"HEAD ")
        writer.write(answered.head() + (b"" if bodiless else answered.body))
        await writer.drain()
        writer.write_eof()
        for _ in range(16):  # what else the client sends is read, for else it may lose the answer
            if not await reader.read(MOST_HEAD_BYTES):
                return

    async def close(self) -> None:
        """End those that are open."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> bytes | Answer:
    """The head of a request, or the answer to one that is no request."""
    try:
        async with asyncio.timeout(MOST_SECONDS):
            return await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        return _says(HTTPStatus.REQUEST_TIMEOUT, f"the request took longer than {MOST_SECONDS:g} seconds")
    except asyncio.LimitOverrunError:
        return _says(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the request's head is longer than {MOST_HEAD_BYTES} bytes")
    except asyncio.IncompleteReadError:
        return _says(HTTPStatus.BAD_REQUEST, "the request ended before its head did")


@contextmanager
def answering(routes: Routes, host: str, port: int) -> Iterator[int]:
    """Answer GET and HEAD by `routes` for the block; the port, which is a free one where `port` is 0.

    Raises `ConfigError` where the address cannot be had.
    """
    listener, loop, connections = _listen(host, port), asyncio.new_event_loop(), _Connections(routes)
    thread = threading.Thread(target=loop.run_forever, name="asof-http", daemon=True)
    thread.start()
    starting = asyncio.start_server(connections, sock=listener, limit=MOST_HEAD_BYTES)
    server = asyncio.run_coroutine_threadsafe(starting, loop).result()
    try:
        yield listener.getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_close(server, connections), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(server: asyncio.Server, connections: _Connections) -> None:
    server.close()
    await connections.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128)
    except OSError as error:
        mend = "choose others with HEALTH_HOST and HEALTH_PORT (0 is any port that is free)"
        raise ConfigError(f"/health and /metrics cannot listen at {host}:{port}: {error.strerror or error}; {mend}") from None
