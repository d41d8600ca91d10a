"""The newest bars of each instrument, kept in memory from one cycle to the next, so that a new bar costs no read of those before it.

1. The store tells what has changed, and nothing else has. So what is kept is right but for the spans in which something changed: these
   are read again, and take the place of what was there.
2. That is enough where the window reaches back far enough before the first change of an instrument, or has all of its bars. For any
   other (new to us, late, corrected long ago) all is read from the store, and the window of that instrument begins anew.
3. Each keeps twice the bars that a vector depends on, those that come a little late among them.

A window holds nothing that is not in the store, and is forgotten where the store fails. What passes by the list of changes passes by the
window: bars that retention drops are in it until others take their place.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Ints
from asof.jobs.panels import sort_bars
from asof.jobs.work import Work
from asof.records import BARS, UTC, floats, micros
from asof.stores.store import SPANS

KEPT = 2
"""How many times the bars before a vector's own are kept."""
AHEAD = 8
"""So many bars more are read of an instrument that is new to a window: some may have come while it was computed what those before reach."""
MOST_BYTES = 512 * 1024**2
"""How much the windows of a work may hold; instruments beyond that are read from the store each time."""
MISSING = np.iinfo(np.int64).min
"""In place of a time that is not there."""

Ends = dict[str, tuple[int, int]]
"""A span of time for each instrument, both ends included."""


class Window:
    """The windows of a work: for each instrument the rows of its newest bars, by time.

    A row has the time of its bar, when it was available, and the bits of the other columns.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Ints] = {}
        self._whole: set[str] = set()
        """Instruments of which the window has every bar that there is."""

    def around(self, work: Work, spans: pa.Table) -> pa.Table:
        """The closed bars in some spans of time, with the `lookback - 1` bars before and after each, in any order, each once."""
        near = work.feature_set.lookback - 1
        names, first, last = (spans["instrument_id"].to_pylist(), *(micros(spans[name]).tolist() for name in ("first", "last")))
        ends: Ends = {}
        for name, begin, end in zip(names, first, last, strict=True):
            before = ends.get(name, (begin, end))
            ends[name] = min(begin, before[0]), max(end, before[1])
        held = [name for name, (begin, _) in ends.items() if self._reaches(name, begin, near)]
        found = [self._changed(work, {name: ends[name] for name in sorted(held)}, near)] if held else []
        if len(held) < len(ends):
            rest = spans.filter(pc.invert(pc.is_in(spans["instrument_id"], pa.array(held, pa.string()))))
            found.append(self._begun(work, rest, near))
        return pa.concat_tables(found)

    def _reaches(self, name: str, begin: int, near: int) -> bool:
        """Whether the window of an instrument has all that a change at some time can matter to, and what these depend on."""
        rows = self._rows.get(name)
        return rows is not None and (name in self._whole or int(np.searchsorted(rows[:, 0], begin)) >= near)

    def _changed(self, work: Work, ends: Ends, near: int) -> pa.Table:
        """Put what is there now in place of what was, and give the bars from so many before the first change on."""
        spans = [pa.array(ends, pa.string()), *(pa.array(times).cast(UTC) for times in zip(*ends.values(), strict=True))]
        read = sort_bars(_closed(work, pa.table(spans, schema=SPANS), 0))
        rows = _rows(read.table)
        new, none, found = {name: rows[mine] for name, mine in read.series()}, rows[:0], []
        for name, (first, last) in ends.items():
            old = self._rows[name]
            begin, stop = np.searchsorted(old[:, 0], (first, last + 1)).tolist()
            merged = np.concatenate((old[:begin], new.get(name, none), old[stop:]))
            self._keep(name, merged, near)
            found.append(merged[max(0, begin - near) :])
        return _bars(work, list(ends), found)

    def _begun(self, work: Work, spans: pa.Table, near: int) -> pa.Table:
        """Read all from the store, and keep what is newest where the newest bar is among it."""
        reach = near + AHEAD
        read = _closed(work, spans, reach)
        if pc.count_distinct(spans["instrument_id"]).as_py() < len(spans):
            read = read.group_by(read.column_names).aggregate([])  # a bar near two spans comes twice
        found, spans = sort_bars(read), spans.sort_by("first")
        times = zip(*(micros(spans[name]).tolist() for name in ("first", "last")), strict=True)
        last_spans = dict(zip(spans["instrument_id"].to_pylist(), times, strict=True))
        for name in last_spans:
            self._rows.pop(name, None)
            self._whole.discard(name)
        everything = _rows(found.table)
        for name, mine in found.series():
            rows, (first, last) = everything[mine], last_spans[name]
            begin, stop = np.searchsorted(rows[:, 0], (first, last + 1)).tolist()
            if near and len(rows) - stop < reach:
                if begin < reach:
                    self._whole.add(name)
                self._keep(name, rows[max(0, begin - reach) :], near)
        return found.table

    def _keep(self, name: str, rows: Ints, near: int) -> None:
        most = KEPT * near
        if len(rows) > most:
            self._whole.discard(name)
        if name in self._rows or (len(self._rows) + 1) * most * rows.shape[1] * rows.itemsize <= MOST_BYTES:
            self._rows[name] = rows[-most:].copy()
        else:
            self._whole.discard(name)


def _closed(work: Work, spans: pa.Table, reach: int) -> pa.Table:
    bars = work.store.around(work.timeframe, spans, reach, work.columns)
    return work.only_closed(bars.filter(pc.less_equal(bars["ts"], pa.scalar(work.last_closed, UTC))))


def _rows(bars: pa.Table) -> Ints:
    """The columns of bars side by side, all but the first, which is the instrument."""
    known = micros(pc.fill_null(bars["available_at"].cast(pa.int64()), MISSING))
    rest = (floats(bars[name]).view(np.int64) for name in bars.column_names[3:])
    return np.column_stack([micros(bars["ts"]), known, *rest])


def _bars(work: Work, names: list[str], rows: list[Ints]) -> pa.Table:
    """The bars of some instruments as the store would give them."""
    ts, known, *rest = np.ascontiguousarray(np.concatenate(rows).T)
    instruments = pa.array(names, pa.string()).take(pa.array(np.repeat(np.arange(len(names)), [len(some) for some in rows])))
    columns = [pa.array(bits.view(np.float64), from_pandas=True) for bits in rest]
    schema = pa.schema([BARS.field(name) for name in work.columns])
    return pa.table([instruments, pa.array(ts).cast(UTC), pa.array(known, mask=known == MISSING).cast(UTC), *columns], schema=schema)
