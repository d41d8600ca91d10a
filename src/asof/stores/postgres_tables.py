"""How bars, events, actions, memberships, points and vectors lie in PostgreSQL, and the statements that put them there.

Vectors of all feature sets share one table, `features` an array in the registry's order. The prices of bars are numeric, and go there
as text, for a cast from float to numeric keeps 15 digits; `asof_number` reads them back to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.records import BARS, FLAGS, PRICES, UTC, VECTOR_KEYS, floats
from asof.stores.statements import column_type, column_types, listed, placed, quoted
from asof.stores.store import (
    ACTIONS_TABLE,
    BARS_TABLE,
    BOOKS_TABLE,
    EVENTS_TABLE,
    MEMBERSHIPS_TABLE,
    QUOTES_TABLE,
    TRADES_TABLE,
    Table,
)

VECTORS = pa.schema(
    [
        *VECTOR_KEYS,
        ("feature_set_version", pa.string()),
        ("features", pa.list_(pa.float64())),
        ("quality_flags", FLAGS),
        ("computed_at", UTC),
        ("pipeline_version", pa.string()),
        ("event_window_start", UTC),
        ("event_window_end", UTC),
        ("event_count", pa.int64()),
        ("ohlcv_count", pa.int64()),
        ("available_at", UTC),
    ]
)


SEPARATOR = "\x1f"
"""Between the flags of a text."""


class Layout:
    """How the records of a table lie in the database: in the table `stored`, row by row, with a few columns more."""

    stored: ClassVar[Table]
    direct = True
    """Whether rows can be copied into the table as they are."""
    flat = True
    """Whether a few rows can go as arrays, one for each column: not where these hold lists."""
    given: tuple[str, ...] = ("known_from",)
    """The columns that get the time at which the rows were known."""

    @property
    def name(self) -> str:
        """The table, quoted."""
        return quoted(self.stored.name)

    @property
    def staged(self) -> str:
        """The temporary table that rows go to before they are compared, quoted."""
        return quoted(f"staged_{self.stored.name}")

    @property
    def time(self) -> str:
        """The column that `Selection.start` and `Selection.end` are about."""
        return self.stored.time

    def only(self) -> tuple[str, list[object]]:
        """Which stored rows `m` are meant at all, and the parameters."""
        return "true", []

    def rows(self, records: pa.Table) -> pa.Table:
        """Records as rows of the stored table."""
        return records.select(self.stored.schema.names)

    def value(self, name: str, of: str) -> str:
        """A column of the records, read from the stored row `of`."""
        return f"{of}.{quoted(name)}"

    def staged_value(self, name: str) -> str:
        """A column of the stored table, from the staged row `s`."""
        return f"s.{quoted(name)}"

    def merged(self, name: str, new: str) -> str:
        """What a column of the stored row `m` becomes where the row `new` meets it."""
        return f"{new}.{quoted(name)}"

    def changed(self, new: str) -> str:
        """Whether the row `new` makes another revision of the stored row `m`."""
        return " OR ".join(f"{self.value(c, new)} IS DISTINCT FROM {self.value(c, 'm')}" for c in self.stored.compared)

    def columns(self, names: Iterable[str], of: str) -> str:
        """Columns of the records, with commas between them."""
        return ", ".join(f"{self.value(name, of)} AS {quoted(name)}" for name in names)

    def staging(self) -> str:
        """Makes the temporary table, once for each connection."""
        columns = f'{column_types(self.stored.schema)}, "row" BIGINT'
        return f"CREATE TEMP TABLE IF NOT EXISTS {self.staged} ({columns}) ON COMMIT DELETE ROWS"

    def insert(self, source: str | None = None) -> str:
        """Inserts the staged rows, or those of another source. Its parameters are those `given`, and the source's."""
        names = self.stored.schema.names
        return (
            f"INSERT INTO {self.name} AS m ({listed([*names, *self.given])})"
            f" SELECT {', '.join(map(self.staged_value, names))}{', ?::timestamptz' * len(self.given)} FROM {source or self.staged} s"
        )

    def arrays(self, records: pa.Table) -> pa.Table:
        """The columns of a few rows that go as the parameters of one statement, each an array."""
        return self.rows(records)

    def unnested(self) -> str:
        """The source that these arrays are: a query whose parameters they are."""
        return f"(SELECT * FROM {_unnested(self.stored.schema)})"

    def merge(self, there: str | None, source: str | None = None) -> str:
        """Inserts the staged rows (or those of another source) that are new, updates those that differ, and tells how many of each.

        Those that are the same are left out by comparing with the rows `there`, and without it with each one's own, looked up by its key
        (the planner is not asked: it would rather scan a large table for a few rows); they cost no write. What another process does
        meanwhile is met row by row: `ON CONFLICT` waits for it and compares again. All go in the order of their keys, so that no two
        processes wait for each other.
        """
        match = " AND ".join(f"s.{quoted(c)} = m.{quoted(c)}" for c in self.stored.key)
        known = (
            f"{self.name} m ON {match} AND {there}" if there else f"LATERAL (SELECT * FROM {self.name} m WHERE {match} LIMIT 1) m ON true"
        )
        rest = [name for name in self.stored.schema.names if name not in self.stored.key]
        updates = [f"{quoted(c)} = {self.merged(c, 'excluded')}" for c in rest]
        updates += [f"{quoted(c)} = excluded.{quoted(c)}" for c in self.given[:-1]]
        return (
            f"WITH written AS ({self.insert(source)} LEFT JOIN {known}"
            f" WHERE m.instrument_id IS NULL OR {self.changed('s')} ORDER BY {self.order()}"
            f" ON CONFLICT ({listed(self.stored.key)}) DO UPDATE SET {', '.join(updates)},"
            " known_from = greatest(excluded.known_from, m.known_from + INTERVAL '1 microsecond')"
            f" WHERE {self.changed('excluded')} RETURNING xmax = 0 AS new)"
            " SELECT count(*) FILTER (WHERE new), count(*) FILTER (WHERE NOT new) FROM written"
        )

    def order(self) -> str:
        """The order of the staged rows' keys, the same for every process."""
        return ", ".join(bytewise(c, self.stored, "s") for c in self.stored.key)


