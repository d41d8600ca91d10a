"""Between Arrow and the engine: tables of bars and events into a panel, blocks of results into tables of vectors."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.layout import flag_numbers, known_since, offsets_of, order_of, surely_distinct
from asof.engine.panel import Floats, Ints, Panel
from asof.engine.plan import Plan
from asof.engine.run import Block, run_each
from asof.errors import DataError
from asof.records import EVENTS, UTC, floats, micros, one_chunk, vector_schema
from asof.timeframes import grid, timeframe


def _encoded(column: pa.ChunkedArray) -> tuple[pa.Array, Ints]:
    """The distinct values of a column and, for each row, which it is."""
    if not len(column):
        return pa.array([], pa.string()), np.zeros(0, np.int32)
    coded = column.dictionary_encode().unify_dictionaries()
    chunks = [np.asarray(chunk.indices) for chunk in coded.chunks]
    return coded.chunk(0).dictionary, chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def sort_bars(bars: pa.Table) -> tuple[pa.Table, pa.Array, Ints]:
    """Bars sorted by instrument and time, the instruments, and the offsets at which each begins.

    Raises `DataError` where two bars of an instrument open at one time.
    """
    names, codes = _encoded(bars["instrument_id"])
    order = np.asarray(pc.sort_indices(names)).astype(np.int64)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    ts = micros(bars["ts"])
    offsets = offsets_of(codes, rank, ts)
    if offsets is None:
        rows = np.lexsort((ts, rank[codes]))
        bars, codes, ts = bars.take(pa.array(rows)), codes[rows], ts[rows]
        offsets = offsets_of(codes, rank, ts)
    if offsets is None:
        row = int(np.flatnonzero((np.diff(ts) == 0) & (np.diff(codes) == 0))[0])
        twice = bars.slice(row, 1).to_pylist()[0]
        raise DataError(f"two bars of {twice['instrument_id']} open at {twice['ts']}")
    return bars, names.take(pa.array(order)), offsets


def merge_enrichments(events: pa.Table) -> pa.Table:
    """One row for each instrument and event: the place of its first enrichment, the scores of its newest."""
    if len(events) < 2:
        return events
    names, instrument = _encoded(events["instrument_id"])
    ids = one_chunk(events["event_id"])
    _, offsets, data = ids.buffers()
    spans = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if surely_distinct(instrument, spans, np.frombuffer(data or b"", np.uint8)):
        return events
    _, event = _encoded(events["event_id"])
    key = event.astype(np.int64) * len(names) + instrument
    scored = micros(events["scored_at_utc"])
    ties = [micros(pc.fill_null(events["event_time_utc"].cast(pa.int64()), 0))]
    ties += [floats(events[name]).view(np.int64) for name in ("confidence", "score")]
    order = np.lexsort((*ties, scored, key))  # of two scores of one moment always the same, whatever comes first
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    if len(starts) == len(events):
        return events
    newest = np.append(starts[1:], len(key)) - 1
    first = np.minimum.reduceat(micros(events["enriched_at_utc"])[order], starts)
    merged = events.take(pa.array(order[newest]))
    return merged.set_column(merged.schema.get_field_index("enriched_at_utc"), "enriched_at_utc", pa.array(first).cast(UTC))


def panel_of(plan: Plan, timeframe_text: str, bars: pa.Table, instruments: pa.Array, offsets: Ints, events: pa.Table) -> Panel:
    """The panel of sorted bars (see `sort_bars`) and canonical events; events of instruments without bars are left out."""
    ts, step = micros(bars["ts"]), grid(timeframe_text)
    columns: dict[str, Floats] = {name: np.ascontiguousarray(floats(bars[name])) for name in plan.bar_columns if name != "grid_offset"}
    if "grid_offset" in plan.bar_columns:
        columns["grid_offset"] = (ts % step).astype(np.float64) if step else np.zeros(len(ts))
    if not plan.feature_set.event_window:
        events = EVENTS.empty_table()
    code = np.asarray(pc.fill_null(pc.index_in(events["instrument_id"].combine_chunks(), instruments), -1)).astype(np.int64)
    if (code < 0).any():
        events, code = events.filter(pa.array(code >= 0)), code[code >= 0]
    time = micros(events["enriched_at_utc"])
    order, tied = order_of(code, time)
    if len(tied):
        ids = np.asarray(pc.rank(events["event_id"].combine_chunks().take(pa.array(order[tied])), tiebreaker="dense")).astype(np.int64)
        order[tied] = order[tied][np.lexsort((ids, time[order[tied]], code[order[tied]]))]
    event_columns = {
        "sentiment": floats(events["score"])[order],
        "confidence": floats(events["confidence"])[order],
        "clock_skew": _clock_skew(events["event_time_utc"], time)[order],
    }
    event_offsets = np.concatenate(([0], np.cumsum(np.bincount(code, minlength=len(instruments))))).astype(np.int64)
    return Panel(offsets, ts, columns, event_offsets, time[order], event_columns, step)


def _clock_skew(happened: pa.ChunkedArray, enriched: Ints) -> Floats:
    """By how many microseconds each event claims to have happened after it was enriched."""
    if happened.null_count == len(happened):
        return np.zeros(len(enriched))
    skew: Floats = np.maximum(micros(pc.fill_null(happened.cast(pa.int64()), 0)) - enriched, 0).astype(np.float64)
    return skew


def vectors_of(
    plan: Plan, panel: Panel, timeframe_text: str, bars: pa.Table, computed_at: datetime, pipeline_version: str, threads: int | None = None
) -> pa.Table:
    """The vectors of sorted bars, one row a bar in their order, computed and laid out on `threads` threads."""
    feature_set = plan.feature_set
    schema = vector_schema(tuple(feature_set.features))
    known = pc.add(bars["ts"].cast(pa.int64()), timeframe(timeframe_text)).cast(UTC)
    if bars["available_at"].null_count < len(bars):
        told = micros(pc.coalesce(bars["available_at"], known))
        known = pa.chunked_array([pa.array(known_since(told, panel.offsets, plan.lookback)).cast(UTC)])
    instrument, ts, available = (one_chunk(column) for column in (bars["instrument_id"], bars["ts"], known))
    constants = [pa.scalar(timeframe_text), pa.scalar(computed_at, UTC), pa.scalar(pipeline_version)]
    names = sorted(feature_set.flag_names)
    labels = pa.array(names, pa.string())
    bits = np.array([feature_set.flag_names.index(n) for n in names])

    def batch(block: Block) -> pa.RecordBatch:
        start, rows = block.start, block.stop - block.start
        frame, when, version = (pa.repeat(constant, rows) for constant in constants)
        offsets, values = flag_numbers(block.flags, bits)
        lists = pa.ListArray.from_arrays(pa.array(offsets), labels.take(pa.array(values)))
        features = [
            pa.Array.from_buffers(pa.float64(), rows, [None if bitmap is None else pa.py_buffer(bitmap), pa.py_buffer(column)], missing)
            for column, bitmap, missing in block.features
        ]
        counts = (pa.array(block.event_count), pa.array(block.ohlcv_count))
        columns = [
            instrument.slice(start, rows),
            frame,
            ts.slice(start, rows),
            *features,
            lists,
            *counts,
            available.slice(start, rows),
            when,
            version,
        ]
        return pa.record_batch(columns, schema=schema)

    return pa.Table.from_batches(run_each(plan, panel, batch, threads), schema)
