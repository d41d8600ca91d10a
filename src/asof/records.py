"""Bars, events, actions, memberships, points and vectors as Arrow tables: their schemas, the border's checks, and the frame of reads.

The checks of points (trades, quotes and books) are in `asof.points`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asof.errors import MissingExtra
from asof.features.across import SCHEME

if TYPE_CHECKING:
    import pandas
    import polars

UTC = pa.timestamp("us", tz="UTC")
"""Every time in asof: microseconds, UTC."""

BARS = pa.schema(
    [
        ("instrument_id", pa.string()),
        ("timeframe", pa.string()),
        ("ts", UTC),
        ("open", pa.float64()),
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),
        ("volume", pa.float64()),
        ("source", pa.string()),
        ("available_at", UTC),
    ]
)
"""A bar. `ts` is its open; prices may be missing (null); `available_at` is null where the bar is known at its close."""

EVENTS = pa.schema(
    [
        ("instrument_id", pa.string()),
        ("event_id", pa.string()),
        ("enriched_at_utc", UTC),
        ("event_time_utc", UTC),
        ("score", pa.float64()),
        ("confidence", pa.float64()),
        ("scored_at_utc", UTC),
        ("category", pa.string()),
        ("source", pa.string()),
        ("source_name", pa.string()),
        ("text_hash", pa.string()),
        ("is_repost", pa.bool_()),
    ]
)
"""An event as one instrument sees it. `enriched_at_utc` is its first enrichment, `scored_at_utc` the one that gave the scores and what
comes behind it: what the event is about, the kind and the name of its source, the hash of its text, and whether the source says that it
repeats another event. Each of these is null where the source does not say."""
EVENT_DETAILS = ("category", "source", "source_name", "text_hash", "is_repost")
"""What an event may have beside times and scores."""

ACTIONS = pa.schema([("instrument_id", pa.string()), ("ts", UTC), ("split", pa.float64()), ("dividend_factor", pa.float64())])
"""A corporate action. `ts` is the first moment of its ex-date, `split` how many new shares there are for an old one, `dividend_factor` what
is left of the close before it, 1 - dividend / close. Each is 1 where there is no such thing."""

MEMBERSHIPS = pa.schema(
    [("scheme", pa.string()), ("instrument_id", pa.string()), ("ts", UTC), ("value", pa.string()), ("available_at", UTC)]
)
"""From `ts` on an instrument has this value in a scheme, until a later row says otherwise; null is none: it has left. A scheme is a
universe, of which it counts only that there is a value, or a grouping such as `sector`. `available_at` is null where a row is known at its
`ts`."""

TRADES = pa.schema(
    [
        ("instrument_id", pa.string()),
        ("ts", UTC),
        ("seq", pa.int64()),
        ("price", pa.float64()),
        ("size", pa.float64()),
        ("side", pa.float64()),
        ("available_at", UTC),
    ]
)
"""A trade. `ts` is when it happened, by its source, `seq` orders the rows of one instrument and time; `side` is 1 where the buyer was the
aggressor, -1 where the seller was, null where nobody says. `available_at`, when it could be known, is `ts` where it is null."""

QUOTES = pa.schema(
    [
        ("instrument_id", pa.string()),
        ("ts", UTC),
        ("seq", pa.int64()),
        ("bid", pa.float64()),
        ("bid_size", pa.float64()),
        ("ask", pa.float64()),
        ("ask_size", pa.float64()),
        ("available_at", UTC),
    ]
)
"""A quote: the whole best bid and offer after an update, null where that side is empty or was never seen. Times and `seq` as for trades."""

LEVELS = pa.list_(pa.float64())
"""Prices or sizes of one side of a book, the best first."""
BOOKS = pa.schema(
    [
        ("instrument_id", pa.string()),
        ("ts", UTC),
        ("seq", pa.int64()),
        ("bid_prices", LEVELS),
        ("bid_sizes", LEVELS),
        ("ask_prices", LEVELS),
        ("ask_sizes", LEVELS),
        ("gap", pa.bool_()),
        ("available_at", UTC),
    ]
)
"""An order book after an update, as deep as its source keeps it. `gap` says that updates are missing before it. Times and `seq` as for
trades."""

VECTOR_KEYS = pa.schema([("instrument_id", pa.string()), ("timeframe", pa.string()), ("ts", UTC)])
FLAGS = pa.list_(pa.string())
"""Quality flags: the names of those that are raised, sorted."""

VECTOR_REST = pa.schema(
    [
        ("quality_flags", FLAGS),
        ("event_count", pa.int64()),
        ("ohlcv_count", pa.int64()),
        ("available_at", UTC),
        ("computed_at", UTC),
        ("pipeline_version", pa.string()),
    ]
)


def vector_schema(features: tuple[str, ...]) -> pa.Schema:
    """The schema of vectors: key, one float64 for each feature in its order, then flags, counts and times."""
    return pa.schema([*VECTOR_KEYS, *(pa.field(name, pa.float64()) for name in features), *VECTOR_REST])


QUARANTINE = pa.schema(
    [
        ("kind", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("record", pa.string()),
        ("detected_at", UTC),
    ]
)
"""A refused row: what it was to be, why not, and where it came from (`row` counts from 1, lines of a text file with its header)."""

QUALITY_LOG = pa.schema(
    [
        ("instrument_id", pa.string()),
        ("timeframe", pa.string()),
        ("feature_set_version", pa.string()),
        ("issue_type", pa.string()),
        ("issue_details", pa.string()),
        ("detected_at", UTC),
        ("ts_start", UTC),
        ("ts_end", UTC),
    ]
)
"""What went wrong for an instrument beyond a single vector's flags."""

