"""Which bars see a changed bar of a higher timeframe, or an action that rescales it.

A bar sees, at its moment (`SortedBars.moments`), the newest bar of a higher timeframe that is known by then, and as many before that as
the lookback says. A changed one can thus matter from its open on (its source may have said that it was known before its close), until so
many bars behind it are known that it is out of sight.

1. `sightings` reads the bars behind the changed ones, and gives for each the span of moments in which it is seen.
2. `pieces` joins spans that overlap, and cuts what is longer than a piece of work may be.
3. `seen` tells which of an instrument's bars look at such moments, or depend on bars that do.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Ints
from asof.jobs.higher import DEEPER, SPARE
from asof.jobs.panels import SortedBars, sort_bars
from asof.jobs.parts import MOST_PART_ROWS
from asof.jobs.work import Work
from asof.records import BARS, UTC, Bools, micros
from asof.stores.store import SPANS
from asof.timeframes import UNITS
from asof.timeframes import timeframe as timeframe_micros

FOREVER = np.iinfo(np.int64).max
LONGEST_BAR = 2 * UNITS["d"]
"""The longest that a bar of an exchange's day is open, counted from the day's midnight."""


def sightings(work: Work, changes: pa.Table) -> pa.Table:
    """The spans of moments, as `SPANS`, up to now, in which changed bars of higher timeframes and actions are seen."""
    found = [SPANS.empty_table()]
    for timeframe, lookback in work.feature_set.higher.items():
        mine = pc.or_(pc.equal(changes["kind"], "actions"), pc.fill_null(pc.equal(changes["timeframe"], timeframe), False))
        some = changes.filter(mine).sort_by([("instrument_id", "ascending"), ("time", "ascending")])
        if len(some):
            found.append(_spans(work, timeframe, lookback, some))
    return pa.concat_tables(found)


def _spans(work: Work, timeframe: str, lookback: int, changes: pa.Table) -> pa.Table:
    names, times = changes["instrument_id"].to_numpy(), micros(changes["time"])
    is_bar = np.asarray(pc.equal(changes["kind"], "bars"))
    starts = np.flatnonzero(np.append(True, names[1:] != names[:-1]))
    stops = np.append(starts[1:], len(names))
    behind = _behind(work, timeframe, pa.array(names[starts]), times[starts], times[stops - 1], lookback)
    until, now = np.empty(len(times), np.int64), int(work.now.timestamp() * 1_000_000)
    for (_, rows), start, stop in zip(behind.series(), starts.tolist(), stops.tolist(), strict=True):
        ts, known = micros(behind.table["ts"])[rows], behind.known(timeframe, work.calendars)[rows]
        place = np.searchsorted(ts, times[start:stop])
        there = (np.append(ts, -1)[place] == times[start:stop]) & is_bar[start:stop]
        soonest = np.append(np.minimum.accumulate(known[::-1])[::-1], FOREVER)
        until[start:stop] = soonest[np.minimum(place + lookback - ~there, len(ts))] - 1
    ends = pa.array(np.maximum(np.minimum(until, now), times)).cast(UTC)
    return pa.table([changes["instrument_id"], changes["time"], ends], schema=SPANS).filter(pa.array(until >= times))


def _behind(work: Work, timeframe: str, names: pa.Array, first: Ints, last: Ints, lookback: int) -> SortedBars:
    """The bars of each instrument from its first changed one on, and all behind the last that put it out of sight."""
    wanted, found, reach = names, [BARS.empty_table().select(("instrument_id", "ts", "available_at"))], lookback + SPARE
    while len(names):
        spans = pa.table([names, pa.array(first).cast(UTC), pa.array(last).cast(UTC)], schema=SPANS)
        read = work.store.around(timeframe, spans, reach, ("instrument_id", "ts", "available_at"))
        bars = sort_bars(read).of(names)
        ts, known = micros(bars.table["ts"]), bars.known(timeframe, work.calendars)
        enough = np.zeros(len(names), np.bool_)
        for k, (_, rows) in enumerate(bars.series()):
            behind = int(np.searchsorted(ts[rows], last[k], side="right")) + lookback
            soonest = known[rows][behind:].min(initial=FOREVER)
            enough[k] = len(ts[rows]) - behind + lookback < reach or soonest <= ts[rows][-1]
        found.append(read.filter(pc.is_in(read["instrument_id"], names.filter(pa.array(enough)))))
        names, first, last, reach = names.filter(pa.array(~enough)), first[~enough], last[~enough], reach * DEEPER
    kept = pa.concat_tables(found)
    return sort_bars(kept).of(wanted)


def pieces(work: Work, spans: pa.Table) -> Iterator[pa.Table]:
    """The spans without overlaps, in pieces of which each has about so many bars as a part of a backfill at most."""
    most = MOST_PART_ROWS * timeframe_micros(work.timeframe)
    names, (first, last) = spans["instrument_id"].to_numpy(), (micros(spans[name]) for name in ("first", "last"))
    waiting: list[tuple[str, int, int]] = []
    length = 0
    for name, start, end in _cut(_joined(names, first, last), most):
        if waiting and length + end - start > most:
            yield _table(waiting)
            waiting, length = [], 0
        waiting.append((name, start, end))
        length += end - start
    if waiting:
        yield _table(waiting)


def _joined(names: np.ndarray, first: Ints, last: Ints) -> Iterator[tuple[str, int, int]]:
    mine: tuple[str, int, int] | None = None
    for k in np.lexsort((first, names)).tolist():
        if mine and names[k] == mine[0] and first[k] <= mine[2] + 1:
            mine = (mine[0], mine[1], max(mine[2], int(last[k])))
            continue
        if mine:
            yield mine
        mine = (names[k], int(first[k]), int(last[k]))
    if mine:
        yield mine


def _cut(spans: Iterator[tuple[str, int, int]], most: int) -> Iterator[tuple[str, int, int]]:
    for name, first, last in spans:
        for start in range(first, last + 1, most):
            yield name, start, min(last, start + most - 1)


def _table(spans: list[tuple[str, int, int]]) -> pa.Table:
    names, first, last = zip(*spans, strict=True)
    return pa.table([pa.array(names, pa.string()), pa.array(first).cast(UTC), pa.array(last).cast(UTC)], schema=SPANS)


def opening(work: Work, spans: pa.Table) -> pa.Table:
    """Spans of time in which all bars open whose moments lie in some spans."""
    longest = LONGEST_BAR if work.calendars and work.timeframe.endswith("d") else timeframe_micros(work.timeframe)
    first = micros(spans["first"]) - longest - timeframe_micros(work.timeframe)
    return pa.table([spans["instrument_id"], pa.array(np.maximum(first, 0)).cast(UTC), spans["last"]], schema=SPANS)


def seen(moments: Ints, spans: pa.Table, lookback: int) -> Bools:
    """Which bars of an instrument, by their moments in the order of the bars, have one in some spans or are up to `lookback - 1` behind."""
    looks = np.zeros(len(moments), np.bool_)
    for first, last in zip(micros(spans["first"]).tolist(), micros(spans["last"]).tolist(), strict=True):
        looks |= (moments >= first) & (moments <= last)
    newest = np.maximum.accumulate(np.where(looks, np.arange(len(looks)), -lookback))
    return np.asarray(np.arange(len(looks)) - newest < lookback)
