"""Points as a panel needs them: events, trades, quotes and order books by instrument and by when they became known.

Points that became known at one moment are in the order in which they happened, and of those of one moment in their source's (`ts`, then
`seq`); events in that of their ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine import depth
from asof.engine.layout import Bytes, Spans, grouped, in_order, runs, text_hashes
from asof.engine.panel import Column, Floats, Ints, Points
from asof.errors import DataError
from asof.features.event_text import comparison
from asof.features.streams import BOOKS, EVENTS, QUOTES, TIME, TRADES, VWAP_TO_DEPTH
from asof.records import BOOKS as BOOK_SCHEMA
from asof.records import EVENT_DETAILS, floats, micros, one_chunk
from asof.records import EVENTS as EVENT_SCHEMA
from asof.records import QUOTES as QUOTE_SCHEMA
from asof.records import TRADES as TRADE_SCHEMA

SCHEMAS: Mapping[str, pa.Schema] = {EVENTS: EVENT_SCHEMA, TRADES: TRADE_SCHEMA, QUOTES: QUOTE_SCHEMA, BOOKS: BOOK_SCHEMA}
"""The records of every stream."""
ORDER = ("instrument_id", "ts", "seq", "available_at")
"""What a trade, a quote or a book is put in its place by."""


@dataclass(frozen=True)
class SortedPoints:
    """Points of a stream by instrument and by when they became known; each of the sorted `instruments` begins at its offset."""

    instruments: pa.Array
    offsets: Ints
    time: Ints
    columns: Mapping[Column, Floats]

    def on(self, instruments: pa.Array) -> Points:
        """The points of a panel's instruments. One without points has both ends where its would be; points of others are left out."""
        group = np.asarray(pc.fill_null(pc.index_in(instruments, self.instruments), -1)).astype(np.int64)
        stops = np.maximum.accumulate(np.where(group < 0, 0, self.offsets[group + 1]))
        starts = np.where(group < 0, stops, self.offsets[group])
        return Points(np.stack((starts, stops)), self.time, self.columns)


@dataclass(frozen=True)
class SortedEvents(SortedPoints):
    """Events in that order. `details` are what else was read of them, as it came; `order` has those rows in the order of the arrays."""

    order: Ints
    details: Mapping[str, pa.ChunkedArray]

    def having(self, wanted: Iterable[Column]) -> SortedPoints:
        """The events with these columns alone. Raises `KeyError` for one that was not read."""
        made = {column: self.columns[column] if column in self.columns else self._made(str(column[0])) for column in wanted}
        return SortedPoints(self.instruments, self.offsets, self.time, made)

    def _made(self, name: str) -> Floats:
        if name == TIME:
            return self.time.astype(np.float64)
        if name == "is_repost":
            return floats(self._detail(name).cast(pa.float64()))
        if name == "text":
            return text_numbers(self._detail("text_hash"))
        which, said = comparison(name) or (name, "")
        return floats(pc.equal(self._detail(which), said).cast(pa.float64()))

    def _detail(self, name: str) -> pa.Array:
        return one_chunk(self.details[name]).take(pa.array(self.order))


def text_numbers(texts: pa.Array) -> Floats:
    """A number below 2**52 for each text, the same wherever it stands; NaN where there is none."""
    hashes = text_hashes(*text(pa.chunked_array([pc.fill_null(texts, "")])))
    numbers: Floats = np.where(np.asarray(texts.is_null()), np.nan, (hashes >> np.uint64(12)).astype(np.float64))
    return numbers


