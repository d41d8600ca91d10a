"""Between Arrow and the engine: tables of bars and events into a panel, blocks of results into tables of vectors."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Floats, Ints, Panel
from asof.engine.plan import Plan
from asof.engine.run import Block
from asof.features.feature_set import FeatureSet
from asof.records import UTC, floats, micros, vector_schema
from asof.timeframes import grid, timeframe


def sort_bars(bars: pa.Table) -> tuple[pa.Table, pa.Array, Ints]:
    """Bars sorted by instrument and time, the instruments, and the offsets at which each begins."""
    coded = bars["instrument_id"].combine_chunks().dictionary_encode() if len(bars) else pa.array([], pa.string()).dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    names, codes = coded.dictionary, np.asarray(coded.indices)
    order = np.asarray(pc.sort_indices(names))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    ranks, ts = rank[codes] if len(codes) else np.zeros(0, np.int64), micros(bars["ts"])
    steps = np.diff(ranks)
    if len(ranks) > 1 and not ((steps > 0) | ((steps == 0) & (np.diff(ts) > 0))).all():
        rows = np.lexsort((ts, ranks))
        bars, ranks = bars.take(pa.array(rows)), ranks[rows]
    return bars, names.take(pa.array(order)), np.searchsorted(ranks, np.arange(len(order) + 1)).astype(np.int64)


def merge_enrichments(events: pa.Table) -> pa.Table:
    """One row for each instrument and event: the place of its first enrichment, the scores of its newest."""
    if len(events) < 2:
        return events
    keys = pc.binary_join_element_wise(events["instrument_id"], events["event_id"], "\x1f")
    if pc.count_distinct(keys).as_py() == len(events):
        return events
    events = events.append_column("key", keys).sort_by(
        [(name, "ascending") for name in ("key", "scored_at_utc", "score", "confidence", "event_time_utc")]  # whatever order they came in
    )
    places = events.group_by("key").aggregate([("enriched_at_utc", "min")])
    key = np.asarray(events["key"].combine_chunks().dictionary_encode().indices)
    newest = np.append(np.flatnonzero(np.diff(key)), len(key) - 1)
    latest = events.take(pa.array(newest)).drop_columns(["enriched_at_utc"]).join(places, "key").rename_columns({"enriched_at_utc_min": "enriched_at_utc"})
    return latest.select(["instrument_id", "event_id", "enriched_at_utc", "event_time_utc", "score", "confidence", "scored_at_utc"])


def panel_of(plan: Plan, timeframe_text: str, bars: pa.Table, instruments: pa.Array, offsets: Ints, events: pa.Table) -> Panel:
    """The panel of sorted bars (see `sort_bars`) and canonical events; instruments without bars lose their events."""
    ts = micros(bars["ts"])
    columns: dict[str, Floats] = {}
    step = grid(timeframe_text)
    for name in plan.bar_columns:
        columns[name] = (ts % step).astype(np.float64) if name == "grid_offset" and step else (
            np.zeros(len(ts)) if name == "grid_offset" else np.ascontiguousarray(floats(bars[name]))
        )
    if not plan.feature_set.event_window:
        events = events.slice(0, 0)
    code = np.asarray(pc.fill_null(pc.index_in(events["instrument_id"].combine_chunks(), instruments), -1)).astype(np.int64)
    if (code < 0).any():
        events, code = events.filter(pa.array(code >= 0)), code[code >= 0]
    time = micros(events["enriched_at_utc"])
    happened = np.where(np.asarray(events["event_time_utc"].is_null()), time, micros(pc.fill_null(events["event_time_utc"].cast(pa.int64()), 0)))
    order = np.lexsort((time, code))
    if len(order) and (same := (np.diff(code[order]) == 0) & (np.diff(time[order]) == 0)).any() and same.size:
        ids = np.asarray(pc.rank(events["event_id"].combine_chunks(), tiebreaker="dense")).astype(np.int64)
        order = np.lexsort((ids, time, code))
    event_columns = {
        "sentiment": floats(events["score"])[order],
        "confidence": floats(events["confidence"])[order],
        "clock_skew": np.maximum(happened - time, 0)[order].astype(np.float64),
    }
    event_offsets = np.searchsorted(code[order], np.arange(len(instruments) + 1)).astype(np.int64)
    return Panel(offsets, ts, columns, event_offsets, time[order], event_columns, step)


def flag_lists(flags: Ints, names: tuple[str, ...]) -> pa.ListArray:
    """Bitmasks as sorted lists of flag names. There are few different masks, so each list is made once."""
    masks, which = np.unique(flags, return_inverse=True)
    lists = pa.array([sorted(n for bit, n in enumerate(names) if mask >> bit & 1) for mask in masks.tolist()], pa.list_(pa.string()))
    return lists.take(pa.array(which.astype(np.int32)))


def vectors_of(
    feature_set: FeatureSet, timeframe_text: str, bars: pa.Table, blocks: Iterable[Block], computed_at: datetime, pipeline_version: str
) -> pa.Table:
    """The vectors of sorted bars, one row a bar in their order."""
    schema = vector_schema(tuple(feature_set.features))
    step = timeframe(timeframe_text)
    ts = bars["ts"].cast(pa.int64())
    known = pc.coalesce(bars["available_at"].cast(pa.int64()), pc.add(ts, step)).cast(UTC)
    bars = bars.set_column(bars.schema.get_field_index("available_at"), "available_at", known).combine_chunks()
    instrument, open_ts, available = (_one_chunk(bars[name]) for name in ("instrument_id", "ts", "available_at"))
    batches = []
    for block in blocks:
        rows = block.stop - block.start
        features = [
            pa.Array.from_buffers(pa.float64(), rows, [None if bitmap is None else pa.py_buffer(bitmap), pa.py_buffer(values)], missing)
            for values, bitmap, missing in block.features
        ]
        batches.append(
            pa.record_batch(
                [
                    instrument.slice(block.start, rows),
                    pa.repeat(pa.scalar(timeframe_text), rows),
                    open_ts.slice(block.start, rows),
                    *features,
                    flag_lists(block.flags, feature_set.flag_names),
                    pa.array(block.event_count),
                    pa.array(block.ohlcv_count),
                    available.slice(block.start, rows),
                    pa.repeat(pa.scalar(computed_at, UTC), rows),
                    pa.repeat(pa.scalar(pipeline_version), rows),
                ],
                schema=schema,
            )
        )
    return pa.Table.from_batches(batches, schema)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
