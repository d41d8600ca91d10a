"""Why a vector differs, over every store: what is planted is told, down to the rows that have changed."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from asof import FeatureSet, across, bars, events
from asof.config import Settings
from asof.feature_store import FeatureStore
from asof.jobs.causes import Cause
from asof.jobs.explain import Section
from asof.stores.duckdb import DuckDBStore
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, MEMBERSHIPS_TABLE, Store
from tests.stores.rows import NOON, action, actions_of, bar, bars_of, event, events_of, membership, memberships_of, minute
from tests.stores.test_dataset import change

SET = FeatureSet(
    "caused",
    {
        "gain": bars.close / bars.close.lag(2) - 1,
        "total": bars.adjusted.close / bars.adjusted.close.lag(1) - 1,
        "mood": events.window("3m").sentiment.mean(),
    },
)
AT_6 = "ts = TIMESTAMPTZ '2024-01-01 00:06:00Z'"


class Shown(NamedTuple):
    """A changed input, without the moment."""

    kind: str
    time: object
    before: object
    now: object


@pytest.fixture
def features(store: Store) -> FeatureStore:
    """Ten bars of A with an event and a split, and their vectors."""
    store.upsert(BARS_TABLE, bars_of(*(bar(n, math.exp(n / 10)) for n in range(10))), NOON)
    store.upsert(EVENTS_TABLE, events_of(event("x", 5)), NOON)
    store.upsert(ACTIONS_TABLE, actions_of(action(2)), NOON)
    opened = FeatureStore(store, Settings())
    opened.backfill(SET, "1m")
    return opened


def first(features: FeatureStore) -> Cause:
    """What is said of the first vector that differs."""
    return features.cause(SET, "1m", features.verify(SET, "1m").examples[0])


def changed(found: Cause) -> list[Shown]:
    """The changed inputs."""
    assert all(found.computed_at and found.computed_at < one.since for one in found.changed)
    return [Shown(one.kind, one.key.get("ts", one.key.get("event_id")), one.before, one.now) for one in found.changed]


def test_a_correction_that_no_backfill_has_followed_is_the_cause(features: FeatureStore) -> None:
    old = math.exp(0.6)
    features.store.upsert(BARS_TABLE, bars_of(bar(6, 2.0)), datetime.now(UTC))
    found = first(features)
    assert (found.difference.ts, found.difference.column, found.accounted) == (minute(6), "gain", True)
    assert changed(found) == [Shown("bars", minute(6), {"close": old}, {"close": 2.0})]
    assert found.explained is not None
    assert found.explained.features["gain"].value == 2.0 / math.exp(0.4) - 1
    assert found.explained.bars["ts"].to_pylist() == [minute(4), minute(5), minute(6)]


def test_late_and_withdrawn_inputs_are_told(features: FeatureStore) -> None:
    now = datetime.now(UTC)
    features.store.upsert(EVENTS_TABLE, events_of(event("y", 4, -0.5)), now)
    features.store.withdraw(EVENTS_TABLE, events_of(event("x", 5)).select(EVENTS_TABLE.key), now)
    features.store.withdraw(BARS_TABLE, bars_of(bar(3)).select(BARS_TABLE.key), now)
    features.store.upsert(ACTIONS_TABLE, actions_of(action(4, 3.0)), now)
    at_5 = next(one for one in features.verify(SET, "1m").examples if one.ts == minute(5))
    found = features.cause(SET, "1m", at_5)
    kinds = [(one.kind, one.time, one.before is None, one.now is None) for one in changed(found)]
    assert found.accounted
    assert kinds == [
        ("bars", minute(3), False, True),
        ("events", "x", False, True),
        ("events", "y", True, False),
        ("actions", minute(4), True, False),
    ]


def test_a_vector_without_its_bar_and_a_bar_without_its_vector(features: FeatureStore) -> None:
    features.store.withdraw(BARS_TABLE, bars_of(bar(9)).select(BARS_TABLE.key), datetime.now(UTC))
    found = first(features)
    assert (found.difference.stored, found.explained, found.accounted) == ("a vector", None, True)
    assert [(one.time, one.now) for one in changed(found)] == [(minute(9), None)]
    features.store.upsert(BARS_TABLE, bars_of(bar(9, math.exp(0.9)), bar(10, 5.0)), datetime.now(UTC))
    found = first(features)
    assert (found.difference.computed, found.computed_at, found.changed) == ("a vector", None, ())
    assert found.explained is not None
    assert found.explained.features["gain"].value == 5.0 / math.exp(0.8) - 1


def test_a_vector_that_was_changed_behind_the_stores_back_is_no_change_of_inputs(features: FeatureStore) -> None:
    embedded = isinstance(features.store, DuckDBStore)
    table, value = ("caused", "gain") if embedded else ("feature_vectors", "features[1]")
    change(features.store, f"UPDATE {table} SET {value} = 0.5 WHERE {AT_6}")
    found = first(features)
    assert (found.difference.column, found.difference.stored, found.changed, found.accounted) == ("gain", 0.5, (), False)


def test_a_bar_that_was_changed_behind_the_stores_back_is_told_where_triggers_see_it(features: FeatureStore) -> None:
    embedded = isinstance(features.store, DuckDBStore)
    change(features.store, f"UPDATE {'bars' if embedded else 'ohlcv'} SET close = 7 WHERE {AT_6}")
    found = first(features)
    assert (found.difference.ts, found.accounted) == (minute(6), not embedded)
    expected = [] if embedded else [Shown("bars", minute(6), {"close": math.exp(0.6)}, {"close": 7.0})]
    assert changed(found) == expected
    assert found.explained is not None
    assert found.explained.bars["close"].to_pylist()[-1] == 7.0


def test_across_instruments_changes_of_other_members_and_of_memberships_are_told(store: Store) -> None:
    index = across("index")
    crossed = FeatureSet("crossed", {"place": index.rank(bars.close - bars.close.lag(1)), "near": bars.close.mean(2)})
    store.upsert(BARS_TABLE, bars_of(*(bar(n, float((n * k) % 5 + 1), name) for n in range(8) for k, name in enumerate("ABC", 1))), NOON)
    store.upsert(
        MEMBERSHIPS_TABLE, memberships_of(membership(0, "in", "A"), membership(0, "in", "B"), membership(0, "x", "A", "sector")), NOON
    )
    features = FeatureStore(store, Settings())
    features.backfill(crossed, "1m")
    now = datetime.now(UTC)
    store.upsert(BARS_TABLE, bars_of(bar(5, 99.0, "B"), bar(5, 99.0, "C"), bar(3, 99.0, "B")), now)
    store.upsert(MEMBERSHIPS_TABLE, memberships_of(membership(6, None, "B"), membership(2, "y", "A", "sector")), now)
    wrong = {one.ts: features.cause(crossed, "1m", one) for one in features.verify(crossed, "1m", instruments=["A"]).examples}
    assert all(found.accounted for found in wrong.values())
    assert changed(wrong[minute(6)]) == [
        Shown("bars", minute(5), {"close": 1.0}, {"close": 99.0}),
        Shown("memberships", minute(6), None, {"value": None, "available_at": None}),
    ]
    explained = wrong[minute(6)].explained
    assert explained is not None
    assert explained.sections == (Section('across("index").rank(bars.close - bars.close.lag(1))', 1, 1, 1.0),)


def test_back_and_forth_is_no_change(features: FeatureStore) -> None:
    features.store.upsert(BARS_TABLE, bars_of(bar(5, 2.0)), datetime.now(UTC))
    features.store.upsert(BARS_TABLE, bars_of(bar(5, math.exp(0.5)), bar(6, 3.0)), datetime.now(UTC))
    assert [one.time for one in changed(first(features))] == [minute(6)]
