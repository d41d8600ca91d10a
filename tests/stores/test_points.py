"""What every store does with trades, quotes and books: they are found by when they could be known."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from asof.stores.store import BOOKS_TABLE, FOLLOWING, QUOTES_TABLE, TRADES_TABLE, Changes, Selection, Store
from tests.stores.rows import NOON, book, books_of, later, minute, quote, quotes_of, rows_in, streamed, trade, trades_of


def test_books_of_any_depth_come_back_as_they_went_in_and_are_corrected(store: Store) -> None:
    rows = books_of(book(0, 3.0, 2.0, 1.0), book(1), book(2, 5.0))
    assert store.upsert(BOOKS_TABLE, rows, NOON) == Changes(inserted=3)
    assert rows_in(store, BOOKS_TABLE) == rows.to_pylist()
    again = books_of(book(0, 3.0, 2.0, 1.0), book(1, 4.0), book(2, 5.0, gap=True))
    assert store.upsert(BOOKS_TABLE, streamed(again), later(1)) == Changes(corrected=2, unchanged=1)
    assert rows_in(store, BOOKS_TABLE) == again.to_pylist()
    assert rows_in(store, BOOKS_TABLE, Selection(known_at=NOON)) == rows.to_pylist()


def test_trades_are_read_in_the_order_in_which_they_could_be_known_and_selected_by_it(store: Store) -> None:
    late = trade(1, 9.0, available_at=minute(5))
    store.upsert(TRADES_TABLE, trades_of(late, trade(2, 2.0, seq=7), trade(2, 1.0, seq=3), trade(6, 4.0)), NOON)
    assert [row["price"] for row in rows_in(store, TRADES_TABLE)] == [1.0, 2.0, 9.0, 4.0]
    some = replace(Selection(), start=minute(3), end=minute(5))
    assert [row["price"] for row in rows_in(store, TRADES_TABLE, some)] == [9.0]


@pytest.mark.parametrize("way", [lambda rows: rows, streamed])
def test_what_says_no_time_of_its_own_is_known_when_it_happened(store: Store, way: object) -> None:
    rows = trades_of(trade(1, available_at=None), trade(2, available_at=minute(3)))
    store.upsert(TRADES_TABLE, way(rows), NOON)  # type: ignore[operator]
    assert [row["available_at"] for row in rows_in(store, TRADES_TABLE)] == [minute(1), minute(3)]
    assert store.upsert(TRADES_TABLE, way(rows), later(1)) == Changes(unchanged=2)  # type: ignore[operator]


def test_points_are_told_of_by_when_they_could_be_known_and_with_both_times_where_that_moves(store: Store) -> None:
    store.follow("me")
    store.upsert(TRADES_TABLE, trades_of(trade(1, available_at=minute(4))), NOON)
    store.upsert(QUOTES_TABLE, quotes_of(quote(2)), NOON)
    store.upsert(BOOKS_TABLE, streamed(books_of(book(3))), NOON)
    kinds = [("books", minute(3)), ("quotes", minute(2)), ("trades", minute(4))]
    assert changed(store) == kinds
    store.upsert(TRADES_TABLE, trades_of(trade(1, available_at=minute(6))), later(1))
    assert changed(store) == [("trades", minute(4)), ("trades", minute(6))]
    store.upsert(TRADES_TABLE, trades_of(trade(1, available_at=minute(6))), later(2))
    assert changed(store) == []


def test_points_are_withdrawn_by_instrument_time_and_number(store: Store) -> None:
    store.upsert(QUOTES_TABLE, quotes_of(quote(1), quote(1, seq=1), quote(1, instrument="B")), NOON)
    store.follow("me")
    assert store.withdraw(QUOTES_TABLE, quotes_of(quote(1, seq=1)).select(QUOTES_TABLE.key), later(1)) == 1
    assert [(row["instrument_id"], row["seq"]) for row in rows_in(store, QUOTES_TABLE)] == [("A", 0), ("B", 0)]
    assert len(rows_in(store, QUOTES_TABLE, Selection(known_at=NOON))) == 3
    assert changed(store) == [("quotes", minute(1))]


def test_rows_that_disagree_about_one_place_are_all_refused(store: Store) -> None:
    done = store.upsert(TRADES_TABLE, streamed(trades_of(trade(1, 1.0), trade(1, 2.0), trade(2))), NOON)
    assert done == Changes(inserted=1)
    assert isinstance(done.refused, pa.Table)
    assert done.refused["price"].to_pylist() == [1.0, 2.0]


def changed(store: Store) -> list[tuple[str, object]]:
    """What the follower sees, before it moves there."""
    found, position = store.changes("me")
    store.move({FOLLOWING + "me": position})
    return [(row["kind"], row["time"]) for row in found.to_pylist()]
