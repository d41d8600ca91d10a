"""The embedded store: one DuckDB file, nothing to start. One process at a time may hold it.

Schema `main` holds the current rows and `history` the superseded ones, in tables of the same names, so that plain SQL
(`select ts, ret_1 from fs_v1`) reads what is true now. There are no indexes: rows are written in key order, so a block's smallest
and largest values find them, and one writer keeps keys unique by comparing before it writes.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import NotFound, Overtaken, RowsRefused, StoreError
from asof.features.feature_set import FeatureSet
from asof.records import BARS, EVENTS, QUALITY_LOG, QUARANTINE
from asof.stores import duckdb_writing as writing
from asof.stores.duckdb_writing import rows_of, seen_as
from asof.stores.statements import column_types, condition, every_revision, held, known_as, listed, quoted, revisions
from asof.stores.store import (
    BARS_TABLE,
    CHANGES,
    EVENTS_TABLE,
    FOLLOWING,
    RECORDS,
    Changes,
    Registered,
    Selection,
    Table,
    known_when_it_happened,
    revised,
    vectors_table,
)
from asof.timeframes import timeframe as timeframe_micros

LAYOUT = 1
WRITE_AHEAD = "256MB"
"""How far the write-ahead log grows before it is folded into the file: at DuckDB's 16 MB a backfill spends a sixth of its time on that."""
BATCH_ROWS = 500_000
"""Rows of a table that `read` yields."""
ROW_GROUP = 122_880
"""Rows of a block of DuckDB's. A write that leaves one half full has it written again later."""

_LOGS = {"quarantine": QUARANTINE, "feature_quality_log": QUALITY_LOG}
_CREATE = """
CREATE SCHEMA IF NOT EXISTS history;
CREATE TABLE IF NOT EXISTS layout (version INTEGER NOT NULL, created_at TIMESTAMPTZ NOT NULL);
CREATE TABLE IF NOT EXISTS registry (
    version VARCHAR PRIMARY KEY, fingerprint VARCHAR NOT NULL, definition VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL
);
CREATE SEQUENCE IF NOT EXISTS change;
CREATE TABLE IF NOT EXISTS changes (
    number BIGINT NOT NULL, kind VARCHAR NOT NULL, instrument_id VARCHAR NOT NULL, timeframe VARCHAR, times TIMESTAMPTZ[] NOT NULL
);
CREATE TABLE IF NOT EXISTS positions (name VARCHAR PRIMARY KEY, position VARCHAR NOT NULL, moved_at TIMESTAMPTZ NOT NULL);
"""


FEW_SPANS = 20
"""Up to so many spans each is searched for by itself; for more, all bars of their instruments are numbered in one pass."""
_AROUND_EACH = """
SELECT {columns} FROM {rows} WHERE instrument_id = $instrument_id AND timeframe = $timeframe AND ts BETWEEN $first AND $last
UNION ALL (
    SELECT {columns} FROM {rows} WHERE instrument_id = $instrument_id AND timeframe = $timeframe AND ts < $first
    ORDER BY ts DESC LIMIT $reach
) UNION ALL (
    SELECT {columns} FROM {rows} WHERE instrument_id = $instrument_id AND timeframe = $timeframe AND ts > $last
    ORDER BY ts LIMIT $reach
)
"""
_AROUND_ALL = """
SELECT {columns} FROM (
    SELECT b.*, s.first, s.last,
        row_number() OVER (PARTITION BY s.instrument_id, s.first, b.ts < s.first ORDER BY b.ts DESC) AS before,
        row_number() OVER (PARTITION BY s.instrument_id, s.first, b.ts > s.last ORDER BY b.ts) AS after
    FROM {rows} b JOIN spans s ON b.instrument_id = s.instrument_id WHERE b.timeframe = $timeframe
) WHERE ts BETWEEN first AND last OR (ts < first AND before <= $reach) OR (ts > last AND after <= $reach)
"""
_WITHIN_ALL = """
SELECT {columns} FROM {rows} JOIN spans USING (instrument_id)
WHERE timeframe = $timeframe AND ts BETWEEN first AND last AND ts BETWEEN $first AND $last
"""
"""Without bars before and after. The ends of all spans leave out blocks, which those of each do not."""


