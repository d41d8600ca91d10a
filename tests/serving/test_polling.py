"""A replica of a store that others write."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest

from asof import FeatureSet, bars
from asof.config import Settings
from asof.errors import MissingExtra, StoreError
from asof.jobs.live import Live, Plan
from asof.serving.following import follow
from asof.serving.newest import Newest
from asof.serving.polling import StoreReplica
from asof.stores.store import BARS_TABLE, Store
from asof.stores.urls import open_store
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from tests.jobs.streams import eventually
from tests.serving.test_newest import told
from tests.stores.rows import bar, bars_of

SET = FeatureSet("served", {"close": bars.close + 0})


@pytest.fixture
def store() -> Iterator[Store]:
    with closing(open_store("duckdb://")) as opened:
        yield opened


def replica_of(store: Store, stop: threading.Event | None = None) -> StoreReplica:
    return StoreReplica(store, Settings(timeframes=("1m",)), Newest(), Metrics(), stop or threading.Event())


def write(store: Store, *rows: dict[str, object]) -> None:
    store.upsert(BARS_TABLE, bars_of(*rows), datetime.now(UTC))
    Live(store, Plan((SET,), ("1m",), None, "test", 60), Metrics(), Health("served", "test", 60), lambda: datetime.now(UTC)).cycle()


def held(replica: StoreReplica) -> dict[str, float]:
    return {name: json.loads(found.line)["features"]["close"] for name, found in (replica.newest.of("served", "1m") or {}).items()}


def test_it_takes_in_what_has_changed_and_nothing_else(store: Store) -> None:
    write(store, *(bar(n, float(n), name) for n in range(3) for name in "AB"))
    replica = replica_of(store)
    assert not replica.ready
    replica.poll()
    assert replica.ready
    assert held(replica) == {"A": 2.0, "B": 2.0}
    write(store, bar(3, 7.0, "A"), bar(1, 9.0, "B"), bar(0, 5.0, "C"))
    replica.poll()
    replica.poll()
    assert held(replica) == {"A": 7.0, "B": 2.0, "C": 5.0}
    assert [name for name, _ in told(replica.newest)] == ["C", "A"]
    store.withdraw(BARS_TABLE, bars_of(bar(3), bar(0, 1.0, "C")).select(BARS_TABLE.key), datetime.now(UTC))
    write(store, bar(2, 4.0, "B"))
    replica.poll()
    assert held(replica) == {"A": 2.0, "B": 4.0}
    assert told(replica.newest)[-1] == ("C", None)


def test_a_store_that_is_away_is_told_of_and_asked_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, bar(0, 1.0))
    stop, away = threading.Event(), threading.Event()
    replica, registered = replica_of(store, stop), store.registered
    away.set()

    def failing() -> object:
        if away.is_set():
            raise StoreError("the store is away")
        return registered()

    monkeypatch.setattr(store, "registered", failing)
    thread = threading.Thread(target=replica.run)
    thread.start()
    eventually(lambda: replica.report()["trouble"] == "the store is away")
    assert not replica.ready
    away.clear()
    eventually(lambda: replica.ready)
    assert replica.report() | {"seconds_behind": 0} == {
        "source": "duckdb://",
        "ready": True,
        "vectors": 1,
        "seconds_behind": 0,
        "trouble": None,
    }
    stop.set()
    thread.join(10)


def test_a_set_that_cannot_be_rebuilt_is_left_out_and_the_others_are_held(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    write(store, bar(0, 1.0))
    registry = store.registered()
    foreign = registry["served"].__class__("foreign", "0" * 64, "foreign = nonsense(", registry["served"].applied_at)
    monkeypatch.setattr(store, "registered", lambda: registry | {"foreign": foreign})
    replica = replica_of(store)
    replica.poll()
    assert replica.newest.series() == [("served", "1m")]


def test_addresses_are_followed_by_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    made, store = follow("duckdb://", Settings(), Metrics(), threading.Event())
    assert isinstance(made, StoreReplica)
    assert store is not None
    store.close()
    made, store = follow("kafka://one:9092,two:9092/", Settings(), Metrics(), threading.Event())
    assert store is None
    assert made.report()["source"] == "kafka://one:9092,two:9092"
    monkeypatch.setitem(sys.modules, "asof.serving.topic", None)
    with pytest.raises(MissingExtra, match=r"asof\[kafka\]"):
        follow("kafka://one:9092", Settings(), Metrics(), threading.Event())
