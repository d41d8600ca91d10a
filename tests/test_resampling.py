"""Bars of higher timeframes out of lower ones: what is made of what, and that Polars, pandas and DuckDB make the same of real bars."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asof
from asof.errors import DefinitionError
from tests.stores.rows import bar, bars_of, minute

PRICES = ("open", "high", "low", "close", "volume")
BTC = {"ticker": "instrument_id", "ts_open_utc": "ts"}


def made(rows: pa.Table, to: str, **options: object) -> list[dict[str, object]]:
    return asof.resample(rows, to, **options).to_pylist()  # type: ignore[arg-type]  # its options


def test_a_bar_is_the_first_open_highest_high_lowest_low_last_close_and_all_of_the_volume():
    rows = bars_of(
        bar(4, 2.0, open=9.0, high=9.5, low=1.0, volume=0.1),
        bar(1, 5.0, open=4.0, high=6.0, low=3.0, volume=0.2),
        bar(5, 7.0, open=8.0, high=8.0, low=7.0, volume=0.3),
    )
    first, second = made(rows, "5m")
    assert [first[n] for n in ("ts", *PRICES)] == [minute(0), 4.0, 9.5, 1.0, 2.0, 0.2 + 0.1]
    assert [second[n] for n in ("ts", *PRICES)] == [minute(5), 8.0, 8.0, 7.0, 7.0, 0.3]
    assert (first["timeframe"], first["source"], first["available_at"]) == ("5m", "asof resample 1m", None)


def test_missing_prices_are_passed_over_as_absent_bars_are_and_what_none_has_is_missing():
    rows = bars_of(bar(0, None, open=None, high=3.0), bar(1, 5.0, open=4.0, high=None), bar(2, None, open=6.0, high=2.0))
    (found,) = made(rows, "5m")
    assert [found[n] for n in PRICES] == [4.0, 3.0, None, 5.0, None]


def test_an_interval_without_bars_has_none_and_instruments_do_not_mix():
    rows = bars_of(bar(0), bar(11), bar(4, 2.0, "B"))
    assert [(row["instrument_id"], row["ts"]) for row in made(rows, "5m")] == [("A", minute(0)), ("A", minute(10)), ("B", minute(0))]


def test_a_bar_is_known_when_it_has_closed_and_all_that_it_is_made_of_is_known():
    rows = bars_of(bar(0), bar(1, available_at=minute(30)), bar(5, available_at=minute(7)))
    assert [row["available_at"] for row in made(rows, "5m")] == [minute(30), None]


def test_days_are_the_sessions_of_the_calendar_or_days_of_utc():
    def at(day: int, hour: int, minutes: int, close: float) -> dict[str, object]:
        return bar(0, close) | {"ts": datetime(2024, 11, day, hour, minutes, tzinfo=UTC), "open": close, "high": close, "low": close}

    rows = bars_of(
        at(27, 14, 29, 9.0), at(27, 14, 30, 1.0), at(27, 20, 59, 2.0), at(27, 21, 0, 8.0), at(29, 17, 59, 3.0), at(29, 18, 0, 7.0)
    )
    found = made(rows, "1d", calendars={"*": "XNYS"})  # the 28th was a holiday, the 29th half a day
    assert [(row["ts"].day, row["ts"].hour, row["open"], row["close"]) for row in found] == [(27, 14, 1.0, 2.0), (29, 14, 3.0, 3.0)]  # type: ignore[attr-defined]
    assert [row["available_at"] for row in found] == [datetime(2024, 11, 27, 21, tzinfo=UTC), datetime(2024, 11, 29, 18, tzinfo=UTC)]
    assert [(row["ts"].day, row["open"], row["close"]) for row in made(rows, "1d")] == [(27, 9.0, 8.0), (29, 3.0, 7.0)]  # type: ignore[attr-defined]


def test_sessions_follow_daylight_saving_time():
    opens = [datetime(2024, 3, day, 14 if day < 10 else 13, 30, tzinfo=UTC) for day in (8, 11)]
    rows = bars_of(*(bar(0) | {"ts": moment} for moment in opens))
    assert [row["ts"] for row in made(rows, "1d", calendars={"*": "XNYS"})] == opens


@pytest.mark.parametrize(("lower", "higher"), [("5m", "5m"), ("1h", "5m"), ("2m", "5m"), ("1d", "5d"), ("1m", "36h")])
def test_what_cannot_be_made_is_refused(lower: str, higher: str):
    with pytest.raises(DefinitionError, match=f"{higher} bars cannot be made of {lower} bars"):
        asof.resample(bars_of(bar(0)).drop_columns(["timeframe"]), higher, timeframe=lower)


@given(st.lists(st.tuples(st.integers(0, 40), st.one_of(st.none(), st.floats(1, 9))), unique_by=lambda row: row[0], max_size=30))
def test_a_plain_loop_gives_the_same(rows: list[tuple[int, float | None]]):
    table = bars_of(*(bar(n, v, open=v, high=v, low=v, volume=v) for n, v in rows))
    expected = {}
    for start in range(0, 45, 5):
        inside = [v for n, v in sorted(rows) if start <= n < start + 5]
        there = [v for v in inside if v is not None]
        if inside:
            total = math.nan
            for v in there:
                total = v if math.isnan(total) else total + v
            ends = (there[0], max(there), min(there), there[-1], total) if there else (None,) * 5
            expected[minute(start)] = ends
    assert {row["ts"]: tuple(row[n] for n in PRICES) for row in made(table, "5m", timeframe="1m")} == expected


@pytest.fixture(scope="module")
def btc(shared_data: Path) -> pa.Table:
    table = pq.read_table(shared_data / "bars_1m" / "binance_btcusdt_1m.parquet")
    return table.rename_columns([BTC.get(name, name) for name in table.column_names]).select(["instrument_id", "ts", *PRICES])


@pytest.mark.parametrize("to", ["5m", "1h", "4h", "1d"])
def test_polars_makes_the_same_of_real_minutes(btc: pa.Table, to: str):
    found = pl.DataFrame(asof.resample(btc, to, timeframe="1m")).select("ts", *PRICES)
    frame = pl.DataFrame(btc).sort("ts")
    firsts = [pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), pl.col("volume").sum()]
    theirs = frame.group_by_dynamic("ts", every=to).agg(firsts)
    assert found.drop("volume").equals(theirs.drop("volume"))
    np.testing.assert_allclose(found["volume"].to_numpy(), theirs["volume"].to_numpy(), rtol=1e-12)


BY_HOUR = """
SELECT epoch_us(time_bucket(INTERVAL 1 HOUR, ts)) AS hour, arg_min(open, ts), max(high), min(low), arg_max(close, ts), fsum(volume)
FROM btc GROUP BY hour ORDER BY hour
"""


def test_pandas_and_duckdb_make_the_same_of_real_minutes(btc: pa.Table):
    found = asof.resample(btc, "1h", timeframe="1m").to_pandas().set_index("ts")[list(PRICES)]
    rules = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    frame = btc.to_pandas().set_index("ts").sort_index().resample("1h").agg(rules).dropna(subset=["open"])
    assert found.drop(columns="volume").equals(frame.drop(columns="volume").loc[found.index])
    assert len(found) == len(frame)
    rows = duckdb.connect().sql(BY_HOUR).fetchall()
    assert [row[1:5] for row in rows] == [tuple(row) for row in found[list(PRICES[:4])].itertuples(index=False)]
    np.testing.assert_allclose([row[5] for row in rows], found["volume"], rtol=1e-12)


def test_polars_makes_the_same_of_real_minutes_of_the_regular_session(shared_data: Path):
    table = pq.read_table(shared_data / "bars_1m" / "lean_equity_trade_1m.parquet")
    table = table.rename_columns([BTC.get(name, name) for name in table.column_names])
    found = pl.DataFrame(asof.resample(table, "1d", timeframe="1m", calendars={"*": "XNYS"}))
    local = pl.col("ts").dt.convert_time_zone("America/New_York")
    regular = pl.DataFrame(table).filter(local.dt.time().is_between(pl.time(9, 30), pl.time(15, 59))).sort("instrument_id", "ts")
    firsts = [pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), pl.col("volume").sum()]
    theirs = regular.group_by("instrument_id", local.dt.date().alias("day"), maintain_order=True).agg(firsts)
    assert len(regular) < len(table), "there are extended hours"
    assert found.select("instrument_id", *PRICES).equals(theirs.select("instrument_id", *PRICES))


def test_compute_makes_the_higher_bars_that_it_is_not_given(btc: pa.Table):
    hour = asof.bars.every("1h")
    feature_set = asof.FeatureSet("x", {"x": asof.bars.close / hour.close.mean(20).latest() - 1})
    some = btc.slice(0, 3000)
    given = asof.compute(feature_set, some, higher={"1h": asof.resample(some, "1h", timeframe="1m")}, timeframe="1m").to_arrow()
    made_here = asof.compute(feature_set, some, timeframe="1m").to_arrow()
    assert made_here["x"].equals(given["x"])
    assert pc.sum(pc.is_valid(made_here["x"])).as_py() > 1000
    assert made_here["available_at"][-1].as_py() == made_here["ts"][-1].as_py() + timedelta(minutes=1)
