"""What every job that computes shares: one feature set over one timeframe, from a store and back into it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.calendars import NO_CALENDARS, Calendars
from asof.engine.panel import Ints, Panel
from asof.engine.plan import Plan, plan
from asof.features.feature_set import FeatureSet
from asof.features.streams import EVENTS as EVENTS_OF
from asof.jobs.adjusting import NO_ACTIONS
from asof.jobs.higher import higher_bars
from asof.jobs.members import NO_MEMBERSHIPS
from asof.jobs.panels import NO_MARKET, SortedBars, panel_of, sort_bars, vectors_of
from asof.jobs.points import NO_EVENTS, SortedEvents, record_columns, sort_events
from asof.records import ACTIONS, BARS, EVENTS, MEMBERSHIPS, QUALITY_LOG, Bools, micros
from asof.stores.store import ACTIONS_TABLE, EVENTS_TABLE, MEMBERSHIPS_TABLE, POINTS, Changes, Selection, Store, Table, vectors_table
from asof.timeframes import timeframe as timeframe_micros

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Report:
    """What a job did: how many vectors it computed, and how they differed from what was stored.

    `withdrawn` vectors were of bars that are gone; `failed` tells why instruments could not be computed. In jobs that keep vectors up to
    date, `newest` is the open of the newest bar, `flags` how often each was raised, `writing` the seconds that the store took, and
    `next_close` when the first of the bars that have not closed will.
    """

    computed: int = 0
    changes: Changes = field(default_factory=Changes)
    without_bars: tuple[str, ...] = ()
    withdrawn: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    newest: datetime | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    writing: float = 0.0
    next_close: datetime | None = None

    @classmethod
    def of(cls, vectors: pa.Table, changes: Changes, writing: float = 0.0) -> Report:
        """What vectors of a feature set are told of."""
        raised = pc.value_counts(pc.list_flatten(vectors["quality_flags"])).to_pylist()
        newest = pc.max(vectors["ts"]).as_py() if len(vectors) else None
        return cls(len(vectors), changes, newest=newest, flags={row["values"]: row["counts"] for row in raised}, writing=writing)

    def __add__(self, other: Report) -> Report:
        """What both did."""
        return Report(
            self.computed + other.computed,
            self.changes + other.changes,
            self.without_bars + other.without_bars,
            self.withdrawn + other.withdrawn,
            {**self.failed, **other.failed},
            max((moment for moment in (self.newest, other.newest) if moment), default=None),
            Counter(self.flags) + Counter(other.flags),
            self.writing + other.writing,
            min((moment for moment in (self.next_close, other.next_close) if moment), default=None),
        )


@dataclass(frozen=True)
class Seen:
    """All that vectors are made of."""

    bars: SortedBars
    events: SortedEvents
    actions: pa.Table
    market: Mapping[str, pa.Table]
    higher: Mapping[str, SortedBars]
    memberships: pa.Table

    def panel(self, plan: Plan, timeframe: str, calendars: Calendars) -> Panel:
        """The panel that a plan is run over."""
        others = (self.actions, self.market, self.higher, self.memberships)
        return panel_of(plan, timeframe, self.bars, self.events, calendars, *others)


@dataclass(frozen=True)
class Work:
    """A feature set's vectors of one timeframe, computed at `now` on `threads` threads."""

    store: Store
    feature_set: FeatureSet
    timeframe: str
    now: datetime
    pipeline_version: str
    threads: int | None = None
    calendars: Calendars = NO_CALENDARS
    known_at: datetime | None = None
    """Bars, events and actions are read as they were held to be true then; as they are now where it is None."""

    @cached_property
    def plan(self) -> Plan:
        """What the engine runs."""
        return plan(self.feature_set)

    @cached_property
    def table(self) -> Table:
        """Where the vectors go."""
        return vectors_table(self.feature_set)

    def at(self, now: datetime) -> Work:
        """The same work at another time: its plan, which takes longer to make than a few bars to compute, is made once."""
        later = replace(self, now=now)
        vars(later).update(plan=self.plan, table=self.table)
        return later

    @property
    def columns(self) -> tuple[str, ...]:
        """What is read of bars."""
        return ("instrument_id", "ts", "available_at", *(c for c in BARS.names if c in self.plan.columns))

    @property
    def last_closed(self) -> datetime:
        """No bar that opens later can have closed. One that has not may still change, so no vector is made of it."""
        return self.now if self.calendars else self.now - timedelta(microseconds=timeframe_micros(self.timeframe))

    def closed(self, instruments: pa.ChunkedArray, ts: pa.ChunkedArray) -> Bools:
        """Which bars have closed."""
        return np.asarray(self.closes(instruments, ts) <= int(self.now.timestamp() * 1_000_000))

    def closes(self, instruments: pa.ChunkedArray, ts: pa.ChunkedArray) -> Ints:
        """When bars close."""
        times = micros(ts)
        closes = times + timeframe_micros(self.timeframe)
        for name in pc.unique(instruments).to_pylist() if self.calendars else ():
            mine = np.flatnonzero(np.asarray(pc.equal(instruments, name)))
            closes[mine] = self.calendars.closes(name, times[mine], self.timeframe)
        return closes

    def only_closed(self, bars: pa.Table) -> pa.Table:
        """Bars without those that have not closed: where there are calendars, the latest bars that were asked for may not have."""
        return bars.filter(pa.array(self.closed(bars["instrument_id"], bars["ts"]))) if self.calendars else bars

    def vectors(self, bars: pa.Table, others_of: Selection) -> pa.Table:
        """The vectors of bars, by instrument and time, with what else they can see of `others_of`."""
        bars = self.only_closed(bars)
        return self.made_of(self.seen(bars, others_of)) if len(bars) else self.table.schema.empty_table()

    def made_of(self, seen: Seen) -> pa.Table:
        """The vectors of what is seen."""
        made = (self.now, self.pipeline_version, self.threads, self.calendars)
        return vectors_of(self.plan, seen.panel(self.plan, self.timeframe, self.calendars), self.timeframe, seen.bars, *made)

    def seen(self, bars: pa.Table, others_of: Selection) -> Seen:
        """Bars, at least one, with what else their vectors see: points and actions of `others_of`, higher bars, memberships."""
        sorted_bars, events, actions = sort_bars(bars), NO_EVENTS, NO_ACTIONS
        higher, reaches = higher_bars(self, sorted_bars), self.feature_set.reaches
        ts = pc.min_max(bars["ts"]).as_py()
        seen = Selection(None, others_of.instruments, ts["min"], ts["max"], self.known_at, others_of.span)
        if EVENTS_OF in reaches:
            before = replace(seen, start=ts["min"] - timedelta(microseconds=reaches[EVENTS_OF].length))
            events = sort_events(
                joined(
                    self.store.read(EVENTS_TABLE, before, record_columns(EVENTS_OF, self.plan.points.get(EVENTS_OF, ())), ordered=False),
                    EVENTS,
                )
            )
        if self.plan.adjusted:
            oldest = min(pc.min(found.table["ts"]).as_py() or ts["min"] for found in (sorted_bars, *higher.values()))
            actions = joined(self.store.read(ACTIONS_TABLE, replace(seen, start=oldest), ordered=False), ACTIONS)
        market = self.market(sorted_bars, seen) if self.feature_set.market else NO_MARKET
        return Seen(sorted_bars, events, actions, market, higher, self.memberships(ts["max"]))

    def memberships(self, end: datetime | None = None) -> pa.Table:
        """The memberships of the schemes that matter, which begin up to `end`."""
        if not self.feature_set.schemes:
            return NO_MEMBERSHIPS
        rows = joined(self.store.read(MEMBERSHIPS_TABLE, Selection(end=end, known_at=self.known_at), ordered=False), MEMBERSHIPS)
        return rows.filter(pc.is_in(rows["scheme"], pa.array(self.feature_set.schemes)))

    def market(self, bars: SortedBars, seen: Selection) -> dict[str, pa.Table]:
        """The trades, quotes and books that bars can see: from as long before the first close as they reach, until the last."""
        closes, found = bars.closes(self.timeframe, self.calendars), {}
        for table in POINTS:
            if table.name in self.feature_set.reaches:
                first = int(closes.min()) - self.feature_set.reaches[table.name].length
                between = replace(seen, start=moment(first), end=moment(int(closes.max()) - 1))
                columns = record_columns(table.name, self.plan.points[table.name])
                found[table.name] = joined(self.store.read(table, between, columns), schema_of(table, columns))
        return found

    def log_without_bars(self, instruments: tuple[str, ...]) -> None:
        """Note in the quality log that instruments have no bars."""
        if instruments:
            self.log("NO_BARS", '{"reason": "the store has no bar of this instrument and timeframe"}', instruments)

    def log(self, issue: str, details: str, instruments: tuple[str, ...]) -> None:
        """Note in the quality log what is wrong with instruments."""
        rows = [
            {
                "instrument_id": name,
                "timeframe": self.timeframe,
                "feature_set_version": self.feature_set.version,
                "issue_type": issue,
                "issue_details": details,
                "detected_at": self.now,
            }
            for name in instruments
        ]
        self.store.append("feature_quality_log", pa.Table.from_pylist(rows, schema=QUALITY_LOG))


def moment(microseconds: int) -> datetime:
    """A time in microseconds since 1970; none is before that."""
    return EPOCH + timedelta(microseconds=max(int(microseconds), 0))


def schema_of(table: Table, columns: tuple[str, ...]) -> pa.Schema:
    """The schema of some of a table's columns."""
    return pa.schema([table.schema.field(name) for name in columns])


def joined(tables: Iterator[pa.Table], schema: pa.Schema) -> pa.Table:
    """Tables as one; an empty one of the schema where there are none."""
    found = list(tables)
    return pa.concat_tables(found) if found else schema.empty_table()
