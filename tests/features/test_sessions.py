"""Sums and averages within a session: by the calendar, never of part of a session, and what Polars makes of real minutes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import asof
from asof import FeatureSet, bars
from asof.errors import DefinitionError
from asof.features.library import technical as ta

SET = FeatureSet("session", {"volume": bars.volume.cumulative(), "vwap": ta.vwap_session(), "bar": ta.bars_since_open()})


def minutes(*opens: datetime, **columns: list[float | None]) -> pa.Table:
    prices = {name: [2.0] * len(opens) for name in ("high", "low", "close")} | {"volume": [1.0] * len(opens)}
    return pa.table({"instrument_id": ["X"] * len(opens), "ts": list(opens)} | prices | columns)


def at(day: int, hour: int, minute: int) -> datetime:
    return datetime(2024, 11, day, hour, minute, tzinfo=UTC)


def computed(table: pa.Table, calendar: str | None = "XNYS") -> dict[str, list[object]]:
    found = asof.compute(SET, table, timeframe="1m", calendars={"*": calendar} if calendar else None).to_arrow()
    return {name: found[name].to_pylist() for name in SET.features}


def test_a_session_is_that_of_the_calendar_half_days_and_summer_time_among_them():
    opens = [at(27, 20, 59), at(27, 21, 0), at(29, 14, 29), at(29, 14, 30), at(29, 14, 32), at(29, 17, 59), at(29, 18, 0)]
    found = computed(minutes(*opens, volume=[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]))
    assert found["volume"] == [None, None, None, 8.0, 24.0, 56.0, None], "after hours, and before them, there is no session"
    assert found["bar"] == [None, None, None, 0.0, 1.0, 2.0, None]
    summer = [datetime(2024, 3, day, hour, 30, tzinfo=UTC) for day, hour in ((8, 14), (11, 13), (11, 14))]
    assert computed(minutes(*summer))["volume"] == [None, 1.0, 2.0]


def test_without_a_calendar_a_session_is_a_day_of_utc():
    assert computed(minutes(at(27, 23, 59), at(28, 0, 0), at(28, 9, 0)), None)["volume"] == [None, 1.0, 2.0]


def test_a_session_that_is_cut_off_is_missing_and_not_partial():
    opens = [at(26, 15, 0) + timedelta(days=day, minutes=k) for day in (0, 1) for k in range(5)]
    table = minutes(*opens, close=[float(k + 1) for k in range(10)])
    whole = computed(table)
    assert whole["vwap"][:5] == [None] * 5
    for start in range(1, 10):
        part = computed(table.slice(start))
        if start < 5:
            assert part["vwap"] == whole["vwap"][start:]
        else:
            assert part["vwap"] == [None] * (10 - start)


def test_a_missing_value_is_missing_for_the_rest_of_its_session_and_an_error_is_one():
    opens = [at(26, 20, 59), *(at(27, 15, k) for k in range(4)), at(29, 15, 0)]
    assert computed(minutes(*opens, volume=[1.0, 1.0, None, 1.0, 1.0, 5.0]))["volume"] == [None, 1.0, None, None, None, 5.0]
    found = asof.compute(SET, minutes(*opens, volume=[1.0, 0.0, 1.0, 1.0, 1.0, 1.0]), timeframe="1m", calendars={"*": "XNYS"}).to_arrow()
    assert found["quality_flags"].to_pylist() == [[], ["COMPUTATION_ERROR"], [], [], [], []]
    assert found["vwap"].to_pylist() == [None, None, 2.0, 2.0, 2.0, 2.0]


def test_a_session_of_more_bars_than_are_stated_is_missing_from_there_on():
    opens = [at(26, 20, 59), *(at(27, 15, k) for k in range(5))]
    short = FeatureSet("short", {"x": bars.volume.cumulative(n=3)})
    found = asof.compute(short, minutes(*opens), timeframe="1m", calendars={"*": "XNYS"}).to_arrow()
    assert found["x"].to_pylist() == [None, 1.0, 2.0, 3.0, None, None]
    assert short.lookback == 4


def test_events_have_no_session():
    with pytest.raises(DefinitionError, match="cumulative sums bars, from the first of their session on"):
        asof.events.window("1h").sentiment.cumulative()


def test_polars_makes_the_same_of_real_minutes_with_extended_hours(shared_data: Path):
    table = pq.read_table(shared_data / "bars_1m" / "lean_equity_trade_1m.parquet")
    table = table.rename_columns([{"ticker": "instrument_id", "ts_open_utc": "ts"}.get(name, name) for name in table.column_names])
    found = pl.DataFrame(asof.compute(SET, table, timeframe="1m", calendars={"*": "XNYS"}))
    local = pl.col("ts").dt.convert_time_zone("America/New_York")
    within = pl.col("instrument_id"), local.dt.date()
    price = (pl.col("high") + pl.col("low") + pl.col("close")) / 3
    theirs = (
        pl.DataFrame(table)
        .with_columns(pl.col("ts").dt.cast_time_unit("us"))
        .sort("instrument_id", "ts")
        .filter(local.dt.time().is_between(pl.time(9, 30), pl.time(15, 59)))
        .select(
            "instrument_id",
            "ts",
            volume=pl.col("volume").cum_sum().over(within),
            vwap=(price * pl.col("volume")).cum_sum().over(within) / pl.col("volume").cum_sum().over(within),
            bar=pl.int_range(pl.len()).cast(pl.Float64).over(within),
        )
    )
    both = found.filter(pl.col("volume").is_not_null()).select("instrument_id", "ts", *SET.features)
    kept = theirs.join(both.select("instrument_id", "ts"), ["instrument_id", "ts"], how="semi")
    assert len(theirs) >= len(both) > 5000
    assert both.select("instrument_id", "ts", "volume", "bar").equals(kept.select("instrument_id", "ts", "volume", "bar"))
    np.testing.assert_allclose(both["vwap"].to_numpy(), kept["vwap"].to_numpy(), rtol=1e-12)
