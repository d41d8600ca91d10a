"""`GET /v1/features/stream`: vectors as they become the newest, as server-sent events.

1. A subscriber names a feature set, and may name a timeframe and instruments. It is told of what comes from now on, of what came after
   the event that `Last-Event-ID` names, or, with `newest=true`, of the newest vectors first.
2. Nothing is queued for anybody: a subscriber is a number in the memory of what came last (`asof.serving.recent`), and is given the next
   piece when it has taken the one before. Those who ask for the same are given the same bytes.
3. Who is so far behind that the memory has what comes next no longer is sent `reset`, and then the newest vectors. The same befalls who
   resumes too late, or at another process. Who takes nothing at all for a while is cut off.

Events are `vector` (a `features.v1` record), `gone` (an instrument whose last vector was withdrawn), `begin` and `reset`. Their ids are
`<epoch>-<number>`. The vectors behind a `reset` have none; the `begin` behind them has, so who breaks off among them is sent them again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from asof.errors import AccessError, DataError, Overloaded, did_you_mean
from asof.serving.newest import Newest, not_held, now
from asof.serving.recent import Recent, Told
from asof.timeframes import timeframe as check_timeframe

if TYPE_CHECKING:
    from asof.telemetry.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEARTBEAT_SECONDS = 15.0
"""How long a subscriber hears nothing: proxies and clients take longer silence for a broken connection."""
PATIENCE_SECONDS = 30.0
"""How long a subscriber may take nothing of what is sent."""
TICK_SECONDS = 1.0
PIECE = 100
"""Vectors that are sent at a time: some 70 kB, which is what may wait for a slow subscriber."""
PIECES = 4
"""Pieces that are kept for those who want the same."""
MOST_SUBSCRIBERS = 10_000

PARAMETERS = ("feature_set", "timeframe", "instrument", "newest")
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would keep events back
]


@dataclass(frozen=True)
class Asked:
    """Which vectors are asked for: of a feature set, of a timeframe or of all, of some instruments or of all."""

    version: str
    timeframe: str | None = None
    instruments: frozenset[str] | None = None

    def holds(self, told: Told) -> bool:
        """Whether one of them is meant."""
        return (
            told.version == self.version
            and (self.timeframe is None or told.timeframe == self.timeframe)
            and (self.instruments is None or told.instrument in self.instruments)
        )


class Piece(NamedTuple):
    """Events, ready to be sent, and the number up to which they go."""

    events: bytes
    reached: int


class _Group:
    """Those who ask for the same."""

    def __init__(self, asked: Asked, newest: Newest) -> None:
        self.asked = asked
        self.members = 0
        self._newest = newest
        self._pieces: dict[int, Piece] = {}

    def after(self, number: int) -> Piece | None:
        """What comes after a number; None where that is known no longer."""
        if (piece := self._pieces.get(number)) is not None:
            return piece
        recent = self._newest.recent
        if (found := recent.after(number, PIECE)) is None:
            return None
        piece = Piece(b"".join([_event(recent, told) for told in found if self.asked.holds(told)]), number + len(found))
        if found:
            self._pieces[number] = piece
            if len(self._pieces) > PIECES:
                del self._pieces[next(iter(self._pieces))]
        return piece

    def newest(self) -> Iterator[bytes]:
        """The newest vectors, some at a time."""
        asked = self.asked
        for version, timeframe in self._newest.series():
            if version == asked.version and asked.timeframe in (None, timeframe):
                found = list((self._newest.of(version, timeframe) or {}).items())
                lines = [entry.line for name, entry in found if asked.instruments is None or name in asked.instruments]
                for begin in range(0, len(lines), PIECE):
                    yield b"".join([b"event: vector\ndata: %b\n\n" % line for line in lines[begin : begin + PIECE]])

    def forget(self) -> None:
        """Numbers mean something else from now on."""
        self._pieces.clear()


class Stream:
    """The ASGI application of the stream; raises `AsofError` before it has answered anything. `close` ends all that are open."""

    def __init__(self, newest: Newest, metrics: Metrics, heartbeat: float = HEARTBEAT_SECONDS, patience: float = PATIENCE_SECONDS) -> None:
        self._newest = newest
        self._metrics = metrics
        self._heartbeat = heartbeat
        self._patience = patience
        self._groups: dict[Asked, _Group] = {}
        self._open: set[_Subscriber] = set()
        self._epoch = newest.recent.epoch
        self._woken = False
        self._closing = False
        self._ticking: asyncio.Task[None] | None = None
        self._unlisten: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, for as long as its client listens."""
        asked, with_newest = _asked(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        principal = scope.get("state", {}).get("principal")
        may_read = principal.may_read if principal is not None else lambda version: True
        if not may_read(asked.version):
            raise AccessError(f"this key may not read {asked.version}: it needs the scope read:{asked.version}")
        if asked.version not in {key.version for key in self._newest.series()}:
            raise not_held(self._newest, asked.version, may_read)
        if len(self._open) >= MOST_SUBSCRIBERS or self._closing:
            raise Overloaded("there are as many subscribers as this process takes: try another, or later")
        last = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"last-event-id"), None)
        with self._joined(asked) as group:
            subscriber = _Subscriber(self._newest.recent, group, send, self._patience, self._metrics)
            self._open.add(subscriber)
            watching = asyncio.create_task(subscriber.watch(receive))
            try:
                await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
                await subscriber.follow(last, with_newest=with_newest)
            finally:
                self._open.discard(subscriber)
                watching.cancel()

    @contextmanager
    def _joined(self, asked: Asked) -> Iterator[_Group]:
        """One more who asks for this."""
        group = self._groups.setdefault(asked, _Group(asked, self._newest))
        group.members += 1
        self._metrics.subscribers.inc()
        if self._ticking is None:
            self._begin()
        try:
            yield group
        finally:
            self._metrics.subscribers.dec()
            group.members -= 1
            if not group.members:
                self._groups.pop(asked, None)
            if not self._groups and self._ticking is not None:
                self._unlisten()
                self._ticking.cancel()
                self._ticking = None

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()

        def news() -> None:  # in the writer's thread
            if not self._woken:
                self._woken = True
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._wake)

        self._unlisten = self._newest.recent.listen(news)
        self._ticking = asyncio.create_task(self._tick())

    def _wake(self, tick: bool = False) -> None:
        self._woken = False
        if self._epoch != self._newest.recent.epoch:
            self._epoch = self._newest.recent.epoch
            for group in self._groups.values():
                group.forget()
        for subscriber in list(self._open):
            subscriber.wake(tick)

    async def _tick(self) -> None:
        """Vectors that wait are taken in when they can be known, and those who hear nothing are told that all is well."""
        beat = now() + int(self._heartbeat * 1e6)
        while True:
            await asyncio.sleep(max(0.0, min(TICK_SECONDS, self._heartbeat, (self._newest.due - now()) / 1e6)))
            if self._newest.due <= now():
                self._newest.release()
            if now() >= beat:
                beat = now() + int(self._heartbeat * 1e6)
                self._wake(tick=True)

    def close(self) -> None:
        """End all that are open, and take no more; called in the server's thread."""
        self._closing = True
        for subscriber in list(self._open):
            subscriber.end()


