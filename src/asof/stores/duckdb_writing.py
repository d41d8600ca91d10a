"""Upserts into DuckDB, inside of the transaction that a connection is in: what is new is added, what changed opens a revision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from asof.stores.statements import clashing, column_types, listed, place_events, quoted, settled
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, FOLLOWING, MEMBERSHIPS_TABLE, RECORDS, Changes, Table

Connection = duckdb.DuckDBPyConnection

_FOLLOWED = "SELECT 1 FROM positions WHERE starts_with(name, ?) LIMIT 1"


def upsert_table(connection: Connection, table: Table, rows: pa.Table, known_at: datetime) -> Changes:
    """Upsert rows that hold each key once."""
    with seen_as(connection, "staged", rows.combine_chunks()):  # DuckDB reads one chunk on many threads, many on one
        ends = [end for k in _extent(table) for end in pc.min_max(rows[k]).as_py().values()]
        return _merge(connection, table, known_at, len(rows), ends)


def upsert_stream(connection: Connection, table: Table, stream: Iterable[pa.Table], known_at: datetime) -> Changes:
    """Upsert rows that may repeat keys, each with its number `row`."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE staged ({column_types(table.schema)}, row BIGINT)")
    for batch in stream:
        with seen_as(connection, "batch", batch):
            connection.execute("INSERT INTO staged SELECT * FROM batch")
    repeats, refused = _settle_repeats(connection, table)
    changes = _merge(connection, table, known_at, *_ends(connection, table, "staged", []))
    _drop(connection, "staged")
    return Changes(changes.inserted, changes.corrected, changes.unchanged + repeats, refused if len(refused) else None)


def withdraw(connection: Connection, table: Table, keys: pa.Table, known_at: datetime) -> int:
    """Move the current rows with these keys to the history; how many there were."""
    name = quoted(table.name)
    match = " AND ".join(f"k.{quoted(c)} = m.{quoted(c)}" for c in table.key)
    with seen_as(connection, "gone", keys):
        _note(connection, table, f"main.{name} s SEMI JOIN gone k ON {match.replace('m.', 's.')}", [])
        past = f"SELECT m.*, greatest(?, m.known_from + INTERVAL 1 MICROSECOND) FROM main.{name} m SEMI JOIN gone k ON {match}"
        connection.execute(f"INSERT INTO history.{name} {past}", [known_at])
        done = rows_of(connection, f"DELETE FROM main.{name} m USING gone k WHERE {match}")
    assert isinstance(done[0][0], int)
    return done[0][0]


@contextmanager
def seen_as(connection: Connection, name: str, rows: pa.Table) -> Iterator[None]:
    """An Arrow table under a name that SQL can use."""
    connection.register(name, rows)
    yield
    connection.unregister(name)  # where the block fails, the roll-back does this


def rows_of(connection: Connection, sql: str, parameters: list[object] | None = None) -> list[tuple[object, ...]]:
    """What a query answers."""
    return connection.execute(sql, parameters or []).fetchall()


def time_of(table: Table) -> str:
    """The column that `Selection.start` and `Selection.end` are about."""
    return "ts" if "ts" in table.schema.names else "enriched_at_utc"


def _settle_repeats(connection: Connection, table: Table) -> tuple[int, pa.Table]:
    """Keep one row of each key. How many repeats that agree were dropped, and the rows that disagree, which are all taken out.

    For events, disagreeing means two scores of one enrichment; the newest enrichment's scores stand, at the first one's place. An
    event that disagrees for one instrument is taken out for all that it names, and returned once.
    """
    key = listed(table.key)
    nothing = table.schema.append(pa.field("row", pa.int64())).empty_table()
    if not rows_of(connection, f"SELECT 1 FROM staged GROUP BY {key} HAVING count(*) > 1 LIMIT 1"):
        return 0, nothing
    connection.execute(f"CREATE OR REPLACE TEMP TABLE clash AS {clashing(table, 'staged')}")
    refused = connection.sql("SELECT DISTINCT ON (row) * FROM clash ORDER BY row, instrument_id").to_arrow_table()
    if len(refused):
        connection.execute("DELETE FROM staged WHERE row IN (SELECT row FROM clash)")
    _drop(connection, "clash")
    before = _count(connection, "staged")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE staged AS {settled(table, 'staged')}")
    return before - _count(connection, "staged"), refused


def _count(connection: Connection, rows: str, parameters: list[object] | None = None) -> int:
    found = rows_of(connection, f"SELECT count(*) FROM {rows}", parameters)[0][0]
    assert isinstance(found, int)
    return found


