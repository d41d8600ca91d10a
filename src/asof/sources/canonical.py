"""A batch of any columns, turned into bars, events, actions or memberships in canonical schema, with every refused row and its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DataError, DefinitionError
from asof.records import (
    ACTIONS,
    BARS,
    EVENT_DETAILS,
    EVENTS,
    MEMBERSHIPS,
    PRICES,
    UTC,
    Checked,
    Refusals,
    Rows,
    check_actions,
    check_bars,
    check_events,
    check_memberships,
    nulls,
    one_chunk,
    repeated,
)
from asof.sources.columns import ColumnMapping, Reader
from asof.sources.symbols import Symbols
from asof.timeframes import timeframe as check_timeframe


@dataclass(frozen=True)
class Batch:
    """Usable records and the positions in the batch that they came from, and its refused rows: `refusals.rows` are positions too."""

    table: pa.Table
    rows: Rows
    refusals: Refusals
    missing_prices: int = 0


def bars_of(
    table: pa.Table, mapping: ColumnMapping, timeframe: str | None = None, source: str | None = None, symbols: Symbols | None = None
) -> Batch:
    """Bars from a table with at least `instrument_id`, `ts` and `close`, or the columns mapped to them.

    `timeframe` is for tables without such a column. With `symbols`, `instrument_id` holds the tickers of then. Raises `DataError` where a
    column is missing or cannot be read at all.
    """
    reader = Reader(table, mapping)
    rows = len(table)
    columns: dict[str, Any] = {
        "instrument_id": reader.text("instrument_id"),
        "ts": reader.times("ts"),
        "available_at": reader.times("available_at") if reader.has("available_at") else nulls(rows, UTC),
        "source": _source(reader, rows, source),
    }
    if symbols is not None:
        columns["instrument_id"] = symbols.instruments(reader.text("instrument_id"), columns["ts"], reader.refusals)
    columns["timeframe"] = _timeframes(reader, rows, timeframe)
    reader.column("close")
    absent = nulls(rows, pa.float64())
    for name in (*PRICES, "volume"):
        columns[name] = reader.numbers(name) if reader.has(name) else absent
    canonical = pa.table([columns[name] for name in BARS.names], schema=BARS)
    return finish(reader.refusals, check_bars, canonical)


def _source(reader: Reader, rows: int, source: str | None) -> pa.ChunkedArray | pa.Array:
    if source is not None:
        return repeated(source, rows)
    return reader.text("source") if reader.has("source") else nulls(rows, pa.string())


def _timeframes(reader: Reader, rows: int, timeframe: str | None) -> pa.ChunkedArray | pa.Array:
    if timeframe is not None:
        check_timeframe(timeframe)
        named = [t for t in reader.text("timeframe").unique().to_pylist() if t != timeframe] if reader.has("timeframe") else []
        if named:
            raise DataError(f"the bars are said to be {timeframe}, but their timeframe column holds {named[0]!r}")
        return repeated(timeframe, rows)
    if not reader.has("timeframe"):
        raise DataError("the bars have no timeframe column: say which they are, such as --timeframe 1d")
    column = reader.text("timeframe")
    for value in column.unique().to_pylist():
        try:
            check_timeframe(value)
        except DefinitionError as error:
            same = column.is_null() if value is None else pc.fill_null(pc.equal(column, value), False)
            for row in np.flatnonzero(np.asarray(same)):
                reader.refusals.add(int(row), "unknown_timeframe", str(error))
    return column


def events_of(table: pa.Table, mapping: ColumnMapping) -> Batch:
    """Events, one row for each instrument that an event names.

    The table has `event_id`, `enriched_at_utc`, `tickers` (symbols, or objects with `symbol`) and the sentiment's `score` and
    `confidence`, nested or flat; it may have `category`, `source`, `source_name`, `text_hash` and `is_repost`. Raises `DataError` where a
    column is missing or cannot be read at all.
    """
    reader = Reader(table, mapping)
    rows = len(table)
    symbols, parents = _tickers(reader)
    if parents is not None:
        for row in np.flatnonzero(np.bincount(parents, minlength=rows) == 0):
            reader.refusals.add(int(row), "no_tickers", "the event names no ticker")
    enriched = reader.times("enriched_at_utc")
    columns = {
        "event_id": reader.text("event_id"),
        "enriched_at_utc": enriched,
        "event_time_utc": reader.times("event_time_utc") if reader.has("event_time_utc") else nulls(rows, UTC),
        "score": _sentiment(reader, "score"),
        "confidence": _sentiment(reader, "confidence"),
        "scored_at_utc": enriched,
        **_details(reader),
    }
    exploded = columns if parents is None else {name: pc.take(column, pa.array(parents)) for name, column in columns.items()}
    exploded["instrument_id"] = symbols
    canonical = pa.table([exploded[name] for name in EVENTS.names], schema=EVENTS)
    return finish(reader.refusals, check_events, canonical, parents)


def _details(reader: Reader) -> Columns:
    """What events may have beside times and scores, under our names or those of the messages of a topic; null where they have it not."""
    found: Columns = {}
    for name in EVENT_DETAILS:
        there = next((n for n in (name, *ALIASES.get(name, ())) if reader.has(n)), None)
        if there is None:
            found[name] = nulls(len(reader.table), pa.string()) if name != "is_repost" else pa.nulls(len(reader.table), pa.bool_())
        else:
            found[name] = reader.truths(there) if name == "is_repost" else reader.text(there)
    return found | {"text_hash": pc.utf8_lower(found["text_hash"])}


ALIASES = {"category": ("event_category",), "source": ("source_type",), "text_hash": ("normalized_text_hash",)}
"""What messages of a topic call them."""
Columns = dict[str, pa.ChunkedArray | pa.Array]


def actions_of(table: pa.Table, mapping: ColumnMapping) -> Batch:
    """Corporate actions from a table with `instrument_id`, `ts` (the ex-date), and `split` or `dividend_factor` or both.

    Raises `DataError` where a column is missing or cannot be read at all.
    """
    reader = Reader(table, mapping)
    factors = [name for name in ("split", "dividend_factor") if reader.has(name)] or ["split"]
    absent = nulls(len(table), pa.float64())
    columns = {name: reader.numbers(name) if name in factors else absent for name in ("split", "dividend_factor")}
    columns |= {"instrument_id": reader.text("instrument_id"), "ts": reader.times("ts")}
    return finish(reader.refusals, check_actions, pa.table([columns[name] for name in ACTIONS.names], schema=ACTIONS))


MEMBER = "in"
"""What an instrument is in a universe whose rows do not say more."""


def memberships_of(table: pa.Table, mapping: ColumnMapping, scheme: str | None = None) -> Batch:
    """Memberships from a table with `instrument_id`, `ts`, `scheme`, and `value` and `available_at` where there are such.

    `scheme` is for tables without such a column. Without `value` every row says that the instrument is in from then on. Raises `DataError`
    where a column is missing or cannot be read at all.
    """
    reader, rows = Reader(table, mapping), len(table)
    columns: dict[str, Any] = {
        "scheme": _schemes(reader, rows, scheme),
        "instrument_id": reader.text("instrument_id"),
        "ts": reader.times("ts"),
        "value": reader.text("value") if reader.has("value") else repeated(MEMBER, rows),
        "available_at": reader.times("available_at") if reader.has("available_at") else nulls(rows, UTC),
    }
    canonical = pa.table([columns[name] for name in MEMBERSHIPS.names], schema=MEMBERSHIPS)
    return finish(reader.refusals, check_memberships, canonical)


def _schemes(reader: Reader, rows: int, scheme: str | None) -> pa.ChunkedArray:
    if scheme is None and not reader.has("scheme"):
        raise DataError("the memberships have no scheme column: say which it is, such as --scheme sp500")
    if scheme is None:
        return reader.text("scheme")
    other = [name for name in reader.text("scheme").unique().to_pylist() if name != scheme] if reader.has("scheme") else []
    if other:
        raise DataError(f"the memberships are said to be of {scheme}, but their scheme column holds {other[0]!r}")
    return repeated(scheme, rows)


def _sentiment(reader: Reader, name: str) -> pa.ChunkedArray:
    if name in reader.mapping.columns:
        return reader.numbers(name)
    for alias in (name, f"sentiment.{name}", f"sentiment_{name}"):
        nested = Reader(reader.table, ColumnMapping({name: alias}))
        if nested.has(name):
            nested.refusals = reader.refusals
            return nested.numbers(name)
    return reader.numbers(name)


def _tickers(reader: Reader) -> tuple[pa.ChunkedArray | pa.Array, np.ndarray | None]:
    """The symbols that the events name, and the row that each belongs to; None where every row has just its one."""
    if reader.has("instrument_id") and not reader.has("tickers") and not pa.types.is_nested(reader.column("instrument_id").type):
        return reader.text("instrument_id"), None
    column = reader.column("tickers" if reader.has("tickers") or not reader.has("instrument_id") else "instrument_id")
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.string())
        if not any(v is None or _SEPARATORS.search(v) for v in column.unique().to_pylist()):
            return column, None
        column = pc.split_pattern_regex(pc.utf8_trim(pc.fill_null(column, ""), " \t\r\n;,|"), _SEPARATORS.pattern)
        kind = column.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        raise DataError(f"tickers hold {kind}; expected symbols, or objects with a symbol")
    if pa.types.is_struct(kind.value_type) and kind.value_type.get_field_index("symbol") < 0:
        raise DataError("the objects in tickers have no symbol")
    lists = one_chunk(column.cast(pa.large_list(kind.value_type)))
    values = pc.list_flatten(lists)
    if pa.types.is_struct(values.type):
        values = pc.struct_field(values, "symbol")
    return values.cast(pa.string()), np.asarray(pc.list_parent_indices(lists))


_SEPARATORS = re.compile(r"[;,|\s]+")


def finish(early: Refusals, check: Callable[[pa.Table], Checked], canonical: pa.Table, parents: np.ndarray | None = None) -> Batch:
    """Refusals of reading and of checking, in terms of the rows that came; a row is refused once, for its first reason."""
    seen: set[int] = set()
    merged = Refusals()
    for row, reason, detail in zip(early.rows, early.reasons, early.details, strict=True):
        if row not in seen:
            seen.add(row)
            merged.add(row, reason, detail)
    origin = np.arange(len(canonical) if seen else 0) if parents is None else parents
    kept = np.flatnonzero(~np.isin(origin, list(seen)))
    checked = check(canonical.take(pa.array(kept)) if seen else canonical)
    if parents is None and not seen:  # nothing was lost on the way here, so positions are what they were
        rows = np.arange(len(canonical))[checked.rows] if checked.refusals.rows else checked.rows
        return Batch(checked.table, rows, checked.refusals, checked.missing_prices)
    for position, reason, detail in zip(checked.refusals.rows, checked.refusals.reasons, checked.refusals.details, strict=True):
        row = int(origin[kept[position]])
        if row not in seen:
            seen.add(row)
            merged.add(row, reason, detail)
    rows = origin[kept[checked.rows]]
    whole = ~np.isin(rows, merged.rows)  # an event is refused for all the instruments that it names
    if parents is None or whole.all():
        return Batch(checked.table, rows, merged, checked.missing_prices)
    return Batch(checked.table.filter(pa.array(whole)), rows[whole], merged, checked.missing_prices)
