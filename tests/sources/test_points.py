"""Trades, quotes and books from files: what goes in, what is filled, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from asof.errors import DataError
from asof.jobs.ingest import Ingestion, IngestReport
from asof.sources.columns import ColumnMapping
from asof.stores.store import BOOKS_TABLE, QUOTES_TABLE, TRADES_TABLE, Selection, Store, Table
from asof.stores.urls import open_store
from tests.sources.files import NOW, quarantine_of, write_csv, write_lines, write_parquet, written

TICKS = Path(__file__).parents[3] / "shared" / "data" / "ticks"
AT = "2024-03-01T14:30:00Z"
LATER = "2024-03-01T14:30:01Z"
THEIRS = {"instrument_id": "ticker", "ts": "ts_utc"}


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("duckdb://") as opened:  # type: ignore[attr-defined]
        yield opened


def ingest(store: Store, kind: str, *paths: Path, columns: dict[str, str] | None = None, missing_side: str | None = None) -> IngestReport:
    return Ingestion(store, kind, NOW, ColumnMapping(columns or {}), missing_side=missing_side).run(paths)


def values(store: Store, table: Table, *names: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for batch in store.read(table, Selection(), names) for row in batch.select(names).to_pylist()]


def test_trades_come_from_files_of_every_kind_and_the_same_again_change_nothing(store: Store, tmp_path: Path) -> None:
    rows = [
        {"instrument_id": "X", "ts": AT, "price": 10.0, "size": 5, "side": "buy"},
        {"instrument_id": "X", "ts": LATER, "price": 9.5, "size": 1},
    ]
    report = ingest(store, "trades", *written(tmp_path, rows))
    assert (report.accepted, report.unchanged, report.refused) == (2, 8, 0)
    assert values(store, TRADES_TABLE, "price", "size", "side", "seq") == [(10.0, 5.0, 1.0, 0), (9.5, 1.0, None, 0)]


def test_trades_of_one_time_are_numbered_in_their_order_across_batches(store: Store, tmp_path: Path) -> None:
    rows = [{"instrument_id": name, "ts": AT, "price": n + 1.0, "size": 1} for n in range(15_000) for name in "XY"]  # two batches
    ingest(store, "trades", write_lines(tmp_path / "many.jsonl", rows))
    assert values(store, TRADES_TABLE, "seq", "price") == [(n, n + 1.0) for n in range(15_000)] * 2


def test_a_buyer_who_waited_makes_the_seller_the_aggressor(store: Store, tmp_path: Path) -> None:
    rows = [{"instrument_id": "X", "ts": AT, "price": 1.0, "size": 1, "buyer_is_maker": maker} for maker in (True, False, None)]
    ingest(store, "trades", write_lines(tmp_path / "maker.jsonl", rows))
    assert values(store, TRADES_TABLE, "side") == [(-1.0,), (1.0,), (None,)]


@pytest.mark.parametrize(
    ("kind", "row", "reason"),
    [
        ("trades", {"price": None}, "missing_price"),
        ("trades", {"price": 0.0}, "price_not_positive"),
        ("trades", {"size": -1.0}, "size_not_positive"),
        ("trades", {"side": 0.5}, "unknown_side"),
        ("trades", {"available_at": "2024-03-01T14:29:58.75Z"}, "known_before_it_happened"),
        ("trades", {"instrument_id": " "}, "empty_instrument"),
        ("quotes", {"bid_size": -1.0}, "negative_size"),
        ("books", {"bid_prices": [1.0, 2.0], "bid_sizes": [1.0, 1.0]}, "levels_out_of_order"),
        ("books", {"ask_prices": [9.0, 9.0], "ask_sizes": [1.0, 1.0]}, "levels_out_of_order"),
        ("books", {"ask_prices": [9.0]}, "levels_disagree"),
        ("books", {"ask_prices": [9.0], "ask_sizes": [0.0]}, "level_not_positive"),
        ("books", {"ask_prices": None}, "missing_levels"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(store: Store, tmp_path: Path, kind: str, row: dict[str, object], reason: str) -> None:
    good = {
        "trades": {"price": 1.0, "size": 1.0, "side": None, "available_at": None},
        "quotes": {"bid": 1.0, "bid_size": 1.0, "ask": 2.0, "ask_size": 1.0},
        "books": {"bid_prices": [2.0, 1.0], "bid_sizes": [1.0, 1.0], "ask_prices": [3.0], "ask_sizes": [1.0]},
    }[kind]
    rows = [{"instrument_id": "X", "ts": AT, "seq": n} | good for n in range(2)]
    for n, side in enumerate(("bid", "ask")):
        if kind == "books" and f"{side}_prices" in row and f"{side}_sizes" not in row:
            row = row | {f"{side}_sizes": [1.0] * (n + 1)}
    report = ingest(store, kind, write_parquet(tmp_path / "rows.parquet", [rows[0], rows[1] | row]))
    assert (report.accepted, dict(report.reasons)) == (1, {reason: 1})
    assert [entry["reason"] for entry in quarantine_of(store)] == [reason]


def test_a_quote_without_a_side_is_an_error_until_it_is_said_what_that_means(store: Store, tmp_path: Path) -> None:
    rows = [
        {"instrument_id": "X", "ts": AT, "bid": 1.0, "bid_size": 5, "ask": None, "ask_size": None},
        {"instrument_id": "Y", "ts": AT, "bid": None, "bid_size": None, "ask": 3.0, "ask_size": 1},
        {"instrument_id": "X", "ts": LATER, "bid": None, "bid_size": None, "ask": 2.0, "ask_size": 7},
    ]
    path = write_csv(tmp_path / "quotes.csv", rows)
    with pytest.raises(DataError, match=r"row 1 of 3 has no ask, which may mean .*: say which, --missing-side empty or unchanged"):
        ingest(store, "quotes", path)
    with pytest.raises(DataError, match=r"'unchnged' is none of empty, unchanged; did you mean 'unchanged'"):
        ingest(store, "quotes", path, missing_side="unchnged")
    ingest(store, "quotes", path, missing_side="empty")
    assert values(store, QUOTES_TABLE, "bid", "ask") == [(1.0, None), (None, 2.0), (None, 3.0)]
    ingest(store, "quotes", path, missing_side="unchanged")
    filled = [(1.0, 5.0, None, None), (1.0, 5.0, 2.0, 7.0), (None, None, 3.0, 1.0)]
    assert values(store, QUOTES_TABLE, "bid", "bid_size", "ask", "ask_size") == filled


def test_a_side_goes_on_from_file_to_file_and_a_price_of_nothing_is_an_empty_side(store: Store, tmp_path: Path) -> None:
    first = write_csv(tmp_path / "1.csv", [{"instrument_id": "X", "ts": AT, "bid": 1.0, "ask": 2.0}])
    second = write_csv(tmp_path / "2.csv", [{"instrument_id": "X", "ts": LATER, "bid": 1.5, "ask": None}])
    ingest(store, "quotes", first, second, missing_side="unchanged")
    assert values(store, QUOTES_TABLE, "bid", "ask") == [(1.0, 2.0), (1.5, 2.0)]
    zero = write_csv(tmp_path / "3.csv", [{"instrument_id": "Z", "ts": AT, "bid": 0.0, "bid_size": 4, "ask": 2.0}])
    ingest(store, "quotes", zero, missing_side="empty")
    assert values(store, QUOTES_TABLE, "bid", "bid_size")[-1] == (None, None)


def test_books_whose_sides_are_no_lists_are_refused_with_the_way_to_read_them(store: Store, tmp_path: Path) -> None:
    rows = [{"instrument_id": "X", "ts": AT, "bid_prices": 1.0, "bid_sizes": 1.0, "ask_prices": 2.0, "ask_sizes": 1.0}]
    with pytest.raises(DataError, match="not lists of numbers; level 2 updates are read with --format level2"):
        ingest(store, "books", write_parquet(tmp_path / "rows.parquet", rows))
    assert values(store, BOOKS_TABLE, "seq") == []


def test_real_quotes_of_one_side_are_filled_from_the_rows_before_them(store: Store, tmp_path: Path) -> None:
    path = TICKS / "lean_bac_quotes_20131007.parquet"
    if not path.exists():
        pytest.skip("the tick data is not here")
    some = pq.read_table(path).slice(0, 20_000)
    ingest(store, "quotes", write_parquet(tmp_path / "q.parquet", some), columns=THEIRS, missing_side="unchanged")
    state: dict[str, object] = dict.fromkeys(("bid", "bid_size", "ask", "ask_size"))
    expected = []
    for row in some.to_pylist():
        for side in ("bid", "ask"):
            if row[side] is not None:
                state |= {side: row[side], f"{side}_size": row[f"{side}_size"]}
        expected.append(tuple(state.values()))
    assert values(store, QUOTES_TABLE, *state) == expected


def test_real_trades_keep_the_order_of_their_source(store: Store) -> None:
    path = TICKS / "lean_aig_trades.parquet"
    if not path.exists():
        pytest.skip("the tick data is not here")
    report = ingest(store, "trades", path, columns=THEIRS)
    theirs = pq.read_table(path)
    assert report.accepted == len(theirs)
    told = values(store, TRADES_TABLE, "seq", "price")
    assert sorted(told) == sorted(zip(theirs["seq"].to_pylist(), theirs["price"].to_pylist(), strict=True))