class _Subscriber:
    """A client that listens."""

    def __init__(self, recent: Recent, group: _Group, send: Send, patience: float, metrics: Metrics) -> None:
        self._recent = recent
        self._group = group
        self._send = send
        self._patience = patience
        self._metrics = metrics
        self._waiting: asyncio.Future[bool] | None = None
        self._ended = False

    async def watch(self, receive: Receive) -> None:
        """End when the client goes away."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.end()

    def end(self) -> None:
        """Send nothing more."""
        self._ended = True
        self.wake(tick=False)

    def wake(self, tick: bool) -> None:
        """There is something new, or it is time for a heartbeat."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(tick)

    async def follow(self, last: str | None, *, with_newest: bool) -> None:
        """Send what comes until the client goes away, or takes nothing any more."""
        with suppress(TimeoutError):
            number = await self._begin(last, with_newest)
            while not self._ended:
                piece = self._group.after(number)
                if piece is None:
                    self._metrics.stream_skips.inc()
                    number = await self._reset("what came next is kept no longer: this connection is too slow for all of it")
                elif piece.reached != number:
                    if piece.events:
                        await self._write(piece.events)
                    number = piece.reached
                elif await self._news() and not self._ended:
                    await self._write(b": nothing new\nid: %b\n\n" % _identity(self._recent, number))
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _begin(self, last: str | None, with_newest: bool) -> int:
        """Where to begin: behind the event that was heard last, or now."""
        if last:
            epoch, _, digits = last.partition("-")
            if epoch == self._recent.epoch and digits.isdecimal() and self._group.after(int(digits)) is not None:
                return int(digits)
            return await self._reset("what came after this id is kept no longer, or it is another process that answers")
        if with_newest:
            return await self._reset("the newest vectors were asked for")
        number = self._recent.last
        await self._write(b"id: %b\nevent: begin\ndata: {}\n\n" % _identity(self._recent, number))
        return number

    async def _reset(self, why: str) -> int:
        """The newest vectors, and the number from which to go on."""
        number, epoch = self._recent.last, self._recent.epoch
        await self._write(b"event: reset\ndata: %b\n\n" % json.dumps({"reason": why}).encode())
        for some in self._group.newest():
            if self._ended:
                return number
            await self._write(some)
        await self._write(f"id: {epoch}-{number}\nevent: begin\ndata: {{}}\n\n".encode())
        return number if epoch == self._recent.epoch else -1

    async def _news(self) -> bool:
        """Wait for something new; whether it is but time for a heartbeat."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            return await self._waiting
        finally:
            self._waiting = None

    async def _write(self, events: bytes) -> None:
        """Send, as soon as what was sent before is on its way. Raises `TimeoutError` for a client that takes nothing."""
        async with asyncio.timeout(self._patience):
            await self._send({"type": "http.response.body", "body": events, "more_body": True})


def _asked(given: Iterable[tuple[str, str]]) -> tuple[Asked, bool]:
    """What a query asks for, and whether for the newest vectors first. Raises `DataError`."""
    found: dict[str, list[str]] = {}
    for name, value in given:
        if name not in PARAMETERS:
            raise DataError(f"there is no parameter {name!r}; there are {', '.join(PARAMETERS)}{did_you_mean(name, PARAMETERS)}")
        found.setdefault(name, []).append(value)
    for name, values in found.items():
        if name != "instrument" and len(values) > 1:
            raise DataError(f"{name} is given {len(values)} times, and there can be one")
    if "feature_set" not in found:
        raise DataError("which vectors? Say feature_set=, and timeframe= and instrument= for fewer of them")
    timeframe = found["timeframe"][0] if "timeframe" in found else None
    if timeframe is not None:
        check_timeframe(timeframe)
    with_newest = found.get("newest", ["false"])[0]
    if with_newest not in ("true", "false"):
        raise DataError(f"newest is {with_newest!r}, and has to be true or false")
    return Asked(
        found["feature_set"][0], timeframe, frozenset(found["instrument"]) if "instrument" in found else None
    ), with_newest == "true"


def _identity(recent: Recent, number: int) -> bytes:
    return f"{recent.epoch}-{number}".encode()


def _event(recent: Recent, told: Told) -> bytes:
    """A vector that came, as an event."""
    if told.line is not None:
        return b"id: %b\nevent: vector\ndata: %b\n\n" % (_identity(recent, told.number), told.line)
    gone = {"feature_set_version": told.version, "timeframe": told.timeframe, "instrument_id": told.instrument}
    return b"id: %b\nevent: gone\ndata: %b\n\n" % (_identity(recent, told.number), json.dumps(gone).encode())
