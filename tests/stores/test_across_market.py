"""Trades and quotes looked at across instruments: backfilled, followed, replayed and explained they are the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pyarrow as pa
import pytest

from asof import FeatureSet, across, bars, leakcheck
from asof.calendars import Calendars
from asof.errors import NotFound
from asof.features.market import quotes, trades
from asof.jobs.backfill import backfill
from asof.jobs.causes import cause
from asof.jobs.explain import explain
from asof.jobs.following import Follower
from asof.jobs.replay import Replay
from asof.jobs.verify import verify
from asof.jobs.work import Report, Work
from asof.stores.store import BARS_TABLE, MEMBERSHIPS_TABLE, QUOTES_TABLE, TRADES_TABLE, Selection, Store
from asof.stores.urls import open_store
from tests.stores.rows import NOON, bar, bars_of, later, membership, memberships_of, minute, rows_in, trade, trades_of

index, everybody = across("index"), across()
bought = trades.window("2m").size.sum()
SET = FeatureSet(
    "flows_v1",
    {
        "own": trades.window("1m").size.sum() + bars.close * 0,
        "place": index.rank(bought),
        "smooth": index.demean(bought).mean(2),
        "mid": everybody.demean(quotes.last(1, within="90s").mid.last()).lag(1),
    },
    {"NO_TRADES": trades.window("2m").count() == 0, "FEW": index.count(bought) < 2},
)
NAMES = "ABC"


@pytest.fixture
def store() -> Iterator[Store]:
    """Twelve bars of three instruments, of which two are in the index and the third comes and goes, with trades and quotes."""
    with closing(open_store("duckdb://")) as opened:
        opened.upsert(BARS_TABLE, bars_of(*(bar(n, 1.0 + n % 3, name) for n in range(12) for name in NAMES if (n, name) != (6, "B"))), NOON)
        members = [membership(0, instrument=name) for name in "AB"] + [membership(4, instrument="C"), membership(9, None, "C")]
        opened.upsert(MEMBERSHIPS_TABLE, memberships_of(*members), NOON)
        opened.upsert(TRADES_TABLE, trades_of(*(trade(n * 0.7, 1.0, NAMES[n % 3], size=1.0 + n * 5 % 7) for n in range(16))), NOON)
        opened.upsert(QUOTES_TABLE, quotes_of(*((n * 0.4, NAMES[n * 2 % 3], 1.0 + n % 5) for n in range(24))), NOON)
        opened.register(SET, NOON)
        yield opened


def quotes_of(*rows: tuple[float, str, float]) -> pa.Table:
    made = [
        {
            "instrument_id": name,
            "ts": minute(n),
            "seq": 0,
            "bid": bid,
            "bid_size": 1.0,
            "ask": bid + 0.5,
            "ask_size": 1.0,
            "available_at": minute(n),
        }
        for n, name, bid in rows
    ]
    return pa.Table.from_pylist(made, schema=QUOTES_TABLE.schema)


def work_of(store: Store) -> Work:
    return Work(store, SET, "1m", later(1_000), "test", threads=1)


def plain(table: pa.Table) -> list[dict[str, object]]:
    return table.drop_columns(["computed_at", "pipeline_version"]).to_pylist()


def stored(store: Store) -> list[dict[str, object]]:
    return plain(pa.Table.from_pylist(rows_in(store, work_of(store).table), work_of(store).table.schema))


def whole(store: Store) -> list[dict[str, object]]:
    """The vectors that all bars at once give."""
    return plain(work_of(store).vectors(pa.concat_tables(store.read(BARS_TABLE, Selection("1m"))), Selection()))


def test_a_backfill_following_a_replay_and_explanations_agree(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    follower = Follower(work_of(store), "me")
    follower.begin()
    before = stored(store)
    assert before == whole(store)
    assert {row["place"] for row in before} >= {None, 0.5, 1.0}
    assert any(row["mid"] for row in before)
    store.upsert(TRADES_TABLE, trades_of(trade(4.5, 1.0, "B", size=50.0, available_at=minute(5.25))), later(1))
    store.upsert(QUOTES_TABLE, quotes_of((7.9, "C", 40.0)), later(1))
    done = sum(follower.catch_up(), Report())
    after = stored(store)
    assert after == whole(store)
    differ = [new["ts"] for old, new in zip(before, after, strict=True) if old != new]
    assert set(differ) == {minute(n) for n in (5, 6, 7, 8)}
    assert done.changes.corrected == len(differ) <= done.computed <= 3 * 6
    monkeypatch.setattr("asof.jobs.parts.part_rows", lambda memory, features: 1)
    with closing(open_store("duckdb://")) as other:
        for table in (BARS_TABLE, MEMBERSHIPS_TABLE, TRADES_TABLE, QUOTES_TABLE):
            other.upsert(table, pa.concat_tables(store.read(table, Selection())), NOON)
        other.register(SET, NOON)
        backfill(work_of(other))
        assert stored(other) == after
    with closing(open_store("duckdb://")) as scratch:
        Replay(work_of(store), scratch).run()
        assert stored(scratch) == after
    for row in (row for row in after if row["ts"] in (minute(5), minute(8), minute(9))):
        found = explain(work_of(store), str(row["instrument_id"]), row["ts"])  # type: ignore[arg-type]
        assert {name: value.value for name, value in found.features.items()} == {name: row[name] for name in SET.features}
        assert found.computed.items() >= row.items()
    assert all(found.right for found, _ in verify(work_of(store)))


def test_another_members_late_trade_is_the_cause_of_a_difference(store: Store) -> None:
    backfill(work_of(store))
    store.upsert(TRADES_TABLE, trades_of(trade(4.5, 1.0, "B", size=50.0)), later(2_000))
    (wrong, *_) = [d for found, _ in verify(work_of(store)) for d in found.examples if d.instrument == "A" and d.ts == minute(5)]
    found = cause(work_of(store), wrong)
    assert found.accounted
    assert [(c.kind, c.key["instrument_id"], c.key["ts"]) for c in found.changed] == [("trades", "B", minute(4.5))]


def test_nothing_leaks_from_the_trades_of_others(store: Store) -> None:
    given = {table.name: pa.concat_tables(store.read(table, Selection())) for table in (TRADES_TABLE, QUOTES_TABLE, MEMBERSHIPS_TABLE)}
    early = bars_of(*(bar(n, 1.0 + n % 3, name, available_at=minute(n + 0.2)) for n in range(12) for name in NAMES))
    found = leakcheck(SET, early, **given, timeframe="1m", cuts=4)
    assert found.clean, found.findings


def test_an_explanation_reads_the_store_as_often_however_many_expressions_there_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, asked = type(store), list[str]()
    for name in ("read", "around"):
        plainly = getattr(kind, name)
        monkeypatch.setattr(kind, name, lambda *args, how=plainly, name=name, **named: (asked.append(name), how(*args, **named))[1])
    counts = []
    for names in (["smooth"], ["place", "smooth", "own"]):
        some = FeatureSet(f"some_{len(names)}", {name: SET.features[name] for name in names})
        store.register(some, NOON)
        asked.clear()
        explain(replace(work_of(store), feature_set=some), "A", minute(8))
        counts.append(len(asked))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("calendars", [Calendars({}), Calendars({"*": "24/7"})])
def test_a_bar_that_has_not_closed_has_no_explanation(store: Store, calendars: Calendars) -> None:
    work = replace(work_of(store), now=minute(8.5), calendars=calendars)
    assert explain(work, "A", minute(7)).features["own"].value is not None
    with pytest.raises(NotFound, match=r"1m bar of A that opens at 2024-01-01T00:08:00.*has not closed"):
        explain(work, "A", minute(8))
