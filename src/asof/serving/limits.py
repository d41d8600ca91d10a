"""How much: of one request, of all at the same time, and of one caller over time."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus

from asof.config import Settings
from asof.errors import DataError
from asof.serving.asgi import App, Message, Receive, Scope, Send
from asof.serving.problems import Problem, busy


@dataclass(frozen=True)
class Limits:
    """The most of everything, as it is set; 0 days and a rate of 0 are without end."""

    body_bytes: int = 64 << 20
    seconds: float = 60.0
    requests: int = 256
    rate: float = 2000.0
    instruments: int = 10_000
    values: int = 100_000_000
    days: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those of some settings."""
        return cls(
            settings.most_body_bytes,
            settings.most_seconds,
            settings.most_requests,
            settings.most_rate,
            settings.most_instruments,
            settings.most_values,
            settings.most_days,
        )

    def check_instruments(self, number: int) -> None:
        """Raise `DataError` where a request names too many."""
        if number > self.instruments:
            raise DataError(f"the request names {number:,} instruments, and {self.instruments:,} are the most: ask in parts")

    def check_values(self, rows: int, features: int) -> None:
        """Raise `DataError` where an answer that is not streamed would be too large."""
        if rows * features > self.values:
            mend = "ask for fewer rows or features at a time"
            raise DataError(
                f"{rows:,} rows of {features:,} features are {rows * features:,} values, and {self.values:,} are the most: {mend}"
            )

    def check_range(self, start: datetime | None, end: datetime | None) -> None:
        """Raise `DataError` where a time range is turned round, or too long; without an end it is as long as can be."""
        if start is not None and end is not None and start > end:
            raise DataError(f"from {start.isoformat()} is after to {end.isoformat()}: turn them round")
        if self.days and (start is None or end is None or end - start > timedelta(days=self.days)):
            raise DataError(f"a request may span {self.days:g} days: give from and to that are no further apart, and ask in parts")


class Buckets:
    """Tokens of many names: each has up to `burst`, and gets `rate` a second. Names that were not seen for long are forgotten."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic, most: int = 4096) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._most = most
        self._left: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def wait(self, name: object) -> float:
        """Seconds until there is a token of a name; 0 where there is one."""
        return max(0.0, (1 - self._now(name)[0]) / self._rate)

    def take(self, name: object) -> float:
        """Take a token; or, where there is none, the seconds until there is."""
        left, now = self._now(name)
        if left < 1:
            return (1 - left) / self._rate
        self._left[name] = left - 1, now
        self._left.move_to_end(name)
        if len(self._left) > self._most:
            self._left.popitem(last=False)
        return 0.0

    def _now(self, name: object) -> tuple[float, float]:
        now = self._clock()
        left, at = self._left.get(name, (self._burst, now))
        return min(self._burst, left + (now - at) * self._rate), now


class Limited:
    """Middleware inside of `Access`: bodies of bounded size, with or without a length; requests of bounded time; so many at once.

    A client that takes nothing of an answer for as long as a request may take is left. `lasting` routes, and those that are public, are
    not counted.
    """

    def __init__(self, app: App, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within the limits."""
        route = scope.get("state", {}).get("route") if scope["type"] == "http" else None
        if route is None or route.need == "public":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._limits.requests and not route.lasting:
            detail = f"the service answers {self._limits.requests} requests already: try again in a moment"
            await busy(HTTPStatus.SERVICE_UNAVAILABLE, "overloaded", detail, 1).answer(scope, send)
            return
        self._under_way += not route.lasting
        try:
            await _Exchange(self._limits, scope, receive, send).run(self._app)
        finally:
            self._under_way -= not route.lasting


class _Exchange:
    """One request and its answer."""

    def __init__(self, limits: Limits, scope: Scope, receive: Receive, send: Send) -> None:
        self._limits, self._scope = limits, scope
        self._receive, self._send = receive, send
        self._timer = asyncio.timeout(limits.seconds)
        self._bytes = 0
        self._arrived = False
        self._begun = False
        self._gone = False
        self._problem: Problem | None = None

    async def run(self, app: App) -> None:
        length = next((value for name, value in self._scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length[:20]) > self._limits.body_bytes:
            self._too_large()
        else:
            await self._converse(app)
        if self._problem is not None and not self._begun:
            await self._problem.answer(self._scope, self._send)

    async def _converse(self, app: App) -> None:
        try:
            async with self._timer:
                await app(self._scope, self.receive, self.send)
        except TimeoutError:
            if not self._timer.expired():
                raise
            self._problem = self._problem or self._too_late()
        except Exception:
            if self._problem is None and not self._gone:  # else it is what an app says of a client that is not there any more
                raise

    async def receive(self) -> Message:
        """What comes from the client; as if it had gone where it sends too much."""
        if self._problem is not None:
            return {"type": "http.disconnect"}
        message = await self._receive()
        self._gone = self._gone or message["type"] == "http.disconnect"
        if message["type"] == "http.request":
            self._bytes += len(message.get("body", b""))
            self._arrived = not message.get("more_body", False)
            if self._bytes > self._limits.body_bytes:
                self._too_large()
                return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        """What goes to the client, each part within its time; nothing where it gets a problem instead."""
        if self._problem is not None and not self._begun:
            return
        if message["type"] == "http.response.start":
            self._begun = True
        self._timer.reschedule(asyncio.get_running_loop().time() + self._limits.seconds)
        await self._send(message)
        self._timer.reschedule(None)

    def _too_large(self) -> None:
        detail = f"the body is larger than {self._limits.body_bytes:,} bytes, which are the most: send it in parts"
        self._problem = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail, "DataError", ((b"connection", b"close"),))

    def _too_late(self) -> Problem:
        seconds = f"{self._limits.seconds:g} seconds"
        if not self._arrived and self._bytes:
            return Problem(HTTPStatus.REQUEST_TIMEOUT, "too-slow", f"the request took longer than {seconds} to arrive")
        return busy(HTTPStatus.SERVICE_UNAVAILABLE, "too-long", f"the answer takes longer than {seconds}: ask for less at a time", 1)