_NEWER_THAN_ALL_BEFORE = """
QUALIFY ts > coalesce(
    max(ts) OVER (PARTITION BY instrument_id ORDER BY available_at, ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
    '-infinity'::TIMESTAMPTZ
) AND available_at IS DISTINCT FROM lead(available_at) OVER (PARTITION BY instrument_id ORDER BY available_at, ts)
"""
"""Where vectors became available out of order, one counts only if it is newer than all that were available before it, or with it."""
_MOVE = "INSERT OR REPLACE INTO positions SELECT unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), ?"
_PRUNE = "DELETE FROM changes WHERE number <= (SELECT min(position::BIGINT) FROM positions WHERE starts_with(name, ?))"
"""Changes that every follower has seen are needed no more."""


class DuckDBStore:
    """A store in a DuckDB file, or in memory (`duckdb://`). See `asof.stores.store.Store` for the methods."""

    write_rows = 4 * ROW_GROUP

    def __init__(self, path: str | Path | None, *, memory: str | None = None, threads: int | None = None, read_only: bool = False) -> None:
        self.url = "duckdb://" if path is None else f"duckdb:///{path}"
        self._lock = threading.RLock()
        self._depth = 0
        config: dict[str, str | bool | int | float | list[str]] = {"checkpoint_threshold": WRITE_AHEAD}
        if memory:
            config["memory_limit"] = memory
        if threads:
            config["threads"] = threads
        try:
            self._connection = duckdb.connect(":memory:" if path is None else str(path), read_only=read_only, config=config)
        except duckdb.IOException as error:
            raise StoreError(_cannot_open(path, str(error))) from None
        except duckdb.Error as error:
            raise StoreError(f"{path} cannot be opened: {error}") from None
        self._connection.execute("SET GLOBAL TimeZone = 'UTC'")
        try:
            self._prepare(read_only)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, read_only: bool) -> None:
        """Create the tables of a new store; refuse a store of a newer layout, or a file of another program."""
        if str(rows_of(self._connection, "SELECT current_database()")[0][0]).lower() == "history":
            raise StoreError(f"{self.url} cannot be called so: DuckDB could not tell it from its schema history; choose another name")
        tables = {str(row[0]) for row in rows_of(self._connection, "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'")}
        if "layout" in tables:
            version = rows_of(self._connection, "SELECT max(version) FROM layout")[0][0]
            if not isinstance(version, int) or version > LAYOUT:
                raise StoreError(f"{self.url} has layout {version}; this asof knows {LAYOUT}: upgrade asof (pip install -U asof)")
            self._complete(tables, read_only)
            return
        if tables:
            raise StoreError(f"{self.url} is a DuckDB file of another program (it has {', '.join(sorted(tables)[:3])}); choose another")
        if read_only:
            raise StoreError(f"{self.url} holds no store yet")
        with self.transaction():
            self._connection.execute(_CREATE)
            for table in RECORDS:
                self._create(table)
            for name, schema in _LOGS.items():
                self._connection.execute(f"CREATE TABLE {quoted(name)} ({column_types(schema)})")
            self._connection.execute("INSERT INTO layout VALUES (?, ?)", [LAYOUT, datetime.now(UTC)])

    def _complete(self, tables: set[str], read_only: bool) -> None:
        """Add the tables, and the columns of events, that a store of before did not have."""
        has = rows_of(self._connection, "SELECT column_name FROM duckdb_columns() WHERE schema_name = 'main' AND table_name = 'events'")
        short = bool(has) and len(has) < len(EVENTS) + 1
        if short and read_only:
            raise StoreError(f"{self.url} is of an earlier asof: open it once for writing, such as with asof apply")
        missing = [table for table in RECORDS if table.name not in tables]
        if read_only or not (missing or short):
            return
        with self.transaction():
            for table in missing:
                self._create(table)
            if short:
                self._widen_events({str(name) for (name,) in has})

    def _widen_events(self, has: set[str]) -> None:
        """Make the tables of events anew, with null in the columns that they did not have: rows are written in the order of columns."""
        names = [name for name in (*EVENTS.names, "known_from") if name in has]
        self._connection.execute(f"DROP MACRO TABLE {known_as(EVENTS_TABLE.name)}")
        for schema in ("main", "history"):
            self._connection.execute(f"ALTER TABLE {schema}.events RENAME TO events_before")
        self._create(EVENTS_TABLE)
        for schema, columns in (("main", names), ("history", [*names, "known_to"])):
            into = f"INSERT INTO {schema}.events ({listed(columns)}) SELECT {listed(columns)} FROM {schema}.events_before"
            self._connection.execute(into)
            self._connection.execute(f"DROP TABLE {schema}.events_before")

    def _create(self, table: Table) -> None:
        columns = f"{column_types(table.schema)}, known_from TIMESTAMPTZ NOT NULL"
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS main.{quoted(table.name)} ({columns})")
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS history.{quoted(table.name)} ({columns}, known_to TIMESTAMPTZ NOT NULL)")
        self._connection.execute(
            f"CREATE MACRO IF NOT EXISTS {quoted(known_as(table.name))}(known) AS TABLE {held(table, 'known', 'main.')}"
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `Store.transaction`."""
        with self._lock, self._errors(_cannot_write):
            outer = self._depth == 0
            if outer:
                self._connection.execute("BEGIN")
            self._depth += 1
            try:
                yield
                if outer:
                    self._connection.execute("COMMIT")
            except BaseException:
                if outer:
                    self._roll_back()
                raise
            finally:
                self._depth -= 1

    @contextmanager
    def _errors(self, message: Callable[[str, str], str]) -> Iterator[None]:
        """DuckDB's errors as ours, in the words of `message`; an interrupted query as the interrupt that it was."""
        try:
            yield
        except duckdb.CatalogException as error:
            raise StoreError(f"{self.url}: {str(error).splitlines()[0]}; run asof apply") from error
        except (duckdb.DataError, duckdb.IntegrityError) as error:
            raise RowsRefused(message(self.url, str(error))) from error
        except duckdb.Error as error:
            raise StoreError(message(self.url, str(error))) from error
        except RuntimeError as error:
            if "interrupted" not in str(error).lower():
                raise
            raise KeyboardInterrupt from error

    def _roll_back(self) -> None:
        try:
            self._connection.execute("ROLLBACK")
        except duckdb.Error:
            return  # the failure itself has ended the transaction

    def upsert(self, table: Table, rows: pa.Table | Iterable[pa.Table], known_at: datetime) -> Changes:
        """See `Store.upsert`."""
        with self.transaction():
            if isinstance(rows, pa.Table):
                return writing.upsert_table(self._connection, table, known_when_it_happened(table, rows), known_at)
            stream = (known_when_it_happened(table, some) for some in rows)
            return writing.upsert_stream(self._connection, table, stream, known_at)

    def read(
        self, table: Table, selection: Selection, columns: tuple[str, ...] | None = None, *, ordered: bool = True
    ) -> Iterator[pa.Table]:
        """See `Store.read`."""
        order = f" ORDER BY {listed(table.order)}" if ordered else ""
        where, parameters = condition(table, selection, table.time, _among)
        names = listed(columns or table.schema.names)
        source, known = revisions(table, selection.known_at, "main.")
        yield from self._streamed(f"SELECT {names} FROM {source} WHERE {where}{order}", [*known, *parameters], table.schema)

    def revisions(self, table: Table, selection: Selection) -> Iterator[pa.Table]:
        """See `Store.revisions`."""
        where, parameters = condition(table, selection, table.time, _among)
        schema = revised(table)
        yield from self._streamed(f"SELECT {listed(schema.names)} FROM {every_revision(table, 'main.')} WHERE {where}", parameters, schema)

    def _streamed(self, sql: str, parameters: list[object], schema: pa.Schema) -> Iterator[pa.Table]:
        cursor = self._connection.cursor()
        try:
            with self._errors(_cannot_read):
                for batch in cursor.sql(sql, params=parameters).to_arrow_reader(BATCH_ROWS):
                    yield _typed(pa.Table.from_batches([batch]), schema)
        finally:
            cursor.close()

    def around(self, timeframe: str, spans: pa.Table, reach: int, columns: tuple[str, ...], known_at: datetime | None = None) -> pa.Table:
        """See `Store.around`."""
        rows, known = ("main.bars", {}) if known_at is None else (f"({held(BARS_TABLE, '$known', 'main.')})", {"known": known_at})
        parameters, names = {"timeframe": timeframe, **known}, {"columns": listed(columns), "rows": rows}
        with self._lock, self._errors(_cannot_read):
            if len(spans) <= FEW_SPANS:
                each = _AROUND_EACH.format(**names)
                found = [
                    self._connection.sql(each, params=parameters | {"reach": reach} | row).to_arrow_table() for row in spans.to_pylist()
                ]
            else:
                ends = {"first": pc.min(spans["first"]).as_py(), "last": pc.max(spans["last"]).as_py()}
                every, bounds = (_AROUND_ALL, {"reach": reach}) if reach else (_WITHIN_ALL, ends)
                with seen_as(self._connection, "spans", spans):
                    found = [self._connection.sql(every.format(**names), params=parameters | bounds).to_arrow_table()]
        bars = pa.concat_tables(found) if found else BARS.empty_table()
        return _typed(bars.select(columns), BARS)

    def as_of(
        self, table: Table, entities: pa.Table, timeframe: str, columns: tuple[str, ...], known_at: datetime | None = None
    ) -> pa.Table:
        """See `Store.as_of`."""
        rows, known = revisions(table, known_at, "main.")
        source, parameters = f"SELECT * FROM {rows} WHERE timeframe = ?", [*known, timeframe]
        with self._lock, self._errors(_cannot_read), seen_as(self._connection, "entities", entities):
            late = f"SELECT 1 FROM ({source}) WHERE epoch_us(available_at) - epoch_us(ts) <> ? LIMIT 1"
            if rows_of(self._connection, late, [*parameters, timeframe_micros(timeframe)]):
                source += _NEWER_THAN_ALL_BEFORE
            found = self._connection.sql(
                f"SELECT {listed(columns, 'v')} FROM entities e ASOF LEFT JOIN ({source}) v"
                " ON e.instrument_id = v.instrument_id AND e.event_timestamp >= v.available_at ORDER BY e.row",
                params=parameters,
            ).to_arrow_table()
        return _typed(found, table.schema)

    def latest(self, table: Table, selection: Selection) -> pa.Table:
        """See `Store.latest`."""
        where, parameters = condition(table, Selection(selection.timeframe, selection.instruments), "ts", _among)
        if selection.end:
            where += " AND available_at <= ?"
            parameters.append(selection.end)
        rows, known = revisions(table, selection.known_at, "main.")
        newest = f"SELECT instrument_id, timeframe, max(ts) AS ts FROM {rows} WHERE {where} GROUP BY ALL"
        with self._lock, self._errors(_cannot_read):
            found = self._connection.sql(
                f"SELECT {listed(table.schema.names, 'v')} FROM {rows} v SEMI JOIN ({newest}) USING (instrument_id, timeframe, ts)"
                " ORDER BY instrument_id",
                params=[*known, *known, *parameters],
            ).to_arrow_table()
        return _typed(found, table.schema)

    def withdraw(self, table: Table, keys: pa.Table, known_at: datetime) -> int:
        """See `Store.withdraw`."""
        with self.transaction():
            return writing.withdraw(self._connection, table, keys, known_at)

    def spans(self, timeframe: str | None = None, known_at: datetime | None = None) -> pa.Table:
        """See `Store.spans`."""
        rows, known = revisions(BARS_TABLE, known_at, "main.")
        with self._lock, self._errors(_cannot_read):
            return self._connection.sql(
                f"SELECT instrument_id, timeframe, count(*) AS bars, min(ts) AS first, max(ts) AS last FROM {rows}"
                " WHERE ? IS NULL OR timeframe = ? GROUP BY ALL ORDER BY ALL",
                params=[*known, timeframe, timeframe],
            ).to_arrow_table()

    def cuts(
        self, timeframe: str, instrument: str, every: int, lookback: int, known_at: datetime | None = None
    ) -> list[tuple[datetime, datetime]]:
        """See `Store.cuts`."""
        rows, known = revisions(BARS_TABLE, known_at, "main.")
        with self._lock, self._errors(_cannot_read):
            found = self._connection.sql(
                "SELECT ts, early FROM (SELECT ts, row_number() OVER (ORDER BY ts) - 1 AS n, coalesce(lag(ts, ?) OVER (ORDER BY ts),"
                f" min(ts) OVER ()) AS early FROM {rows} WHERE timeframe = ? AND instrument_id = ?) WHERE n % ? = 0 ORDER BY ts",
                params=[lookback - 1, *known, timeframe, instrument, every],
            ).to_arrow_table()
        return [(row["ts"], row["early"]) for row in found.to_pylist()]

    def register(self, feature_set: FeatureSet, applied_at: datetime) -> None:
        """See `Store.register`."""
        values: list[object] = [feature_set.version, feature_set.fingerprint, feature_set.text, applied_at]
        with self.transaction():
            if rows_of(self._connection, "INSERT OR IGNORE INTO registry VALUES (?, ?, ?, ?)", values) == [(1,)]:
                self._create(vectors_table(feature_set))

    def registered(self) -> dict[str, Registered]:
        """See `Store.registered`."""
        with self._lock, self._errors(_cannot_read):
            found = self._connection.sql("SELECT * FROM registry ORDER BY applied_at, version").to_arrow_table().to_pylist()
        return {r["version"]: Registered(r["version"], r["fingerprint"], r["definition"], r["applied_at"]) for r in found}

    def append(self, log: str, rows: pa.Table) -> int:
        """See `Store.append`."""
        names = [n for n in _LOGS[log].names if n != "detected_at"]
        same = " AND ".join(f"l.{quoted(n)} IS NOT DISTINCT FROM r.{quoted(n)}" for n in names)
        with self.transaction(), seen_as(self._connection, "logged", rows):
            done = rows_of(
                self._connection,
                f"INSERT INTO {quoted(log)} SELECT {listed(_LOGS[log].names)} FROM logged r"
                f" WHERE NOT EXISTS (SELECT 1 FROM {quoted(log)} l WHERE {same})",
            )
        assert isinstance(done[0][0], int)
        return done[0][0]

    def follow(self, name: str) -> None:
        """See `Store.follow`."""
        with self._lock, self._errors(_cannot_write):
            if FOLLOWING + name not in self.positions(FOLLOWING):
                self.move({FOLLOWING + name: str(rows_of(self._connection, "SELECT nextval('change')")[0][0])})

    def changes(self, name: str) -> tuple[pa.Table, str]:
        """See `Store.changes`."""
        with self._lock, self._errors(_cannot_read):
            if (since := self.positions(FOLLOWING).get(FOLLOWING + name)) is None:
                raise NotFound(f"{name} does not follow what changes in {self.url}")
            found = self._connection.sql(
                "SELECT kind, instrument_id, timeframe, unnest(times) AS time FROM changes WHERE number > ?::BIGINT ORDER BY ALL",
                params=[since],
            ).to_arrow_table()
            newest = rows_of(self._connection, "SELECT max(number) FROM changes")[0][0]
        return found.cast(CHANGES), since if newest is None else str(newest)

    def positions(self, prefix: str) -> dict[str, str]:
        """See `Store.positions`."""
        with self._lock, self._errors(_cannot_read):
            found = rows_of(self._connection, "SELECT name, position FROM positions WHERE starts_with(name, ?) ORDER BY name", [prefix])
        return {str(name): str(position) for name, position in found}

    def move(self, positions: Mapping[str, str], since: Mapping[str, str] | None = None) -> None:
        """See `Store.move`."""
        with self.transaction():
            for name in positions:
                if since is not None and self.positions(name).get(name) != since.get(name):
                    raise Overtaken(f"{self.url}: another reader has moved {name}")
            self._connection.execute(_MOVE, [list(positions), list(positions.values()), datetime.now(UTC)])
            if any(name.startswith(FOLLOWING) for name in positions):
                self._connection.execute(_PRUNE, [FOLLOWING])

    def refresh(self) -> None:
        """See `Store.refresh`. There is nothing beside the rows."""

    def facts(self) -> Mapping[str, object]:
        """See `Store.facts`."""
        with self._lock, self._errors(_cannot_read):
            names = [*(table.name for table in RECORDS), *self.registered(), *_LOGS]
            counts = {n: rows_of(self._connection, f"SELECT count(*) FROM main.{quoted(n)}")[0][0] for n in names}
            version = rows_of(self._connection, "SELECT version()")[0][0]
            icu = rows_of(self._connection, "SELECT 1 FROM duckdb_extensions() WHERE extension_name = 'icu' AND loaded")
        broken = ("bad", "time zones", "DuckDB's icu extension is missing", "pip install --force-reinstall duckdb")
        return {"kind": "DuckDB", "version": version, "layout": LAYOUT, "rows": counts, "findings": [] if icu else [broken]}

    def close(self) -> None:
        """See `Store.close`."""
        self._connection.close()

    def __enter__(self) -> DuckDBStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _typed(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """A result in the types of a schema: DuckDB names the zone and the items of a list its own way."""
    return found.cast(pa.schema([schema.field(name) for name in found.column_names]))


def _among(names: list[str]) -> tuple[str, list[object]]:
    """Between the first and the last of them, by which DuckDB leaves out blocks, and one of them."""
    ends: list[object] = [names[0], names[-1]] if names else ["", ""]
    return "instrument_id BETWEEN ? AND ? AND instrument_id IN (SELECT unnest(?::VARCHAR[]))", [*ends, names]


_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")


def _cannot_open(path: object, error: str) -> str:
    found = _HOLDER.search(error)
    if found:
        return (
            f"{path} is held by process {found[2]} ({found[1]}); DuckDB lets one process at a time use a file."
            " Where that is asof run or asof serve, read through it (--store http://127.0.0.1:8000, or wherever it says that it listens);"
            " else wait for it to finish, or give this command a store of its own with --store"
        )
    if "No space left" in error:
        return f"{path} cannot be opened: the disk is full"
    return f"{path} cannot be opened: {error.splitlines()[0]}"


def _cannot_write(url: str, error: str) -> str:
    line = error.splitlines()[0]
    if "No space left" in error or "disk" in error.lower():
        return f"{url}: the disk is full; nothing of this step was kept. Free some space and run it again ({line})"
    if "Out of Memory" in error:
        return f"{url}: {line} Nothing of this step was kept; give it more with --memory, or fewer threads"
    return f"{url}: {line}"


def _cannot_read(url: str, error: str) -> str:
    return f"{url} cannot be read: {error.splitlines()[0]}"
