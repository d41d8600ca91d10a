"""A replay: what it feeds in which order, and that what comes out is what a backfill gives, whatever was late, corrected or taken away."""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof import FeatureSet, bars, connect, events, fs_v1
from asof.config import Settings
from asof.errors import DefinitionError, NotFound, StoreError
from asof.feature_store import FeatureStore
from asof.jobs.backfill import backfill
from asof.jobs.replay import Replay, arrivals, chunks
from asof.jobs.work import Work
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, Selection, Store
from asof.stores.urls import open_store
from tests.stores.conftest import Opener
from tests.stores.rows import NOON, action, actions_of, bar, bars_of, event, events_of, later, minute, rows_in

MAPPED = {"instrument_id": "ticker", "ts": "ts_open_utc"}
SET = FeatureSet(
    "replayed",
    {
        "gain": bars.close / bars.close.lag(2) - 1,
        "total": bars.adjusted.close / bars.adjusted.close.lag(2) - 1,
        "mood": events.window("3m").sentiment.mean(),
    },
)


def work_of(store: Store) -> Work:
    return Work(store, SET, "1m", later(1_000), "test")


def as_stored(store: Store) -> list[dict[str, object]]:
    """The vectors of a store, but for when they were computed."""
    hidden = ("computed_at", "pipeline_version")
    return [{name: value for name, value in row.items() if name not in hidden} for row in rows_in(store, work_of(store).table)]


def replayed(store: Store, **options: object) -> list[dict[str, object]]:
    with closing(open_store("duckdb://")) as scratch:
        Replay(work_of(store), scratch, **options).run()  # type: ignore[arg-type]  # the options of a replay
        return as_stored(scratch)


def backfilled(store: Store) -> list[dict[str, object]]:
    store.register(SET, NOON)
    backfill(work_of(store))
    return as_stored(store)


def test_history_in_order_is_one_chunk_and_what_changes_it_begins_another(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1), name) for n in range(5) for name in "AB")), NOON)
    store.upsert(EVENTS_TABLE, events_of(event("x", 2.5), event("y", 3)), NOON)
    assert list(chunks(arrivals(work_of(store), None))) == [(0, 12)]
    store.upsert(BARS_TABLE, bars_of(bar(1, 9.0)), later(1))
    assert list(chunks(arrivals(work_of(store), None))) == [(0, 12), (12, 13)]
    store.upsert(BARS_TABLE, bars_of(bar(1, 8.0)), later(2))
    store.withdraw(BARS_TABLE, bars_of(bar(4)).select(BARS_TABLE.key), later(3))
    found = arrivals(work_of(store), None)
    assert list(chunks(found)) == [(0, 12), (12, 13), (13, 14), (14, 15)]
    assert found.gone.tolist() == [False] * 14 + [True]


def test_an_event_arrives_with_its_scores_and_a_bar_at_its_close_or_when_its_source_says(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1, available_at=minute(9))), NOON)
    store.upsert(EVENTS_TABLE, events_of(event("x", 0.5, scored_at_utc=minute(4))), NOON)
    found = arrivals(work_of(store), None)
    assert [(int(at) - 1_704_067_200_000_000) // 60_000_000 for at in found.times] == [1, 4, 9]


@given(
    data=st.lists(
        st.tuples(
            st.sampled_from(["bar", "event", "gone", "action", "undone"]),
            st.integers(0, 12),
            st.sampled_from("AB"),
            st.integers(1, 9),
            st.integers(1, 40),
        ),
        min_size=1,
        max_size=40,
    ),
    seed=st.integers(0, 3),
)
def test_whatever_was_late_corrected_or_taken_away_a_replay_ends_where_a_backfill_does(
    data: list[tuple[str, int, str, int, int]], seed: int
) -> None:
    with closing(open_store("duckdb://")) as store:
        store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1), name) for n in range(6) for name in "AB")), NOON)
        for step, (kind, n, name, value, delay) in enumerate(sorted(data, key=lambda row: row[4])):
            known = NOON + timedelta(minutes=delay, seconds=step)
            if kind == "bar":
                store.upsert(BARS_TABLE, bars_of(bar(n, float(value), name)), known)
            elif kind == "event":
                scored = minute(n + value / 3)
                store.upsert(EVENTS_TABLE, events_of(event(f"e{value}", n, value / 10, name, scored_at_utc=scored)), known)
            elif kind == "action":
                store.upsert(ACTIONS_TABLE, actions_of(action(n, float(value), name)), known)
            elif kind == "undone":
                store.withdraw(ACTIONS_TABLE, actions_of(action(n, instrument=name)).select(ACTIONS_TABLE.key), known)
            else:
                store.withdraw(BARS_TABLE, bars_of(bar(n, instrument=name)).select(BARS_TABLE.key), known)
        if not rows_in(store, BARS_TABLE):
            return
        wanted = backfilled(store)
        assert replayed(store, seed=seed) == wanted
        assert replayed(store, seed=seed + 1) == wanted