PRICES = ("open", "high", "low", "close")
FIRST_TIME = 0
LAST_TIME = 4_102_444_800_000_000
"""2100-01-01: a later timestamp is a mistake."""
SANE_TIME = 315_532_800_000_000
"""1980-01-01: an earlier one that another unit would put after it is a unit mistaken for another."""

Bools = NDArray[np.bool_]
Rows = NDArray[np.int64] | slice
"""Positions in a batch; a slice where none is left out."""


class ArrowStream(Protocol):
    """Anything that speaks the Arrow PyCapsule interface: Polars, pandas, PyArrow, DuckDB, ..."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table as an Arrow C stream."""
        ...


@dataclass
class Refusals:
    """Rows that were refused: for each its position in the batch, a reason (a stable word) and a sentence."""

    rows: list[int] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def add(self, row: int, reason: str, detail: str) -> None:
        """Note one refused row."""
        self.rows.append(row)
        self.reasons.append(reason)
        self.details.append(detail)


@dataclass(frozen=True)
class Checked:
    """The rows of a batch that can be used, in canonical form, the refused ones, and how many bars have a missing price."""

    table: pa.Table
    rows: Rows
    refusals: Refusals
    missing_prices: int = 0


class Checks:
    """Collects refusals over a table; the first reason of a row stands."""

    def __init__(self, rows: int) -> None:
        self.good: Bools = np.ones(rows, np.bool_)
        self.refusals = Refusals()

    def refuse(self, bad: Bools, reason: str, detail: str, *shown: pa.ChunkedArray) -> None:
        """Refuse the rows where `bad`; `detail` is a format string for the values of `shown`."""
        if not bad.any():
            return
        for row in np.flatnonzero(bad & self.good):
            self.refusals.add(int(row), reason, detail.format(*(a[int(row)].as_py() for a in shown)))
        self.good &= ~bad

    def finish(self, table: pa.Table, missing_prices: int = 0) -> Checked:
        """The rows that can be used, and those that cannot."""
        if not self.refusals.rows:
            return Checked(table, slice(None), self.refusals, missing_prices)
        return Checked(table.filter(pa.array(self.good)), np.flatnonzero(self.good), self.refusals, missing_prices)


def floats(array: pa.ChunkedArray | pa.Array) -> NDArray[np.float64]:
    """A column as float64, NaN where null."""
    if array.type != pa.float64():
        array = array.cast(pa.float64())
    flat = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64)