def _merge(connection: Connection, table: Table, known_at: datetime, staged: int, ends: list[object]) -> Changes:
    """Compare the staged rows with the current ones; write what is new or changed, and keep what a change supersedes.

    `ends` are those of the staged rows' extent: known keys are searched where current rows meet it, and nowhere else.
    """
    name = quoted(table.name)
    columns = listed(table.schema.names, "s")
    match = " AND ".join(f"s.{quoted(c)} = m.{quoted(c)}" for c in table.key)
    order = f" ORDER BY {listed(_in_order(table), 's')}" if table in RECORDS else ""  # vectors come in order
    inside = " AND ".join(f"{quoted(k)} BETWEEN ? AND ?" for k in _extent(table))
    there, bounds = _ends(connection, table, f"main.{name} WHERE {inside}", ends) if staged else (0, ends)
    current = f"(SELECT * FROM main.{name} WHERE {inside})"
    known = _count(connection, f"(SELECT * FROM staged WHERE {inside}) s JOIN {current} m ON {match}", bounds * 2) if there else 0
    if not known:
        _note(connection, table, "staged s", [])
        connection.execute(f"INSERT INTO main.{name} SELECT {columns}, ? FROM staged s{order}", [known_at])
        return Changes(inserted=staged)
    source = "staged"
    if table is EVENTS_TABLE:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW placed AS {place_events()}")
        source = "placed"
    if known < staged:
        unknown = f"{source} s ANTI JOIN {current} m ON {match}"
        _note(connection, table, unknown, bounds)
        connection.execute(f"INSERT INTO main.{name} SELECT {columns}, ? FROM {unknown}{order}", [known_at, *bounds])
    differs = " OR ".join(f"s.{quoted(c)} IS DISTINCT FROM m.{quoted(c)}" for c in table.compared)
    changed = f"{source} s JOIN {current} m ON {match} WHERE {differs}"
    corrected = _count(connection, changed, bounds)
    if corrected:
        _correct(connection, table, changed, bounds, known_at)
    return Changes(staged - known, corrected, known - corrected)


def _correct(connection: Connection, table: Table, found: str, bounds: list[object], known_at: datetime) -> None:
    """Move the current rows `m` that staged rows `s` differ from to the history, and put those in their place."""
    name = quoted(table.name)
    since = "greatest(?, m.known_from + INTERVAL 1 MICROSECOND) AS known_from"
    columns = listed(table.schema.names, "s")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE fresh AS SELECT {columns}, {since} FROM {found}", [known_at, *bounds])
    same = " AND ".join(f"f.{quoted(c)} = m.{quoted(c)}" for c in table.key)
    _note(connection, table, "fresh s", [])
    if table is EVENTS_TABLE:  # an event that takes another place leaves its old one
        _note(connection, table, f"main.{name} s JOIN fresh f ON {same.replace('m.', 's.')} AND s.enriched_at_utc <> f.enriched_at_utc", [])
    past = f"SELECT {listed(table.schema.names, 'm')}, m.known_from, f.known_from FROM main.{name} m JOIN fresh f ON {same}"
    connection.execute(f"INSERT INTO history.{name} {past}")
    connection.execute(f"DELETE FROM main.{name} m USING fresh f WHERE {same}")
    connection.execute(f"INSERT INTO main.{name} SELECT * FROM fresh ORDER BY {listed(_in_order(table))}")
    _drop(connection, "fresh")


def _note(connection: Connection, table: Table, changed: str, parameters: list[object]) -> None:
    """Note changed records for those who follow."""
    if table not in RECORDS or not rows_of(connection, _FOLLOWED, [FOLLOWING]):
        return
    timeframe = "s.timeframe" if table is BARS_TABLE else "NULL::VARCHAR"
    kind = f"'{table.name}'" + (" || '/' || s.scheme" if table is MEMBERSHIPS_TABLE else "")
    connection.execute(
        "INSERT INTO changes SELECT nextval('change'), kind, instrument_id, timeframe, times FROM ("
        f"SELECT {kind} AS kind, s.instrument_id, {timeframe} AS timeframe, list(s.{time_of(table)}) AS times FROM {changed} GROUP BY ALL)",
        parameters,
    )


def _ends(connection: Connection, table: Table, rows: str, parameters: list[object]) -> tuple[int, list[object]]:
    """How many rows there are, and the ends of their extent."""
    ends = ", ".join(f"min({quoted(k)}), max({quoted(k)})" for k in _extent(table))
    found = connection.sql(f"SELECT count(*) AS n, {ends} FROM {rows}", params=parameters).to_arrow_table()
    count, *bounds = (column[0].as_py() for column in found.columns)
    return count, bounds


def _extent(table: Table) -> tuple[str, ...]:
    """The columns of a table's key that its rows are ordered by."""
    return tuple(k for k in ("instrument_id", "ts") if k in table.key)


def _in_order(table: Table) -> tuple[str, ...]:
    """The columns by which a table's rows are written, so that blocks hold what is read together."""
    return tuple(dict.fromkeys(("instrument_id", *(("timeframe",) if "timeframe" in table.key else ()), time_of(table))))


def _drop(connection: Connection, table: str) -> None:
    connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")