class Bars(Layout):
    """Bars: in `ohlcv`, which another program may own."""

    stored = Table("ohlcv", BARS, BARS_TABLE.key, BARS_TABLE.compared)
    direct = False
    given = ("ingested_at", "known_from")
    numeric = (*PRICES, "volume")

    def value(self, name: str, of: str) -> str:
        """Prices that are NaN or infinite are null."""
        return f"asof_number({of}.{quoted(name)})" if name in self.numeric else super().value(name, of)

    def staged_value(self, name: str) -> str:
        """Prices by way of text."""
        return f"s.{quoted(name)}::text::numeric" if name in self.numeric else super().staged_value(name)


class Events(Layout):
    """Events: merged with what is known of them."""

    stored = EVENTS_TABLE

    def merged(self, name: str, new: str) -> str:
        """The earliest place, the newest scores."""
        return placed(name, new, "m")

    def changed(self, new: str) -> str:
        """Whether the merged row is another than the stored one."""
        return " OR ".join(f"{self.merged(c, new)} IS DISTINCT FROM m.{quoted(c)}" for c in self.stored.compared)


class Actions(Layout):
    """Splits and dividends."""

    stored = ACTIONS_TABLE


class Memberships(Layout):
    """Universes and groupings."""

    stored = MEMBERSHIPS_TABLE


class Trades(Layout):
    """Trades."""

    stored = TRADES_TABLE


class Quotes(Layout):
    """Quotes."""

    stored = QUOTES_TABLE


class Books(Layout):
    """Order books."""

    stored = BOOKS_TABLE
    flat = False


def _unnested(columns: pa.Schema) -> str:
    """The rows of arrays that are given as parameters, one for each column."""
    return f"unnest({', '.join(f'?::{column_type(field.type)}[]' for field in columns)}) AS given ({listed(columns.names)})"


def bytewise(name: str, table: Table, of: str | None = None) -> str:
    """A column to order by: texts in the order that Arrow and Python have, which the table of another program may not have."""
    return listed([name], of) + (' COLLATE "C"' if pa.types.is_string(table.schema.field(name).type) else "")


