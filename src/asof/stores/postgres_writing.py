"""Upserts into PostgreSQL, inside of the transaction that a connection is in.

1. Rows that lie where no others do are new, all of them: a table of them is copied into place, a stream is staged and inserted. Should
   another process have put one there meanwhile, or a stream repeat a key, that is undone, and they go the long way.
2. The long way: staged rows that repeat a key are settled, the others compared with what is there, and what differs is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import errors

from asof.records import UTC
from asof.stores.postgres_copy import CHUNK_ROWS, decoded, encoded
from asof.stores.postgres_server import Connection, query
from asof.stores.postgres_tables import Extent, Layout
from asof.stores.statements import clashing, column_type, listed, quoted, settled
from asof.stores.store import Changes

ANALYZED_ROWS = 10_000
"""From how many staged rows on the planner should know what they are like; fewer are each looked up by their key."""


def upsert_table(connection: Connection, layout: Layout, records: pa.Table, known_at: datetime) -> Changes:
    """Upsert rows that hold each key once."""
    if not len(records):
        return Changes()
    extent = Extent(layout)
    extent.add(records)
    records = _ordered(records, layout.stored.key)
    new = _pieces(layout, records, pa.scalar(known_at, UTC))
    if layout.direct and not _any_there(connection, extent) and _went_through(connection, lambda: copy_into(connection, layout.name, new)):
        return Changes(inserted=len(records))
    _make_staging(connection, layout)
    copy_into(connection, layout.staged, _pieces(layout, records))
    if not layout.direct and _inserted(connection, layout, extent, known_at):
        return Changes(inserted=len(records))
    return _merge(connection, layout, extent, known_at, len(records))


def upsert_stream(connection: Connection, layout: Layout, stream: Iterable[pa.Table], known_at: datetime, schema: pa.Schema) -> Changes:
    """Upsert rows that may repeat keys, each with its number `row`. Refused rows come back as they were given, in `schema`."""
    extent, count = Extent(layout), 0
    _make_staging(connection, layout)
    for records in stream:  # may use this connection itself, so each table is a COPY of its own
        extent.add(records)
        copy_into(connection, layout.staged, _pieces(layout, records))
        count += len(records)
    if not count:
        return Changes()
    if _inserted(connection, layout, extent, known_at):
        return Changes(inserted=count)
    refused, taken = _take_out_clashes(connection, layout, schema)
    repeats = _take_out_repeats(connection, layout)
    changes = _merge(connection, layout, extent, known_at, count - repeats - taken)
    return Changes(changes.inserted, changes.corrected, changes.unchanged + repeats, refused)


def copy_into(connection: Connection, table: str, rows: Iterable[pa.Table]) -> None:
    """Copy rows into a table that has columns of these names."""
    tables = iter(rows)
    if (first := next(tables, None)) is None:
        return
    sql = query(f"COPY {table} ({listed(first.column_names)}) FROM STDIN (FORMAT binary)")
    with connection.cursor() as cursor, cursor.copy(sql) as copy:
        for piece in encoded(chain([first], tables)):
            copy.write(piece)


def _ordered(records: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """Records in the order of their keys, in which all processes write, lest one wait for another that waits for it."""
    names = [name for name in key if name in records.column_names]
    one, following = records.slice(0, len(records) - 1), records.slice(1)
    sorted_so_far = pa.repeat(True, len(one))
    for name in reversed(names):
        same = pc.and_(pc.equal(one[name], following[name]), sorted_so_far)
        sorted_so_far = pc.or_(pc.less(one[name], following[name]), same)
    return records if pc.all(sorted_so_far, min_count=0).as_py() else records.sort_by([(name, "ascending") for name in names])


def _pieces(layout: Layout, records: pa.Table, known_from: pa.Scalar | None = None) -> Iterator[pa.Table]:
    """Records as rows of the stored table, so many at a time that the server never waits long for the next; with `row` if it is there."""
    for start in range(0, len(records), CHUNK_ROWS):
        some = records.slice(start, CHUNK_ROWS)
        rows = layout.rows(some)
        if "row" in records.column_names:
            rows = rows.append_column("row", some["row"])
        yield rows if known_from is None else rows.append_column("known_from", pa.repeat(known_from, len(rows)))


def _make_staging(connection: Connection, layout: Layout) -> None:
    connection.execute(query(layout.staging()))
    connection.execute(query(f"DELETE FROM {layout.staged}"))  # of an earlier upsert of this transaction


def _any_there(connection: Connection, extent: Extent) -> bool:
    sql, parameters = extent.probe()
    return connection.execute(query(sql), parameters).fetchone() == (True,)


def _inserted(connection: Connection, layout: Layout, extent: Extent, known_at: datetime) -> bool:
    """Insert the staged rows if no others lie where they do; whether that went through."""
    if _any_there(connection, extent):
        return False
    sql = query(f"{layout.insert()} ORDER BY {layout.order()}")
    return _went_through(connection, lambda: connection.execute(sql, [known_at] * len(layout.given)))


def _went_through(connection: Connection, write: Callable[[], object]) -> bool:
    """Whether a write went through; where a row of its was there already it is undone."""
    try:
        with connection.transaction():
            write()
    except errors.UniqueViolation:
        return False
    return True


def _merge(connection: Connection, layout: Layout, extent: Extent, known_at: datetime, staged: int) -> Changes:
    there, parameters = extent.condition() if staged >= ANALYZED_ROWS else (None, [])
    if there:
        connection.execute(query(f"ANALYZE {layout.staged}"))
    counts = connection.execute(query(layout.merge(there)), [known_at] * len(layout.given) + parameters).fetchone()
    assert counts is not None
    inserted, corrected = counts
    assert isinstance(inserted, int)
    assert isinstance(corrected, int)
    return Changes(inserted, corrected, staged - inserted - corrected)


def _take_out_clashes(connection: Connection, layout: Layout, schema: pa.Schema) -> tuple[pa.Table | None, int]:
    """Take staged rows that disagree out; they, each once, and how many they were.

    An event that disagrees for one instrument is taken out for all that it names, and returned once.
    """
    connection.execute(query(f"CREATE TEMP TABLE clash ON COMMIT DROP AS {clashing(layout.stored, layout.staged)}"))
    shown = f'SELECT DISTINCT ON ("row") {layout.columns(schema.names, "c")}, "row" FROM clash c ORDER BY "row", instrument_id'
    found = list(copied_out(connection, shown, [], schema.append(pa.field("row", pa.int64()))))
    taken = 0
    if found:
        taken = connection.execute(query(f'DELETE FROM {layout.staged} WHERE "row" IN (SELECT "row" FROM clash)')).rowcount
    connection.execute("DROP TABLE clash")
    return (pa.concat_tables(found) if found else None), taken


def _take_out_repeats(connection: Connection, layout: Layout) -> int:
    """Leave one staged row of each key; how many others there were."""
    key = listed(layout.stored.key)
    if not connection.execute(query(f"SELECT 1 FROM {layout.staged} GROUP BY {key} HAVING count(*) > 1 LIMIT 1")).fetchone():
        return 0
    kept = connection.execute(query(f"CREATE TEMP TABLE settled ON COMMIT DROP AS {settled(layout.stored, layout.staged)}")).rowcount
    before = connection.execute(query(f"DELETE FROM {layout.staged}")).rowcount
    connection.execute(query(f"INSERT INTO {layout.staged} SELECT * FROM settled"))
    connection.execute("DROP TABLE settled")
    return before - kept


def withdraw(connection: Connection, layout: Layout, keys: pa.Table, known_at: datetime) -> int:
    """Delete the rows with these keys; the triggers keep their revisions, which end at `known_at`."""
    only, version = layout.only()
    names = [name for name in layout.stored.key if name in keys.column_names]
    match = " AND ".join(f"m.{quoted(name)} = k.{quoted(name)}" for name in names)
    arrays = ", ".join(f"?::{column_type(layout.stored.schema.field(name).type)}[]" for name in names)
    given = [keys[name].to_pylist() for name in names]
    connection.execute("SELECT set_config('asof.known_at', %s, true)", [known_at.isoformat()])
    sql = f"DELETE FROM {layout.name} m USING unnest({arrays}) AS k ({listed(names)}) WHERE {match} AND {only}"
    gone = connection.execute(query(sql), [*given, *version]).rowcount
    connection.execute("SELECT set_config('asof.known_at', '', true)")
    return gone


def copied_out(
    connection: Connection, sql: str, parameters: list[object], schema: pa.Schema, batch_rows: int = 1 << 62
) -> Iterator[pa.Table]:
    """What a query answers, in tables of at most so many rows."""
    with connection.cursor() as cursor, cursor.copy(query(f"COPY ({sql}) TO STDOUT (FORMAT binary)"), parameters or None) as copy:
        yield from decoded(copy, schema, batch_rows)
