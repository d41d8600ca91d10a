"""Bars from trades: held to pandas, to a vendor's minute bars, and to the rule that the start of the data is nothing to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof.config import Settings
from asof.errors import DefinitionError, NotFound
from asof.feature_store import FeatureStore
from asof.jobs.trade_bars import Passing, bars_by_passing, bars_by_time
from asof.records import TRADES
from asof.stores.store import BARS_TABLE, TRADES_TABLE, Changes, Selection
from asof.stores.urls import open_store
from tests.stores.rows import NOON, later, minute, trade, trades_of

DATA = Path(__file__).parents[3] / "shared" / "data"
WAYS = [Passing("trades", 7), Passing("volume", 900), Passing("value", 30_000)]


@pytest.fixture(scope="module")
def aig() -> pa.Table:
    path = DATA / "ticks" / "lean_aig_trades.parquet"
    if not path.exists():
        pytest.skip("the tick data is not here")
    theirs = pq.read_table(path)
    columns = {"instrument_id": theirs["ticker"], "ts": theirs["ts_utc"], "seq": theirs["seq"], "price": theirs["price"]}
    rest = {"size": theirs["size"], "side": pa.nulls(len(theirs), pa.float64()), "available_at": theirs["ts_utc"]}
    return pa.table(columns | rest).cast(TRADES)


@pytest.mark.parametrize(("timeframe", "theirs"), [("1s", "1s"), ("5m", "5min"), ("1h", "1h")])
def test_bars_of_real_trades_are_those_of_pandas(aig: pa.Table, timeframe: str, theirs: str) -> None:
    bars = bars_by_time(aig, timeframe).to_pandas().set_index("ts")
    frame = aig.to_pandas().set_index("ts")
    expected = frame["price"].resample(theirs).ohlc().assign(volume=frame["size"].resample(theirs).sum()).dropna()
    pd.testing.assert_frame_equal(bars[list(expected)], expected, check_freq=False, check_index_type=False, check_dtype=False)
    assert (bars["available_at"] == bars.index + pd.Timedelta(theirs)).all()


def test_minute_bars_of_real_trades_span_those_that_their_vendor_made(aig: pa.Table) -> None:
    """Ours are of all trades of the file: they reach at least as far and have at least as much volume."""
    path = DATA / "bars_1m" / "lean_equity_trade_1m.parquet"
    if not path.exists():
        pytest.skip("the minute bars are not here")
    vendor = pq.read_table(path).to_pandas().query("ticker == 'AIG'").set_index("ts_open_utc")
    ours = bars_by_time(aig, "1m").to_pandas().set_index("ts")
    ours.index = ours.index.astype(vendor.index.dtype)
    both = vendor.join(ours.add_suffix("_ours"), how="inner")
    assert len(both) > 300
    assert (both["high_ours"] >= both["high"] - 1e-9).mean() > 0.99
    assert (both["low_ours"] <= both["low"] + 1e-9).mean() > 0.99
    assert (both["volume_ours"] >= both["volume"]).mean() > 0.99


def made(draws: list[tuple[int, int, int]]) -> pa.Table:
    """Trades some of which share a time, over some days."""
    hours = np.cumsum([gap for gap, *_ in draws]) * 180.0
    return trades_of(
        *(trade(h, price + 10.0, seq=n, size=size * 10.0) for n, (h, (_, price, size)) in enumerate(zip(hours, draws, strict=True)))
    )


TRADED = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.integers(1, 60)), min_size=1, max_size=60).map(made)


@settings(max_examples=60, deadline=None)
@given(TRADED, st.sampled_from(WAYS), st.integers(0, 5))
def test_a_bar_by_what_passed_does_not_depend_on_the_day_that_the_data_begins(trades: pa.Table, passing: Passing, days: int) -> None:
    start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=days)
    later_part = trades.filter(pa.compute.greater_equal(trades["ts"], pa.scalar(start, pa.timestamp("us", tz="UTC"))))
    whole = bars_by_passing(trades, passing)
    assert bars_by_passing(later_part, passing).to_pylist() == [bar for bar in whole.to_pylist() if bar["ts"] >= start]


@settings(max_examples=60, deadline=None)
@given(TRADED, st.sampled_from(WAYS))
def test_bars_by_what_passed_are_those_of_a_loop(trades: pa.Table, passing: Passing) -> None:
    expected, passed, day, number = [], 0.0, None, -1
    rows = trades.to_pylist()
    for n, row in enumerate(rows):
        if row["ts"].date() != day:
            day, passed, number = row["ts"].date(), 0.0, -1
        if n == 0 or row["ts"] != rows[n - 1]["ts"]:
            before = int(passed // passing.every)
        if number != before:
            number = before
            expected.append([])
        expected[-1].append(row)
        passed += {"trades": 1.0, "volume": row["size"], "value": row["size"] * row["price"]}[passing.what]
    told = bars_by_passing(trades, passing).to_pylist()
    assert [bar["ts"] for bar in told] == [some[0]["ts"] for some in expected]
    assert [bar["close"] for bar in told] == [some[-1]["price"] for some in expected]
    assert [bar["volume"] for bar in told] == [sum(row["size"] for row in some) for some in expected]
    assert len({bar["ts"] for bar in told}) == len(told)
    assert all(bar["available_at"] >= some[-1]["ts"] for bar, some in zip(told, expected, strict=True))


@settings(max_examples=30, deadline=None)
@given(TRADED, st.randoms(use_true_random=False))
def test_the_order_in_which_trades_come_changes_no_bar(trades: pa.Table, random: object) -> None:
    rows = list(range(len(trades)))
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert bars_by_time(trades.take(rows), "1h") == bars_by_time(trades, "1h")
    assert bars_by_passing(trades.take(rows), WAYS[0]) == bars_by_passing(trades, WAYS[0])


def test_a_bar_is_known_when_enough_has_passed_or_with_its_day_or_its_latest_trade() -> None:
    trades = trades_of(trade(1), trade(2, available_at=minute(9)), trade(3))
    full, rest = bars_by_passing(trades, Passing("trades", 2)).to_pylist()
    assert (full["ts"], full["available_at"]) == (minute(1), minute(9))
    assert (rest["ts"], rest["available_at"]) == (minute(3), minute(24 * 60))
    assert [bar["available_at"] for bar in bars_by_time(trades, "1m").to_pylist()] == [minute(2), minute(9), minute(4)]


@pytest.mark.parametrize(
    ("what", "every", "message"), [("ticks", 1, "'ticks' is none of trades"), ("volume", 0, "bars of 0 volume never end")]
)
def test_what_cannot_pass_is_refused(what: str, every: float, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Passing(what, every)


def test_bars_of_stored_trades_are_stored_corrected_and_left_alone() -> None:
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        opened = FeatureStore(store, Settings())
        store.upsert(TRADES_TABLE, trades_of(trade(0, 1.0), trade(0.5, 3.0), trade(5, 2.0), trade(0, 7.0, instrument="B")), NOON)
        assert opened.bars_from_trades("1m") == Changes(inserted=3)
        assert opened.bars_from_trades("1m") == Changes(unchanged=3)
        store.upsert(TRADES_TABLE, trades_of(trade(0.5, 4.0)), later(1))
        assert opened.bars_from_trades("1m", instruments=["A"]) == Changes(corrected=1, unchanged=1)
        assert opened.bars_from_trades("1m", start="2024-01-01T00:01:00Z") == Changes(unchanged=1)
        rows = [row for some in store.read(BARS_TABLE, Selection("1m", ("A",))) for row in some.to_pylist()]
        assert [(row["open"], row["high"], row["close"], row["volume"], row["source"]) for row in rows] == [
            (1.0, 4.0, 4.0, 200.0, "trades"),
            (2.0, 2.0, 2.0, 100.0, "trades"),
        ]
        assert len(opened.bars_by_passing("trades", 2)) == 3


def test_a_day_is_that_of_utc_whatever_zone_its_moment_is_told_in() -> None:
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        opened = FeatureStore(store, Settings())
        store.upsert(TRADES_TABLE, trades_of(*(trade(60 * hour, 1.0 + hour) for hour in (1, 2, 30))), NOON)
        for start in ("2024-01-01T20:00:00Z", "2024-01-02T01:00:00+05:00"):
            assert [bar["close"] for bar in opened.bars_by_passing("trades", 2, start=start).to_pylist()] == [3.0, 31.0]


def test_bars_of_trades_that_are_not_there_are_refused() -> None:
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        opened = FeatureStore(store, Settings())
        with pytest.raises(NotFound, match="the store has no trades: ingest some first"):
            opened.bars_from_trades("1m")
        store.upsert(TRADES_TABLE, trades_of(trade(0, 1.0, instrument="ALFA")), NOON)
        for made in (opened.bars_from_trades, lambda what, **of: opened.bars_by_passing("trades", 2, **of)):
            with pytest.raises(NotFound, match="no trades of ALFB; did you mean 'ALFA'"):
                made("1m", instruments=["ALFA", "ALFB"])
