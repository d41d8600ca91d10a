"""A real server under an ASGI application."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

Application = Callable[[Any, Any, Any], Any]


@contextmanager
def answering(application: Application, before_end: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Serve an application on a thread of its own for the block; the port. `before_end` is called in the server's thread."""

    async def whole(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await application(scope, receive, send)

    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        server = uvicorn.Server(uvicorn.Config(whole, lifespan="off", log_level="critical", access_log=False, timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        loop = server.servers[0].get_loop()
        try:
            yield listener.getsockname()[1]
        finally:
            loop.call_soon_threadsafe(before_end)
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
