"""Between Arrow and the engine: tables of bars and points into a panel, blocks of results into tables of vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import NO_CALENDARS, Calendars
from asof.engine.layout import flag_numbers, is_sorted, known_since, off_grid, runs, surely_distinct
from asof.engine.panel import Floats, Ints, Panel, Points
from asof.engine.plan import Plan
from asof.engine.run import Block, block_rows, run_each
from asof.engine.stages import known_through, staged
from asof.errors import DataError, DefinitionError
from asof.features.streams import EVENTS
from asof.jobs.adjusting import NO_ACTIONS, acted, factors
from asof.jobs.members import NO_MEMBERSHIPS, member_columns
from asof.jobs.points import NO_EVENTS, SCHEMAS, SortedEvents, encoded, sort_points, text
from asof.records import BARS, EVENT_DETAILS, UTC, floats, micros, one_chunk, vector_schema
from asof.timeframes import grid, timeframe

NO_MARKET: Mapping[str, pa.Table] = {}
"""No trades, no quotes, no order books."""


@dataclass(frozen=True)
class SortedBars:
    """Bars by instrument and time; each of the sorted `instruments` begins at its offset."""

    table: pa.Table
    instruments: pa.Array
    offsets: Ints

    def series(self) -> Iterator[tuple[str, slice]]:
        """Each instrument and its rows."""
        for name, start, stop in zip(self.instruments.to_pylist(), self.offsets[:-1].tolist(), self.offsets[1:].tolist(), strict=True):
            yield name, slice(start, stop)

    def of(self, instruments: pa.Array) -> SortedBars:
        """Those of some sorted instruments, which may have none."""
        table = self.table.filter(pc.is_in(self.table["instrument_id"], instruments))
        place = np.asarray(pc.fill_null(pc.index_in(instruments, self.instruments), -1)).astype(np.int64)
        lengths = np.where(place < 0, 0, np.append(np.diff(self.offsets), 0)[place])
        return SortedBars(table, instruments, np.concatenate(([0], np.cumsum(lengths))))

    def closes(self, timeframe_text: str, calendars: Calendars) -> Ints:
        """When each bar closes."""
        ts = micros(self.table["ts"])
        closes: Ints = ts + timeframe(timeframe_text)
        for name, mine in self.series() if calendars else ():
            closes[mine] = calendars.closes(name, ts[mine], timeframe_text)
        return closes

    def known(self, timeframe_text: str, calendars: Calendars) -> Ints:
        """When each bar could be known: as its source says, or at its close."""
        closes = pa.chunked_array([pa.array(self.closes(timeframe_text, calendars)).cast(UTC)])
        return micros(pc.coalesce(self.table["available_at"], closes))

    def moments(self, timeframe_text: str, calendars: Calendars) -> Ints:
        """When each bar looks at bars of higher timeframes: once it is known, or a timeframe after its close if that is earlier.

        Without that bound, what became known any time later could change what a late bar sees.
        """
        return np.minimum(self.known(timeframe_text, calendars), self.closes(timeframe_text, calendars) + timeframe(timeframe_text))


NO_HIGHER: Mapping[str, SortedBars] = {}
"""What a feature set that looks at no higher timeframe needs of them."""


def sort_bars(bars: pa.Table) -> SortedBars:
    """Bars sorted by instrument and time. Raises `DataError` where two bars of an instrument open at one time.

    Bars mostly come in runs that are sorted, so runs are put in order before single bars are.
    """
    starts = runs(*text(bars["instrument_id"])) if len(bars) else None
    if starts is not None:
        lengths = np.diff(starts, append=len(bars))
        names, codes = encoded(bars["instrument_id"].take(pa.array(starts)))
        order = np.lexsort((micros(bars["ts"])[starts], codes))
        begins = np.cumsum(lengths[order]) - lengths[order]
        if (np.diff(order) != 1).any():
            bars = bars.take(pa.array(np.repeat(starts[order] - begins, lengths[order]) + np.arange(len(bars))))
        offsets = np.append(begins, len(bars))[np.searchsorted(codes[order], np.arange(len(names) + 1))]
        if is_sorted(offsets, micros(bars["ts"])):
            return SortedBars(bars, names, offsets)
    names, codes = encoded(bars["instrument_id"])
    ts = micros(bars["ts"])
    rows = np.lexsort((ts, codes))
    bars, codes, ts = bars.take(pa.array(rows)), codes[rows], ts[rows]
    twice = np.flatnonzero((np.diff(ts) == 0) & (np.diff(codes) == 0))
    if len(twice):
        row = bars.slice(int(twice[0]), 1).to_pylist()[0]
        raise DataError(f"two bars of {row['instrument_id']} open at {row['ts']}")
    return SortedBars(bars, names, np.searchsorted(codes, np.arange(len(names) + 1)))


def merge_enrichments(events: pa.Table) -> pa.Table:
    """One row for each instrument and event: the place of its first enrichment, the scores of its newest."""
    names, instrument = encoded(events["instrument_id"])
    if len(events) < 2 or surely_distinct(instrument, *text(events["event_id"])):
        return events
    _, event = encoded(events["event_id"])
    key = event * len(names) + instrument
    scored = micros(events["scored_at_utc"])
    ties = [micros(pc.fill_null(events["event_time_utc"].cast(pa.int64()), 0))]
    ties += [floats(events[name]).view(np.int64) for name in ("confidence", "score")]
    ties += [encoded(pc.fill_null(events[name].cast(pa.string()), ""))[1] for name in EVENT_DETAILS]
    order = np.lexsort((*ties, scored, key))  # of two scores of one moment always the same, whatever comes first
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    if len(starts) == len(events):
        return events
    newest = np.append(starts[1:], len(key)) - 1
    first = np.minimum.reduceat(micros(events["enriched_at_utc"])[order], starts)
    merged = events.take(pa.array(order[newest]))
    return merged.set_column(merged.schema.get_field_index("enriched_at_utc"), "enriched_at_utc", pa.array(first).cast(UTC))


def _points(plan: Plan, instruments: pa.Array, events: SortedEvents, market: Mapping[str, pa.Table]) -> dict[str, Points]:
    """The points of every stream that a plan and its stages read."""
    found = {EVENTS: events.having(plan.points.get(EVENTS, ())).on(instruments)}
    for stream, wanted in plan.points.items():
        if stream != EVENTS:
            found[stream] = sort_points(stream, market.get(stream, SCHEMAS[stream].empty_table()), wanted).on(instruments)
    return found


def panel_of(
    plan: Plan,
    timeframe_text: str,
    bars: SortedBars,
    events: SortedEvents,
    calendars: Calendars = NO_CALENDARS,
    actions: pa.Table = NO_ACTIONS,
    market: Mapping[str, pa.Table] = NO_MARKET,
    higher: Mapping[str, SortedBars] = NO_HIGHER,
    memberships: pa.Table = NO_MEMBERSHIPS,
) -> Panel:
    """The panel of bars, events, actions, the market's points, by stream, bars of higher timeframes and memberships.

    What is of instruments without bars is left out. Raises `DefinitionError` where what the plan takes for a higher timeframe is none.
    """
    check_higher(plan, timeframe_text)
    ts, step = micros(bars.table["ts"]), grid(timeframe_text)
    columns: dict[str, Floats] = {name: floats(bars.table[name]) for name in BARS.names if name in plan.columns}
    if "time" in plan.columns:
        columns["time"] = ts.astype(np.float64)
    if "unbroken" in plan.columns:
        columns["unbroken"] = np.ones(len(ts))
        for name, mine in bars.series() if calendars else ():
            columns["unbroken"][mine] = calendars.unbroken(name, ts[mine], timeframe_text)
    if "session" in plan.columns:
        columns["session"] = np.empty(len(ts))
        for name, mine in bars.series():
            begins = calendars.session_of(name, ts[mine])[0]
            columns["session"][mine] = np.where(begins < 0, np.nan, begins)
    if "grid_offset" in plan.columns:
        columns["grid_offset"] = off_grid(ts, step) if step else np.zeros(len(ts))
    if plan.adjusted:
        columns |= factors(bars.instruments, bars.offsets, ts, actions)
    columns |= member_columns(plan.columns, bars.instruments, bars.offsets, ts, memberships)
    points = _points(plan, bars.instruments, events, market)
    closes = bars.closes(timeframe_text, calendars) if plan.feature_set.market else None
    panel = Panel(bars.offsets, ts, columns, points, step, closes)
    if not plan.stages:
        return panel
    panels = {}
    for stage in plan.stages:
        if (frame := stage.timeframe) is not None:
            above = higher[frame].of(bars.instruments)
            made = panel_of(stage.plan, frame, above, NO_EVENTS, calendars, actions)
            panels[frame] = replace(made, known=above.known(frame, calendars))
    known, moments = _known(bars, timeframe_text, calendars, closes), bars.moments(timeframe_text, calendars)
    return replace(panel, known=known, moment=moments, higher=panels, acted=acted(bars.instruments, actions) if plan.adjusted else None)


def _known(bars: SortedBars, timeframe_text: str, calendars: Calendars, closes: Ints | None) -> Ints:
    """When each bar could be known; where trades until its close went in, not before that, however early it was told."""
    known = bars.known(timeframe_text, calendars)
    return known if closes is None else np.maximum(known, closes)


def check_higher(plan: Plan, base: str) -> None:
    """Refuse timeframes that are asked for as higher ones and are not."""
    for stage in plan.stages:
        if stage.timeframe is not None and timeframe(stage.timeframe) <= timeframe(base):
            raise DefinitionError(
                f"{plan.feature_set.version} looks at {stage.timeframe} bars from {base} bars, which are not lower: "
                f"compute it over a timeframe below {stage.timeframe}"
            )


def vectors_of(
    plan: Plan,
    panel: Panel,
    timeframe_text: str,
    bars: SortedBars,
    computed_at: datetime,
    pipeline_version: str,
    threads: int | None = None,
    calendars: Calendars = NO_CALENDARS,
    rows: int | None = None,
) -> pa.Table:
    """The vectors of sorted bars, one row a bar in their order, computed in morsels of `rows` and laid out on `threads` threads."""
    feature_set, step = plan.feature_set, timeframe(timeframe_text)
    schema = vector_schema(tuple(feature_set.features))
    panel = staged(plan, panel, threads, rows)
    known = known_through(plan, panel) if plan.stages else None
    if known is None and (calendars or bars.table["available_at"].null_count < len(panel.ts)):
        known = known_since(_known(bars, timeframe_text, calendars, panel.closes), panel.offsets, plan.lookback)
    instrument, ts = (one_chunk(bars.table[name]) for name in ("instrument_id", "ts"))
    constants = (pa.scalar(timeframe_text), pa.scalar(computed_at, UTC), pa.scalar(pipeline_version))
    repeated = [pa.repeat(constant, block_rows(plan, panel, threads, rows)) for constant in constants]
    names = sorted(feature_set.flag_names)
    labels = pa.array(names, pa.string())
    bits = np.array([feature_set.flag_names.index(n) for n in names])

    def batch(block: Block) -> pa.RecordBatch:
        start, rows = block.start, block.stop - block.start
        frame, when, version = (column.slice(0, rows) for column in repeated)
        offsets, values = flag_numbers(block.flags, bits)
        lists = pa.ListArray.from_arrays(pa.array(offsets), labels.take(pa.array(values)))
        features = [
            pa.Array.from_buffers(pa.float64(), rows, [None if bitmap is None else pa.py_buffer(bitmap), pa.py_buffer(column)], missing)
            for column, bitmap, missing in block.features
        ]
        counts = (pa.array(block.event_count), pa.array(block.ohlcv_count))
        available = panel.ts[start : block.stop] + step if known is None else known[start : block.stop]
        keys = (instrument.slice(start, rows), frame, ts.slice(start, rows))
        return pa.record_batch([*keys, *features, lists, *counts, pa.array(available).cast(UTC), when, version], schema=schema)

    return pa.Table.from_batches(run_each(plan, panel, batch, threads, rows), schema)
