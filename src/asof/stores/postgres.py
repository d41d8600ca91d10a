"""The PostgreSQL store: a server that many processes write to, with or without TimescaleDB.

Each operation has a connection of its own, and so has each thread's transaction: reads go on while another thread writes. Rows travel as
binary `COPY`, both ways. Superseded revisions are kept by triggers in the database (`migrations/`), whoever writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from psycopg import ClientCursor, errors

from asof.errors import NotFound, Overtaken, StoreError
from asof.features.feature_set import FeatureSet
from asof.records import QUALITY_LOG, QUARANTINE, UTC
from asof.stores import postgres_writing as writing
from asof.stores.postgres_copy import BATCH_ROWS
from asof.stores.postgres_migrations import LAYOUT, check, timescale
from asof.stores.postgres_server import Connection, Server, query
from asof.stores.postgres_tables import (
    VECTORS,
    Actions,
    Bars,
    Books,
    Events,
    Layout,
    Memberships,
    Quotes,
    Trades,
    Vectors,
    bytewise,
)
from asof.stores.postgres_writing import copied_out, copy_into
from asof.stores.statements import column_types, condition, every_revision, held, known_as, listed, quoted, revisions
from asof.stores.store import (
    ACTIONS_TABLE,
    BARS_TABLE,
    BOOKS_TABLE,
    CHANGES,
    EVENTS_TABLE,
    FOLLOWING,
    MEMBERSHIPS_TABLE,
    QUOTES_TABLE,
    SPANS,
    TRADES_TABLE,
    Changes,
    Registered,
    Selection,
    Table,
    known_when_it_happened,
    revised,
    vectors_table,
)

LOGS = {"quarantine": QUARANTINE, "feature_quality_log": QUALITY_LOG}
ENTITIES = pa.schema([("instrument_id", pa.string()), ("event_timestamp", UTC), ("row", pa.int64())])
COUNTED = pa.schema([("instrument_id", pa.string()), ("timeframe", pa.string()), ("bars", pa.int64()), ("first", UTC), ("last", UTC)])

RECORD_LAYOUTS: dict[str, type[Layout]] = {
    BARS_TABLE.name: Bars,
    EVENTS_TABLE.name: Events,
    ACTIONS_TABLE.name: Actions,
    MEMBERSHIPS_TABLE.name: Memberships,
    TRADES_TABLE.name: Trades,
    QUOTES_TABLE.name: Quotes,
    BOOKS_TABLE.name: Books,
}
"""How the tables lie that every store has."""

BYTEWISE = 'instrument_id COLLATE "C"'
"""Instruments in the order that Arrow and Python have; the bars' table of another program may have another."""
SPANS_SQL = """
SELECT instrument_id, timeframe, count(*), min(ts), max(ts) FROM {rows} AS ohlcv
WHERE ?::text IS NULL OR timeframe = ? GROUP BY instrument_id, timeframe ORDER BY instrument_id COLLATE "C", timeframe COLLATE "C"
"""
AROUND_SQL = """
SELECT {columns} FROM unnest(?::text[], ?::timestamptz[], ?::timestamptz[]) AS s (instrument_id, first, last) CROSS JOIN LATERAL (
    SELECT * FROM {rows} AS ohlcv WHERE instrument_id = s.instrument_id AND timeframe = ? AND ts BETWEEN s.first AND s.last
    UNION ALL (
        SELECT * FROM {rows} AS ohlcv WHERE instrument_id = s.instrument_id AND timeframe = ? AND ts < s.first ORDER BY ts DESC LIMIT ?
    ) UNION ALL (
        SELECT * FROM {rows} AS ohlcv WHERE instrument_id = s.instrument_id AND timeframe = ? AND ts > s.last ORDER BY ts LIMIT ?
    )
) AS m
"""
CUTS_SQL = """
SELECT ts, early FROM (
    SELECT ts, row_number() OVER (ORDER BY ts) - 1 AS n, coalesce(lag(ts, ?) OVER (ORDER BY ts), min(ts) OVER ()) AS early
    FROM {rows} AS ohlcv WHERE timeframe = ? AND instrument_id = ?
) AS numbered WHERE n % ? = 0 ORDER BY ts
"""
ALL_SERIES = """
SELECT * FROM (
    WITH RECURSIVE series (instrument_id, timeframe) AS (
        (SELECT instrument_id, timeframe FROM {rows} ORDER BY instrument_id, timeframe LIMIT 1)
        UNION ALL
        SELECT following.* FROM series CROSS JOIN LATERAL (
            SELECT v.instrument_id, v.timeframe FROM {rows} v
            WHERE (v.instrument_id, v.timeframe) > (series.instrument_id, series.timeframe)
            ORDER BY v.instrument_id, v.timeframe LIMIT 1
        ) AS following
    ) SELECT * FROM series
) AS series
"""
"""The instruments and timeframes that have vectors: one look into the index for each, where DISTINCT would scan all vectors."""
AS_OF_SQL = """
SELECT * FROM {rows} v
WHERE v.instrument_id = e.instrument_id AND v.timeframe = ? AND v.feature_set_version = ?
    AND v.ts <= e.event_timestamp AND v.available_at <= e.event_timestamp AND {known}
ORDER BY v.ts DESC LIMIT 1
"""
"""A vector is never available before its bar opens, so the search begins at the last bar that opened by then."""
JOIN_SQL = 'SELECT {columns} FROM entities e LEFT JOIN LATERAL ({newest}) v ON true ORDER BY e."row"'
NEWEST_SQL = """
SELECT * FROM {rows} v
WHERE v.instrument_id = series.instrument_id AND v.timeframe = series.timeframe AND v.feature_set_version = ?
    AND (?::timestamptz IS NULL OR v.available_at <= ?) AND {known}
ORDER BY v.ts DESC LIMIT 1
"""
LATEST_SQL = """
SELECT {columns} FROM ({series}) AS series CROSS JOIN LATERAL ({newest}) v ORDER BY v.instrument_id, v.timeframe
"""
COUNT_SQL = """
SELECT name, rows FROM (
    SELECT 1 AS place, NULL::timestamptz AS applied_at, 'bars' AS name, count(*) AS rows FROM ohlcv
    UNION ALL SELECT 2, NULL, 'events', count(*) FROM events
    UNION ALL SELECT 3, NULL, 'actions', count(*) FROM actions
    UNION ALL SELECT 4, NULL, 'memberships', count(*) FROM memberships
    UNION ALL SELECT 5, NULL, 'trades', count(*) FROM trades
    UNION ALL SELECT 6, NULL, 'quotes', count(*) FROM quotes
    UNION ALL SELECT 7, NULL, 'books', count(*) FROM books
    UNION ALL (
        SELECT 8, r.applied_at, r.version, count(v.ts) FROM registry r LEFT JOIN feature_vectors v ON v.feature_set_version = r.version
        GROUP BY r.version
    )
    UNION ALL SELECT 9, NULL, 'quarantine', count(*) FROM quarantine
    UNION ALL SELECT 10, NULL, 'feature_quality_log', count(*) FROM feature_quality_log
) AS counts ORDER BY place, applied_at, name
"""
KEPT_SQL = r"""
SELECT count(*) FROM pg_trigger
WHERE tgrelid = ANY ('{ohlcv, events, actions, memberships, trades, quotes, books, feature_vectors}'::regclass[])
    AND tgname ~ '^asof_(keep|note)_' AND tgenabled <> 'D'
"""
"""How many of the triggers are there: two that keep revisions for each table, and one for each but the vectors' that notes what is new."""


