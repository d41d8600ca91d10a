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
from asof.records import QUALITY_LOG, QUARANTINE
from asof.stores.statements import clashing, column_types, condition, listed, place_events, quoted, revisions, settled
from asof.stores.store import (
    BARS_TABLE,
    CHANGES,
    EVENTS_TABLE,
    FOLLOWING,
    Changes,
    Registered,
    Selection,
    Table,
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


_FOLLOWED = "SELECT 1 FROM positions WHERE starts_with(name, ?) LIMIT 1"
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
        tables = {str(row[0]) for row in self._rows("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'")}
        if "layout" in tables:
            version = self._rows("SELECT max(version) FROM layout")[0][0]
            if not isinstance(version, int) or version > LAYOUT:
                raise StoreError(f"{self.url} has layout {version}; this asof knows {LAYOUT}: upgrade asof (pip install -U asof)")
            return
        if tables:
            raise StoreError(f"{self.url} is a DuckDB file of another program (it has {', '.join(sorted(tables)[:3])}); choose another")
        if read_only:
            raise StoreError(f"{self.url} holds no store yet")
        with self.transaction():
            self._connection.execute(_CREATE)
            for table in (BARS_TABLE, EVENTS_TABLE):
                self._create(table)
            for name, schema in _LOGS.items():
                self._connection.execute(f"CREATE TABLE {quoted(name)} ({column_types(schema)})")
            self._connection.execute("INSERT INTO layout VALUES (?, ?)", [LAYOUT, datetime.now(UTC)])

    def _create(self, table: Table) -> None:
        columns = f"{column_types(table.schema)}, known_from TIMESTAMPTZ NOT NULL"
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS main.{quoted(table.name)} ({columns})")
        self._connection.execute(f"CREATE TABLE IF NOT EXISTS history.{quoted(table.name)} ({columns}, known_to TIMESTAMPTZ NOT NULL)")

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

    def _rows(self, sql: str, parameters: list[object] | None = None) -> list[tuple[object, ...]]:
        return self._connection.execute(sql, parameters or []).fetchall()

    def upsert(self, table: Table, rows: pa.Table | Iterable[pa.Table], known_at: datetime) -> Changes:
        """See `Store.upsert`."""
        with self.transaction():
            if isinstance(rows, pa.Table):
                with self._seen_as("staged", rows.combine_chunks()):  # DuckDB reads one chunk on many threads, many on one
                    ends = [end for k in _extent(table) for end in pc.min_max(rows[k]).as_py().values()]
                    return self._merge(table, known_at, len(rows), ends)
            self._stage(table, rows)
            repeats, refused = self._settle_repeats(table)
            changes = self._merge(table, known_at, *self._ends(table, "staged", []))
            _drop(self._connection, "staged")
            return Changes(changes.inserted, changes.corrected, changes.unchanged + repeats, refused if len(refused) else None)

    @contextmanager
    def _seen_as(self, name: str, rows: pa.Table) -> Iterator[None]:
        """An Arrow table under a name that SQL can use."""
        self._connection.register(name, rows)
        yield
        self._connection.unregister(name)  # where the block fails, the roll-back does this

    def _stage(self, table: Table, rows: Iterable[pa.Table]) -> None:
        connection = self._connection
        connection.execute(f"CREATE OR REPLACE TEMP TABLE staged ({column_types(table.schema)}, row BIGINT)")
        for batch in rows:
            with self._seen_as("batch", batch):
                connection.execute("INSERT INTO staged SELECT * FROM batch")

    def _settle_repeats(self, table: Table) -> tuple[int, pa.Table]:
        """Keep one row of each key. How many repeats that agree were dropped, and the rows that disagree, which are all taken out.

        For events, disagreeing means two scores of one enrichment; the newest enrichment's scores stand, at the first one's place. An
        event that disagrees for one instrument is taken out for all that it names, and returned once.
        """
        key = listed(table.key)
        nothing = table.schema.append(pa.field("row", pa.int64())).empty_table()
        if not self._rows(f"SELECT 1 FROM staged GROUP BY {key} HAVING count(*) > 1 LIMIT 1"):
            return 0, nothing
        connection = self._connection
        connection.execute(f"CREATE OR REPLACE TEMP TABLE clash AS {clashing(table, 'staged')}")
        refused = connection.sql("SELECT DISTINCT ON (row) * FROM clash ORDER BY row, instrument_id").to_arrow_table()
        if len(refused):
            connection.execute("DELETE FROM staged WHERE row IN (SELECT row FROM clash)")
        _drop(connection, "clash")
        before = self._count("staged")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE staged AS {settled(table, 'staged')}")
        return before - self._count("staged"), refused

    def _count(self, rows: str, parameters: list[object] | None = None) -> int:
        found = self._rows(f"SELECT count(*) FROM {rows}", parameters)[0][0]
        assert isinstance(found, int)
        return found

    def _merge(self, table: Table, known_at: datetime, staged: int, ends: list[object]) -> Changes:
        """Compare the staged rows with the current ones; write what is new or changed, and keep what a change supersedes.

        `ends` are those of the staged rows' extent: known keys are searched where current rows meet it, and nowhere else.
        """
        name = quoted(table.name)
        columns = listed(table.schema.names, "s")
        match = " AND ".join(f"s.{quoted(c)} = m.{quoted(c)}" for c in table.key)
        order = f" ORDER BY {listed(_in_order(table), 's')}" if table in (BARS_TABLE, EVENTS_TABLE) else ""  # vectors come in order
        inside = " AND ".join(f"{quoted(k)} BETWEEN ? AND ?" for k in _extent(table))
        there, bounds = self._ends(table, f"main.{name} WHERE {inside}", ends) if staged else (0, ends)
        current = f"(SELECT * FROM main.{name} WHERE {inside})"
        known = self._count(f"(SELECT * FROM staged WHERE {inside}) s JOIN {current} m ON {match}", bounds * 2) if there else 0
        if not known:
            self._note(table, "staged s", [])
            self._connection.execute(f"INSERT INTO main.{name} SELECT {columns}, ? FROM staged s{order}", [known_at])
            return Changes(inserted=staged)
        source = "staged"
        if table is EVENTS_TABLE:
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW placed AS {place_events()}")
            source = "placed"
        if known < staged:
            unknown = f"{source} s ANTI JOIN {current} m ON {match}"
            self._note(table, unknown, bounds)
            self._connection.execute(f"INSERT INTO main.{name} SELECT {columns}, ? FROM {unknown}{order}", [known_at, *bounds])
        differs = " OR ".join(f"s.{quoted(c)} IS DISTINCT FROM m.{quoted(c)}" for c in table.compared)
        changed = f"{source} s JOIN {current} m ON {match} WHERE {differs}"
        corrected = self._count(changed, bounds)
        if corrected:
            self._correct(table, changed, bounds, known_at)
        return Changes(staged - known, corrected, known - corrected)

    def _correct(self, table: Table, found: str, bounds: list[object], known_at: datetime) -> None:
        """Move the current rows `m` that staged rows `s` differ from to the history, and put those in their place."""
        connection, name = self._connection, quoted(table.name)
        since = "greatest(?, m.known_from + INTERVAL 1 MICROSECOND) AS known_from"
        columns = listed(table.schema.names, "s")
        connection.execute(f"CREATE OR REPLACE TEMP TABLE fresh AS SELECT {columns}, {since} FROM {found}", [known_at, *bounds])
        same = " AND ".join(f"f.{quoted(c)} = m.{quoted(c)}" for c in table.key)
        self._note(table, "fresh s", [])
        if table is EVENTS_TABLE:  # an event that takes another place leaves its old one
            self._note(table, f"main.{name} s JOIN fresh f ON {same.replace('m.', 's.')} AND s.enriched_at_utc <> f.enriched_at_utc", [])
        past = f"SELECT {listed(table.schema.names, 'm')}, m.known_from, f.known_from FROM main.{name} m JOIN fresh f ON {same}"
        connection.execute(f"INSERT INTO history.{name} {past}")
        connection.execute(f"DELETE FROM main.{name} m USING fresh f WHERE {same}")
        connection.execute(f"INSERT INTO main.{name} SELECT * FROM fresh ORDER BY {listed(_in_order(table))}")
        _drop(connection, "fresh")

    def _note(self, table: Table, changed: str, parameters: list[object]) -> None:
        """Note changed bars and events for those who follow."""
        if table not in (BARS_TABLE, EVENTS_TABLE) or not self._rows(_FOLLOWED, [FOLLOWING]):
            return
        timeframe = "s.timeframe" if table is BARS_TABLE else "NULL::VARCHAR"
        self._connection.execute(
            f"INSERT INTO changes SELECT nextval('change'), '{table.name}', instrument_id, timeframe, times FROM ("
            f"SELECT s.instrument_id, {timeframe} AS timeframe, list(s.{_time(table)}) AS times FROM {changed} GROUP BY ALL)",
            parameters,
        )

    def _ends(self, table: Table, rows: str, parameters: list[object]) -> tuple[int, list[object]]:
        """How many rows there are, and the ends of their extent."""
        ends = ", ".join(f"min({quoted(k)}), max({quoted(k)})" for k in _extent(table))
        found = self._connection.sql(f"SELECT count(*) AS n, {ends} FROM {rows}", params=parameters).to_arrow_table()
        count, *bounds = (column[0].as_py() for column in found.columns)
        return count, bounds

    def read(
        self, table: Table, selection: Selection, columns: tuple[str, ...] | None = None, *, ordered: bool = True
    ) -> Iterator[pa.Table]:
        """See `Store.read`."""
        time = _time(table)
        order = f" ORDER BY instrument_id, {time}{'' if time == 'ts' else ', event_id'}" if ordered else ""
        where, parameters = condition(table, selection, time, _among)
        names = listed(columns or table.schema.names)
        source, known = revisions(table, selection, "main.")
        cursor = self._connection.cursor()
        try:
            with self._errors(_cannot_read):
                found = cursor.sql(f"SELECT {names} FROM {source} WHERE {where}{order}", params=[*known, *parameters])
                for batch in found.to_arrow_reader(BATCH_ROWS):
                    yield _typed(pa.Table.from_batches([batch]), table)
        finally:
            cursor.close()

    def as_of(self, table: Table, entities: pa.Table, timeframe: str, columns: tuple[str, ...]) -> pa.Table:
        """See `Store.as_of`."""
        name = quoted(table.name)
        step = timeframe_micros(timeframe)
        picked = listed(columns, "v")
        vectors = f"SELECT * FROM main.{name} WHERE timeframe = $timeframe"
        with self._lock, self._errors(_cannot_read), self._seen_as("entities", entities):
            late = self._rows(
                f"SELECT 1 FROM main.{name} WHERE timeframe = ? AND epoch_us(available_at) - epoch_us(ts) <> ? LIMIT 1", [timeframe, step]
            )
            if late:  # a vector counts only where it is newer than all that were available before it, or with it
                vectors += (
                    " QUALIFY ts > coalesce(max(ts) OVER (PARTITION BY instrument_id ORDER BY available_at, ts"
                    " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), '-infinity'::TIMESTAMPTZ)"
                    " AND available_at IS DISTINCT FROM lead(available_at) OVER (PARTITION BY instrument_id ORDER BY available_at, ts)"
                )
            found = self._connection.sql(
                f"SELECT {picked} FROM entities e ASOF LEFT JOIN ({vectors}) v"
                " ON e.instrument_id = v.instrument_id AND e.event_timestamp >= v.available_at ORDER BY e.row",
                params={"timeframe": timeframe},
            ).to_arrow_table()
        return _typed(found, table)

    def latest(self, table: Table, selection: Selection) -> pa.Table:
        """See `Store.latest`."""
        where, parameters = condition(table, Selection(selection.timeframe, selection.instruments), "ts", _among)
        if selection.end:
            where += " AND available_at <= ?"
            parameters.append(selection.end)
        name = f"main.{quoted(table.name)}"
        newest = f"SELECT instrument_id, timeframe, max(ts) AS ts FROM {name} WHERE {where} GROUP BY ALL"
        with self._lock, self._errors(_cannot_read):
            found = self._connection.sql(
                f"SELECT {listed(table.schema.names, 'v')} FROM {name} v SEMI JOIN ({newest}) USING (instrument_id, timeframe, ts)"
                " ORDER BY instrument_id",
                params=parameters,
            ).to_arrow_table()
        return _typed(found, table)

    def spans(self, timeframe: str | None = None) -> pa.Table:
        """See `Store.spans`."""
        with self._lock, self._errors(_cannot_read):
            return self._connection.sql(
                "SELECT instrument_id, timeframe, count(*) AS bars, min(ts) AS first, max(ts) AS last FROM bars"
                " WHERE $1 IS NULL OR timeframe = $1 GROUP BY ALL ORDER BY ALL",
                params=[timeframe],
            ).to_arrow_table()

    def cuts(self, timeframe: str, instrument: str, every: int, lookback: int) -> list[tuple[datetime, datetime]]:
        """See `Store.cuts`."""
        with self._lock, self._errors(_cannot_read):
            found = self._connection.sql(
                "SELECT ts, early FROM (SELECT ts, row_number() OVER (ORDER BY ts) - 1 AS n, coalesce(lag(ts, $4) OVER (ORDER BY ts),"
                " min(ts) OVER ()) AS early FROM bars WHERE timeframe = $1 AND instrument_id = $2) WHERE n % $3 = 0 ORDER BY ts",
                params=[timeframe, instrument, every, lookback - 1],
            ).to_arrow_table()
        return [(row["ts"], row["early"]) for row in found.to_pylist()]

    def register(self, feature_set: FeatureSet, applied_at: datetime) -> None:
        """See `Store.register`."""
        with self.transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO registry VALUES (?, ?, ?, ?)",
                [feature_set.version, feature_set.fingerprint, feature_set.text, applied_at],
            )
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
        with self.transaction(), self._seen_as("logged", rows):
            done = self._rows(
                f"INSERT INTO {quoted(log)} SELECT {listed(_LOGS[log].names)} FROM logged r"
                f" WHERE NOT EXISTS (SELECT 1 FROM {quoted(log)} l WHERE {same})"
            )
        assert isinstance(done[0][0], int)
        return done[0][0]

    def follow(self, name: str) -> None:
        """See `Store.follow`."""
        with self.transaction():
            if FOLLOWING + name not in self.positions(FOLLOWING):
                self.move({FOLLOWING + name: str(self._rows("SELECT nextval('change')")[0][0])})

    def changes(self, name: str) -> tuple[pa.Table, str]:
        """See `Store.changes`."""
        with self._lock, self._errors(_cannot_read):
            if (since := self.positions(FOLLOWING).get(FOLLOWING + name)) is None:
                raise NotFound(f"{name} does not follow what changes in {self.url}")
            found = self._connection.sql(
                "SELECT kind, instrument_id, timeframe, unnest(times) AS time FROM changes WHERE number > ?::BIGINT ORDER BY ALL",
                params=[since],
            ).to_arrow_table()
            newest = self._rows("SELECT max(number) FROM changes")[0][0]
        return found.cast(CHANGES), since if newest is None else str(newest)

    def positions(self, prefix: str) -> dict[str, str]:
        """See `Store.positions`."""
        with self._lock, self._errors(_cannot_read):
            found = self._rows("SELECT name, position FROM positions WHERE starts_with(name, ?) ORDER BY name", [prefix])
        return {str(name): str(position) for name, position in found}

    def move(self, positions: Mapping[str, str], since: Mapping[str, str] | None = None) -> None:
        """See `Store.move`."""
        with self.transaction():
            for name, position in positions.items():
                if since is not None and self.positions(name).get(name) != since.get(name):
                    raise Overtaken(f"{self.url}: another reader has moved {name}")
                self._connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", [name, position, datetime.now(UTC)])
            if any(name.startswith(FOLLOWING) for name in positions):
                self._connection.execute(_PRUNE, [FOLLOWING])

    def facts(self) -> Mapping[str, object]:
        """See `Store.facts`."""
        with self._lock, self._errors(_cannot_read):
            names = [*("bars", "events"), *self.registered(), *_LOGS]
            counts = {n: self._rows(f"SELECT count(*) FROM main.{quoted(n)}")[0][0] for n in names}
            version = self._rows("SELECT version()")[0][0]
            icu = self._rows("SELECT 1 FROM duckdb_extensions() WHERE extension_name = 'icu' AND loaded")
        broken = ("bad", "time zones", "DuckDB's icu extension is missing", "pip install --force-reinstall duckdb")
        return {"kind": "DuckDB", "version": version, "layout": LAYOUT, "rows": counts, "findings": [] if icu else [broken]}

    def close(self) -> None:
        """See `Store.close`."""
        self._connection.close()

    def __enter__(self) -> DuckDBStore:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _time(table: Table) -> str:
    """The column that `Selection.start` and `Selection.end` are about."""
    return "ts" if "ts" in table.schema.names else "enriched_at_utc"


