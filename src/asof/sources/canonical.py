"""A batch of any columns, turned into bars or events in their canonical schema, with every refused row and its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError, DefinitionError
from asof.records import BARS, EVENTS, PRICES, UTC, Checked, Refusals, check_bars, check_events
from asof.sources.columns import ColumnMapping, Reader
from asof.timeframes import timeframe as check_timeframe


@dataclass(frozen=True)
class Batch:
    """Usable records and the positions in the batch that they came from, and its refused rows: `refusals.rows` are positions too."""

    table: pa.Table
    rows: np.ndarray
    refusals: Refusals
    missing_prices: int = 0


def bars_of(table: pa.Table, mapping: ColumnMapping, timeframe: str | None = None, source: str | None = None) -> Batch:
    """Bars from a table with at least `instrument_id`, `ts` and `close`, or the columns mapped to them.

    `timeframe` is for tables without such a column. Raises `DataError` where a column is missing or cannot be read at all.
    """
    reader = Reader(table, mapping)
    rows = len(table)
    columns: dict[str, object] = {
        "instrument_id": reader.text("instrument_id"),
        "ts": reader.times("ts"),
        "available_at": reader.times("available_at") if reader.has("available_at") else pa.nulls(rows, UTC),
        "source": reader.text("source") if source is None and reader.has("source") else pa.array([source] * rows, pa.string()),
    }
    columns["timeframe"] = _timeframes(reader, rows, timeframe)
    reader.column("close")
    for name in (*PRICES, "volume"):
        columns[name] = reader.numbers(name) if reader.has(name) else pa.nulls(rows, pa.float64())
    canonical = pa.table([columns[name] for name in BARS.names], schema=BARS)
    return _finish(reader.refusals, check_bars, canonical)


def _timeframes(reader: Reader, rows: int, timeframe: str | None) -> pa.ChunkedArray | pa.Array:
    if timeframe is not None:
        check_timeframe(timeframe)
        return pa.array([timeframe], pa.string()).take(pa.array(np.zeros(rows, np.int64)))
    if not reader.has("timeframe"):
        raise DataError("the bars have no timeframe column: say which they are, such as --timeframe 1d")
    column = reader.text("timeframe")
    for value in column.unique().to_pylist():
        try:
            check_timeframe(value)
        except DefinitionError as error:
            for row in np.flatnonzero(np.asarray(pc.fill_null(pc.equal(column, value), value is None))):
                reader.refusals.add(int(row), "unknown_timeframe", str(error))
    return column


def events_of(table: pa.Table, mapping: ColumnMapping) -> Batch:
    """Events, one row for each instrument that one names, from a table with `event_id`, `enriched_at_utc`, `tickers` (symbols, or
    objects with `symbol`) and the sentiment's `score` and `confidence`, nested or flat.
    """
    reader = Reader(table, mapping)
    rows = len(table)
    tickers = _tickers(reader)
    parents = np.asarray(pc.list_parent_indices(tickers))
    lengths = np.bincount(parents, minlength=rows) if rows else np.zeros(0, np.int64)
    for row in np.flatnonzero(lengths == 0):
        reader.refusals.add(int(row), "no_tickers", "the event names no ticker")
    enriched = reader.times("enriched_at_utc")
    columns = {
        "event_id": reader.text("event_id"),
        "enriched_at_utc": enriched,
        "event_time_utc": reader.times("event_time_utc") if reader.has("event_time_utc") else pa.nulls(rows, UTC),
        "score": _sentiment(reader, "score"),
        "confidence": _sentiment(reader, "confidence"),
        "scored_at_utc": enriched,
    }
    exploded = {name: pc.take(column, pa.array(parents)) for name, column in columns.items()}
    exploded["instrument_id"] = pc.list_flatten(tickers)
    canonical = pa.table([exploded[name] for name in EVENTS.names], schema=EVENTS)
    return _finish(reader.refusals, check_events, canonical, parents)


def _sentiment(reader: Reader, name: str) -> pa.ChunkedArray:
    if name in reader.mapping.columns:
        return reader.numbers(name)
    for alias in (name, f"sentiment.{name}", f"sentiment_{name}"):
        nested = Reader(reader.table, ColumnMapping({name: alias}))
        if nested.has(name):
            nested.refusals = reader.refusals
            return nested.numbers(name)
    return reader.numbers(name)


def _tickers(reader: Reader) -> pa.ChunkedArray:
    """The tickers of each event as a list of symbols; a single symbol is a list of one."""
    name = "tickers" if reader.has("tickers") or not reader.has("instrument_id") else "instrument_id"
    column = reader.column(name).combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.chunked_array([pc.split_pattern_regex(column.cast(pa.string()), r"[;,|\s]+")])
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"tickers hold {kind}; expected symbols, or objects with a symbol")
    column = column.cast(pa.large_list(kind.value_type))
    values, inner = pc.list_flatten(column), kind.value_type
    if pa.types.is_struct(inner):
        if inner.get_field_index("symbol") < 0:
            raise DataError("the objects in tickers have no symbol")
        values = pc.struct_field(values, "symbol")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int64())
    return pa.chunked_array([pa.LargeListArray.from_arrays(offsets, values.cast(pa.string()))])


def _finish(early: Refusals, check: Callable[[pa.Table], Checked], canonical: pa.Table, parents: np.ndarray | None = None) -> Batch:
    """Refusals of reading and of checking, in terms of the rows that came; a row is refused once, for its first reason."""
    seen: set[int] = set()
    merged = Refusals()
    gone = np.zeros(len(canonical), np.bool_)
    origin = np.arange(len(canonical)) if parents is None else parents
    for row, reason, detail in zip(early.rows, early.reasons, early.details, strict=True):
        if row not in seen:
            seen.add(row)
            merged.add(row, reason, detail)
    if seen:
        gone = np.isin(origin, list(seen))
    kept = np.flatnonzero(~gone)
    checked = check(canonical.filter(pa.array(~gone)) if seen else canonical)
    for position, reason, detail in zip(checked.refusals.rows, checked.refusals.reasons, checked.refusals.details, strict=True):
        row = int(origin[kept[position]])
        if row not in seen:
            seen.add(row)
            merged.add(row, reason, detail)
    return Batch(checked.table, origin[kept[checked.rows]], merged, checked.missing_prices)