def encoded(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """The distinct values of a column, sorted, and for each row which it is."""
    if not len(column):
        return pa.array([], pa.string()), np.zeros(0, np.int64)
    coded = column.dictionary_encode().unify_dictionaries()
    chunks = [np.asarray(chunk.indices) for chunk in coded.chunks]
    names = coded.chunk(0).dictionary
    order = np.asarray(pc.sort_indices(names)).astype(np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return names.take(pa.array(order)), rank[chunks[0] if len(chunks) == 1 else np.concatenate(chunks)]


def text(column: pa.ChunkedArray) -> tuple[Spans, Bytes]:
    """A column of strings as Arrow holds it: where each begins, and their bytes."""
    array = one_chunk(column)
    _, spans, data = array.buffers()
    return np.frombuffer(spans, np.int32)[array.offset : array.offset + len(array) + 1], np.frombuffer(data or b"", np.uint8)


EVENT_NAMES = ("instrument_id", "event_id", "enriched_at_utc", "event_time_utc", "score", "confidence")
"""What `sort_events` needs of events; `record_columns` adds what else a plan does."""


def sort_events(events: pa.Table) -> SortedEvents:
    """Events (one row for each instrument and event) sorted by instrument, time and id."""
    names, codes = encoded(events["instrument_id"])
    time = micros(events["enriched_at_utc"])
    order, offsets, tied = grouped(codes, time, len(names))
    if len(tied):
        ids = np.asarray(pc.rank(one_chunk(events["event_id"]).take(pa.array(order[tied])), tiebreaker="dense")).astype(np.int64)
        order[tied] = order[tied][np.lexsort((ids, time[order[tied]], codes[order[tied]]))]
    happened = events["event_time_utc"]
    skew = np.zeros(len(events)) if happened.null_count == len(events) else _clock_skew(happened, time)[order]
    columns: dict[Column, Floats] = {("sentiment",): floats(events["score"])[order], ("confidence",): floats(events["confidence"])[order]}
    details = {name: events[name] for name in events.column_names if name in EVENT_DETAILS}
    return SortedEvents(names, offsets, time[order], columns | {("clock_skew",): skew}, order, details)


def _clock_skew(happened: pa.ChunkedArray, enriched: Ints) -> Floats:
    """By how many microseconds each event claims to have happened after it was enriched."""
    skew: Floats = np.maximum(micros(pc.fill_null(happened.cast(pa.int64()), 0)) - enriched, 0).astype(np.float64)
    return skew


NO_EVENTS = sort_events(EVENT_SCHEMA.empty_table())
"""What a feature set without events sees."""


def known(points: pa.Table) -> Ints:
    """When trades, quotes or books became known: as they happened, unless they say later."""
    told = points["available_at"]
    return micros(points["ts"] if told.null_count == len(told) else pc.coalesce(told, points["ts"]) if told.null_count else told)


def sort_points(stream: str, points: pa.Table, wanted: Iterable[Column]) -> SortedPoints:
    """Trades, quotes or books sorted by instrument, by when they became known, `ts` and `seq`, with the wanted columns.

    Each `(instrument_id, ts, seq)` is there once. What comes in that order, as from a store, is taken as it is.
    """
    time, order = known(points), None
    starts = runs(*text(points["instrument_id"])) if len(points) else np.zeros(0, np.int64)
    names, codes = encoded(points["instrument_id"] if starts is None else points["instrument_id"].take(pa.array(starts)))
    if starts is not None and (np.diff(codes) > 0).all():
        offsets = np.append(starts, len(points))
    else:
        codes = codes if starts is None else np.repeat(codes, np.diff(starts, append=len(points)))
        offsets = np.searchsorted(np.sort(codes), np.arange(len(names) + 1))
        order = np.argsort(codes, kind="stable")
        time = time[order]
    happened, place = micros(points["ts"]), np.asarray(one_chunk(points["seq"]))
    happened, place = (happened, place) if order is None else (happened[order], place[order])
    if not in_order(offsets, time, happened, place):
        again = np.lexsort((place, happened, time, np.repeat(np.arange(len(names)), np.diff(offsets))))
        time, order = time[again], again if order is None else order[again]
        _check_places(stream, points.take(pa.array(order)), time)
    made = {column: known(points).astype(np.float64) if column == (TIME,) else COLUMNS[stream](points, column) for column in wanted}
    return SortedPoints(names, offsets, time, made if order is None else {column: values[order] for column, values in made.items()})


def _check_places(stream: str, points: pa.Table, time: Ints) -> None:
    """Refuse sorted points of which two have one place. Raises `DataError`."""
    same = np.diff(time) == 0
    for name in ("instrument_id", "ts", "seq"):
        same &= np.asarray(pc.equal(points[name].slice(1), points[name].slice(0, len(points) - 1)))
    if same.any():
        row = points.slice(int(same.argmax()), 1).to_pylist()[0]
        raise DataError(f"two {stream} of {row['instrument_id']} at {row['ts']} have seq {row['seq']}: number them in their order")


def _above_zero(values: Floats) -> Floats:
    """Values above 0; others are missing."""
    return values if len(values) == 0 or values.min() > 0 else np.where(values > 0, values, np.nan)


def _of_trades(points: pa.Table, column: Column) -> Floats:
    values = floats(points[str(column[0])])
    return _above_zero(values) if column[0] == "price" else values


def _of_quotes(points: pa.Table, column: Column) -> Floats:
    name = str(column[0])
    values = _above_zero(floats(points[name]))
    if not name.endswith("_size"):
        return values
    price = floats(points[name.removesuffix("_size")])
    return values if len(price) == 0 or price.min() > 0 else np.where(price > 0, values, np.nan)


def _of_books(points: pa.Table, column: Column) -> Floats:
    name, *asked = column
    if name == "gap":
        return np.asarray(pc.fill_null(points["gap"], False)).astype(np.float64)
    (amount,) = asked
    if name == VWAP_TO_DEPTH:
        side = "ask" if float(amount) > 0 else "bid"
        begins, prices = _levels(points[f"{side}_prices"])
        return depth.vwap_to_depth(begins, prices, _levels(points[f"{side}_sizes"])[1], abs(float(amount)))
    side, what = str(name).split("_")
    begins, values = _levels(points[f"{side}_{'prices' if what == 'price' else 'sizes'}"])
    return (depth.depth if what == "depth" else depth.level)(begins, values, int(amount))


def _levels(column: pa.ChunkedArray) -> tuple[depth.Begins, Floats]:
    """Where each book's levels begin, and all of them."""
    lists = one_chunk(column)
    return np.asarray(lists.offsets), floats(lists.values)


COLUMNS = {TRADES: _of_trades, QUOTES: _of_quotes, BOOKS: _of_books}
"""What makes a column of each stream."""
RECORD_COLUMNS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    TRADES: {name: (name,) for name in ("price", "size", "side")},
    QUOTES: {
        "bid": ("bid",),
        "ask": ("ask",),
        "bid_size": ("bid", "bid_size"),
        "ask_size": ("ask", "ask_size"),
    },
    BOOKS: {"gap": ("gap",)},
}
"""Which columns of its records a column of a stream is made of; those of books' levels follow from their names."""


def record_columns(stream: str, wanted: Iterable[Column]) -> tuple[str, ...]:
    """Which columns of a stream's records are read for its columns."""
    if stream == EVENTS:
        read = {"text": "text_hash", "is_repost": "is_repost"}
        details = {(comparison(str(name)) or (read.get(str(name), ""),))[0] for name, *_ in wanted}
        return (*EVENT_NAMES, *(name for name in EVENT_DETAILS if name in details))
    found = set(ORDER)
    for name, *asked in wanted:
        if name == VWAP_TO_DEPTH:
            side = "ask" if float(asked[0]) > 0 else "bid"
            found |= {f"{side}_prices", f"{side}_sizes"}
        elif asked:
            side, what = str(name).split("_")
            found.add(f"{side}_{'prices' if what == 'price' else 'sizes'}")
        elif name != TIME:
            found |= set(RECORD_COLUMNS[stream][str(name)])
    return tuple(name for name in SCHEMAS[stream].names if name in found)
