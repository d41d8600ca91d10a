"""Features of trades, quotes and order books over every store: backfilled, followed and replayed they are the same; explained, verified."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof.features.expression import bars, events
from asof.features.feature_set import FeatureSet
from asof.features.library import book_v1
from asof.features.market import books, quotes, trades
from asof.jobs.backfill import backfill
from asof.jobs.causes import cause
from asof.jobs.explain import MOST_POINTS, explain
from asof.jobs.following import Follower
from asof.jobs.parts import market_rows
from asof.jobs.replay import Replay
from asof.jobs.verify import verify
from asof.jobs.work import Work
from asof.records import micros
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, POINTS, TRADES_TABLE, Selection, Store
from asof.stores.urls import open_store
from tests.laws.test_market import made_up
from tests.laws.vectors import planned, vectors_of_panel
from tests.stores.conftest import Opener
from tests.stores.rows import NOON, bar, bars_of, event, events_of, later, minute, rows_in, trade, trades_of

SET = FeatureSet(
    "market_v1",
    {
        "volume": trades.window("2m").size.sum(),
        "before": trades.window("1m").size.sum().lag(2),
        "mid": quotes.last(1, within="90s").mid.last(),
        "above": (trades.window("1m").price - quotes.window("30s").mid.at(trades.window("1m"))).last(),
        "depth": books.last(1, within="5m").depth(2).last(),
    },
    {"NO_TRADES": trades.window("2m").count() == 0},
)
ALL = {table.name: table for table in POINTS}


def work_of(store: Store, feature_set: FeatureSet = SET) -> Work:
    return Work(store, feature_set, "1m", later(1_000_000), "test")


def as_stored(store: Store, feature_set: FeatureSet = SET) -> list[dict[str, object]]:
    """The vectors of a store, but for when they were computed."""
    hidden = ("computed_at", "pipeline_version")
    return [{name: value for name, value in row.items() if name not in hidden} for row in rows_in(store, work_of(store, feature_set).table)]


def filled(store: Store, seed: int = 5, bars: int = 20, points: int = 150) -> None:
    market = made_up(seed, bars, points)
    store.upsert(BARS_TABLE, market.bars, NOON)
    for stream, table in market.points.items():
        store.upsert(ALL[stream], table, NOON)


def test_a_store_gives_the_vectors_that_the_engine_gives_of_its_tables(store: Store) -> None:
    market, feature_set = made_up(5, 20, 150), book_v1.build()
    filled(store)
    store.register(feature_set, NOON)
    backfill(work_of(store, feature_set))
    direct = vectors_of_panel(planned(feature_set), market.panel(feature_set), [0, 1])
    kept = pa.concat_tables(store.read(work_of(store, feature_set).table, Selection("1m")))
    for place, name in enumerate(feature_set.features):
        wanted = np.where(direct.bits[:, len(feature_set.features) + place] > 0, direct.bits[:, place].view(np.float64), np.nan)
        assert np.array_equal(kept[name].to_numpy(), wanted, equal_nan=True), name
    assert all(found.right for found, _ in verify(work_of(store, feature_set)))


def test_a_late_trade_is_computed_again_where_a_window_holds_it_and_nowhere_else(store: Store) -> None:
    filled(store)
    store.register(SET, NOON)
    follower = Follower(work_of(store), "me")
    follower.begin()
    before = as_stored(store)
    bar = before[len(before) // 3]
    ts = bar["ts"] + timedelta(seconds=30)  # type: ignore[operator]
    trade = {"instrument_id": bar["instrument_id"], "ts": ts - timedelta(hours=1), "seq": 77, "price": 9.0, "size": 4.0, "available_at": ts}
    store.upsert(TRADES_TABLE, pa.Table.from_pylist([trade], schema=TRADES_TABLE.schema), later(1))
    done = sum(report.computed for report in follower.catch_up())
    after = as_stored(store)
    changed = [old["ts"] for old, new in zip(before, after, strict=True) if old != new]
    assert bar["ts"] in changed
    assert len(changed) <= done <= 6, "a window of two minutes, and two bars that look back"
    assert after != before
    store.withdraw(TRADES_TABLE, pa.Table.from_pylist([trade], schema=TRADES_TABLE.schema).select(TRADES_TABLE.key), later(2))
    list(follower.catch_up())
    assert as_stored(store) == before
    assert sum(report.computed for report in follower.catch_up()) == 0


@given(
    data=st.lists(
        st.tuples(st.sampled_from(["bar", "trade", "gone", "no bar"]), st.integers(0, 12), st.integers(1, 9), st.integers(1, 40)),
        min_size=1,
        max_size=30,
    ),
    seed=st.integers(0, 3),
)
@settings(max_examples=8)
def test_a_replay_ends_where_a_backfill_does(data: list[tuple[str, int, int, int]], seed: int) -> None:
    with closing(open_store("duckdb://")) as store, closing(open_store("duckdb://")) as scratch:
        store.upsert(BARS_TABLE, bars_of(*(bar(n, float(n + 1), name) for n in range(6) for name in "AB")), NOON)
        for step, (kind, n, value, delay) in enumerate(sorted(data, key=lambda row: row[3])):
            known = NOON + timedelta(minutes=delay, seconds=step)
            trade = {"instrument_id": "AB"[value % 2], "ts": minute(n), "seq": value % 3, "price": 1.0 + value, "size": 1.0}
            rows = pa.Table.from_pylist([trade | {"available_at": minute(n + value / 3)}], schema=TRADES_TABLE.schema)
            if kind == "bar":
                store.upsert(BARS_TABLE, bars_of(bar(n, float(value), "AB"[value % 2])), known)
            elif kind == "no bar":
                store.withdraw(BARS_TABLE, bars_of(bar(n, instrument="AB"[value % 2])).select(BARS_TABLE.key), known)
            elif kind == "trade":
                store.upsert(TRADES_TABLE, rows, known)
            else:
                store.withdraw(TRADES_TABLE, rows.select(TRADES_TABLE.key), known)
        if not rows_in(store, BARS_TABLE):
            return
        store.register(SET, NOON)
        backfill(work_of(store))
        Replay(work_of(store), scratch, seed=seed).run()
        assert as_stored(scratch) == as_stored(store)


def test_what_was_known_then_is_computed_of_the_trades_that_were_known_then(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(1)), NOON)
    trade = {"instrument_id": "A", "ts": minute(1.5), "seq": 0, "price": 9.0, "size": 4.0}
    for size, at in ((4.0, NOON), (6.0, later(5))):
        store.upsert(TRADES_TABLE, pa.Table.from_pylist([trade | {"size": size}], schema=TRADES_TABLE.schema), at)
    chosen = Selection(instruments=("A",))
    table = pa.concat_tables(store.read(BARS_TABLE, Selection("1m")))
    old = Work(store, SET, "1m", later(9), "test", known_at=later(1))
    assert [v["volume"] for v in old.vectors(table, chosen).to_pylist()] == [0.0, 4.0]
    assert [v["volume"] for v in work_of(store).vectors(table, chosen).to_pylist()] == [0.0, 6.0]


def test_an_explanation_shows_the_newest_points_of_the_bars_own_windows(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(4))), NOON)
    rows = [{"instrument_id": "A", "ts": minute(3), "seq": n, "price": 9.0, "size": 1.0} for n in range(MOST_POINTS + 5)]
    early = {"instrument_id": "A", "ts": minute(1.9), "seq": 0, "price": 9.0, "size": 100.0}
    store.upsert(TRADES_TABLE, pa.Table.from_pylist([early, *rows], schema=TRADES_TABLE.schema), NOON)
    store.register(SET, NOON)
    found = explain(work_of(store), "A", minute(3))
    assert found.points["trades"] == MOST_POINTS + 5
    assert found.market["trades"]["seq"].to_pylist() == list(range(5, MOST_POINTS + 5))
    assert found.features["volume"].value == MOST_POINTS + 5
    assert found.features["before"].value == 100.0
    assert found.features["mid"].value is None


def test_a_bar_that_says_it_was_known_before_its_close_is_used_from_its_close_on(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(bar(0, available_at=minute(0.25)), bar(1, available_at=minute(9))), NOON)
    table = pa.concat_tables(store.read(BARS_TABLE, Selection("1m")))
    made = work_of(store).vectors(table, Selection(instruments=("A",)))
    assert micros(made["available_at"]).tolist() == [int(minute(n).timestamp() * 1e6) for n in (1, 9)]


@pytest.mark.parametrize("memory", [256 << 20, 2 << 30])
def test_pieces_are_smaller_the_more_points_their_bars_may_see(memory: int) -> None:
    assert market_rows(memory, "1s") > market_rows(memory, "1m") > market_rows(memory, "1d") >= 1


def test_a_part_of_a_few_bars_gives_what_the_whole_gives(new_store: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    with new_store() as store:
        filled(store)
        store.register(SET, NOON)
        backfill(work_of(store))
        whole = as_stored(store)
        monkeypatch.setattr("asof.jobs.parts.market_rows", lambda memory, timeframe: 5)
        report = backfill(work_of(store))
        assert report.changes.unchanged == len(whole)
        assert report.changes.corrected == 0


def test_a_late_event_that_a_later_bar_looks_back_at_is_followed_and_explained(store: Store) -> None:
    lagged = FeatureSet("lagged_v1", {"count": events.window("1m").count().lag(2)})
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(8))), NOON)
    store.register(lagged, NOON)
    follower = Follower(work_of(store, lagged), "me")
    follower.begin()
    store.upsert(EVENTS_TABLE, events_of(event("x", 2.5)), later(1))
    list(follower.catch_up())
    assert [row["count"] for row in as_stored(store, lagged)] == [None, None, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert all(found.right for found, _ in verify(work_of(store, lagged)))
    assert explain(work_of(store, lagged), "A", minute(5)).features["count"].value == 1.0


def test_a_trade_that_came_later_is_the_cause_of_a_difference(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(4))), NOON)
    store.register(SET, NOON)
    backfill(Work(store, SET, "1m", later(100), "test"))
    store.upsert(TRADES_TABLE, trades_of(trade(1.5)), later(200))
    wrong = [d for found, _ in verify(work_of(store)) for d in found.examples]
    found = cause(work_of(store), next(d for d in wrong if d.ts == minute(1)))
    assert found.accounted
    assert [(c.kind, c.key["ts"], c.before) for c in found.changed] == [("trades", minute(1.5), None)]


def test_trades_and_bars_of_a_higher_timeframe_are_followed_explained_and_replayed_together(store: Store) -> None:
    above = bars.every("5m").volume.latest()
    both = FeatureSet("both_v1", {"volume": trades.window("1m").size.sum(), "share": trades.window("1m").size.sum() / above})
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in range(8)), bar(0, volume=200.0, timeframe="5m")), NOON)
    store.register(both, NOON)
    follower = Follower(work_of(store, both), "me")
    follower.begin()
    assert [row["share"] for row in as_stored(store, both)] == [None] * 4 + [0.0] * 4
    store.upsert(TRADES_TABLE, trades_of(trade(5.5)), later(1))
    store.upsert(BARS_TABLE, bars_of(bar(0, volume=400.0, timeframe="5m", available_at=minute(6))), later(1))
    list(follower.catch_up())
    assert [row["share"] for row in as_stored(store, both)] == [None] * 5 + [0.25, 0.0, 0.0]
    assert all(found.right for found, _ in verify(work_of(store, both)))
    found = explain(work_of(store, both), "A", minute(5))
    assert (found.features["share"].value, found.points["trades"], len(found.higher["5m"])) == (0.25, 1, 1)
    with closing(open_store("duckdb://:memory:")) as scratch:
        Replay(work_of(store, both), scratch).run()
        assert [row["share"] for row in as_stored(scratch, both)] == [row["share"] for row in as_stored(store, both)]