def micros(array: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """A time column without nulls as microseconds since 1970."""
    if array.type != pa.int64():
        array = (array if array.type == UTC else array.cast(UTC)).cast(pa.int64())
    flat = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    return np.asarray(flat.to_numpy(zero_copy_only=False))


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, copied only where it is in several chunks."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def nulls(rows: int, kind: pa.DataType) -> pa.Array:
    """A column of nulls that costs next to nothing: its memory is zero pages, which nobody touches."""
    bitmap, width = np.zeros((rows + 7) // 8, np.uint8), 8 * (rows + 1)
    buffers = [pa.py_buffer(bitmap), pa.py_buffer(np.zeros(width, np.uint8))]
    return pa.Array.from_buffers(kind, rows, [*buffers, pa.py_buffer(b"")] if pa.types.is_string(kind) else buffers, rows)


def repeated(value: str, rows: int) -> pa.ChunkedArray:
    """A column of one text, in chunks that share their memory."""
    chunk = pa.repeat(pa.scalar(value), min(rows, 65_536))
    whole, rest = divmod(rows, max(len(chunk), 1))
    return pa.chunked_array([chunk] * whole + [chunk.slice(0, rest)], pa.string())


def usual_times(column: pa.ChunkedArray) -> bool:
    """Whether every time of a column is between 1980 and 2100."""
    if column.null_count == len(column):
        return True
    ends = pc.min_max(column.cast(UTC).cast(pa.int64()))
    return bool(ends["min"].as_py() >= SANE_TIME and ends["max"].as_py() < LAST_TIME)


def blank(column: pa.ChunkedArray) -> Bools:
    """Where a name is null, empty or blank."""
    array = one_chunk(column)
    _, offsets, data = array.buffers()
    if not array.null_count and len(array):
        spans = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
        said = np.frombuffer(data or b"", np.uint8)[spans[0] : spans[-1]]
        if np.diff(spans).min() > 0 and said.min() > ord(" ") and said.max() < 128:
            return np.zeros(len(array), np.bool_)  # no byte of it can be part of a blank
    blank = pc.or_(pc.equal(pc.binary_length(column), 0), pc.utf8_is_space(column))
    return np.asarray(pc.fill_null(blank, True))


def check_times(checks: Checks, table: pa.Table, name: str, required: bool = True) -> None:
    """Refuse missing times, times before 1970 or after 2100, and units mistaken for one another."""
    column = table[name]
    if usual_times(column) and not (required and column.null_count):
        return
    null = np.asarray(column.is_null())
    if required:
        checks.refuse(null, "missing_time", f"{name} is missing")
    values = micros(pc.fill_null(column.cast(pa.int64()), SANE_TIME))
    checks.refuse(
        ~null & ((values < FIRST_TIME) | (values >= LAST_TIME)),
        "time_out_of_range",
        f"{name}={{}} is before 1970 or after 2100; was its unit mistaken?",
        column.cast(pa.int64()),
    )
    early = values < SANE_TIME
    for factor in (1_000, 1_000_000, 1_000_000_000):
        scaled = values[early].astype(np.float64) * factor
        suspect = np.zeros(len(values), np.bool_)
        suspect[early] = (scaled >= SANE_TIME) & (scaled < LAST_TIME)
        checks.refuse(
            ~null & suspect,
            "time_unit",
            f"{name}={{}} would be a usual time if its unit were {factor:,} times larger: a unit mistaken for another",
            column,
        )


def check_bars(table: pa.Table) -> Checked:
    """Bars in the canonical schema: which rows can be used. A price that is null, NaN, zero or below becomes missing."""
    checks = Checks(len(table))
    checks.refuse(blank(table["instrument_id"]), "empty_instrument", "instrument_id is empty")
    check_times(checks, table, "ts")
    check_times(checks, table, "available_at", required=False)
    values = {name: floats(table[name]) for name in (*PRICES, "volume") if table[name].null_count < len(table)}
    missing = np.zeros(len(table), np.bool_)
    for name, column in values.items():
        clean = len(column) and column.min() > 0 and column.max() < np.inf
        if clean:
            continue
        checks.refuse(np.isinf(column), "infinite_value", f"{name}={{}} is infinite", table[name])
        absent = np.isnan(column)
        if name == "volume":
            checks.refuse(column < 0, "negative_volume", "volume={} is negative", table["volume"])
        else:
            absent = ~(column > 0)
            missing |= absent
        if absent.sum() > table[name].null_count:
            table = table.set_column(table.schema.get_field_index(name), name, pa.array(column, mask=absent))
    if "close" not in values:
        missing[:] = True
    if "high" in values and "low" in values:
        high, low = values["high"], values["low"]
        checks.refuse((high < low) & (high > 0), "high_below_low", "high={} is below low={}", table["high"], table["low"])
    known = table["available_at"]
    if known.null_count < len(table):
        early = np.asarray(pc.fill_null(pc.less(known, table["ts"]), False))
        checks.refuse(early, "known_before_open", "available_at={} is before the bar's open {}", known, table["ts"])
    return checks.finish(table, int((missing & checks.good).sum()))


def check_events(table: pa.Table) -> Checked:
    """Events in the canonical schema, one row for each instrument: which rows can be used."""
    checks = Checks(len(table))
    for name, reason in (("event_id", "empty_event_id"), ("instrument_id", "no_tickers")):
        checks.refuse(blank(table[name]), reason, "the event names no ticker" if name == "instrument_id" else "event_id is empty")
    check_times(checks, table, "enriched_at_utc")
    check_times(checks, table, "event_time_utc", required=False)
    for name, low in (("score", -1.0), ("confidence", 0.0)):
        values = floats(table[name])
        if len(values) and values.min() >= low and values.max() <= 1.0:
            continue
        checks.refuse(np.isnan(values), f"missing_{name}", f"{name} is missing")
        checks.refuse(~((values >= low) & (values <= 1.0)), f"{name}_out_of_range", f"{name}={{}} is outside {low:g}..1", table[name])
    return checks.finish(table)


def check_actions(table: pa.Table) -> Checked:
    """Actions in the canonical schema: which rows can be used. A factor that is missing is 1, but one of the two must be there."""
    checks = Checks(len(table))
    checks.refuse(blank(table["instrument_id"]), "empty_instrument", "instrument_id is empty")
    check_times(checks, table, "ts")
    absent = np.ones(len(table), np.bool_)
    for name in ("split", "dividend_factor"):
        values = floats(table[name])
        checks.refuse(np.isinf(values), "infinite_value", f"{name}={{}} is infinite", table[name])
        checks.refuse(values <= 0, "factor_not_positive", f"{name}={{}} is not above 0", table[name])
        absent &= np.isnan(values)
        filled = np.where(np.isnan(values), 1.0, values)
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), pa.array(filled))
    checks.refuse(absent, "no_factor", "neither split nor dividend_factor is there")
    return checks.finish(table)


