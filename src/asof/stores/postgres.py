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

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import ClientCursor, errors
from psycopg.pq import TransactionStatus

from asof.errors import NotFound, Overtaken, StoreError
from asof.features.feature_set import FeatureSet
from asof.records import QUALITY_LOG, QUARANTINE, UTC, one_chunk
from asof.stores import postgres_writing as writing
from asof.stores.postgres_copy import BATCH_ROWS, array, numbers, times
from asof.stores.postgres_migrations import LAYOUT, check, timescale
from asof.stores.postgres_server import Array, Connection, Server, query
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

RECORD_LAYOUTS: dict[str, Layout] = {
    BARS_TABLE.name: Bars(),
    EVENTS_TABLE.name: Events(),
    ACTIONS_TABLE.name: Actions(),
    MEMBERSHIPS_TABLE.name: Memberships(),
    TRADES_TABLE.name: Trades(),
    QUOTES_TABLE.name: Quotes(),
    BOOKS_TABLE.name: Books(),
}
"""How the tables lie that every store has."""

BYTEWISE = 'instrument_id COLLATE "C"'
"""Instruments in the order that Arrow and Python have; the bars' table of another program may have another."""
SPANS_SQL = """
SELECT instrument_id, timeframe, count(*), min(ts), max(ts) FROM {rows} AS ohlcv
WHERE ?::text IS NULL OR timeframe = ? GROUP BY instrument_id, timeframe ORDER BY instrument_id COLLATE "C", timeframe COLLATE "C"
"""
AROUND_SQL = """
SELECT s.n, {columns} FROM unnest(?::text[], ?::timestamptz[], ?::timestamptz[]) WITH ORDINALITY AS s (instrument_id, first, last, n)
CROSS JOIN LATERAL (
    SELECT * FROM {rows} AS ohlcv WHERE instrument_id = s.instrument_id AND timeframe = ? AND ts BETWEEN s.first AND s.last
    UNION ALL (
        SELECT * FROM {rows} AS ohlcv WHERE instrument_id = s.instrument_id AND timeframe = ? AND ts < s.first ORDER BY ts DESC LIMIT ?
    ) UNION ALL (
        SELECT * FROM {rows} AS ohlcv WHERE instrument_id = s.instrument_id AND timeframe = ? AND ts > s.last ORDER BY ts LIMIT ?
    )
) AS m GROUP BY s.n
"""
"""An array of each column for each span: thousands of small rows would take longer to take in than to find."""
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
SELECT p.position, pg_current_snapshot()::text, kind, instrument_id, timeframe, array_send(times)
FROM (SELECT (SELECT nullif(position, '') FROM positions WHERE name = %s) AS position) AS p LEFT JOIN LATERAL (
    SELECT * FROM changes
    WHERE xact >= pg_snapshot_xmin(p.position::pg_snapshot) AND NOT pg_visible_in_snapshot(xact, p.position::pg_snapshot)
) AS c ON true
"""
"""What this statement's snapshot sees and an older one did not: a transaction that commits late is not missed, as by a clock."""
MOVE_FIRST_SQL = "INSERT INTO positions (name, position) VALUES (%s, %s) ON CONFLICT DO NOTHING"
MOVE_ON_SQL = """
WITH held AS (
    SELECT p.name, m.position FROM positions p JOIN unnest(%s::text[], %s::text[], %s::text[]) AS m (name, position, since)
    ON p.name = m.name AND p.position = m.since ORDER BY p.name FOR UPDATE OF p
)
UPDATE positions p SET position = held.position, moved_at = clock_timestamp() FROM held WHERE p.name = held.name RETURNING p.name
"""
MOVE_SQL = """
INSERT INTO positions (name, position) SELECT name, position FROM unnest(%s::text[], %s::text[]) AS m (name, position) ORDER BY name
ON CONFLICT (name) DO UPDATE SET position = excluded.position, moved_at = clock_timestamp()
"""
PRUNE_SQL = f"""
WITH moved AS ({MOVE_SQL}), followers AS (
    SELECT name, position FROM positions WHERE name <> ALL (%s::text[])
    UNION ALL SELECT name, position FROM unnest(%s::text[], %s::text[]) AS m (name, position)
)
DELETE FROM changes WHERE xact < (
    SELECT min(pg_snapshot_xmin(nullif(position, '')::pg_snapshot)::text::numeric)::text::xid8
    FROM followers WHERE starts_with(name, 'changes/')
)
"""
"""Changes that every follower has seen are needed no more. The statement does not see what it moves itself, so it is told."""


