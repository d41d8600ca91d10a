"""Order books from level 2 updates, held to a dictionary that does the same in plain Python."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof.jobs.ingest import books_into
from asof.sources.columns import ColumnMapping
from asof.stores.store import BOOKS_TABLE, Selection, Store
from asof.stores.urls import open_store
from tests.sources.files import quarantine_of, write_csv, write_parquet

LOB = Path(__file__).parents[3] / "shared" / "data" / "lob" / "binance_btcusdt_l2_depth.parquet"
NOW = datetime(2024, 9, 1, tzinfo=UTC)
Row = dict[str, object]


def level(kind: str, first: int, last: int, side: str, price: float, size: float) -> Row:
    return {
        "instrument_id": "X",
        "first_update_id": first,
        "update_id": last,
        "kind": kind,
        "side": side,
        "price": price,
        "size": size,
    }


def timed(rows: list[Row]) -> list[Row]:
    """Each row a second after the one before."""
    return [row | {"ts": f"2024-03-01T00:{n // 60:02d}:{n % 60:02d}Z"} for n, row in enumerate(rows)]


def ingested(store: Store, *paths: Path, depth: int = 20, **columns: str) -> list[Row]:
    mapping = ColumnMapping(columns, unit="ns")
    books_into(store, NOW, mapping, "level2", depth=depth).run(paths)
    return [row for table in store.read(BOOKS_TABLE, Selection()) for row in table.to_pylist()]


def oracle(rows: list[Row], depth: int) -> dict[int, tuple[list[tuple[float, float]], list[tuple[float, float]], bool]]:
    """The books by their ids: what a reader of the exchange's manual would write, one dictionary a side."""
    updates = [list(some) for _, some in groupby(rows, lambda row: (row["kind"], row["first_update_id"], row["update_id"]))]
    book: dict[str, dict[float, float]] | None = None
    at, gap, made = 0, False, {}
    held: list[list[Row]] = []

    def put(update: list[Row]) -> None:
        assert book is not None
        for row in update:
            if row["size"]:
                book[row["side"]][row["price"]] = row["size"]  # type: ignore[index, assignment]
            else:
                book[row["side"]].pop(row["price"], None)  # type: ignore[index, arg-type]

    for update in updates:
        first, last = update[0]["first_update_id"], int(update[0]["update_id"])  # type: ignore[call-overload]
        if update[0]["kind"] == "snapshot":
            if book is not None and not gap and last <= at:
                continue
            book, at, gap = {"b": {}, "a": {}}, last, False
            put(update)
            for other in held:
                if int(other[0]["update_id"]) > at:  # type: ignore[call-overload]
                    gap |= int(other[0]["first_update_id"]) > at + 1  # type: ignore[call-overload]
                    put(other)
                    at = int(other[0]["update_id"])  # type: ignore[call-overload]
            held = []
        elif book is None:
            held.append(update)
            continue
        elif last <= at:
            continue
        else:
            gap |= int(first) > at + 1  # type: ignore[call-overload]
            put(update)
            held = [*held, update] if gap else []
            at = last
        made[at] = (sorted(book["b"].items(), reverse=True)[:depth], sorted(book["a"].items())[:depth], gap)
    return made


def as_told(books: list[Row]) -> dict[int, tuple[list[tuple[float, float]], list[tuple[float, float]], bool]]:
    sides = lambda row, side: list(zip(row[f"{side}_prices"], row[f"{side}_sizes"], strict=True))  # noqa: E731
    return {row["seq"]: (sides(row, "bid"), sides(row, "ask"), row["gap"]) for row in books}  # type: ignore[misc]


@pytest.fixture(scope="module")
def lob() -> Path:
    if not LOB.exists():
        pytest.skip("the order book data is not here")
    return LOB


THEIRS = {"instrument_id": "ticker", "ts": "recv_ns", "update_id": "last_update_id"}


