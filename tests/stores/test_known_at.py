"""Every read of every store as of what was held to be true at a moment."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asof.records import UTC
from asof.stores.duckdb import DuckDBStore
from asof.stores.postgres import PostgresStore
from asof.stores.store import BARS_TABLE, Selection, Store
from tests.stores.conftest import Opener
from tests.stores.rows import MINI, NOON, VECTORS_TABLE, bar, bars_of, later, minute, rows_in, vector, vectors_of

ENTITIES = pa.schema([("instrument_id", pa.string()), ("event_timestamp", UTC), ("row", pa.int64())])


@pytest.fixture
def corrected(store: Store) -> Store:
    """Vectors 0 and 1 at noon; an hour later 1 is corrected and 2 is there; after two hours 0 is withdrawn."""
    store.register(MINI, NOON)
    store.upsert(VECTORS_TABLE, vectors_of(vector(0, 0.1), vector(1, 0.2)), NOON)
    store.upsert(VECTORS_TABLE, vectors_of(vector(1, 0.3), vector(2, 0.4)), later(1))
    store.withdraw(VECTORS_TABLE, vectors_of(vector(0)).select(VECTORS_TABLE.key), later(2))
    return store


def found(store: Store, known_at: datetime | None, *minutes: float) -> list[float | None]:
    rows = [{"instrument_id": "A", "event_timestamp": minute(n), "row": k} for k, n in enumerate(minutes)]
    return store.as_of(VECTORS_TABLE, pa.Table.from_pylist(rows, schema=ENTITIES), "1m", ("ret_1",), known_at)["ret_1"].to_pylist()


@pytest.mark.parametrize(
    ("known_at", "expected"),
    [
        (later(-1), [None, None, None, None]),
        (NOON, [None, 0.1, 0.2, 0.2]),
        (later(1), [None, 0.1, 0.3, 0.4]),
        (later(2), [None, None, 0.3, 0.4]),
        (None, [None, None, 0.3, 0.4]),
        (datetime(2099, 1, 1, tzinfo=NOON.tzinfo), [None, None, 0.3, 0.4]),
    ],
)
def test_a_join_finds_what_was_held_then(corrected: Store, known_at: datetime | None, expected: list[float | None]) -> None:
    assert found(corrected, known_at, 0.5, 1, 2, 3) == expected


def test_the_newest_vector_is_the_newest_that_was_held_then(corrected: Store) -> None:
    for known_at, expected in ((later(-1), []), (NOON, [0.2]), (later(1), [0.4]), (None, [0.4])):
        for selection in (Selection("1m", known_at=known_at), Selection("1m", ("A", "B"), known_at=known_at)):
            assert corrected.latest(VECTORS_TABLE, selection)["ret_1"].to_pylist() == expected
    before = Selection("1m", end=minute(2), known_at=later(1))
    assert corrected.latest(VECTORS_TABLE, before)["ret_1"].to_pylist() == [0.3]


def test_spans_and_cuts_are_of_the_bars_that_were_held_then(store: Store) -> None:
    store.upsert(BARS_TABLE, bars_of(*(bar(n) for n in (1, 2, 4))), NOON)
    store.upsert(BARS_TABLE, bars_of(bar(0), bar(3), bar(1, 9.0)), later(1))
    store.withdraw(BARS_TABLE, bars_of(bar(4)).select(BARS_TABLE.key), later(2))
    spans = {at: store.spans("1m", at).to_pylist() for at in (later(-1), NOON, later(1), later(2))}
    assert {at: [(r["bars"], r["first"], r["last"]) for r in rows] for at, rows in spans.items()} == {
        later(-1): [],
        NOON: [(3, minute(1), minute(4))],
        later(1): [(5, minute(0), minute(4))],
        later(2): [(4, minute(0), minute(3))],
    }
    assert store.cuts("1m", "A", 2, 2, NOON) == [(minute(1), minute(1)), (minute(4), minute(2))]
    assert store.cuts("1m", "A", 2, 2) == [(minute(0), minute(0)), (minute(2), minute(1))]


writes = st.tuples(st.sampled_from(["write", "withdraw"]), st.integers(0, 4), st.sampled_from([0.1, 0.2, None]))


@given(todo=st.lists(writes, min_size=1, max_size=12))
@settings(max_examples=20)
def test_at_every_moment_the_past_answers_as_it_did_then(new_store: Opener, todo: list[tuple[str, int, float | None]]) -> None:
    with new_store() as store:
        store.register(MINI, NOON)
        answers = {}
        for n, (what, at, value) in enumerate(todo):
            rows = vectors_of(vector(at, value))
            if what == "write":
                store.upsert(VECTORS_TABLE, rows, later(n))
            else:
                store.withdraw(VECTORS_TABLE, rows.select(VECTORS_TABLE.key), later(n))
            answers[n] = answered(store, None)
        for n, then in answers.items():
            for moment in (later(n), later(n + 1) - timedelta(microseconds=1)):
                assert answered(store, moment) == then


def answered(store: Store, known_at: datetime | None) -> tuple[object, ...]:
    """What all reads of vectors answer."""
    latest = store.latest(VECTORS_TABLE, Selection("1m", known_at=known_at)).to_pylist()
    return rows_in(store, VECTORS_TABLE, Selection("1m", known_at=known_at)), found(store, known_at, 0.5, 1, 2, 3, 4, 5, 9), latest


def test_sql_has_what_was_held_at_a_moment(corrected: Store) -> None:
    answers = [
        sql(corrected, f"SELECT ret_1 FROM mini_at(TIMESTAMPTZ '{at.isoformat()}') ORDER BY ts") for at in (NOON, later(1), later(2))
    ]
    assert [[value for (value,) in rows] for rows in answers] == [[0.1, 0.2], [0.1, 0.3, 0.4], [0.3, 0.4]]


def sql(store: Store, query: str) -> list[tuple[object, ...]]:
    """What a query answers in the store's own database."""
    if isinstance(store, DuckDBStore):
        return store._connection.execute(query).fetchall()
    assert isinstance(store, PostgresStore)
    with store._server.connection() as connection:
        return connection.execute(query).fetchall()
