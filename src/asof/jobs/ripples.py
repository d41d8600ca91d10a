"""How far changes reach across instruments: a changed bar changes its sections, these the vectors of all their members, and what follows.

1. `ripples` joins changes that are near one another in time, and reads how far they can reach, counted in bars: through every stage on.
2. A window is cut where it is long, and each piece is computed with all members (`asof.jobs.across`).
3. `Ripples.reached` tells which of the bars the changes can reach: from the rows that are hit directly over the windows of a stage to its
   sections, from these to the next stage, and in the end to the vectors. No other is written.

A change of a membership hits every section at which the instrument has a bar, until its next membership counts: which one it was in before
is known no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Ints
from asof.engine.plan import Plan, Staged
from asof.engine.sections import section_keys
from asof.features.streams import MARKET
from asof.jobs import sightings
from asof.jobs.across import Stretch, cuts, everybody, of_stretch, vectors_across
from asof.jobs.members import member_columns, of_scheme, since
from asof.jobs.panels import SortedBars, sort_bars
from asof.jobs.parts import MEMORY, part_rows
from asof.jobs.work import Work, moment
from asof.records import Bools, micros
from asof.stores.store import CHANGES, SPANS
from asof.timeframes import timeframe as timeframe_micros

MEMBERSHIPS = "memberships/"
"""What the kind of a changed membership begins with; the name of its scheme follows."""
FEW_BARS = 100
"""A window of so many bars of time is one piece; what is longer is cut by how many bars there are."""
FOREVER = np.iinfo(np.int64).max
Grid = tuple[Ints, Ints]
"""The distinct times of rows, and for each row a number in which they are sorted by instrument and time."""


@dataclass(frozen=True)
class Ripple:
    """Changes, and a stretch of time in which they can reach vectors; `seen` are spans of moments in which higher bars have changed.

    Vectors of `wanted` instruments are computed, of all where that is None.
    """

    changes: pa.Table
    seen: pa.Table
    start: datetime
    end: datetime
    wanted: tuple[str, ...] | None

    @property
    def instruments(self) -> list[str]:
        """The instruments that have changed."""
        named = (pc.unique(table["instrument_id"]).to_pylist() for table in (self.changes, self.seen))
        return sorted({name for names in named for name in names})

    def reached(self, work: Work) -> tuple[pa.Table, pa.Table]:
        """The vectors that the changes reach in this stretch, and the changes of bars that are not there."""
        vectors = vectors_across(work, self.wanted, self.start, self.end)
        mine = of_stretch(vectors, self.wanted, self.start, self.end)
        reached = Ripples(work, sort_bars(vectors), self.changes, self.seen).reached() if len(vectors) else np.zeros(0, np.bool_)
        return vectors.filter(pc.and_(mine, pa.array(reached))), self._gone(vectors)

    def _gone(self, vectors: pa.Table) -> pa.Table:
        """The changes of bars of this stretch that have no vector."""
        changes = self.changes.filter(pc.equal(self.changes["kind"], "bars")).rename_columns({"time": "ts"})
        inside = changes.filter((pc.field("ts") >= pa.scalar(self.start)) & (pc.field("ts") <= pa.scalar(self.end)))
        if self.wanted is not None:
            inside = inside.filter(pc.is_in(inside["instrument_id"], pa.array(self.wanted, pa.string())))
        gone = inside.join(vectors.select(KEYS), list(KEYS), join_type="left anti")
        return gone.rename_columns({"ts": "time"}).select(CHANGES.names).cast(CHANGES)


KEYS = ("instrument_id", "ts")


def ripples(work: Work, changes: pa.Table, higher: pa.Table, wanted: tuple[str, ...] | None) -> Iterator[Ripple]:
    """The stretches of time that changes can reach, of bounded size. `higher` are changes of higher timeframes."""
    seen = sightings.sightings(work, higher) if len(higher) else SPANS.empty_table()
    last = int(work.last_closed.timestamp() * 1_000_000)
    starts, stops = _spans(work, changes, seen)
    rows = part_rows(MEMORY, len(work.feature_set.features))
    for first, end, some in _near(work, starts, np.minimum(stops, last)):
        if first > last:  # a membership that has not begun
            continue
        mine = changes.take(pa.array(some[some < len(changes)]))
        spans = seen.take(pa.array(some[some >= len(changes)] - len(changes)))
        begin, reach = moment(first), _reach(work, mine, spans, wanted, moment(first), moment(end))
        step = timedelta(microseconds=timeframe_micros(work.timeframe))
        whole = [(begin, reach)] if reach - begin <= FEW_BARS * step else cuts(work, work.store.spans(work.timeframe), begin, reach, rows)
        for start, stop in whole:
            yield Ripple(mine, spans, start, stop, wanted)


def _spans(work: Work, changes: pa.Table, seen: pa.Table) -> tuple[Ints, Ints]:
    """From when until when each change hits bars itself, the changes first, then the spans of moments."""
    times, kinds = micros(changes["time"]), changes["kind"]
    starts, stops = times.copy(), times.copy()
    for kind, reach in work.feature_set.reaches.items():
        mine = np.asarray(pc.equal(kinds, kind))
        stops[mine] += reach.length
        if kind in MARKET:  # a bar opens up to so much before its window ends
            starts[mine] -= timeframe_micros(work.timeframe)
    if work.feature_set.schemes:
        stops = np.maximum(stops, _membership_ends(work.memberships(), changes))
    opened = sightings.opening(work, seen)
    return np.concatenate((starts, micros(opened["first"]))), np.concatenate((stops, micros(opened["last"])))


def _membership_ends(memberships: pa.Table, changes: pa.Table) -> Ints:
    """Until when each changed membership hits bars: the moment before a later one of its instrument and scheme counts; 0 for others."""
    ends, kinds = np.zeros(len(changes), np.int64), np.array(changes["kind"].to_pylist(), object)
    times, names = micros(changes["time"]), np.array(changes["instrument_id"].to_pylist(), object)
    for kind in sorted({kind for kind in kinds.tolist() if kind.startswith(MEMBERSHIPS)}):
        rows = of_scheme(memberships, kind.removeprefix(MEMBERSHIPS))
        begins, counts, whose = micros(rows["ts"]), since(rows), np.array(rows["instrument_id"].to_pylist(), object)
        for k in np.flatnonzero(kinds == kind).tolist():
            later = counts[(whose == names[k]) & (begins > times[k])]
            ends[k] = later.min(initial=FOREVER) - 1
    return ends


def _near(work: Work, starts: Ints, stops: Ints) -> Iterator[tuple[int, int, Ints]]:
    """Spans that are near one another, joined: the first, the last, and which they are."""
    near = FEW_BARS * timeframe_micros(work.timeframe)
    order = np.argsort(starts, kind="stable")
    furthest = np.maximum.accumulate(np.append(0, stops[order]))
    breaks = np.flatnonzero(starts[order] > furthest[:-1] + near)
    for some in np.split(order, breaks[breaks > 0]) if len(order) else ():
        yield int(starts[some].min()), int(max(stops[some].max(), starts[some].min())), some


def _reach(work: Work, changes: pa.Table, seen: pa.Table, wanted: tuple[str, ...] | None, start: datetime, end: datetime) -> datetime:
    """The open of the last bar that changes of a stretch of time can reach, through all stages."""
    hit = tuple(sorted({*changes["instrument_id"].to_pylist(), *seen["instrument_id"].to_pylist()}))
    names, ends = everybody(work, wanted, work.last_closed), dict[str, datetime]()

    def onward(lookback: int, looked_at: Mapping[str, int]) -> datetime:
        own = Stretch(work, hit, start, end).last(lookback - 1, everyone=True)
        return max([own, *(Stretch(work, names, start, ends[c]).last(bars - 1) for c, bars in looked_at.items())])

    for stage in work.plan.stages:
        for node in stage.nodes:
            ends[node.column] = end if stage.timeframe is not None else onward(node.lookback, node.looked_at)
    return onward(work.plan.lookback, work.plan.looked_at)


@dataclass(frozen=True)
class Ripples:
    """Changes among sorted bars; see the module."""

    work: Work
    bars: SortedBars
    changes: pa.Table
    seen: pa.Table = field(default_factory=SPANS.empty_table)

    def reached(self) -> Bools:
        """Which bars' vectors the changes can reach."""
        plan, touched = self.work.plan, dict[str, Bools]()
        for stage in plan.stages:
            for node in stage.nodes:
                if stage.timeframe is not None:
                    touched[node.column] = self._sees
                else:
                    rows = self._hit(stage.plan, node, touched)
                    touched[node.column] = self._sections(node, rows)
        return self._hit(plan, plan, touched)

    def _hit(self, plan: Plan, of: Plan | Staged, touched: Mapping[str, Bools]) -> Bools:
        """The rows of a plan, or of what a staged operator takes of it, that changes reach without another section between."""
        direct = self._bars[0]
        for name in plan.bar_columns:
            if name.partition(".")[0] == "member":
                direct = direct | self._members(name.partition(".")[2])
        gone = self._bars[1] | (self._actions if plan.adjusted else False)
        rows = self._forward(direct, of.lookback) | self._forward(gone, of.lookback - 1)
        for stream, reach in of.reaches.items():
            rows |= self._forward(self._points(stream, reach.length), reach.bars)
        for column, bars in of.looked_at.items():
            rows |= self._forward(touched[column], bars)
        return rows

    def _forward(self, hit: Bools, bars: int) -> Bools:
        """Rows that are hit, or that have one among the `bars` rows up to themselves."""
        rows = np.arange(len(hit))
        newest = np.maximum.accumulate(np.where(hit, rows, -1))
        return (newest >= self._begins) & (newest > rows - bars) if bars else np.zeros(len(hit), np.bool_)

    def _sections(self, node: Staged, rows: Bools) -> Bools:
        """All rows of the sections in which one of the rows is, or was, and the rows whose own membership has changed."""
        columns = self._columns(node, self.bars.instruments, self.bars.offsets, self._ts)
        times, width, keys = section_keys(self.bars.offsets, self._ts, columns.get(node.members), columns.get(node.groups))
        hit = np.unique(np.concatenate((keys[rows & (keys >= 0)], self._gone_keys(node, times, width))))
        found = np.isin(keys, hit)
        for scheme in {name.partition(".")[2] for name in (node.members, node.groups) if name}:
            own = self._members(scheme)
            found |= own | (np.isin(self._ts, np.unique(self._ts[own])) & (keys >= 0))
        return found

    def _gone_keys(self, node: Staged, times: Ints, width: int) -> Ints:
        """The keys of the sections that bars which are gone were in."""
        gone = self._gone.filter(pc.is_in(self._gone["time"], pa.array(times).cast(self._gone["time"].type)))
        if not len(gone):
            return np.zeros(0, np.int64)
        table = sort_bars(gone.select(["instrument_id", "time"]).rename_columns(list(KEYS)).group_by(list(KEYS)).aggregate([]))
        ts = micros(table.table["ts"])
        columns = self._columns(node, table.instruments, table.offsets, ts)
        numbers = columns.get(node.groups, np.zeros(len(ts)))
        there = ~np.isnan(columns.get(node.members, numbers)) & ~np.isnan(numbers) & (np.nan_to_num(numbers) < width)
        keys: Ints = np.searchsorted(times, ts[there]) * width + numbers[there].astype(np.int64)
        return keys

    def _columns(self, node: Staged, instruments: pa.Array, offsets: Ints, ts: Ints) -> dict[str, np.ndarray]:
        names = frozenset(name for name in (node.members, node.groups) if name)
        return member_columns(names, instruments, offsets, ts, self._memberships)

    @cached_property
    def _memberships(self) -> pa.Table:
        return self.work.memberships()

    @cached_property
    def _ts(self) -> Ints:
        return micros(self.bars.table["ts"])

    @cached_property
    def _begins(self) -> Ints:
        """For each row the first of its instrument."""
        return np.repeat(self.bars.offsets[:-1], np.diff(self.bars.offsets))

    def _of(self, kind: str) -> tuple[Ints, Ints]:
        """Changes of a kind of instruments that have bars: which instrument, and the time."""
        mine = self.changes.filter(pc.equal(self.changes["kind"], kind))
        codes = np.asarray(pc.fill_null(pc.index_in(mine["instrument_id"], self.bars.instruments), -1)).astype(np.int64)
        return codes[codes >= 0], micros(mine["time"])[codes >= 0]

    def _first(self, codes: Ints, times: Ints, grid: Grid | None = None) -> Ints:
        """For each time the first row of its instrument that does not open before it; the first of the next instrument where none does."""
        moments, rows = grid or self._opens
        first: Ints = np.searchsorted(rows, codes * (len(moments) + 1) + np.searchsorted(moments, times))
        return first

    @cached_property
    def _opens(self) -> Grid:
        return self._grid(self._ts)

    @cached_property
    def _closes(self) -> Grid:
        return self._grid(self.bars.closes(self.work.timeframe, self.work.calendars))

    def _grid(self, times: Ints) -> Grid:
        moments = np.unique(times)
        instruments = np.repeat(np.arange(len(self.bars.instruments)), np.diff(self.bars.offsets))
        return moments, instruments * (len(moments) + 1) + np.searchsorted(moments, times)

    def _marked(self, rows: Ints, codes: Ints) -> Bools:
        """Rows that are marked, as far as they are of the instrument."""
        found = np.zeros(len(self._ts), np.bool_)
        found[rows[rows < self.bars.offsets[codes + 1]]] = True
        return found

    @cached_property
    def _bars(self) -> tuple[Bools, Bools]:
        """The rows of changed bars, and the rows behind bars that are gone."""
        codes, times = self._of("bars")
        rows = self._first(codes, times)
        there = np.append(self._ts, -1)[rows] == times
        there &= rows < self.bars.offsets[codes + 1]
        return self._marked(rows[there], codes[there]), self._marked(rows[~there], codes[~there])

    @cached_property
    def _gone(self) -> pa.Table:
        """The changes of bars that are not there."""
        mine = self.changes.filter(pc.equal(self.changes["kind"], "bars")).rename_columns({"time": "ts"})
        gone = mine.join(self.bars.table.select(KEYS), list(KEYS), join_type="left anti")
        return gone.rename_columns({"ts": "time"})

    @cached_property
    def _actions(self) -> Bools:
        """The rows from an ex-date on."""
        codes, times = self._of("actions")
        return self._marked(self._first(codes, times), codes)

    def _points(self, stream: str, length: int) -> Bools:
        """The rows whose windows hold a changed point."""
        codes, times = self._of(stream)
        if stream in MARKET:  # [close - length, close)
            return self._between(codes, times + 1, times + length, self._closes)
        return self._between(codes, times, times + length)

    def _members(self, scheme: str) -> Bools:
        """The rows of instruments whose membership in a scheme has changed there."""
        ends = _membership_ends(self._memberships, self.changes.filter(pc.equal(self.changes["kind"], MEMBERSHIPS + scheme)))
        mine = self.changes.filter(pc.equal(self.changes["kind"], MEMBERSHIPS + scheme))
        codes = np.asarray(pc.fill_null(pc.index_in(mine["instrument_id"], self.bars.instruments), -1)).astype(np.int64)
        return self._between(codes[codes >= 0], micros(mine["time"])[codes >= 0], ends[codes >= 0])

    def _between(self, codes: Ints, first: Ints, last: Ints, grid: Grid | None = None) -> Bools:
        """The rows of instruments that open (or that `grid` has) from a time on up to another, both included."""
        steps, begins = np.zeros(len(self._ts) + 1, np.int64), self._first(codes, first, grid)
        np.add.at(steps, begins, 1)
        np.add.at(steps, np.maximum(begins, self._first(codes, np.minimum(last, FOREVER - 1) + 1, grid)), -1)
        return np.cumsum(steps)[:-1] > 0

    @cached_property
    def _sees(self) -> Bools:
        """The rows that see a change of a higher timeframe."""
        sees = np.zeros(len(self._ts), np.bool_)
        if not len(self.seen):
            return sees
        moments = self.bars.moments(self.work.timeframe, self.work.calendars)
        for name, rows in self.bars.series():
            mine = self.seen.filter(pc.equal(self.seen["instrument_id"], name))
            if len(mine):
                sees[rows] = sightings.seen(moments[rows], mine, 1)
        return sees