@dataclass(frozen=True)
class Vectors(Layout):
    """Vectors of one feature set, as the registry has it: `features` are the names of the values in the array, in their order."""

    version: str
    features: tuple[str, ...]
    event_window: int

    stored: ClassVar[Table] = Table(
        "feature_vectors",
        VECTORS,
        ("instrument_id", "timeframe", "ts", "feature_set_version"),
        ("features", "quality_flags", "event_count", "ohlcv_count", "available_at"),
    )

    def only(self) -> tuple[str, list[object]]:
        """Those of this feature set."""
        return "m.feature_set_version = ?", [self.version]

    def rows(self, records: pa.Table) -> pa.Table:
        """Vectors with their values in an array, null where one is missing, and the ends of their event window."""
        made = self._made(records) | {"features": _arrays([records[name] for name in self.features])}
        return pa.table([made[name] if name in made else records[name] for name in VECTORS.names], VECTORS)

    def _made(self, records: pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
        """The columns that vectors have in the database beside their own."""
        window = pa.scalar(self.event_window, pa.duration("us")) if self.event_window else pa.scalar(None, pa.duration("us"))
        start = pc.subtract(records["ts"], window)
        version = pa.repeat(pa.scalar(self.version), len(records))
        return {"feature_set_version": version, "event_window_start": start, "event_window_end": pc.add(start, window)}

    @cached_property
    def _columns(self) -> pa.Schema:
        """The columns of the table with one for each feature, and flags in one text."""
        kinds = {"features": [(name, pa.float64()) for name in self.features], "quality_flags": [("quality_flags", pa.string())]}
        return pa.schema([field for name in VECTORS.names for field in kinds.get(name, [VECTORS.field(name)])])

    def arrays(self, records: pa.Table) -> pa.Table:
        """Lists are no arrays of arrays, which would have to be of one length: a column for each feature, flags in one text."""
        made = self._made(records) | {"quality_flags": pc.binary_join(records["quality_flags"], SEPARATOR)}
        return pa.table([made[name] if name in made else records[name] for name in self._columns.names], schema=self._columns)

    def unnested(self) -> str:
        """The source that these arrays are."""
        values = {"features": f"ARRAY[{listed(self.features)}]", "quality_flags": f"string_to_array(quality_flags, '{SEPARATOR}')"}
        chosen = ", ".join(f"{values.get(name, quoted(name))} AS {quoted(name)}" for name in VECTORS.names)
        return f"(SELECT {chosen} FROM {_unnested(self._columns)})"

    def value(self, name: str, of: str) -> str:
        """A feature by its place in the array."""
        return f"{of}.features[{self.features.index(name) + 1}]" if name in self.features else super().value(name, of)


class Extent:
    """Where the rows of an upsert lie: their instruments and timeframes, and for rows that have `ts` in their key its first and last."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._names: dict[str, set[str]] = {n: set() for n in ("instrument_id", "timeframe") if n in layout.stored.key}
        self._ends: list[datetime] = []

    def add(self, records: pa.Table) -> None:
        """Widen it by more rows."""
        for name, found in self._names.items():
            found.update(pc.unique(records[name]).to_pylist())
        if "ts" in self._layout.stored.key and len(records):
            ends = pc.min_max(records["ts"]).as_py()
            self._ends = [min([*self._ends, ends["min"]]), max([*self._ends, ends["max"]])]

    def condition(self) -> tuple[str, list[object]]:
        """That a stored row `m` lies there, and the parameters."""
        lies, parameters = self._beside_instruments()
        return f"m.instrument_id = ANY (?::text[]) AND {lies}", [sorted(self._names["instrument_id"]), *parameters]

    def probe(self) -> tuple[str, list[object]]:
        """Whether any stored row lies there: one look into the index for each instrument, never a scan."""
        lies, parameters = self._beside_instruments()
        found = f"SELECT FROM {self._layout.name} m WHERE m.instrument_id = i.name AND {lies} LIMIT 1"
        sql = f"SELECT EXISTS (SELECT FROM unnest(?::text[]) AS i (name) CROSS JOIN LATERAL ({found}) AS found)"
        return sql, [sorted(self._names["instrument_id"]), *parameters]

    def _beside_instruments(self) -> tuple[str, list[object]]:
        only, parameters = self._layout.only()
        parts = [only]
        if "timeframe" in self._names:
            parts.append("m.timeframe = ANY (?::text[])")
            parameters.append(sorted(self._names["timeframe"]))
        if self._ends:
            parts.append("m.ts BETWEEN ? AND ?")
        return " AND ".join(parts), [*parameters, *self._ends]


def _arrays(columns: list[pa.ChunkedArray]) -> pa.Array:
    """For each row an array of the values of all columns, null where one is missing."""
    values = np.column_stack([floats(column) for column in columns])
    ends = np.arange(0, values.size + 1, len(columns), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(values.ravel(), from_pandas=True))
