"""Backfill: the vectors of stored bars and events, computed and stored in bounded memory.

1. `parts` cuts the work into groups of instruments, or stretches of one long history with its lookback in front, each of at most so
   many bars as the memory allows.
2. Each part is read and computed by the engine on its threads; `_regrouped` cuts what comes out into as many rows as the store likes to
   write, and these are upserted in one transaction while the next are computed.
3. Vectors that are there already, with the same bits, are left alone: a backfill that was killed is finished by running it again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import DefinitionError, NotFound, did_you_mean
from asof.jobs.work import Report, Work, joined
from asof.records import BARS, UTC
from asof.stores.store import BARS_TABLE, Selection, Store

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
    start: datetime | None
    end: datetime
    read_from: datetime | None = None

    def selection(self, timeframe: str) -> Selection:
        """The bars that are read."""
        if self.alone:
            return Selection(timeframe, start=self.read_from, end=self.end, span=(self.instruments[0], self.instruments[-1]))
        return Selection(timeframe, self.instruments, self.read_from, self.end)


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
    work: Work,
    *,
    instruments: tuple[str, ...] | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    memory: int = 2 << 30,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Compute and store the vectors of every selected bar that has closed; `instruments` and `[start, end]` default to all there is.

    Raises `NotFound` where nothing is selected. Requested instruments without bars get a row in the quality log instead.
    """
    store, end = work.store, min(end or work.last_closed, work.last_closed)
    spans = store.spans(work.timeframe)
    known = spans["instrument_id"].to_pylist()
    wanted = known if instruments is None else sorted(set(instruments))
    without = tuple(sorted(set(wanted) - set(known)))
    if without:
        work.log("NO_BARS", '{"reason": "the store has no bar of this instrument and timeframe"}', without)
    if not set(wanted) & set(known):
        raise NotFound(_nothing(store, work.timeframe, known, without))
    spans = spans.filter(pc.is_in(spans["instrument_id"], pa.array(wanted)))
    todo = list(parts(work, spans, part_rows(memory, len(work.feature_set.features)), start, end, alone=instruments is None))
    total, done = sum(p.rows for p in todo), Report(without_bars=without)
    with ThreadPoolExecutor(1, thread_name_prefix="asof-store") as writer:
        writing: Future[Report] | None = None
        for vectors in _regrouped((_compute(work, part) for part in todo), store.write_rows):
            if writing:
                done += writing.result()
            progress(len(vectors), total)
            writing = writer.submit(_write, work, vectors)
        return done + writing.result() if writing else done


def _write(work: Work, vectors: pa.Table) -> Report:
    began = time.perf_counter()
    changes = work.store.upsert(work.table, vectors, work.now)
    return Report.of(vectors, changes, time.perf_counter() - began)


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


def parts(work: Work, spans: pa.Table, rows: int, start: datetime | None, end: datetime, *, alone: bool) -> Iterator[Part]:
    """The work in pieces of at most `rows` bars (a group always has one instrument at least), in the order of the instruments.

    `alone` tells whether the spans are of all instruments that have such bars.
    """
    group: list[str] = []
    size = 0
    for span in spans.to_pylist():
        if (start and span["last"] < start) or span["first"] > end:
            continue
        if size + span["bars"] > rows and group:
            yield Part(tuple(group), alone, size, start, end)
            group, size = [], 0
        if span["bars"] > rows:
            yield from _stretches(work, span["instrument_id"], rows, start, end)
        else:
            group.append(span["instrument_id"])
            size += span["bars"]
    if group:
        yield Part(tuple(group), alone, size, start, end)


def _stretches(work: Work, instrument: str, rows: int, start: datetime | None, end: datetime) -> Iterator[Part]:
    cuts = work.store.cuts(work.timeframe, instrument, rows, work.feature_set.lookback)
    for (first, early), following in zip(cuts, [*cuts[1:], None], strict=True):
        last = following[0] - timedelta(microseconds=1) if following else end
        if first > end or (start and last < start):
            continue
        yield Part((instrument,), True, rows, max(first, start) if start else first, min(last, end), early)


def _compute(work: Work, part: Part) -> pa.Table:
    chosen = part.selection(work.timeframe)
    bars = joined(work.store.read(BARS_TABLE, chosen, work.columns, ordered=False), BARS)
    vectors = work.vectors(bars, chosen)
    if part.start:
        vectors = vectors.filter(pc.greater_equal(vectors["ts"], pa.scalar(part.start, UTC)))
    return vectors


def _nothing(store: Store, timeframe: str, known: list[str], without: tuple[str, ...]) -> str:
    if not known:
        others = sorted(set(store.spans()["timeframe"].to_pylist()))
        there = f"; it has bars of {', '.join(others)}" if others else ": ingest some first (asof ingest bars FILE --timeframe 1d)"
        return f"the store has no {timeframe} bars{there}"
    return f"the store has no {timeframe} bars of {', '.join(without)}{did_you_mean(without[0], known) if without else ''}"
