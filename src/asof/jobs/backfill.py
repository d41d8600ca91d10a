"""Backfill: the vectors of stored bars and events, computed and stored in bounded memory.

1. `parts` cuts the work into groups of instruments, or stretches of one long history with its lookback in front, each of at most so
   many bars as the memory allows.
2. Each part is read and computed by the engine on its threads; `_regrouped` cuts what comes out into as many rows as the store likes to
   write, and these are upserted in one transaction while the next are computed.
3. Vectors that are there already, with the same bits, are left alone: a backfill that was killed is finished by running it again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.plan import Plan, plan
from asof.errors import DefinitionError, NotFound, did_you_mean
from asof.features.feature_set import FeatureSet
from asof.jobs.panels import EVENT_COLUMNS, NO_EVENTS, panel_of, sort_bars, sort_events, vectors_of
from asof.records import BARS, EVENTS, QUALITY_LOG, UTC
from asof.stores.store import BARS_TABLE, EVENTS_TABLE, Changes, Selection, Store, vectors_table

Progress = Callable[[int, int], None]
"""Told how many more bars are done, and of how many in all."""

MOST_PART_ROWS = 750_000


@dataclass(frozen=True)
class Part:
    """Instruments, the times of the bars whose vectors are wanted, and from when on bars are read for the lookback.

    `alone` tells whether there are no others between the first and the last of the instruments.
    """

    instruments: tuple[str, ...]
    alone: bool
    rows: int
    start: datetime | None = None
    end: datetime | None = None
    read_from: datetime | None = None

    def selection(self, timeframe: str | None, start: datetime | None, end: datetime | None) -> Selection:
        """The rows of the part's instruments in `[start, end]`."""
        if self.alone:
            return Selection(timeframe, start=start, end=end, span=(self.instruments[0], self.instruments[-1]))
        return Selection(timeframe, self.instruments, start, end)


@dataclass(frozen=True)
class BackfillReport:
    """What a backfill did: vectors computed, and how they differed from what was stored; requested instruments without bars."""

    computed: int
    changes: Changes
    without_bars: tuple[str, ...]


