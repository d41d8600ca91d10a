"""The newest vectors in memory: what is put, what waits, and what the loop tells, over a store and without one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest

from asof import FeatureSet, bars
from asof.config import Settings
from asof.jobs.formats import lines
from asof.jobs.live import Live, Plan, Several
from asof.service import Service
from asof.serving.newest import NEVER, Entry, Newest
from asof.stores.store import BARS_TABLE, Selection, Store, vectors_table
from asof.stores.urls import open_store
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from tests.stores.rows import NOON, bar, bars_of, minute

SET = FeatureSet("served", {"close": bars.close + 0, "gain": bars.close - bars.close.lag(1)})


@dataclass
class Clock:
    """A clock that is set."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def micros(self) -> int:
        return int(self.now.timestamp() * 1_000_000)


def entry(ts: int, line: bytes = b"{}", known: int | None = None) -> Entry:
    return Entry(ts, ts + 1 if known is None else known, line)


def told(newest: Newest) -> list[tuple[str, bytes | None]]:
    return [(one.instrument, one.line) for one in newest.recent.after(0, 1000) or []]


def test_what_is_put_is_answered_by_set_timeframe_and_instrument_and_told_in_order() -> None:
    newest = Newest()
    newest.put("fs", "1m", [("B", entry(1, b"1")), ("A", entry(1, b"2")), ("B", entry(2, b"3"))])
    newest.put("fs", "1d", [("B", entry(1, b"4"))])
    assert newest.entry("fs", "1m", "B") == entry(2, b"3")
    assert newest.instruments("fs", "1m") == ["A", "B"]
    assert newest.series() == [("fs", "1d"), ("fs", "1m")]
    assert len(newest) == 3
    assert told(newest) == [("B", b"1"), ("A", b"2"), ("B", b"3"), ("B", b"4")]


def test_what_is_not_held_is_told_apart_from_an_instrument_without_a_vector() -> None:
    newest = Newest()
    newest.fill("fs", "1m", [])
    assert newest.of("fs", "1m") == {}
    assert newest.of("fs", "5m") is None
    assert newest.entry("fs", "1m", "A") is None
    assert newest.entry("fs", "5m", "A") is None
    assert newest.instruments("fs", "5m") == []


def test_what_fills_it_is_told_to_nobody() -> None:
    newest, heard = Newest(), []
    newest.recent.listen(lambda: heard.append(1))
    newest.fill("fs", "1m", [("A", entry(1, b"1")), ("A", entry(2, b"2"))])
    assert newest.entry("fs", "1m", "A") == entry(2, b"2")
    assert (told(newest), heard) == ([], [])


def test_what_is_dropped_is_gone_and_said_to_be_once() -> None:
    newest = Newest()
    newest.put("fs", "1m", [("A", entry(1, b"1"))])
    newest.drop("fs", "1m", ["A", "B"])
    newest.drop("fs", "1m", ["A"])
    assert newest.of("fs", "1m") == {}
    assert told(newest) == [("A", b"1"), ("A", None)]


def test_a_vector_that_cannot_be_known_yet_waits_until_it_can() -> None:
    clock = Clock()
    newest, at = Newest(clock.micros), clock.micros()
    newest.put("fs", "1m", [("A", entry(1, b"old")), ("A", entry(2, b"new", at + 10_000_000)), ("B", entry(2, b"first", at + 5_000_000))])
    assert newest.instruments("fs", "1m") == ["A"]
    assert newest.due == at + 5_000_000
    clock.now += timedelta(seconds=5)
    assert newest.instruments("fs", "1m") == ["A", "B"]
    clock.now += timedelta(seconds=4.999)
    assert newest.entry("fs", "1m", "A") == entry(1, b"old")
    clock.now += timedelta(seconds=0.001)
    assert newest.entry("fs", "1m", "A") == entry(2, b"new", at + 10_000_000)
    assert newest.due == NEVER
    assert told(newest) == [("A", b"old"), ("B", b"first"), ("A", b"new")]


@pytest.mark.parametrize(
    ("then", "found"),
    [
        ([entry(2, b"corrected")], b"corrected"),
        ([entry(3, b"newer")], b"newer"),
        ([entry(2, b"later", 8)], b"later"),
        ([], b"waits"),
    ],
)
def test_one_that_waits_gives_way_to_its_correction_and_to_newer_ones(then: list[Entry], found: bytes) -> None:
    clock = Clock()
    newest, at = Newest(clock.micros), clock.micros()
    newest.put("fs", "1m", [("A", entry(1, b"old")), ("A", entry(2, b"waits", at + 5_000_000))])
    newest.put("fs", "1m", [("A", Entry(e.ts, at + 8_000_000 if e.available_at == 8 else e.available_at, e.line)) for e in then])
    clock.now += timedelta(seconds=10)
    assert newest.of("fs", "1m")["A"].line == found
    assert newest._waiting == {}


def test_one_that_waits_is_dropped_with_its_instrument() -> None:
    clock = Clock()
    newest = Newest(clock.micros)
    newest.put("fs", "1m", [("A", entry(1, b"old")), ("A", entry(2, b"new", clock.micros() + 1))])
    newest.drop("fs", "1m", ["A"])
    clock.now += timedelta(seconds=1)
    assert newest.of("fs", "1m") == {}


