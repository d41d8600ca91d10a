"""The stream of new vectors, as an ASGI application: what subscribers are sent, when they resume, and when they are slow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from asof.errors import AccessError, DataError, DefinitionError, NotFound
from asof.serving.events import Stream
from asof.serving.newest import Entry, Newest
from asof.serving.recent import Recent
from asof.telemetry.metrics import Metrics

Event = tuple[str, str, Any]
"""An id, a kind, and data."""


def line(instrument: str, n: int) -> bytes:
    return json.dumps({"instrument_id": instrument, "n": n}).encode()


def put(newest: Newest, *rows: tuple[str, int], version: str = "fs", timeframe: str = "1m") -> None:
    newest.put(version, timeframe, [(name, Entry(n, n, line(name, n))) for name, n in rows])


@dataclass
class Client:
    """A client, and what it was sent; `pause` has it take nothing."""

    text: bytes = b""
    pause: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False
    status: int = 0

    def __post_init__(self) -> None:
        self.pause.set()

    async def receive(self) -> dict[str, object]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.pause.wait()
        self.status = message.get("status", self.status)
        self.text += message.get("body", b"")
        self.over = message["type"] == "http.response.body" and not message["more_body"]

    def events(self) -> list[Event]:
        found = []
        for block in self.text.decode().split("\n\n")[:-1]:
            fields = dict(part.split(": ", 1) for part in block.split("\n") if not part.startswith(":"))
            if "event" in fields:
                found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
        return found

    def vectors(self) -> list[tuple[str, int]]:
        return [(data["instrument_id"], data["n"]) for _, kind, data in self.events() if kind == "vector"]

    def last_id(self) -> str:
        return [part[4:] for part in self.text.decode().split("\n") if part.startswith("id: ")][-1]


@asynccontextmanager
async def listening(stream: Stream, query: str = "feature_set=fs", last: str | None = None, **state: object) -> AsyncIterator[Client]:
    client = Client()
    headers = [(b"last-event-id", last.encode())] if last else []
    scope = {"type": "http", "query_string": query.encode(), "headers": headers, "state": state}
    task = asyncio.create_task(stream(scope, client.receive, client.send))
    await until(lambda: b"event: begin" in client.text or task.done() or last)
    if task.done():
        task.result()
    yield client
    client.gone.set()
    client.pause.set()
    await asyncio.wait_for(task, 5)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.fixture
def newest() -> Newest:
    found = Newest()
    put(found, ("A", 0), ("B", 0))
    return found


def test_a_subscriber_is_told_of_what_comes_from_now_on_that_it_asked_for(newest: Newest) -> None:
    async def work() -> None:
        stream = Stream(newest, Metrics())
        async with (
            listening(stream) as everything,
            listening(stream, "feature_set=fs&timeframe=1m&instrument=B&instrument=C") as some,
            listening(stream, "feature_set=fs&timeframe=1d") as daily,
        ):
            put(newest, ("A", 1), ("B", 1))
            put(newest, ("B", 2), timeframe="1d")
            put(newest, ("C", 1), version="other")
            newest.drop("fs", "1m", ["A"])
            await until(lambda: len(everything.events()) == 5)
            await until(lambda: len(daily.events()) == 2)
            assert everything.status == 200
            assert everything.vectors() == [("A", 1), ("B", 1), ("B", 2)]
            assert everything.events()[-1][1:] == ("gone", {"feature_set_version": "fs", "timeframe": "1m", "instrument_id": "A"})
            assert some.vectors() == [("B", 1)]
            assert daily.vectors() == [("B", 2)]

    run(work)


def test_who_resumes_misses_nothing_and_is_told_nothing_twice(newest: Newest) -> None:
    async def work() -> None:
        stream = Stream(newest, Metrics())
        async with listening(stream) as first:
            put(newest, ("A", 1), ("B", 1))
            await until(lambda: len(first.vectors()) == 2)
            (_, (one, _, _), _) = first.events()
        put(newest, ("A", 2))
        async with listening(stream, last=one) as again:
            await until(lambda: len(again.vectors()) == 2)
            put(newest, ("A", 3))
            await until(lambda: len(again.vectors()) == 3)
            assert again.vectors() == [("B", 1), ("A", 2), ("A", 3)]

    run(work)


@pytest.mark.parametrize("last", ["nonsense", "0-1", "{epoch}-99", "{epoch}-x", "{epoch}-0", "-"])
def test_who_resumes_too_late_or_elsewhere_is_reset_and_sent_the_newest(newest: Newest, last: str) -> None:
    async def work() -> None:
        newest.recent = Recent(4)
        put(newest, *(("A", n) for n in range(1, 10)))
        stream = Stream(newest, Metrics())
        async with listening(stream, last=last.format(epoch=newest.recent.epoch)) as client:
            await until(lambda: b"event: begin" in client.text)
            assert [kind for _, kind, _ in client.events()] == ["reset", "vector", "vector", "begin"]
            assert client.vectors() == [("A", 9), ("B", 0)]
            put(newest, ("A", 10))
            await until(lambda: ("A", 10) in client.vectors())

    run(work)


def test_the_newest_come_first_where_they_are_asked_for(newest: Newest) -> None:
    async def work() -> None:
        async with listening(Stream(newest, Metrics()), "feature_set=fs&newest=true&instrument=B") as client:
            assert client.vectors() == [("B", 0)]

    run(work)


def test_a_slow_reader_costs_nothing_and_is_brought_to_the_newest(newest: Newest) -> None:
    async def work() -> None:
        newest.recent, metrics = Recent(1000), Metrics()
        stream = Stream(newest, metrics)
        async with listening(stream) as slow, listening(stream) as quick:
            slow.pause.clear()
            for n in range(1, 3001):
                put(newest, ("A", n))
                if n % 100 == 0:
                    await until(lambda n=n: quick.vectors()[-1:] == [("A", n)])
            slow.pause.set()
            await until(lambda: slow.vectors()[-1:] == [("B", 0)])
            kinds = [kind for _, kind, _ in slow.events()]
            assert kinds[-4:] == ["reset", "vector", "vector", "begin"]
            assert len(kinds) < 500
            assert slow.vectors()[-2:] == [("A", 3000), ("B", 0)]
            assert quick.vectors() == [("A", n) for n in range(1, 3001)]
            assert metrics.value(metrics.subscribers) == 2
        assert metrics.value(metrics.subscribers) == 0
        assert stream._groups == {}
        assert newest.recent._listeners == ()

    run(work)


def test_who_takes_nothing_at_all_is_cut_off(newest: Newest) -> None:
    async def work() -> None:
        client, stream = Client(), Stream(newest, Metrics(), patience=0.1)
        scope = {"type": "http", "query_string": b"feature_set=fs", "headers": []}
        task = asyncio.create_task(stream(scope, client.receive, client.send))
        await until(client.events)
        client.pause.clear()
        put(newest, ("A", 1))
        await asyncio.wait_for(task, 5)
        assert not client.over

    run(work)


def test_silence_is_broken_by_heartbeats_whose_ids_move_on(newest: Newest) -> None:
    async def work() -> None:
        async with listening(Stream(newest, Metrics(), heartbeat=0.05), "feature_set=fs&instrument=Z") as client:
            begun = client.last_id()
            put(newest, ("A", 1))
            await until(lambda: client.text.count(b": nothing new") >= 2)
            assert client.vectors() == []
            assert client.last_id() != begun
            assert client.last_id() == f"{newest.recent.epoch}-{newest.recent.last}"

    run(work)


def test_what_can_be_known_later_is_told_when_it_can() -> None:
    newest = Newest()
    newest.fill("fs", "1m", [])

    async def work() -> None:
        async with listening(Stream(newest, Metrics(), heartbeat=0.2)) as client:
            soon = newest._clock() + 300_000
            newest.put("fs", "1m", [("A", Entry(1, soon, line("A", 1)))])
            await until(client.vectors)
            assert newest._clock() >= soon

    run(work)


def test_all_that_is_forgotten_resets_everybody(newest: Newest) -> None:
    async def work() -> None:
        async with listening(Stream(newest, Metrics())) as client:
            newest.clear()
            newest.fill("fs", "1m", [("C", Entry(1, 1, line("C", 1)))])
            await until(lambda: client.vectors() == [("C", 1)] or ("reset" in str(client.events()) and put(newest, ("C", 2))))
            assert "reset" in [kind for _, kind, _ in client.events()]

    run(work)


def test_those_that_are_open_end_when_the_server_does(newest: Newest) -> None:
    async def work() -> None:
        stream = Stream(newest, Metrics())
        async with listening(stream) as client:
            stream.close()
            await until(lambda: client.over)

    run(work)


@pytest.mark.parametrize(
    ("query", "error", "said"),
    [
        ("", DataError, "which vectors"),
        ("feature_set=f", NotFound, "did you mean 'fs'"),
        ("feature_set=fs&timeframe=5x", DefinitionError, "5x"),
        ("feature_set=fs&instruments=A", DataError, "did you mean 'instrument'"),
        ("feature_set=fs&feature_set=fs", DataError, "given 2 times"),
        ("feature_set=fs&newest=maybe", DataError, "true or false"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_answered(newest: Newest, query: str, error: type[Exception], said: str) -> None:
    async def work() -> None:
        with pytest.raises(error, match=said):
            async with listening(Stream(newest, Metrics()), query) as client:
                assert client.status == 0

    run(work)


def test_a_key_that_may_not_read_the_set_is_told_so(newest: Newest) -> None:
    class Nobody:
        def may_read(self, version: str) -> bool:  # noqa: ARG002
            return False

    async def work() -> None:
        with pytest.raises(AccessError, match="read:fs"):
            async with listening(Stream(newest, Metrics()), principal=Nobody()):
                pass

    run(work)
