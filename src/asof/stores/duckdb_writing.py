"""Upserts into DuckDB, inside of the transaction that a connection is in: what is new is added, what changed opens a revision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from asof.stores.statements import clashing, column_types, listed, place_events, quoted, settled
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, FOLLOWING, MEMBERSHIPS_TABLE, RECORDS, Changes, Table

Connection = duckdb.DuckDBPyConnection

FEW_ROWS = 10_000
"""Up to so many current rows where staged ones may meet them are read once, rather than looked up in the table by each statement."""
_FOLLOWED = "SELECT 1 FROM positions WHERE starts_with(name, ?) LIMIT 1"


@dataclass(frozen=True)
class Current:
    """The current rows that staged rows may meet: what SQL calls them, how many there are, and what holds of staged rows that meet one."""

    rows: str
    count: int
    inside: str = "true"
    bounds: list[object] = field(default_factory=list)


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
    if not staged:
        return Changes()
    inside = " AND ".join(f"{quoted(k)} BETWEEN ? AND ?" for k in _extent(table))
    current = f"main.{quoted(table.name)} WHERE {inside}"
    if staged <= FEW_ROWS:
        near = connection.sql(f"SELECT * FROM {current} LIMIT {FEW_ROWS + 1}", params=ends).to_arrow_table()
        if len(near) <= FEW_ROWS:
            with seen_as(connection, "near", near):
                return _compare(connection, table, known_at, staged, Current("near", len(near)))
    there, bounds = _ends(connection, table, current, ends)
    return _compare(connection, table, known_at, staged, Current(f"(SELECT * FROM {current})", there, inside, bounds))


def _compare(connection: Connection, table: Table, known_at: datetime, staged: int, current: Current) -> Changes:
    """What `_merge` does, by the current rows that the staged ones may meet."""
    if not current.count:
        _insert(connection, table, "staged s", [], known_at)
        return Changes(inserted=staged)
    match = " AND ".join(f"s.{quoted(c)} = m.{quoted(c)}" for c in table.key)
    differs = " OR ".join(f"s.{quoted(c)} IS DISTINCT FROM m.{quoted(c)}" for c in table.compared)
    both = f"(SELECT * FROM staged WHERE {current.inside}) s JOIN {current.rows} m ON {match}"
    counts = f"SELECT count(*), count(*) FILTER ({differs}) FROM {both}"
    ((known, differing),) = rows_of(connection, counts, current.bounds * 2)
    assert isinstance(known, int)
    if known < staged:
        unknown = f"staged s ANTI JOIN {current.rows} m ON {match}" if known else "staged s"
        _insert(connection, table, unknown, current.bounds if known else [], known_at)
    source = "staged"
    if differing and table is EVENTS_TABLE:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW placed AS {place_events()}")
        source = "placed"
    changed = f"{source} s JOIN {current.rows} m ON {match} WHERE {differs}"
    corrected = _correct(connection, table, changed, current, known_at) if differing else 0
    return Changes(staged - known, corrected, known - corrected)


def _insert(connection: Connection, table: Table, found: str, bounds: list[object], known_at: datetime) -> None:
    """Insert staged rows `s`."""
    order = f" ORDER BY {listed(_in_order(table), 's')}" if table in RECORDS else ""  # vectors come in order
    _note(connection, table, found, bounds)
    into = f"INSERT INTO main.{quoted(table.name)} SELECT {listed(table.schema.names, 's')}, ? FROM {found}{order}"
    connection.execute(into, [known_at, *bounds])


def _correct(connection: Connection, table: Table, found: str, current: Current, known_at: datetime) -> int:
    """Move the current rows `m` that staged rows `s` differ from to the history, and put those in their place; how many there were."""
    name = quoted(table.name)
    since = "greatest(?, m.known_from + INTERVAL 1 MICROSECOND) AS known_from"
    columns = listed(table.schema.names, "s")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE fresh AS SELECT {columns}, {since} FROM {found}", [known_at, *current.bounds])
    same = " AND ".join(f"f.{quoted(c)} = m.{quoted(c)}" for c in table.key)
    _note(connection, table, "fresh s", [])
    if table.time not in table.key:  # what takes another place leaves its old one
        elsewhere = f"s.{quoted(table.time)} <> f.{quoted(table.time)}"
        _note(connection, table, f"{current.rows} s JOIN fresh f ON {same.replace('m.', 's.')} AND {elsewhere}", current.bounds)
    past = f"SELECT {listed(table.schema.names, 'm')}, m.known_from, f.known_from FROM {current.rows} m JOIN fresh f ON {same}"
    connection.execute(f"INSERT INTO history.{name} {past}", current.bounds)
    connection.execute(f"DELETE FROM main.{name} m USING fresh f WHERE {same}")
    done = rows_of(connection, f"INSERT INTO main.{name} SELECT * FROM fresh ORDER BY {listed(_in_order(table))}")
    _drop(connection, "fresh")
    assert isinstance(done[0][0], int)
    return done[0][0]


def _note(connection: Connection, table: Table, changed: str, parameters: list[object]) -> None:
    """Note changed records for those who follow."""
    if table not in RECORDS or not rows_of(connection, _FOLLOWED, [FOLLOWING]):
        return
    timeframe = "s.timeframe" if table is BARS_TABLE else "NULL::VARCHAR"
    kind = f"'{table.name}'" + (" || '/' || s.scheme" if table is MEMBERSHIPS_TABLE else "")
    connection.execute(
        "INSERT INTO changes SELECT nextval('change'), kind, instrument_id, timeframe, times FROM ("
        f"SELECT {kind} AS kind, s.instrument_id, {timeframe} AS timeframe, list(s.{quoted(table.time)}) AS times "
        f"FROM {changed} GROUP BY ALL)",
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
    names = ("instrument_id", "timeframe", table.time, "ts", "seq")
    return tuple(dict.fromkeys(name for name in names if name in table.key or name == table.time))


def _drop(connection: Connection, table: str) -> None:
    connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")