def test_an_action_arrives_with_its_ex_date_and_its_correction_when_the_store_learned_it(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, 8.0) for n in range(5))), NOON)
    store.upsert(ACTIONS_TABLE, actions_of(action(2)), NOON)
    store.upsert(ACTIONS_TABLE, actions_of(action(2, 4.0)), later(1))
    with closing(open_store("duckdb://")) as scratch:
        done = Replay(work_of(store), scratch).run()
        assert (done.changes.inserted, done.changes.corrected) == (5, 2)
        assert as_stored(scratch) == backfilled(store)
        revisions = [row for table in scratch.revisions(work_of(store).table, Selection("1m")) for row in table.to_pylist()]
    assert sorted(row["total"] for row in revisions if row["ts"] == minute(3)) == [1.0, 3.0]


def test_what_was_computed_in_between_is_kept_as_revisions(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(5))), NOON)
    store.upsert(BARS_TABLE, bars_of(bar(1, 9.0)), later(1))
    with closing(open_store("duckdb://")) as scratch:
        done = Replay(work_of(store), scratch).run()
        assert (done.changes.inserted, done.changes.corrected) == (5, 2 - 1)
        revisions = [row for table in scratch.revisions(work_of(store).table, Selection("1m")) for row in table.to_pylist()]
    assert sorted((row["ts"], row["gain"]) for row in revisions if row["ts"] == minute(3)) == [
        (minute(3), 4 / 9 - 1),
        (minute(3), 4 / 2 - 1),
    ]


def test_it_goes_from_a_moment_to_a_moment_of_becoming_known(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(10))), NOON)
    moments: list[object] = []
    found = replayed(store, start=minute(4), end=minute(7), told=moments.append)
    assert len(found) == 7
    assert moments == [minute(3), minute(7)]


def test_with_a_pace_history_takes_its_time(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(10))), NOON)
    moments: list[object] = []
    began = time.monotonic()
    found = replayed(store, start=minute(2), pace=240.0, told=moments.append)
    assert time.monotonic() - began >= 2
    assert moments[:10] == [minute(n) for n in range(1, 11)]
    assert found == backfilled(store)


def test_what_cannot_be_replayed_is_said(store: Store) -> None:
    with pytest.raises(NotFound, match="no 1m bars to replay"):
        replayed(store)
    store.upsert(BARS_TABLE, bars_of(bar(0)), NOON)
    with pytest.raises(StoreError, match="begins with an empty store"):
        Replay(work_of(store), store).run()
    with connect("duckdb://") as empty, pytest.raises(DefinitionError, match="did you mean 'replay'"):
        empty.verify("fs_v1", "1m", against="replays")


@pytest.mark.slow
def test_real_bars_and_news_replayed_are_what_a_backfill_makes_of_them(shared_data: Path, new_store: Opener) -> None:
    with new_store() as opened:
        features = FeatureStore(opened, Settings())
        features.ingest_bars(shared_data / "daily/stocknet_prices.parquet", timeframe="1d", columns=MAPPED)
        features.ingest_events(shared_data / "events/stocknet_events.parquet")
        features.backfill(fs_v1, "1d")
        found = features.verify("fs_v1", "1d", against="replay")
    assert (found.right, found.equal) == (True, 30_558)


@pytest.mark.slow
def test_real_minutes_replayed_are_what_a_backfill_makes_of_them(shared_data: Path, new_store: Opener) -> None:
    with new_store() as opened:
        features = FeatureStore(opened, Settings())
        features.ingest_bars(shared_data / "bars_1m/binance_btcusdt_1m.parquet", timeframe="1m", columns=MAPPED)
        features.backfill(fs_v1, "1m")
        found = features.verify("fs_v1", "1m", against="replay")
    assert (found.right, found.equal) == (True, 127_557)