def memory_bytes(text: str) -> int:
    """Bytes of an amount such as `512MB` or `2GB`."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT])i?B?", text.strip(), re.IGNORECASE)
    if not found:
        raise DefinitionError(f"memory {text!r} is not an amount such as 512MB or 2GB")
    amount = int(float(found[1]) * 1024 ** ("KMGT".index(found[2].upper()) + 1))
    if amount < 256 << 20:
        raise DefinitionError(f"memory {text!r} is less than the 256MB that a backfill needs")
    return amount


def part_rows(memory: int, features: int) -> int:
    """How many bars a part may have so that a third of `memory` holds two parts' bars and vectors, and the store has the rest."""
    return int(np.clip(memory // 6 // (400 + 32 * features), 20_000, MOST_PART_ROWS))


def backfill(
    store: Store,
    feature_set: FeatureSet,
    timeframe: str,
    *,
    now: datetime,
    pipeline_version: str,
    instruments: tuple[str, ...] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    threads: int | None = None,
    memory: int = 2 << 30,
    progress: Progress = lambda done, total: None,
) -> BackfillReport:
    """Compute and store the vectors of every selected bar; `instruments` and `[start, end]` default to all there is.

    Raises `NotFound` where nothing is selected. Requested instruments without bars get a row in the quality log instead.
    """
    spans = store.spans(timeframe)
    known = spans["instrument_id"].to_pylist()
    wanted = known if instruments is None else sorted(set(instruments))
    without = tuple(sorted(set(wanted) - set(known)))
    if without:
        _log_without_bars(store, feature_set, timeframe, without, now)
    if not set(wanted) & set(known):
        raise NotFound(_nothing(store, timeframe, known, without))
    the_plan = plan(feature_set)
    spans = spans.filter(pc.is_in(spans["instrument_id"], pa.array(wanted)))
    rows = part_rows(memory, len(feature_set.features))
    todo = list(parts(store, spans, timeframe, feature_set.lookback, rows, start, end, alone=instruments is None))
    total, computed, changes = sum(p.rows for p in todo), 0, Changes()
    table = vectors_table(feature_set)
    made = (_compute(store, the_plan, timeframe, part, now, pipeline_version, threads) for part in todo)
    with ThreadPoolExecutor(1, thread_name_prefix="asof-store") as writer:
        writing: Future[Changes] | None = None
        for vectors in _regrouped(made, store.write_rows):
            if writing:
                changes += writing.result()
            progress(len(vectors), total)
            writing = writer.submit(store.upsert, table, vectors, now)
            computed += len(vectors)
        changes += writing.result() if writing else Changes()
    return BackfillReport(computed, changes, without)


def _regrouped(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of the tables in tables of just so many rows; the last may have fewer."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while sum(map(len, waiting)) >= rows:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, rows).combine_chunks()  # here, where nobody waits for it
            waiting = [whole.slice(rows)]
    rest = pa.concat_tables(waiting) if waiting else []
    if len(rest):
        yield rest


def parts(
    store: Store,
    spans: pa.Table,
    timeframe: str,
    lookback: int,
    rows: int,
    start: datetime | None,
    end: datetime | None,
    *,
    alone: bool,
) -> Iterator[Part]:
    """The work in pieces of at most `rows` bars (a group always has one instrument at least), in the order of the instruments.

    `alone` tells whether the spans are of all instruments that have such bars.
    """
    group: list[str] = []
    size = 0
    for span in spans.to_pylist():
        if (start and span["last"] < start) or (end and span["first"] > end):
            continue
        if size + span["bars"] > rows and group:
            yield Part(tuple(group), alone, size, start, end)
            group, size = [], 0
        if span["bars"] > rows:
            yield from _stretches(store, timeframe, span["instrument_id"], lookback, rows, start, end)
        else:
            group.append(span["instrument_id"])
            size += span["bars"]
    if group:
        yield Part(tuple(group), alone, size, start, end)


def _stretches(
    store: Store, timeframe: str, instrument: str, lookback: int, rows: int, start: datetime | None, end: datetime | None
) -> Iterator[Part]:
    cuts = store.cuts(timeframe, instrument, rows, lookback)
    for (first, early), following in zip(cuts, [*cuts[1:], None], strict=True):
        last = following[0] - timedelta(microseconds=1) if following else None
        if (end and first > end) or (start and last and last < start):
            continue
        yield Part((instrument,), True, rows, max(first, start) if start else first, min(filter(None, (last, end)), default=None), early)


def _compute(
    store: Store, the_plan: Plan, timeframe: str, part: Part, now: datetime, pipeline_version: str, threads: int | None
) -> pa.Table:
    feature_set = the_plan.feature_set
    columns = ("instrument_id", "ts", "available_at", *(c for c in the_plan.bar_columns if c in BARS.names))
    chosen = part.selection(timeframe, part.read_from, part.end)
    bars = sort_bars(_joined(store.read(BARS_TABLE, chosen, columns, ordered=False), BARS))
    if not len(bars.table):
        return vectors_table(feature_set).schema.empty_table()
    events = NO_EVENTS
    if feature_set.event_window:
        ts = pc.min_max(bars.table["ts"]).as_py()
        window = timedelta(microseconds=feature_set.event_window)
        seen = part.selection(None, ts["min"] - window, ts["max"])
        events = sort_events(_joined(store.read(EVENTS_TABLE, seen, EVENT_COLUMNS, ordered=False), EVENTS))
    panel = panel_of(the_plan, timeframe, bars, events)
    vectors = vectors_of(the_plan, panel, timeframe, bars, now, pipeline_version, threads)
    if part.start:
        vectors = vectors.filter(pc.greater_equal(vectors["ts"], pa.scalar(part.start, UTC)))
    return vectors


def _joined(tables: Iterator[pa.Table], schema: pa.Schema) -> pa.Table:
    found = list(tables)
    return pa.concat_tables(found) if found else schema.empty_table()


def _log_without_bars(store: Store, feature_set: FeatureSet, timeframe: str, instruments: tuple[str, ...], now: datetime) -> None:
    rows = [
        {
            "instrument_id": name,
            "timeframe": timeframe,
            "feature_set_version": feature_set.version,
            "issue_type": "NO_BARS",
            "issue_details": '{"reason": "the store has no bar of this instrument and timeframe"}',
            "detected_at": now,
        }
        for name in instruments
    ]
    store.append("feature_quality_log", pa.Table.from_pylist(rows, schema=QUALITY_LOG))


def _nothing(store: Store, timeframe: str, known: list[str], without: tuple[str, ...]) -> str:
    if not known:
        others = sorted(set(store.spans()["timeframe"].to_pylist()))
        there = f"; it has bars of {', '.join(others)}" if others else ": ingest some first (asof ingest bars FILE --timeframe 1d)"
        return f"the store has no {timeframe} bars{there}"
    return f"the store has no {timeframe} bars of {', '.join(without)}{did_you_mean(without[0], known) if without else ''}"
