"""`asof.compute`: every kind of data frame in and out, what it refuses, and the golden vectors of the real data."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import asof
from asof import FeatureSet, bars, events, fs_v1
from asof.engine.layout import known_since
from asof.errors import DataError, DefinitionError, MissingExtra
from asof.features.library.fs_v1 import build

UTC_TIME = pa.timestamp("us", "UTC")
OPEN = datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
BARS = pa.table(
    {
        "instrument_id": ["AAPL"] * 3 + ["MSFT"] * 2,
        "ts": pa.array([OPEN + timedelta(minutes=5 * k) for k in (0, 1, 2, 0, 1)], pa.timestamp("us", "UTC")),
        "close": [10.0, 20.0, None, 5.0, 6.0],
    }
)
EVENTS = pa.table(
    {
        "event_id": ["one", "two"],
        "enriched_at_utc": pa.array([OPEN, OPEN + timedelta(minutes=5)], pa.timestamp("us", "UTC")),
        "tickers": [["AAPL", "MSFT"], ["MSFT", "MSFT", "NONE"]],
        "score": [0.5, -0.5],
        "confidence": [1.0, 0.5],
    }
)
MINI = FeatureSet("mini", {"ret": bars.close / bars.close.lag(1) - 1, "mood": events.window("5m").sentiment.mean()})
EXPECTED = {"ret": [None, 1.0, None, None, 6.0 / 5.0 - 1], "mood": [0.5, 0.5, None, 0.5, 0.0]}

GIVEN: dict[str, Callable[[pa.Table], object]] = {
    "PyArrow": lambda table: table,
    "PyArrow record batches": lambda table: pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1)),
    "Polars": pl.from_arrow,
    "pandas": lambda table: table.to_pandas(),
    "pandas with Arrow types": lambda table: table.to_pandas(types_mapper=pd.ArrowDtype),
    "DuckDB": lambda table: duckdb.connect().from_arrow(table),
}
TAKEN: dict[str, Callable[[asof.Frame], pa.Table]] = {
    "PyArrow": pa.table,
    "Polars": lambda frame: pl.DataFrame(frame).to_arrow(),
    "pandas": lambda frame: pa.table(pd.DataFrame.from_arrow(frame)),
    "DuckDB": lambda frame: duckdb.connect().from_arrow(pa.table(frame)).to_arrow_table(),
    "to_arrow": lambda frame: frame.to_arrow(),
    "to_polars": lambda frame: frame.to_polars().to_arrow(),
    "to_pandas": lambda frame: pa.Table.from_pandas(frame.to_pandas()),
}


def numbers(table: pa.Table) -> dict[str, list[float | None]]:
    """The features of `MINI` in a table."""
    return {name: table[name].to_pylist() for name in EXPECTED}


@pytest.mark.parametrize("kind", GIVEN)
def test_compute_takes(kind: str):
    frame = asof.compute(MINI, GIVEN[kind](BARS), GIVEN[kind](EVENTS), timeframe="5m")  # type: ignore[arg-type]
    assert numbers(frame.to_arrow()) == EXPECTED


@pytest.mark.parametrize("kind", TAKEN)
def test_a_frame_is_taken_by(kind: str):
    table = TAKEN[kind](asof.compute(MINI, BARS, EVENTS, timeframe="5m"))
    assert numbers(table) == EXPECTED
    assert table["instrument_id"].to_pylist() == BARS["instrument_id"].to_pylist()
    assert table["ts"].to_pylist() == BARS["ts"].to_pylist()


def test_a_frame_has_the_columns_of_vectors():
    frame = asof.compute(MINI, BARS, EVENTS, timeframe="5m")
    assert frame.to_arrow().schema == asof.records.vector_schema(("ret", "mood"))
    assert len(frame) == 5
    row = frame.to_pylist()[1]
    assert (row["timeframe"], row["event_count"], row["ohlcv_count"], row["quality_flags"]) == ("5m", 1, 2, [])
    assert row["available_at"] - row["ts"] == timedelta(minutes=5)
    assert repr(frame).startswith("<Frame: 5 rows x 11 columns: instrument_id, timeframe, ts, ret, mood")


def test_rows_in_any_order_come_back_sorted():
    backwards = asof.compute(MINI, BARS.take(list(range(4, -1, -1))), EVENTS.take([1, 0]), timeframe="5m").to_arrow()
    assert backwards.drop(["computed_at"]) == asof.compute(MINI, BARS, EVENTS, timeframe="5m").to_arrow().drop(["computed_at"])


def test_without_events_and_without_bars_there_is_still_an_answer():
    assert asof.compute(MINI, BARS, timeframe="5m").to_arrow()["mood"].null_count == 5
    assert asof.compute(MINI, BARS, EVENTS.slice(0, 0), timeframe="5m").to_arrow()["mood"].null_count == 5
    nothing = asof.compute(MINI, BARS.slice(0, 0), EVENTS, timeframe="5m")
    assert len(nothing) == 0
    assert nothing.to_arrow().schema.names[3:5] == ["ret", "mood"]


def test_an_error_is_missing_and_flagged_and_a_missing_value_is_not():
    inverse = FeatureSet("inverse", {"x": 1 / (bars.close - 20)}, {"RICH": bars.close > 15})
    table = asof.compute(inverse, BARS, timeframe="5m").to_arrow()
    assert table["x"].to_pylist() == [-0.1, None, None, 1 / -15, 1 / -14]
    assert table["quality_flags"].to_pylist() == [[], ["COMPUTATION_ERROR", "RICH"], [], [], []]


def test_bars_may_come_with_their_timeframe_and_the_time_they_were_known():
    known = pc.add(BARS["ts"], pa.scalar(timedelta(minutes=7)))
    table = BARS.append_column("timeframe", pa.array(["15m"] * 5)).append_column("available_at", known)
    found = asof.compute(MINI, table).to_arrow()
    assert found["timeframe"].unique().to_pylist() == ["15m"]
    assert found["available_at"].to_pylist() == known.to_pylist()


def test_scores_may_be_nested_or_flat_and_an_event_scored_again_counts_once_at_its_first_place():
    sentiment = pa.array([{"score": 0.5, "confidence": 1.0}, {"score": -0.5, "confidence": 0.5}])
    nested = EVENTS.drop(["score", "confidence"]).append_column("sentiment", sentiment)
    assert numbers(asof.compute(MINI, BARS, nested, timeframe="5m").to_arrow()) == EXPECTED
    again = EVENTS.set_column(0, "event_id", pa.array(["one", "one"]))
    found = asof.compute(MINI, BARS, again, timeframe="5m").to_arrow()
    assert found["event_count"].to_pylist() == [1, 1, 0, 1, 1]
    assert found["mood"].to_pylist()[3:] == [-0.5, -0.5]


def test_of_two_scores_at_one_moment_the_same_counts_whatever_the_order():
    again = EVENTS.set_column(0, "event_id", pa.array(["one", "one"])).set_column(
        1, "enriched_at_utc", EVENTS["enriched_at_utc"].take([0, 0])
    )
    moods = [asof.compute(MINI, BARS, again.take(order), timeframe="5m").to_arrow()["mood"].to_pylist() for order in ([0, 1], [1, 0])]
    assert moods[0] == moods[1]


def with_column(name: str, values: object) -> pa.Table:
    """The bars with one column changed or added."""
    at = BARS.schema.get_field_index(name)
    return BARS.append_column(name, values) if at < 0 else BARS.set_column(at, name, values)


NAIVE = BARS["ts"].cast(pa.timestamp("us"))
REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "naive times": (lambda: with_column("ts", NAIVE), "ts holds naive times, such as 2024-01-02 14:30:00: say which zone they are in"),
    "naive times as text": (lambda: with_column("ts", NAIVE.cast(pa.string())), "has no zone: say which zone it is in"),
    "times as bare numbers": (
        lambda: with_column("ts", NAIVE.cast(pa.int64())),
        "ts holds whole numbers without a unit; 1704205800000000 looks like us",
    ),
    "an infinite price": (lambda: with_column("close", pa.array([1.0, 2.0, float("inf"), 3.0, 4.0])), "bars, row 3: close=inf is infinite"),
    "two bars at once": (lambda: pa.concat_tables([BARS, BARS.slice(4)]), "two bars of MSFT open at 2024-01-02 14:35:00+00:00"),
    "several timeframes": (
        lambda: with_column("timeframe", pa.array(["5m", "1h", "5m", "5m", "1h"])),
        "the bars are of several timeframes (5m, 1h): compute one at a time",
    ),
    "an unknown timeframe": (
        lambda: with_column("timeframe", pa.array(["5x"] * 5)),
        "timeframe '5x' is not one of <n>s, <n>m, <n>h, <n>d",
    ),
    "no timeframe": (lambda: BARS, "the bars have no timeframe column: say which they are"),
    "no close": (
        lambda: with_column("timeframe", pa.array(["5m"] * 5)).rename_columns(["instrument_id", "ts", "Close", "timeframe"]),
        "there is no column 'close'",
    ),
    "no instrument": (
        lambda: with_column("instrument_id", pa.array(["A", " ", None, "B", "C"])),
        "bars, row 2: instrument_id is empty (2 rows are refused in all)",
    ),
    "a negative volume": (lambda: with_column("volume", pa.array([0, 1, -1, 2, 3])), "bars, row 3: volume=-1.0 is negative"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_compute_refuses(what: str):
    make, said = REFUSED[what]
    table = make()
    assert isinstance(table, pa.Table)
    timeframe = None if "timeframe" in what or "timeframe" in table.column_names else "5m"
    with pytest.raises(DataError) as refused:
        asof.compute(MINI, table, timeframe=timeframe)
    assert said in str(refused.value)


def test_naive_times_are_taken_with_their_zone():
    found = asof.compute(MINI, with_column("ts", NAIVE), timeframe="5m", timezone="America/New_York").to_arrow()
    assert found["ts"][0].as_py() == OPEN + timedelta(hours=5)


def test_an_unknown_timeframe_in_the_call_is_refused():
    with pytest.raises(DefinitionError, match="timeframe '5 minutes' is not one of"):
        asof.compute(MINI, BARS, timeframe="5 minutes")


def test_events_that_cannot_be_used_are_refused():
    for name, values, said in (
        ("score", [0.5, 1.5], "events, row 2: score=1.5 is outside -1..1"),
        ("confidence", [None, 0.5], "events, row 1: confidence is missing"),
        ("tickers", [["AAPL"], []], "events, row 2: the event names no ticker"),
    ):
        at = EVENTS.schema.get_field_index(name)
        broken = EVENTS.set_column(at, name, pa.array(values, EVENTS.schema.field(at).type))
        with pytest.raises(DataError) as refused:
            asof.compute(MINI, BARS, broken, timeframe="5m")
        assert said in str(refused.value)


def test_a_vector_is_available_when_the_last_of_the_bars_that_it_depends_on_is():
    late = OPEN + timedelta(days=3)
    ts = [OPEN + timedelta(minutes=5 * k) for k in range(4)]
    known = [None, late, None, None]  # the second bar reached us three days later
    table = pa.table({"instrument_id": ["AAPL"] * 4, "ts": ts, "close": [1.0, 2.0, 3.0, 4.0], "available_at": pa.array(known, UTC_TIME)})
    ret_1 = FeatureSet("two_bars", {"ret_1": bars.close / bars.close.lag(1) - 1})
    found = asof.compute(ret_1, table, timeframe="5m").to_arrow()
    close = timedelta(minutes=5)
    assert found["available_at"].to_pylist() == [ts[0] + close, late, late, ts[3] + close]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 5), st.data())
def test_the_availability_of_vectors_is_the_largest_of_their_bars(known: list[int], lookback: int, data: st.DataObject):
    cut = data.draw(st.integers(0, len(known)))
    offsets = np.array([0, cut, len(known)])
    naive = [max(known[max(a, i - lookback + 1) : i + 1]) for a, b in itertools.pairwise(offsets) for i in range(a, b)]
    assert known_since(np.array(known), offsets, lookback).tolist() == naive


ACTED = FeatureSet(
    "acted",
    {
        "lag": bars.adjusted.close.lag(2),
        "mean": bars.adjusted.close.mean(3),
        "volume": bars.adjusted.volume.sum(3),
        "value": (bars.adjusted.close * bars.adjusted.volume).mean(2),
        "fading": bars.adjusted.close.ewm(alpha=0.5, reach=3),
    },
)


def acted(**actions: list[object]) -> list[dict[str, object]]:
    days = [f"2024-01-0{day}T14:30:00Z" for day in (2, 3, 4, 5)]
    table = pa.table({"instrument_id": ["X"] * 4, "ts": days, "close": [10.0, 12.0, 6.5, 7.0], "volume": [100.0, 110.0, 200.0, 210.0]})
    return asof.compute(ACTED, table, actions=pa.table({"instrument_id": ["X"] * len(actions["ts"])} | actions), timeframe="1d").to_pylist()


def test_windows_are_worth_what_they_are_worth_from_their_row():
    """A 2:1 split on the fourth of January, a dividend on the fifth."""
    rows = acted(ts=["2024-01-05T05:00:00Z", "2024-01-04T05:00:00Z"], split=[None, 2.0], dividend_factor=[0.9, None])
    third, fourth = (row for row in rows[2:])
    assert (rows[1]["lag"], third["lag"], fourth["lag"]) == (None, 10.0 * 0.5, 12.0 * (0.9 * 0.5))
    assert third["mean"] == (10.0 * 0.5 + 12.0 * 0.5 + 6.5) / 3
    assert fourth["mean"] == (12.0 * (0.9 * 0.5) + 6.5 * 0.9 + 7.0) / 3
    assert (third["volume"], fourth["volume"]) == (100.0 * 2 + 110.0 * 2 + 200.0, 110.0 * 2 + 200.0 + 210.0)
    assert fourth["value"] == (6.5 * 200.0 * 0.9 + 7.0 * 210.0) / 2
    assert fourth["fading"] == pytest.approx((12.0 * 0.45 * 0.25 + 6.5 * 0.9 * 0.5 + 7.0) / 1.75)


def test_without_an_action_in_between_adjusted_prices_are_the_prices():
    for ts in ("2024-01-02T14:30:00Z", "2024-01-05T14:30:01Z"):  # of the first bar, and behind the last
        rows = acted(ts=[ts], split=[3.0])
        assert [row["lag"] for row in rows] == [None, None, 10.0, 12.0]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ({"ts": ["2024-01-04T05:00:00Z"], "split": [0.0]}, "actions, row 1: split=0.0 is not above 0"),
        ({"ts": ["2024-01-04"], "split": [2.0]}, "actions, row 1: ts=2024-01-04 has no zone"),
        ({"ts": ["2024-01-04T05:00:00Z"] * 2, "split": [2.0, 3.0]}, "two actions of X at 2024-01-04 05:00:00.*disagree: keep one"),
        ({"ts": ["2024-01-04T05:00:00Z"]}, "there is no column 'split' for split"),
    ],
)
def test_actions_that_cannot_be_used_are_refused(actions: dict[str, list[object]], message: str):
    with pytest.raises(DataError, match=message):
        acted(**actions)


def test_a_reader_that_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(MissingExtra, match="pip install polars"):
        asof.Frame(BARS).to_polars()


GOLDEN = {"fs_v1_stocknet_1d.parquet": fs_v1, "fs_v1_stocknet_1d_window_1440m.parquet": build("1440m")}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_real_data_give_the_golden_vectors(shared_data: Path, name: str):
    prices = pq.read_table(shared_data / "daily" / "stocknet_prices.parquet")
    prices = prices.rename_columns({"ticker": "instrument_id", "ts_open_utc": "ts"})
    posts = pq.read_table(shared_data / "events" / "stocknet_events.parquet")
    golden = pq.read_table(shared_data / "golden" / name).sort_by([("instrument_id", "ascending"), ("ts", "ascending")])
    found = asof.compute(GOLDEN[name], prices, posts, timeframe="1d").to_arrow()
    for key in ("instrument_id", "timeframe", "ts", "event_count"):
        assert found[key].to_pylist() == golden[key].to_pylist()
    assert found["quality_flags"].to_pylist() == [sorted(flags) for flags in golden["quality_flags"].to_pylist()]
    for feature in fs_v1.features:
        ours, theirs = (np.asarray(table[feature].to_numpy(), np.float64) for table in (found, golden))
        assert np.array_equal(np.asarray(found[feature].is_null()), np.asarray(golden[feature].is_null())), feature
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=0, err_msg=feature)


def test_frames_of_no_rows_are_no_rows_whatever_pandas_takes_their_columns_for():
    none = pd.DataFrame({name: [] for name in ("instrument_id", "ts", "close")})
    assert len(asof.compute(fs_v1, none, timeframe="1d")) == 0
    universe = FeatureSet("universe", {"rank": asof.across("sp500").rank(bars.close)})
    nobody = pd.DataFrame({name: [] for name in ("instrument_id", "scheme", "ts", "value")})
    made = asof.compute(universe, BARS, memberships=nobody, timeframe="1d").to_pylist()
    assert {(row["rank"], *row["quality_flags"]) for row in made} == {(None,)}
