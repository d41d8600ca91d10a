"""The bars of higher timeframes that vectors look at, out of a store: as many as the definition needs, however the work is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.layout import newest_known
from asof.engine.panel import Ints
from asof.engine.plan import Stage
from asof.jobs.panels import SortedBars, sort_bars
from asof.records import BARS, UTC, Bools, micros
from asof.stores.store import SPANS

if TYPE_CHECKING:
    from asof.jobs.work import Work

SPARE = 2
"""Bars beyond the lookback that are read at once: the newest one mostly has not closed yet."""
DEEPER = 4
"""Where that is too few, because some came late, so many times as many are read next."""


def higher_bars(work: Work, base: SortedBars) -> dict[str, SortedBars]:
    """For each higher timeframe of a work its bars that vectors of the base bars look at, and some more."""
    stages = [stage for stage in work.plan.stages if stage.timeframe is not None]
    if not stages:
        return {}
    moments = base.moments(work.timeframe, work.calendars)
    first, last = (reduce(moments, base.offsets[:-1]) for reduce in (np.minimum.reduceat, np.maximum.reduceat))
    return {str(stage.timeframe): _seen(work, stage, base.instruments, first, last) for stage in stages}


def _seen(work: Work, stage: Stage, names: pa.Array, first: Ints, last: Ints) -> SortedBars:
    """The bars that were newest at some moment of each instrument's span of time, with the stage's lookback before them."""
    timeframe = str(stage.timeframe)
    columns = ("instrument_id", "ts", "available_at", *(c for c in BARS.names if c in stage.plan.columns))
    found, reach = [BARS.empty_table().select(columns)], stage.plan.lookback + SPARE
    while len(names):
        spans = pa.table([names, pa.array(first).cast(UTC), pa.array(last).cast(UTC)], schema=SPANS)
        read = work.store.around(timeframe, spans, reach, columns, work.known_at)
        enough = _enough(sort_bars(read).of(names), work, stage, first, reach)
        found.append(read.filter(pc.is_in(read["instrument_id"], names.filter(pa.array(enough)))))
        names, first, last, reach = names.filter(pa.array(~enough)), first[~enough], last[~enough], reach * DEEPER
    return sort_bars(pa.concat_tables(found))


def _enough(found: SortedBars, work: Work, stage: Stage, first: Ints, reach: int) -> Bools:
    """Whether the whole lookback of what was newest at the first moment of each instrument is there, or all that there ever was."""
    timeframe = str(stage.timeframe)
    newest = newest_known(np.arange(len(first) + 1), first, found.offsets, found.known(timeframe, work.calendars))
    whole = newest - found.offsets[:-1] >= stage.plan.lookback - 1
    ts = micros(found.table["ts"])
    before = np.array(
        [np.searchsorted(ts[mine], moment) for (_, mine), moment in zip(found.series(), first.tolist(), strict=True)], np.int64
    )
    return np.asarray((newest >= 0) & whole | (before < reach))