FOLLOWED_SQL = "SELECT position FROM positions WHERE name = %s"
WRITERS_SQL = """
SELECT virtualtransaction FROM pg_locks
WHERE relation = ANY ('{ohlcv, events, actions, memberships, trades, quotes, books}'::regclass[])
    AND mode = 'RowExclusiveLock' AND pid <> pg_backend_pid()
"""
CHANGES_SQL = """
SELECT kind, instrument_id, timeframe, unnest(times) AS time FROM changes
WHERE xact >= pg_snapshot_xmin(?::pg_snapshot) AND pg_visible_in_snapshot(xact, ?) AND NOT pg_visible_in_snapshot(xact, ?)
ORDER BY kind, instrument_id COLLATE "C", timeframe, time
"""
"""What is visible in a newer snapshot and was not in an older one: a transaction that commits late is not missed, as by a clock."""
MOVE_FIRST_SQL = "INSERT INTO positions (name, position) VALUES (%s, %s)"
MOVE_ON_SQL = "UPDATE positions SET position = %s, moved_at = clock_timestamp() WHERE name = %s AND position = %s"
MOVE_SQL = f"{MOVE_FIRST_SQL} ON CONFLICT (name) DO UPDATE SET position = excluded.position, moved_at = clock_timestamp()"
PRUNE_SQL = """
DELETE FROM changes WHERE xact < (
    SELECT min(pg_snapshot_xmin(nullif(position, '')::pg_snapshot)::text::numeric)::text::xid8
    FROM positions WHERE starts_with(name, 'changes/')
)
"""
"""Changes that every follower has seen are needed no more."""


