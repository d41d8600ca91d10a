"""Histories that are odd: corrections that go back and forth, clocks that jump, moments before and after everything, rows taken away."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest

from asof import fs_v1
from asof.config import Settings
from asof.errors import DataError
from asof.feature_store import FeatureStore
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Changes, Selection, Store
from tests.stores.rows import NOON, bar, bars_of, closes, event, events_of, later, minute, rows_in

MICROSECOND = timedelta(microseconds=1)


def revisions(store: Store) -> list[tuple[object, object, object]]:
    """Every revision of the bars: close, and from when until when it was held to be true."""
    found = [row for table in store.revisions(BARS_TABLE, Selection("1m")) for row in table.to_pylist()]
    return sorted(((row["close"], row["known_from"], row["known_to"]) for row in found), key=lambda row: row[1])


def test_corrections_that_go_back_and_forth_are_each_a_revision(store: Store) -> None:
    for hour, close in enumerate((1.0, 2.0, 1.0, 2.0)):
        store.upsert(BARS_TABLE, bars_of(bar(0, close)), later(hour))
    assert revisions(store) == [
        (1.0, NOON, later(1)), (2.0, later(1), later(2)), (1.0, later(2), later(3)), (2.0, later(3), None)
    ]  # fmt: skip
    assert [closes(store, later(hour))[minute(0)] for hour in range(4)] == [1.0, 2.0, 1.0, 2.0]


def test_the_same_correction_twice_is_one(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0)), NOON)
    assert store.upsert(BARS_TABLE, bars_of(bar(0, 2.0)), later(1)) == Changes(corrected=1)
    assert store.upsert(BARS_TABLE, bars_of(bar(0, 2.0)), later(2)) == Changes(unchanged=1)
    assert len(revisions(store)) == 2


def test_what_is_said_to_be_known_before_the_newest_revision_comes_right_after_it(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0)), later(5))
    store.upsert(BARS_TABLE, bars_of(bar(0, 2.0)), later(2))  # a clock that has jumped back, or a file that came in the wrong order
    assert revisions(store) == [(1.0, later(5), later(5) + MICROSECOND), (2.0, later(5) + MICROSECOND, None)]
    assert closes(store) == {minute(0): 2.0}
    assert closes(store, later(2)) == {}


def test_before_the_first_row_nothing_was_known_and_in_the_future_what_is_known_now(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0)), NOON)
    assert closes(store, NOON - MICROSECOND) == {}
    assert closes(store, NOON) == {minute(0): 1.0}
    assert closes(store, later(1_000_000)) == {minute(0): 1.0}


def test_a_bar_that_was_taken_away_is_there_for_whoever_asks_for_then_and_may_come_back(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, 1.0), bar(1, 2.0)), NOON)
    assert store.withdraw(BARS_TABLE, bars_of(bar(0)).select(BARS_TABLE.key), later(1)) == 1
    assert store.withdraw(BARS_TABLE, bars_of(bar(0)).select(BARS_TABLE.key), later(2)) == 0
    assert closes(store) == {minute(1): 2.0}
    assert closes(store, NOON) == {minute(0): 1.0, minute(1): 2.0}
    store.upsert(BARS_TABLE, bars_of(bar(0, 3.0)), later(3))
    assert [closes(store, later(hour)).get(minute(0)) for hour in range(4)] == [1.0, None, None, 3.0]


def test_bars_and_events_are_taken_away_in_python_and_their_vectors_follow(store: Store) -> None:
    features = FeatureStore(store, Settings())
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1)) for n in range(30))), NOON)
    store.upsert(EVENTS_TABLE, events_of(event("x", 20)), NOON)
    features.catch_up(fs_v1, "1m")
    assert features.withdraw_bars(pa.table({"instrument_id": ["A", "B"], "ts": [minute(3), minute(3)]}), "1m") == 1
    assert features.withdraw_events(pa.table({"instrument_id": ["A"], "event_id": ["x"]})) == 1
    done = features.catch_up(fs_v1, "1m")
    assert (done.withdrawn, features.verify(fs_v1, "1m").equal) == (1, 29)
    with pytest.raises(DataError, match="ts"):
        features.withdraw_bars(pa.table({"instrument_id": ["A"]}), "1m")


def test_an_event_that_names_a_ticker_no_longer_stays_with_it_as_it_was(store: Store) -> None:
    store.upsert(EVENTS_TABLE, events_of(event("x", 1, 0.1, "A"), event("x", 1, 0.1, "B")), NOON)
    again = event("x", 1, 0.9, "A", scored_at_utc=minute(5))
    store.upsert(EVENTS_TABLE, events_of(again), later(1))
    assert [(row["instrument_id"], row["score"]) for row in rows_in(store, EVENTS_TABLE)] == [("A", 0.9), ("B", 0.1)]
    store.withdraw(EVENTS_TABLE, events_of(event("x", 1, instrument="B")).select(EVENTS_TABLE.key), later(2))
    assert [row["instrument_id"] for row in rows_in(store, EVENTS_TABLE)] == ["A"]


def test_scores_that_are_older_than_those_known_change_nothing_but_the_place(store: Store) -> None:
    store.upsert(EVENTS_TABLE, events_of(event("x", 5, 0.9)), NOON)
    assert store.upsert(EVENTS_TABLE, events_of(event("x", 3, 0.1)), later(1)) == Changes(corrected=1)
    (row,) = rows_in(store, EVENTS_TABLE)
    assert (row["enriched_at_utc"], row["score"], row["scored_at_utc"]) == (minute(3), 0.9, minute(5))