def check_memberships(table: pa.Table) -> Checked:
    """Memberships in the canonical schema: which rows can be used. An empty value is none."""
    checks = Checks(len(table))
    checks.refuse(blank(table["instrument_id"]), "empty_instrument", "instrument_id is empty")
    named = pc.fill_null(pc.match_substring_regex(table["scheme"], f"^{SCHEME}$"), False)
    detail = "scheme={!r} must be a letter, then up to 62 letters, digits or underscores"
    checks.refuse(~np.asarray(named), "scheme_name", detail, table["scheme"])
    check_times(checks, table, "ts")
    check_times(checks, table, "available_at", required=False)
    value = pc.utf8_trim_whitespace(table["value"])
    value = pc.if_else(pc.equal(value, ""), pa.scalar(None, pa.string()), value)
    place = table.schema.get_field_index("value")
    return checks.finish(table.set_column(place, table.schema.field(place), value))


@dataclass(frozen=True)
class Frame:
    """A table that came out of asof. It speaks the Arrow PyCapsule interface, so Polars, pandas, DuckDB and PyArrow all take it."""

    table: pa.Table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The table as an Arrow C stream."""
        return self.table.__arrow_c_stream__(requested_schema)

    def to_arrow(self) -> pa.Table:
        """The table as a `pyarrow.Table`."""
        return self.table

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas data frame; missing values are NaN. Needs pandas."""
        try:
            return self.table.to_pandas()
        except ModuleNotFoundError:
            raise MissingExtra("to_pandas needs pandas: pip install pandas") from None

    def to_polars(self) -> polars.DataFrame:
        """The table as a Polars data frame; missing values are null. Needs Polars."""
        try:
            import polars  # an optional peer, never needed by asof itself
        except ModuleNotFoundError:
            raise MissingExtra("to_polars needs Polars: pip install polars") from None
        frame = polars.from_arrow(self.table)
        assert isinstance(frame, polars.DataFrame)
        return frame

    def to_pylist(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return list(self.table.to_pylist())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"<Frame: {self.table.num_rows:,} rows x {self.table.num_columns} columns: {', '.join(self.table.column_names)}>"