class PostgresStore:
    """A store in a PostgreSQL database, which `asof migrate` has prepared. See `asof.stores.store.Store` for the methods."""

    write_rows = 250_000

    def __init__(self, url: str) -> None:
        self._server = Server(url)
        self.url = self._server.url
        self._thread = threading.local()
        with self._server.connection() as connection:
            check(connection, self.url)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store.transaction`."""
        with self._writing():
            yield

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """This thread's transaction: begun, or a savepoint in the one that it is in."""
        outer: Connection | None = getattr(self._thread, "connection", None)
        if outer is not None:
            with self._server.errors(), outer.transaction():
                yield outer
            return
        with self._server.connection() as connection, connection.transaction():
            self._thread.connection = connection
            try:
                yield connection
            finally:
                self._thread.connection = None

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """The connection of this thread's transaction, or one for the block alone."""
        outer: Connection | None = getattr(self._thread, "connection", None)
        if outer is not None:
            yield outer
            return
        with self._server.connection() as connection:
            yield connection

    def upsert(self, table: Table, rows: pa.Table | Iterable[pa.Table], known_at: datetime) -> Changes:
        """See `Store.upsert`."""
        with self._writing() as connection:
            layout = self._layout(connection, table)
            if isinstance(rows, pa.Table):
                return writing.upsert_table(connection, layout, known_when_it_happened(table, rows), known_at)
            stream = (known_when_it_happened(table, some) for some in rows)
            return writing.upsert_stream(connection, layout, stream, known_at, table.schema)

    def _layout(self, connection: Connection, table: Table) -> Layout:
        """How a table's records lie in the database. Raises `StoreError` for a feature set that is not registered."""
        if table.name in RECORD_LAYOUTS:
            return RECORD_LAYOUTS[table.name]()
        found = connection.execute("SELECT features, event_window FROM registry WHERE version = %s", [table.name]).fetchone()
        if found is None:
            raise StoreError(f"{self.url} has no feature set {table.name}; run asof apply")
        features, window = found
        assert isinstance(features, list)
        assert window is None or isinstance(window, timedelta)
        return Vectors(table.name, tuple(features), window // timedelta(microseconds=1) if window else 0)

    def read(
        self, table: Table, selection: Selection, columns: tuple[str, ...] | None = None, *, ordered: bool = True
    ) -> Iterator[pa.Table]:
        """See `Store.read`."""
        with self._server.connection() as connection:
            layout = self._layout(connection, table)
            names = columns or tuple(table.schema.names)
            source, known = revisions(layout.stored, selection.known_at)
            where, parameters = condition(layout.stored, selection, layout.time, _among, BYTEWISE)
            only, version = layout.only()
            sql = f"SELECT {layout.columns(names, 'm')} FROM {source} AS m WHERE {where} AND {only}"
            if ordered:
                sql += f" ORDER BY {', '.join(bytewise(name, table) for name in table.order)}"
            yield from copied_out(connection, sql, [*known, *parameters, *version], _schema(table, names), BATCH_ROWS)

    def revisions(self, table: Table, selection: Selection) -> Iterator[pa.Table]:
        """See `Store.revisions`."""
        with self._server.connection() as connection:
            layout, schema = self._layout(connection, table), revised(table)
            where, parameters = condition(layout.stored, selection, layout.time, _among, BYTEWISE)
            only, version = layout.only()
            columns = f"{layout.columns(table.schema.names, 'm')}, m.known_from, m.known_to"
            sql = f"SELECT {columns} FROM {every_revision(layout.stored)} AS m WHERE {where} AND {only}"
            yield from copied_out(connection, sql, [*parameters, *version], schema, BATCH_ROWS)

    def around(self, timeframe: str, spans: pa.Table, reach: int, columns: tuple[str, ...], known_at: datetime | None = None) -> pa.Table:
        """See `Store.around`."""
        values: list[object] = [spans[name].to_pylist() for name in SPANS.names]
        schema = _schema(BARS_TABLE, columns)
        with self._server.connection() as connection:
            rows, known = revisions(Bars.stored, known_at)
            sql = AROUND_SQL.format(columns=Bars().columns(columns, "m"), rows=rows)
            near = [*known, timeframe, reach]
            return _joined(copied_out(connection, sql, [*values, *known, timeframe, *near, *near], schema), schema)

    def as_of(
        self, table: Table, entities: pa.Table, timeframe: str, columns: tuple[str, ...], known_at: datetime | None = None
    ) -> pa.Table:
        """See `Store.as_of`."""
        with self._server.connection() as connection, connection.transaction():
            layout = self._layout(connection, table)
            connection.execute(query(f"CREATE TEMP TABLE IF NOT EXISTS entities ({column_types(ENTITIES)}) ON COMMIT DELETE ROWS"))
            copy_into(connection, "entities", [entities.select(ENTITIES.names).cast(ENTITIES)])
            newest, parameters = _newest(AS_OF_SQL, [timeframe, table.name], known_at)
            sql = JOIN_SQL.format(columns=layout.columns(columns, "v"), newest=newest)
            return _joined(copied_out(connection, sql, parameters, _schema(table, columns)), _schema(table, columns))

    def latest(self, table: Table, selection: Selection) -> pa.Table:
        """See `Store.latest`."""
        series, of_series = _series(selection)
        with self._server.connection() as connection:
            layout = self._layout(connection, table)
            newest, parameters = _newest(NEWEST_SQL, [table.name, selection.end, selection.end], selection.known_at)
            sql = LATEST_SQL.format(columns=layout.columns(table.schema.names, "v"), series=series, newest=newest)
            return _joined(copied_out(connection, sql, [*of_series, *parameters], table.schema), table.schema)

    def withdraw(self, table: Table, keys: pa.Table, known_at: datetime) -> int:
        """See `Store.withdraw`."""
        with self._writing() as connection:
            return writing.withdraw(connection, self._layout(connection, table), keys, known_at)

    def spans(self, timeframe: str | None = None, known_at: datetime | None = None) -> pa.Table:
        """See `Store.spans`."""
        rows, known = revisions(Bars.stored, known_at)
        with self._server.connection() as connection:
            sql = SPANS_SQL.format(rows=rows)
            return _joined(copied_out(connection, sql, [*known, timeframe, timeframe], COUNTED), COUNTED)

    def cuts(
        self, timeframe: str, instrument: str, every: int, lookback: int, known_at: datetime | None = None
    ) -> list[tuple[datetime, datetime]]:
        """See `Store.cuts`."""
        rows, known = revisions(Bars.stored, known_at)
        with self._server.connection() as connection:
            parameters = [lookback - 1, *known, timeframe, instrument, every]
            found = connection.execute(query(CUTS_SQL.format(rows=rows)), parameters).fetchall()
        return [(ts, early) for ts, early in found if isinstance(ts, datetime) and isinstance(early, datetime)]

    def register(self, feature_set: FeatureSet, applied_at: datetime) -> None:
        """See `Store.register`."""
        names, window = list(feature_set.features), timedelta(microseconds=feature_set.event_window)
        with self._writing() as connection:
            added = connection.execute(
                "INSERT INTO registry (version, fingerprint, definition, applied_at, features, event_window)"
                " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [feature_set.version, feature_set.fingerprint, feature_set.text, applied_at, names, window or None],
            ).rowcount
            if added:
                self._make_views(connection, vectors_table(feature_set), Vectors(feature_set.version, tuple(names), 0))

    def _make_views(self, connection: Connection, table: Table, layout: Vectors) -> None:
        """What names a feature set's columns: views of the vectors in force and of the superseded ones, and those held at a moment."""
        for schema, known in (("", ("known_from",)), ("history.", ("known_from", "known_to"))):
            sql = (
                f"CREATE VIEW {schema}{quoted(table.name)} AS SELECT {layout.columns([*table.schema.names, *known], 'v')}"
                f" FROM {schema}feature_vectors v WHERE feature_set_version = ?"
            )
            try:
                ClientCursor(connection).execute(query(sql), [table.name])
            except errors.DuplicateTable as error:
                raise StoreError(f"{self.url} has a table {table.name} already: give the feature set another version") from error
        name, rows = quoted(known_as(table.name)), held(table, "known")
        returns = f"SETOF {quoted(table.name)}"
        connection.execute(query(f"CREATE FUNCTION {name}(known timestamptz) RETURNS {returns} LANGUAGE sql STABLE AS $$ {rows} $$"))

    def registered(self) -> dict[str, Registered]:
        """See `Store.registered`."""
        with self._server.connection() as connection:
            found = connection.execute("SELECT version, fingerprint, definition, applied_at FROM registry ORDER BY applied_at, version")
            return {str(row[0]): Registered(*row) for row in found}  # type: ignore[arg-type]  # the columns' types are the registry's

    def append(self, log: str, rows: pa.Table) -> int:
        """See `Store.append`."""
        schema, staged = LOGS[log], quoted(f"staged_{log}")
        values = [f"{quoted(n)}{'::jsonb' if n == 'issue_details' else ''}" for n in schema.names]
        with self._writing() as connection:
            connection.execute(query(f"CREATE TEMP TABLE IF NOT EXISTS {staged} ({column_types(schema)}) ON COMMIT DELETE ROWS"))
            connection.execute(query(f"DELETE FROM {staged}"))
            copy_into(connection, staged, [pa.table([_without_nul(rows[n]) for n in schema.names], schema)])
            return connection.execute(
                query(f"INSERT INTO {quoted(log)} ({listed(schema.names)}) SELECT {', '.join(values)} FROM {staged} ON CONFLICT DO NOTHING")
            ).rowcount

    def follow(self, name: str) -> None:
        """See `Store.follow`. Waits for the transactions that were writing before anybody followed, for they noted nothing."""
        with self._server.connection() as connection:
            connection.execute("INSERT INTO positions (name, position) VALUES (%s, '') ON CONFLICT DO NOTHING", [FOLLOWING + name])
            if connection.execute(FOLLOWED_SQL, [FOLLOWING + name]).fetchone() != ("",):
                return
            writing = set(connection.execute(WRITERS_SQL))
            while writing := writing & set(connection.execute(WRITERS_SQL)):
                time.sleep(0.05)
            connection.execute("UPDATE positions SET position = pg_current_snapshot()::text WHERE name = %s", [FOLLOWING + name])

    def changes(self, name: str) -> tuple[pa.Table, str]:
        """See `Store.changes`."""
        with self._server.connection() as connection:
            since = connection.execute(FOLLOWED_SQL, [FOLLOWING + name]).fetchone()
            now = connection.execute("SELECT pg_current_snapshot()::text").fetchone()
            if since in (None, ("",)) or since is None or now is None:
                raise NotFound(f"{name} does not follow what changes in {self.url}")
            return _joined(copied_out(connection, CHANGES_SQL, [*since, *now, *since], CHANGES), CHANGES), str(now[0])

    def positions(self, prefix: str) -> dict[str, str]:
        """See `Store.positions`."""
        with self._reading() as connection:
            found = connection.execute("SELECT name, position FROM positions WHERE starts_with(name, %s) ORDER BY name", [prefix])
            return {str(name): str(position) for name, position in found}

    def move(self, positions: Mapping[str, str], since: Mapping[str, str] | None = None) -> None:
        """See `Store.move`. Of two readers that move the same position, the second waits for what becomes of the first."""
        with self._writing() as connection:
            for name, position in sorted(positions.items()):
                if since is None:
                    connection.execute(MOVE_SQL, [name, position])
                elif not self._moved(connection, name, position, since.get(name)):
                    raise Overtaken(f"{self.url}: another reader has moved {name}")
            if any(name.startswith(FOLLOWING) for name in positions):
                connection.execute(PRUNE_SQL.encode())

    def _moved(self, connection: Connection, name: str, position: str, since: str | None) -> bool:
        if since is None:
            return connection.execute(f"{MOVE_FIRST_SQL} ON CONFLICT DO NOTHING", [name, position]).rowcount == 1
        return connection.execute(MOVE_ON_SQL, [position, name, since]).rowcount == 1

    def refresh(self) -> None:
        """See `Store.refresh`: the view of the newest vectors."""
        with self._server.connection() as connection:
            connection.execute("SELECT refresh_feature_vectors_latest()")

    def facts(self) -> Mapping[str, object]:
        """See `Store.facts`."""
        with self._server.connection() as connection:
            counts = {str(name): count for name, count in connection.execute(query(COUNT_SQL))}
            kept = connection.execute(KEPT_SQL.encode()).fetchone() == (23,)
            version, extension = connection.info.parameter_status("server_version"), timescale(connection)
        findings = [_about_timescale(*extension)]
        if not kept:
            findings.append(
                ("bad", "revisions", "a table has lost the triggers that keep them, or note changes", "asof migrate, for ohlcv")
            )
        return {"kind": "PostgreSQL", "version": version, "layout": LAYOUT, "rows": counts, "findings": findings}

    def close(self) -> None:
        """See `Store.close`."""
        self._server.close()

    def __enter__(self) -> PostgresStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _about_timescale(installed: object, available: object) -> tuple[str, str, str, str]:
    if installed:
        return "ok", "TimescaleDB", str(installed), ""
    if available:
        mend = "as a superuser CREATE EXTENSION timescaledb, then asof migrate"
        return "note", "TimescaleDB", f"{available} is on the server, not in this database", mend
    return "ok", "TimescaleDB", "not on this server: plain tables, which hold the same", ""


def _among(names: list[str]) -> tuple[str, list[object]]:
    return "instrument_id = ANY (?::text[])", [names]


def _series(selection: Selection) -> tuple[str, list[object]]:
    """The instruments and timeframes of a selection, and the parameters."""
    if selection.instruments is not None and selection.timeframe is not None:
        names = sorted(set(selection.instruments))
        return "SELECT instrument_id, ?::text AS timeframe FROM unnest(?::text[]) AS instrument_id", [selection.timeframe, names]
    parts, parameters = ["true"], list[object]()
    if selection.timeframe is not None:
        parts.append("timeframe = ?")
        parameters.append(selection.timeframe)
    if selection.instruments is not None:
        parts.append("instrument_id = ANY (?::text[])")
        parameters.append(list(selection.instruments))
    everywhere = ("feature_vectors",) if selection.known_at is None else ("feature_vectors", "history.feature_vectors")
    series = " UNION ".join(ALL_SERIES.format(rows=rows) for rows in everywhere)
    return f"SELECT instrument_id, timeframe FROM ({series}) AS series WHERE {' AND '.join(parts)}", parameters


def _newest(sql: str, parameters: list[object], known_at: datetime | None) -> tuple[str, list[object]]:
    """The newest vector that a query finds, among those in force, or those that were held to be true at `known_at`."""
    if known_at is None:
        return sql.format(rows="feature_vectors", known="true"), parameters
    names = listed(VECTORS.names)
    current = sql.format(rows=f"(SELECT {names}, known_from FROM feature_vectors)", known="v.known_from <= ?")
    past = sql.format(
        rows=f"(SELECT {names}, known_from, known_to FROM history.feature_vectors)", known="v.known_from <= ? AND v.known_to > ?"
    )
    either = f"(SELECT {names} FROM ({current}) AS c) UNION ALL (SELECT {names} FROM ({past}) AS p)"
    return f"SELECT * FROM ({either}) AS held ORDER BY ts DESC LIMIT 1", [*parameters, known_at, *parameters, known_at, known_at]


def _schema(table: Table, names: Iterable[str]) -> pa.Schema:
    return pa.schema([table.schema.field(name) for name in names])


def _joined(tables: Iterable[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables([schema.empty_table(), *tables])


def _without_nul(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """No text in PostgreSQL can hold NUL; where a refused row did, the log shows another character."""
    return pc.replace_substring(column, "\0", "\ufffd") if pa.types.is_string(column.type) else column
