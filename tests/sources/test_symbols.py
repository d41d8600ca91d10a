"""Maps of tickers: bars under an old ticker are the same instrument's, and those under a reused one another's."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest

from asof import connect
from asof.errors import DataError
from asof.sources import lean
from asof.sources.symbols import Symbols, read_symbols
from asof.stores.store import BARS_TABLE, Selection
from tests.sources.files import write_csv, write_parquet

MAP = [
    {"instrument_id": "WM", "ticker": "WMI", "from": "1998-07-17", "to": "2009-08-04"},
    {"instrument_id": "WM", "ticker": "WM", "from": "2009-08-05", "to": ""},
    {"instrument_id": "WAMU", "ticker": "WM", "from": "", "to": "2008-09-26"},
]


def days(*texts: str) -> list[dict[str, object]]:
    return [{"symbol": text.partition(" ")[0], "ts": f"{text.partition(' ')[2]}T14:30:00Z", "close": 10.0} for text in texts]


def test_a_ticker_is_the_instrument_that_had_it_then_and_one_that_nobody_had_is_refused(tmp_path: Path) -> None:
    bars = write_csv(tmp_path / "bars.csv", days("WMI 2009-08-04", "WM 2009-08-05", "WM 2008-09-26", "WM 2008-09-27", "IBM 2008-09-27"))
    with connect("duckdb://") as store:
        told = {"timeframe": "1d", "columns": {"instrument_id": "symbol"}}
        report = store.ingest_bars(bars, symbols=write_csv(tmp_path / "map.csv", MAP), **told)  # type: ignore[arg-type]
        found = pa.concat_tables(store.store.read(BARS_TABLE, Selection())).to_pylist()
    assert [(row["instrument_id"], row["ts"].date()) for row in found] == [
        ("IBM", date(2008, 9, 27)),
        ("WAMU", date(2008, 9, 26)),
        ("WM", date(2009, 8, 4)),
        ("WM", date(2009, 8, 5)),
    ]
    assert report.reasons == {"unmapped_ticker": 1}
    assert report.examples["unmapped_ticker"] == "bars.csv row 5: the map names no instrument that traded as WM on 2008-09-27"


def test_the_days_of_a_map_are_those_of_the_zone(tmp_path: Path) -> None:
    spans = [
        {"instrument_id": "OLD", "ticker": "X", "from": "", "to": "2024-03-01"},
        {"instrument_id": "NEW", "ticker": "X", "from": "2024-03-02"},
    ]
    path = write_csv(tmp_path / "map.csv", spans)
    late = pa.chunked_array([pa.array(["2024-03-01T23:30:00Z"]).cast(pa.timestamp("us", "UTC"))])
    tickers = pa.chunked_array([["X"]])
    for zone, name in ((None, "OLD"), ("Asia/Tokyo", "NEW")):
        assert read_symbols(path, zone).instruments(tickers, late, None).to_pylist() == [name]  # type: ignore[arg-type]  # none is refused


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*MAP, {"instrument_id": "Z", "ticker": "WM", "from": "2008-09-26", "to": "2009-01-01"}], "WM is both WAMU and Z on 2008-09-26"),
        ([{"instrument_id": "A", "ticker": "A", "from": "2009-01-02", "to": "2009-01-01"}], "A is A from 2009-01-02 to 2009-01-01"),
        ([{"instrument_id": "A", "ticker": "A", "from": "yesterday"}], "from and to are days such as 2014-04-02"),
        ([{"instrument_id": "A", "from": "2009-01-02"}], "there is no column 'ticker'; the file has instrument_id, from"),
        ([{"instrument_id": "A", "ticker": ""}], "ticker is missing in row 1"),
    ],
)
def test_a_map_that_cannot_be_used_is_refused(tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_symbols(write_csv(tmp_path / "map.csv", rows))


def test_a_format_that_is_none_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"map format 'leen' is none of table, lean; did you mean 'lean'\?"):
        read_symbols(write_csv(tmp_path / "map.csv", MAP), None, "leen")


def test_a_map_file_of_leans_comes_as_lean_has_it_or_as_a_table(tmp_path: Path) -> None:
    (tmp_path / "bac.csv").write_text("19980102,nb,N\n19980930,nb,N\n20501231,bac,N\n")
    table = pa.table(
        {
            "permtick": ["BAC"] * 3,
            "until_date": [date(1998, 1, 2), date(1998, 9, 30), date(2050, 12, 31)],
            "mapped_symbol": ["NB", "NB", "BAC"],
        }
    )
    expected = [
        {"instrument_id": "BAC", "ticker": "NB", "from": date(1998, 1, 2), "to": date(1998, 1, 2)},
        {"instrument_id": "BAC", "ticker": "NB", "from": date(1998, 1, 3), "to": date(1998, 9, 30)},
        {"instrument_id": "BAC", "ticker": "BAC", "from": date(1998, 10, 1), "to": date(2050, 12, 31)},
    ]
    for path in (tmp_path / "bac.csv", write_parquet(tmp_path / "maps.parquet", table)):
        assert lean.tickers(path).to_pylist() == expected
        assert isinstance(read_symbols(path, None, "lean"), Symbols)