class PostgresStore:
    """A store in a PostgreSQL database, which `asof migrate` has prepared. See `asof.stores.store.Store` for the methods."""

    write_rows = 250_000

    def __init__(self, url: str) -> None:
        self._server = Server(url)
        self.url = self._server.url
        self._thread = threading.local()
        self._layouts: dict[str, Vectors] = {}
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
            if connection.info.transaction_status == TransactionStatus.INERROR:
                raise StoreError(f"{self.url}: a step of a transaction has failed, so nothing of it is kept")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """The connection of this thread's transaction, or one for the block alone, for a statement that needs none."""
        outer: Connection | None = getattr(self._thread, "connection", None)
        if outer is not None:
            with self._server.errors():
                yield outer
            return
        with self._server.connection() as connection:
            yield connection

    def upsert(self, table: Table, rows: pa.Table | Iterable[pa.Table], known_at: datetime) -> Changes:
        """See `Store.upsert`."""
        if isinstance(rows, pa.Table) and len(rows) <= writing.FEW_ROWS:
            with self._reading() as connection:
                layout = self._layout(connection, table)
                if layout.flat:
                    return writing.upsert_few(connection, layout, known_when_it_happened(table, rows), known_at)
        with self._writing() as connection:
            layout = self._layout(connection, table)
            if isinstance(rows, pa.Table):
                return writing.upsert_table(connection, layout, known_when_it_happened(table, rows), known_at)
            stream = (known_when_it_happened(table, some) for some in rows)
            return writing.upsert_stream(connection, layout, stream, known_at, table.schema)

    def _layout(self, connection: Connection, table: Table) -> Layout:
        """How a table's records lie in the database. Raises `StoreError` for a feature set that is not registered."""
        if table.name in RECORD_LAYOUTS:
            return RECORD_LAYOUTS[table.name]
        if table.name not in self._layouts:  # a registered feature set never changes
            found = connection.execute("SELECT features, event_window FROM registry WHERE version = %s", [table.name]).fetchone()
            if found is None:
                raise StoreError(f"{self.url} has no feature set {table.name}; run asof apply")
            features, window = found
            assert isinstance(features, list)
            assert window is None or isinstance(window, timedelta)
            self._layouts[table.name] = Vectors(table.name, tuple(features), window // timedelta(microseconds=1) if window else 0)
        return self._layouts[table.name]

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
        schema = _schema(BARS_TABLE, columns)
        arrays = [f"array_send(array_agg({_never_null(name)}))" for name in ("ts", *columns) if name != "instrument_id"]
        given: list[object] = [Array(array(one_chunk(spans[name]))) for name in SPANS.names]
        with self._server.connection() as connection:
            rows, known = revisions(Bars.stored, known_at)
            sql = AROUND_SQL.format(columns=", ".join(arrays), rows=rows)
            near = [*known, timeframe, reach]
            found = connection.execute(query(sql), [*given, *known, timeframe, *near, *near], prepare=True, binary=True).fetchall()
        if not found:
            return schema.empty_table()
        places, opens, *rest = (list(column) for column in zip(*found, strict=True))
        each = np.repeat(np.array(places, np.int64) - 1, times(opens)[1])
        made = {
            name: numbers(some, schema.field(name).type)
            for name, some in zip([c for c in columns if c != "instrument_id"], rest, strict=True)
        }
        return pa.table([made[name] if name in made else spans[name].take(pa.array(each)) for name in columns], schema=schema)

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
            rows = connection.execute(CHANGES_SQL, [FOLLOWING + name], prepare=True, binary=True).fetchall()
        since, now, *first = rows[0]
        if since is None:
            raise NotFound(f"{name} does not follow what changes in {self.url}")
        columns = list(zip(*rows, strict=True))[2:] if first[0] is not None else [()] * 4
        moments, counts = times(list(columns.pop()))
        each = pa.array(np.repeat(np.arange(len(counts)), counts))
        table = pa.table([*(pa.array(column, pa.string()).take(each) for column in columns), pa.array(moments).cast(UTC)], schema=CHANGES)
        return table.sort_by([(column, "ascending") for column in CHANGES.names]), str(now)

    def positions(self, prefix: str) -> dict[str, str]:
        """See `Store.positions`."""
        with self._reading() as connection:
            found = connection.execute("SELECT name, position FROM positions WHERE starts_with(name, %s) ORDER BY name", [prefix])
            return {str(name): str(position) for name, position in found}

    def move(self, positions: Mapping[str, str], since: Mapping[str, str] | None = None) -> None:
        """See `Store.move`. Of two readers that move the same position, the second waits for what becomes of the first."""
        names, places = list(positions), list(positions.values())
        with self._reading() as connection:
            if since is None and any(name.startswith(FOLLOWING) for name in names):
                connection.execute(PRUNE_SQL.encode(), [names, places, names, names, places], prepare=True)
            elif since is None:
                connection.execute(MOVE_SQL, [names, places])
        if since is not None:  # whoever is overtaken in the middle of a transaction has to give it up, so no savepoint is needed
            inside = getattr(self._thread, "connection", None) is not None
            with self._reading() if inside else self._writing() as connection:
                self._move_on(connection, positions, since)

    def _move_on(self, connection: Connection, positions: Mapping[str, str], since: Mapping[str, str]) -> None:
        known = [name for name in positions if name in since]
        given = [known, [positions[name] for name in known], [since[name] for name in known]]
        moved = {name for (name,) in connection.execute(MOVE_ON_SQL, given, prepare=True)} if known else set[object]()
        first = sorted(positions.keys() - since.keys())
        moved |= {name for name in first if connection.execute(MOVE_FIRST_SQL, [name, positions[name]]).rowcount == 1}
        if overtaken := sorted(positions.keys() - moved):
            raise Overtaken(f"{self.url}: another reader has moved {overtaken[0]}")

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


def _never_null(name: str) -> str:
    """A number or a time of a bar as an array without nulls holds it."""
    value, missing = Bars().value(name, "m"), "-infinity" if pa.types.is_timestamp(BARS_TABLE.schema.field(name).type) else "NaN"
    return f"coalesce({value}, '{missing}')"


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