def test_readers_see_whole_entries_while_one_thread_writes() -> None:
    newest, stop, wrong = Newest(), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            for name, found in list((newest.of("fs", "1m") or {}).items()):
                if found.line != f"{name} {found.ts}".encode():
                    wrong.append(found)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for ts in range(200):
        newest.put("fs", "1m", [(f"{n + ts}", entry(ts, f"{n + ts} {ts}".encode())) for n in range(50)])
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(open_store("duckdb://")) as opened:
        yield opened


@dataclass
class Loop:
    """The loop over a store, which tells the newest vectors."""

    store: Store
    clock: Clock
    newest: Newest
    live: Live

    def cycle(self, *bars: dict[str, object]) -> None:
        if bars:
            self.store.upsert(BARS_TABLE, bars_of(*bars), self.clock.now)
        self.live.cycle()

    def stored(self) -> dict[str, bytes]:
        """The newest lines as the store has them, of vectors that can be known by now."""
        found = self.store.latest(vectors_table(SET), Selection("1m", end=self.clock.now))
        return dict(lines(SET, found))

    def held(self) -> dict[str, bytes]:
        return {name: found.line for name, found in (self.newest.of("served", "1m") or {}).items()}

    def told(self) -> list[tuple[str, str | None]]:
        return [(name, json.loads(line)["ts_utc"][11:16] if line else None) for name, line in told(self.newest)]


def loop_over(store: Store, clock: Clock) -> Loop:
    newest = Newest(clock.micros)
    plan = Plan((SET,), ("1m",), None, "test", 60)
    live = Live(store, plan, Metrics(), Health("served", "test", 60), clock, published=Several((newest,)))
    return Loop(store, clock, newest, live)


@pytest.fixture
def loop(store: Store) -> Loop:
    return loop_over(store, Clock())


def test_the_loop_fills_it_from_the_store_and_keeps_it_to_what_is_stored(loop: Loop) -> None:
    loop.cycle(*(bar(n, float(n + 1), name) for n in range(3) for name in "AB"))
    assert loop.held() == loop.stored()
    assert loop.told() == []
    loop.cycle(bar(3, 9.0, "A"), bar(3, 9.0, "C"), bar(4, 9.0, "A"))
    assert loop.held() == loop.stored()
    assert loop.told() == [("A", "00:03"), ("C", "00:03"), ("A", "00:04")]
    again = loop_over(loop.store, loop.clock)
    again.cycle()
    assert again.held() == loop.held()


def test_a_correction_of_an_older_vector_is_not_the_newest(loop: Loop) -> None:
    loop.cycle(*(bar(n, float(n + 1)) for n in range(5)))
    loop.cycle(bar(1, 7.0))
    assert (loop.held(), loop.told()) == (loop.stored(), [])
    loop.cycle(bar(4, 7.0))
    assert (loop.held(), loop.told()) == (loop.stored(), [("A", "00:04")])


def test_a_bar_that_is_withdrawn_leaves_the_one_before_it_or_none(loop: Loop) -> None:
    loop.cycle(bar(0, 1.0), bar(1, 2.0), bar(0, 1.0, "B"), bar(0, 1.0, "C"), bar(1, 1.0, "C"))
    keys = bars_of(bar(1), bar(0, 1.0, "B"), bar(0, 1.0, "C")).select(BARS_TABLE.key)
    loop.store.withdraw(BARS_TABLE, keys, loop.clock.now)
    loop.cycle()
    assert loop.held() == loop.stored()
    assert sorted(loop.held()) == ["A", "C"]
    assert ("A", "00:00") in loop.told()
    assert ("B", None) in loop.told()


def test_vectors_that_are_available_later_wait_whether_they_are_found_or_told(loop: Loop) -> None:
    loop.clock.now = minute(10)
    early = [bar(n, float(n), available_at=minute(n + 4)) for n in range(5, 9)]
    loop.cycle(bar(4, 1.0), *early[:3])
    assert loop.held() == loop.stored()
    loop.cycle(*early[3:])
    for at in (9, 10.5, 11, 11.5, 12, 13):
        loop.clock.now = minute(at) if at > 10 else loop.clock.now
        assert loop.held() == loop.stored(), at
    assert loop.told() == [("A", "00:07"), ("A", "00:08")]


def test_a_vector_without_features_is_not_held(loop: Loop) -> None:
    loop.cycle(bar(0, None), bar(0, None, "B"), bar(1, 2.0, "B"))
    assert sorted(loop.held()) == ["B"]


def test_the_service_feeds_it_in_the_periodic_mode_too(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0), bar(1, 2.0)), NOON)
    service = Service("duckdb://", Settings(kafka_bootstrap_servers="", timeframes=("1m",)))
    service._live(store, (SET,)).cycle()
    assert json.loads(service.newest.entry("served", "1m", "A").line)["features"] == {"close": 2.0, "gain": 1.0}
    assert service.metrics.value(service.metrics.vectors_held) == 1
