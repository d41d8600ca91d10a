"""Requests to an ASGI app in this process, byte by byte as a test wants them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from asof.serving.asgi import App, Message

HOST = (b"host", b"127.0.0.1:8006")


@dataclass(frozen=True)
class Answer:
    """What an app answered."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:  # JSON has no types
        """The body as JSON."""
        return json.loads(self.body)


async def asked(
    app: App,
    method: str,
    path: str,
    headers: Iterable[tuple[bytes, bytes]] = (),
    body: Iterable[bytes] = (b"",),
    client: str = "192.0.2.1",
    pause: float = 0.0,
) -> Answer:
    """The answer of an app to a request whose body comes in parts. A body that is not ended goes on without end."""
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(errors="replace"),
        "query_string": query.encode(),
        "root_path": "",
        "http_version": "1.1",
        "scheme": "http",
        "headers": [HOST, *headers] if all(name != b"host" for name, _ in headers) else list(headers),
        "client": (client, 40_000),
        "server": ("127.0.0.1", 8006),
        "asgi": {"version": "3.0"},
    }
    parts, sent = list(body), []

    async def receive() -> Message:
        await asyncio.sleep(pause)
        part = parts.pop(0) if parts else None
        return {"type": "http.disconnect"} if part is None else {"type": "http.request", "body": part, "more_body": bool(parts)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    assert len(starts) == 1, "an answer begins once"
    return Answer(starts[0]["status"], dict(starts[0]["headers"]), b"".join(message.get("body", b"") for message in sent))


def ask(app: App, method: str, path: str, *headers: tuple[bytes, bytes], **more: Any) -> Answer:  # as `asked` has them
    """The same, for a test that asks once."""
    return asyncio.run(asked(app, method, path, headers, **more))


def bearer(token: str) -> tuple[bytes, bytes]:
    """The header that brings a key."""
    return b"authorization", b"Bearer " + token.encode("utf-8", "replace")
