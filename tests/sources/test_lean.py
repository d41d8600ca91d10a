"""Lean's factor files: what they tell of actions, and that prices adjusted by these are what Lean's own factors make of them."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asof import FeatureSet, bars, connect
from asof.errors import DataError
from asof.sources import lean
from asof.sources.columns import ColumnMapping
from tests.sources.files import write_parquet

ROWS = [
    ("X", date(1998, 1, 2), 0.5, 0.25),
    ("X", date(1998, 3, 3), 0.5, 0.25),
    ("X", date(1998, 7, 31), 0.8, 0.25),
    ("X", date(2050, 12, 31), 1.0, 0.5),
    ("Y", date(2000, 1, 3), 1.0, 1.0),
]
LAGS = (1, 20, 250, 1000)


def test_each_step_between_two_rows_is_an_action_of_the_day_after_the_earlier_one(tmp_path: Path) -> None:
    table = pa.table([list(column) for column in zip(*ROWS[::-1], strict=True)], names=["ticker", "date", "price_factor", "split_factor"])
    (batch,) = lean.actions(write_parquet(tmp_path / "factors.parquet", table), ColumnMapping({"instrument_id": "ticker"}))
    assert [tuple(row.values()) for row in batch.table.to_pylist()] == [
        ("X", date(1998, 3, 4), 1.0, 0.625),
        ("X", date(1998, 8, 1), 2.0, 0.8),
    ]
    assert batch.numbers.tolist() == [4, 3]


def test_a_factor_file_as_lean_has_it_is_of_the_instrument_that_it_is_named_by(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("19980102,0.5,0.25,1\n19980731,0.5,0.25,150.69\n20501231,1,0.5,0\n")
    with connect("duckdb://") as store:
        with pytest.raises(DataError, match="say which zone they are in, such as --timezone UTC"):
            store.ingest_actions(path, file_format="lean-factors")
        assert store.ingest_actions(path, file_format="lean-factors", timezone="America/New_York").accepted == 1
    path.write_text("19980102,0.5\n")
    with pytest.raises(DataError, match=r"x.csv line 1: '19980102,0.5' is not date, price_factor, split_factor"):
        list(lean.actions(path, ColumnMapping()))
    with connect("duckdb://") as store, pytest.raises(DataError, match="format 'lean' is none of table, lean-factors"):
        store.ingest_actions(path, file_format="lean")


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> dict[str, list[dict[str, object]]]:
    """Of each instrument its bars' closes, what earlier ones are worth from then, and returns."""
    adjusted = bars.adjusted.close
    features = {"close": bars.close + 0, "ret": adjusted / adjusted.lag(1) - 1, "raw": bars.close / bars.close.lag(1) - 1}
    feature_set = FeatureSet("lean_v1", features | {f"before_{n}": adjusted.lag(n) for n in LAGS})
    found: dict[str, list[dict[str, object]]] = {}
    with connect("duckdb://") as store:
        new_york = {"timezone": "America/New_York"}
        named = {"instrument_id": "ticker", "ts": "ts_open_utc"}
        daily, maps = shared_data / "daily/lean_daily_raw.parquet", shared_data / "daily/lean_map_files.parquet"
        store.ingest_bars(daily, timeframe="1d", columns=named, symbols=maps, symbols_format="lean", **new_york)  # type: ignore[arg-type]
        factors = shared_data / "daily/lean_factor_files.parquet"
        store.ingest_actions(factors, columns={"instrument_id": "ticker"}, file_format="lean-factors", timezone="America/New_York")
        store.backfill(feature_set, "1d")
        for row in store.history(feature_set, "1d").to_pylist():
            found.setdefault(row["instrument_id"], []).append(row)
    return found


def factors_of(shared_data: Path) -> dict[str, list[tuple[date, float]]]:
    found: dict[str, list[tuple[date, float]]] = {}
    for row in pq.read_table(shared_data / "daily/lean_factor_files.parquet").to_pylist():
        found.setdefault(row["ticker"], []).append((row["date"], row["price_factor"] * row["split_factor"]))
    return found


def test_earlier_prices_are_worth_what_leans_factors_make_of_them(shared_data: Path, vectors: dict[str, list[dict[str, float]]]) -> None:
    compared = 0
    for name, factors in factors_of(shared_data).items():
        rows = vectors[name]
        factor = [factors[bisect_left([day for day, _ in factors], row["ts"].date())][1] for row in rows]  # type: ignore[attr-defined]
        for n in LAGS:
            for k in range(n, len(rows)):
                assert rows[k][f"before_{n}"] == pytest.approx(rows[k - n]["close"] * factor[k - n] / factor[k], rel=1e-9)
                compared += 1
    assert compared == 77_010


def test_returns_over_splits_are_those_of_a_usual_day(vectors: dict[str, list[dict[str, float]]]) -> None:
    splits = {
        (name, row["ts"].date()): row["ret"]  # type: ignore[attr-defined]
        for name, rows in vectors.items()
        for row in rows
        if row["ret"] is not None and abs(row["ret"] - row["raw"]) > 0.05
    }
    assert {name for name, _ in splits} == {"AIG", "BAC", "GOOGL"}
    assert len(splits) == 7
    assert splits.pop(("AIG", date(2009, 7, 1))) == pytest.approx(-0.2)  # 1 for 20 while it was being saved
    assert max(map(abs, splits.values())) < 0.03


def test_a_reused_ticker_is_not_the_company_that_has_it_now(vectors: dict[str, list[dict[str, object]]]) -> None:
    assert vectors["FB"][0]["ts"] == datetime(2012, 5, 18, 13, 30, tzinfo=UTC)
    assert len(vectors["WM"]) == 4_401  # UW, WMI and WM, and no bar of the bank that was WM while it was WMI
    assert {"GOOG", "GOOGL"} < vectors.keys()