def _extent(table: Table) -> tuple[str, ...]:
    """The columns of a table's key that its rows are ordered by."""
    return tuple(k for k in ("instrument_id", "ts") if k in table.key)


def _in_order(table: Table) -> tuple[str, ...]:
    """The columns by which a table's rows are written, so that blocks hold what is read together."""
    return tuple(dict.fromkeys(("instrument_id", *(("timeframe",) if "timeframe" in table.key else ()), _time(table))))


def _typed(found: pa.Table, table: Table) -> pa.Table:
    """A result in the types of the table's schema: DuckDB names the zone and the items of a list its own way."""
    return found.cast(pa.schema([table.schema.field(name) for name in found.column_names]))


def _among(names: list[str]) -> tuple[str, list[object]]:
    """Between the first and the last of them, by which DuckDB leaves out blocks, and one of them."""
    ends: list[object] = [names[0], names[-1]] if names else ["", ""]
    return "instrument_id BETWEEN ? AND ? AND instrument_id IN (SELECT unnest(?::VARCHAR[]))", [*ends, names]


def _drop(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    connection.execute(f"DROP TABLE IF EXISTS {quoted(table)}")


_HOLDER = re.compile(r"held in (.+?) \(PID (\d+)\)")


def _cannot_open(path: object, error: str) -> str:
    found = _HOLDER.search(error)
    if found:
        return (
            f"{path} is held by process {found[2]} ({found[1]}); DuckDB lets one process at a time use a file."
            " Wait for it to finish, or give this command a store of its own with --store"
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
