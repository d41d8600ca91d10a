"""The loop that keeps vectors up to date, over every store."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from prometheus_client.samples import Sample

from asof import FeatureSet, bars, fs_v1
from asof.errors import Stopped, StoreError
from asof.jobs.live import Live, Plan
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Store
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from tests.stores.rows import NOON, bar, bars_of, event, events_of, later, minute, rows_in
from tests.stores.test_catching_up import SET, recomputed, vectors

PLAN = Plan((SET,), ("1m",), None, "test", 60)


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now


def live(store: Store, plan: Plan = PLAN) -> Live:
    return Live(store, plan, Metrics(), Health("fs", "test", plan.refresh_seconds), Clock())


def metric(loop: Live, name: str, **labels: str) -> float:
    """A sample of the loop's metrics."""
    found: list[Sample] = [s for family in loop.metrics.registry.collect() for s in family.samples if s.name == f"feature_store_{name}"]
    (sample,) = (s for s in found if s.labels == labels)
    return sample.value


def test_the_first_cycle_makes_all_vectors_and_the_next_ones_nothing(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1), name) for n in range(10) for name in "AB")), NOON)
    loop = live(store)
    assert loop.cycle().computed == 20
    assert [loop.cycle().computed for _ in range(3)] == [0, 0, 0]
    assert vectors(store) == recomputed(store)
    assert metric(loop, "compute_runs_total") == 4
    assert metric(loop, "feature_vectors_upserted_total") == 20
    assert metric(loop, "quality_flag_total", flag="QUIET") == 20
    assert metric(loop, "compute_duration_seconds_count") == 1
    assert metric(loop, "db_upsert_duration_seconds_count") == 1
    assert metric(loop, "last_success_timestamp") == NOON.timestamp()
    assert metric(loop, "last_feature_ts_timestamp", timeframe="1m") == minute(9).timestamp()


def test_a_cycle_computes_what_has_changed_and_nothing_else(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(10))), NOON)
    loop = live(store)
    loop.cycle()
    store.upsert(BARS_TABLE, bars_of(bar(10, 3.0)), NOON)
    store.upsert(EVENTS_TABLE, events_of(event("x", 10)), NOON)
    assert loop.cycle().computed == 1
    store.upsert(BARS_TABLE, bars_of(bar(4, 9.0)), later(1))
    assert loop.cycle().computed == 3
    assert vectors(store) == recomputed(store)
    assert metric(loop, "feature_vectors_upserted_total") == 10 + 1 + 2  # the first bar of three knows no gain over two bars


def test_another_process_goes_on_where_one_was_stopped(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1)), NOON)
    live(store).cycle()
    store.upsert(BARS_TABLE, bars_of(bar(2)), NOON)
    assert live(store).cycle().computed == 1


def test_several_sets_over_several_timeframes_are_each_kept_up(store: Store) -> None:
    other = FeatureSet("other", {"close": bars.close + 0})
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1), bar(0) | {"timeframe": "5m"}), NOON)
    loop = live(store, replace(PLAN, feature_sets=(SET, other, fs_v1), timeframes=("1m", "5m")))
    assert loop.cycle().computed == 3 * 3
    store.upsert(BARS_TABLE, bars_of(bar(2)), NOON)
    assert loop.cycle().computed == 3
    assert metric(loop, "last_feature_ts_timestamp", timeframe="5m") == minute(0).timestamp()


def test_an_instrument_that_joins_the_settings_gets_its_history(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, 1.0, name) for n in range(5) for name in "AB")), NOON)
    one, both = (replace(PLAN, instruments=frozenset(names)) for names in ("A", "AB"))
    assert live(store, one).cycle().computed == 5
    assert live(store, both).cycle().computed == 5
    assert live(store, both).cycle().computed == 0
    assert vectors(store) == recomputed(store)


def test_an_instrument_without_bars_is_noted_once_and_gets_vectors_when_it_has_some(store: Store) -> None:
    loop = live(store, replace(PLAN, instruments=frozenset("AB")))
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    assert loop.cycle().computed == 1
    assert loop.cycle().computed == 0
    assert store.facts()["rows"]["feature_quality_log"] == 1
    store.upsert(BARS_TABLE, bars_of(bar(1, instrument="B"), bar(1, instrument="C")), NOON)
    assert loop.cycle().computed == 1
    assert {row["instrument_id"] for row in vectors(store)} == {"A", "B"}


def test_an_empty_store_is_no_failure(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    loop = live(store)
    assert loop.cycle().computed == 0
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    assert loop.cycle().computed == 1


def test_a_bar_that_has_not_closed_waits(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1)), NOON)
    loop = live(store)
    loop.clock.now = minute(1.5)
    assert loop.cycle().computed == 1
    store.upsert(BARS_TABLE, bars_of(bar(2)), NOON)
    assert loop.cycle().computed == 0
    loop.clock.now = minute(2)
    assert loop.cycle().computed == 1
    loop.clock.now = minute(3)
    assert loop.cycle().computed == 1
    assert vectors(store) == recomputed(store)


def test_a_store_that_fails_is_told_and_the_next_cycle_makes_up_for_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    loop = live(store)
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "upsert", broken)
        assert loop.cycle().computed == 0
    assert (metric(loop, "compute_failed_total", reason="store"), metric(loop, "store_up")) == (1, 0)
    assert metric(loop, "last_success_timestamp") == 0
    assert loop.health.report()["status"] == "starting"
    loop.clock.now += timedelta(minutes=1)
    assert loop.cycle().computed == 1
    assert (metric(loop, "store_up"), metric(loop, "last_success_timestamp")) == (1, loop.clock.now.timestamp())
    assert loop.health.report()["status"] == "ok"


def broken(*arguments: object) -> None:
    raise StoreError("the disk is full")


def test_the_loop_stops_when_it_is_told_to(store: Store) -> None:
    loop = live(store, replace(PLAN, refresh_seconds=0.01))
    running = threading.Thread(target=loop.run)
    running.start()
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    while not rows_in_when_registered(store):
        assert running.is_alive()
    loop.stop.set()
    running.join(10)
    assert not running.is_alive()
    assert loop.health.report()["status"] == "stopped"


def test_a_long_first_cycle_stops_between_two_pieces_and_goes_on_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(store), "write_rows", 10)
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(40))), NOON)
    loop = live(store)
    loop.stop.set()
    with pytest.raises(Stopped):
        loop.cycle()
    assert len(vectors(store)) < 40
    assert live(store).cycle().computed >= 30
    assert vectors(store) == recomputed(store)


def rows_in_when_registered(store: Store) -> list[dict[str, object]]:
    return vectors(store) if SET.version in store.registered() else []


def test_what_is_kept_ready_is_refreshed_when_there_is_something_new(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    refreshed: list[object] = []
    monkeypatch.setattr(store, "refresh", lambda: refreshed.append(store))
    loop = live(store, replace(PLAN, latest_refresh_seconds=0.001))
    loop.cycle()
    assert not refreshed
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    loop.cycle()
    loop.cycle()
    assert len(refreshed) == 1
    assert rows_in(store, BARS_TABLE)