def test_the_books_of_a_real_feed_are_those_of_a_dictionary(lob: Path, tmp_path: Path) -> None:
    some = pq.read_table(lob).slice(0, 20_000)
    path = write_parquet(tmp_path / "some.parquet", some)
    rows = [row | {"update_id": row["last_update_id"]} for row in some.to_pylist()]
    for row in rows:
        row["first_update_id"] = row["first_update_id"] or row["update_id"]
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        told = as_told(ingested(store, path, **THEIRS))
        assert told == oracle(rows, 20)
        assert not any(gap for *_, gap in told.values())
        assert all(bids[0] < asks[0] for bids, asks, _ in told.values())
        refused = quarantine_of(store)
    assert {entry["reason"] for entry in refused} == {"delta_before_snapshot"}
    assert [entry["row"] for entry in refused] == list(range(1, 18)), "the third delta reaches beyond the snapshot"


def test_a_part_that_is_missing_makes_a_gap_until_the_next_snapshot(tmp_path: Path) -> None:
    rows = [
        level("snapshot", 10, 10, "b", 1.0, 5.0),
        level("snapshot", 10, 10, "a", 2.0, 5.0),
        level("delta", 11, 12, "b", 1.5, 1.0),
        level("delta", 15, 16, "b", 1.6, 1.0),
        level("delta", 17, 18, "b", 1.5, 0.0),
        level("snapshot", 17, 17, "b", 1.7, 3.0),
        level("delta", 19, 20, "a", 1.9, 1.0),
    ]
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        told = as_told(ingested(store, write_csv(tmp_path / "gap.csv", timed(rows))))
    assert told == oracle(rows, 20)
    assert {seq: gap for seq, (*_, gap) in told.items()} == {10: False, 12: False, 16: True, 18: False, 20: False}


def test_a_level_that_cannot_be_used_is_refused_and_makes_a_gap(tmp_path: Path) -> None:
    rows = [
        level("snapshot", 10, 10, "b", 1.0, 5.0),
        level("delta", 11, 11, "b", 1.5, -1.0),
        level("delta", 12, 12, "x", 1.6, 1.0),
        level("delta", 13, 13, "b", 1.4, 1.0),
    ]
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        told = as_told(ingested(store, write_csv(tmp_path / "bad.csv", timed(rows))))
        assert [(entry["reason"], entry["row"]) for entry in quarantine_of(store)] == [("negative_size", 3), ("unknown_side", 4)]
    assert {seq: gap for seq, (*_, gap) in told.items()} == {10: False, 11: True, 12: True, 13: True}


def test_a_book_goes_on_from_file_to_file(tmp_path: Path) -> None:
    first = [level("snapshot", 10, 10, "b", 1.0, 5.0), level("delta", 11, 11, "b", 1.5, 1.0)]
    second = [level("delta", 12, 12, "b", 1.5, 0.0), level("delta", 13, 13, "a", 3.0, 1.0)]
    paths = [write_csv(tmp_path / f"{n}.csv", timed(first + second)[2 * n : 2 * n + 2]) for n in range(2)]
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        assert as_told(ingested(store, *paths)) == oracle(first + second, 20)


LEVELS = st.tuples(st.sampled_from("ba"), st.integers(1, 6), st.integers(0, 2))
UPDATES = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), st.lists(LEVELS, min_size=1, max_size=4)), max_size=14)


@settings(max_examples=40, deadline=None)
@given(UPDATES, st.integers(1, 4))
def test_any_updates_make_the_books_of_a_dictionary(tmp_path_factory: pytest.TempPathFactory, drawn: list, depth: int) -> None:
    """A snapshot now and then, some behind what came before, and deltas that overlap, repeat or leave ids out."""
    rows: list[Row] = [level("delta", 1, 1, "b", 1.0, 1.0)]
    at = 1
    for step, length, levels in drawn:
        whole = step == 9
        last = at - 1 + length % 3 if whole else at + length - (step == 8) * 2
        first = last if whole else last - length + 1 + (step == 7)
        if first > last or last < 1:
            continue
        rows += [level("snapshot" if whole else "delta", first, last, side, float(p), float(s)) for side, p, s in levels]
        at = max(at, last)
    path = write_parquet(tmp_path_factory.mktemp("l2") / "l2.parquet", timed(rows))
    with open_store("duckdb://") as store:  # type: ignore[attr-defined]
        assert as_told(ingested(store, path, depth=depth)) == oracle(rows, depth)
