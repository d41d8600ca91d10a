"""PostgreSQL's binary rows: what is laid out comes back, and the server reads it as what it was."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime

import psycopg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asof.errors import StoreError
from asof.records import UTC as TIME
from asof.stores.postgres_copy import CHUNK_ROWS, HEADER, array, decoded, encoded
from asof.stores.postgres_server import Array, Server, query
from asof.stores.postgres_writing import copied_out, copy_into
from tests.servers.postgres import Postgres

SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("number", pa.float64()),
        ("count", pa.int64()),
        ("time", TIME),
        ("flags", pa.list_(pa.string())),
        ("values", pa.list_(pa.float64())),
    ]
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=20)
FLOAT = st.floats(allow_nan=False)
ROW = st.fixed_dictionaries(
    {
        "text": st.none() | TEXT,
        "number": st.none() | FLOAT,
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "time": st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC)),  # noqa: DTZ001
        "flags": st.none() | st.lists(TEXT, max_size=4),
        "values": st.none() | st.lists(st.none() | FLOAT, max_size=5),
    }
)


def as_sent(pieces: list[bytes]) -> list[bytes]:
    """The rows of a stream one by one, as a server sends them: the header with the first one, the end alone."""
    data, at, rows = b"".join(pieces), len(HEADER), list[bytes]()
    while True:
        start, (fields,) = at, struct.unpack_from(">h", data, at)
        at += 2
        for _ in range(max(0, fields)):
            (length,) = struct.unpack_from(">i", data, at)
            at += 4 + max(0, length)
        rows.append(data[start:at])
        if fields < 0:
            assert at == len(data)
            return [HEADER + rows[0], *rows[1:]]


@given(rows=st.lists(ROW, max_size=6), skipped=st.integers(0, 2))
def test_rows_that_are_laid_out_come_back_as_they_were(rows: list[dict[str, object]], skipped: int) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA).slice(skipped)  # a slice begins in the middle of its buffers
    back = pa.concat_tables([SCHEMA.empty_table(), *decoded(as_sent(list(encoded([table]))), SCHEMA, 100)])
    assert back.equals(table)


@given(rows=st.lists(ROW, min_size=1, max_size=6))
def test_the_server_takes_rows_for_what_they_are_and_gives_them_back(postgres: Postgres, rows: list[dict[str, object]]) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    columns = "n serial, text text, number float8, count int8, time timestamptz, flags text[], values float8[]"
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"CREATE TEMP TABLE kept ({columns})".encode())
        copy_into(connection, "kept", [table])
        listed = ", ".join(SCHEMA.names)
        assert connection.execute(f"SELECT {listed} FROM kept ORDER BY n".encode()).fetchall() == [
            tuple(row[name] for name in SCHEMA.names) for row in rows
        ]
        (back,) = copied_out(connection, f"SELECT {listed} FROM kept ORDER BY n", [], SCHEMA)
        assert back.equals(table)


def test_bits_are_kept() -> None:
    numbers = pa.table({"number": pa.array([-0.0, 5e-324, math.inf, -math.inf, math.nan, None])})
    (back,) = decoded(as_sent(list(encoded([numbers]))), numbers.schema, 100)
    for before, after in zip(numbers["number"].to_pylist(), back["number"].to_pylist(), strict=True):
        assert (before is None and after is None) or struct.pack(">d", before) == struct.pack(">d", after)


@pytest.mark.parametrize(("batch_rows", "sizes"), [(10, [10, 10, 5]), (25, [25]), (CHUNK_ROWS, [25])])
def test_tables_are_no_larger_than_asked_for(batch_rows: int, sizes: list[int]) -> None:
    table = pa.table({"count": pa.array(range(25), pa.int64())})
    tables = list(decoded(as_sent(list(encoded([table]))), table.schema, batch_rows))
    assert [len(t) for t in tables] == sizes
    assert pa.concat_tables(tables).equals(table)


def test_several_pieces_of_rows_are_one_stream() -> None:
    table = pa.table({"count": pa.array(range(3 * CHUNK_ROWS + 1), pa.int64())})
    assert len(list(encoded([table]))) == 4 + 2
    back = list(decoded(as_sent(list(encoded([table]))), table.schema, 2 * CHUNK_ROWS))
    assert [len(t) for t in back] == [2 * CHUNK_ROWS, CHUNK_ROWS + 1]
    assert pa.concat_tables(back).equals(table)


def test_nul_in_a_text_is_refused() -> None:
    with pytest.raises(StoreError, match="the character NUL"):
        list(encoded([pa.table({"text": ["a\0b"]})]))


@pytest.mark.parametrize(
    ("kind", "name", "values"),
    [
        (pa.string(), "text", ["", "a", None, "Ø,{}\\\"'株"]),
        (pa.float64(), "float8", [0.1, -0.0, 5e-324, math.inf]),
        (pa.float64(), "float8", [None, 1.5]),
        (pa.int64(), "int8", [-(2**63), 2**63 - 1]),
        (TIME, "timestamptz", [datetime(1969, 7, 20, 20, 17, tzinfo=UTC), None, datetime(2024, 1, 1, microsecond=1, tzinfo=UTC)]),
        (pa.bool_(), "bool", [True, None, False]),
        (TIME, "timestamptz", []),
    ],
)
def test_a_column_is_an_array_to_the_server(postgres: Postgres, kind: pa.DataType, name: str, values: list[object]) -> None:
    server = Server(postgres.url)
    with server.connection() as connection:
        ((found,),) = connection.execute(query(f"SELECT ?::{name}[]"), [Array(array(pa.array(values, kind)))]).fetchall()
    server.close()
    assert repr(found) == repr([value.replace(tzinfo=found[0].tzinfo) if isinstance(value, datetime) else value for value in values])
