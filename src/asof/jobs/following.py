"""Following what changes: just the vectors that changed bars, points and actions reach are computed again.

1. `Follower.catch_up` asks the store what has changed since it last moved. Bars that have not closed are kept in a list, until they have.
2. `_spans` joins changed times that are near one another into spans of time, and `_parts` cuts these into pieces of bounded size.
3. A piece's bars are read with the lookback around them, where that is not in memory (`asof.jobs.window`), and computed by the engine as
   a backfill would. Where that fails, it is tried for half of the instruments at a time: one that fails does not stop the others.
   Where a set looks across instruments, ripples take the place of pieces (`asof.jobs.ripples`).
4. Changed bars of a higher timeframe reach the vectors of bars that see them, which are pieces of their own (`asof.jobs.sightings`).
5. `_reached` tells which of these bars a change can reach. Their vectors alone are upserted; those of bars that are gone are withdrawn.
6. When all is written, the follower moves on. Killed before that, it does the same again, which changes nothing.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC as ZONE
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Ints
from asof.errors import AsofError, StoreError
from asof.features.streams import MARKET
from asof.features.streams import Reach as PointReach
from asof.jobs import sightings
from asof.jobs.across import codes_of
from asof.jobs.backfill import Progress, backfill
from asof.jobs.panels import SortedBars, sort_bars
from asof.jobs.parts import MEMORY
from asof.jobs.ripples import MEMBERSHIPS, Ripple, ripples
from asof.jobs.window import Window
from asof.jobs.work import Report, Work, joined
from asof.records import BARS, UTC, Bools, micros, one_chunk
from asof.stores.store import BARS_TABLE, CHANGES, FOLLOWING, SPANS, Changes, Selection
from asof.telemetry.traces import span
from asof.timeframes import timeframe as timeframe_micros

PART_CHANGES = 250_000
"""Changes of one piece of work, as long as they are near one another."""
NEAR_BARS = 1_000
"""A piece spans so many bars of time, and one more for each change: all events in between are read."""
WAITING = "waiting/"
"""What the names of the lists of bars that have not closed yet begin with."""


@dataclass(frozen=True)
class Follower:
    """Who keeps the vectors of a work up to date, for some instruments or for all. Each has a position of its own in the changes."""

    work: Work
    who: str
    instruments: frozenset[str] | None = None
    tell: Callable[[Work, pa.Table, pa.Table], None] = lambda work, made, gone: None
    """Told of vectors that were stored, and of the keys of those that were withdrawn, before the follower moves on."""
    window: Window = field(default_factory=Window)
    """Bars that are kept from one time to the next."""

    @property
    def name(self) -> str:
        """The name of its position."""
        return f"{self.who}/{self.work.feature_set.version}/{self.work.timeframe}"

    def begin(self, memory: int = MEMORY, progress: Progress = lambda done, total: None) -> Report:
        """Follow, and the first time compute what there is; until that has ended well it counts as the first time.

        Raises `NotFound` where there is nothing yet.
        """
        self.work.store.follow(self.name)
        if WAITING + self.name in self.work.store.positions(WAITING + self.name):
            return Report()
        return self.backfill(self.instruments, memory, progress)

    def begin_here(self) -> None:
        """Follow from now on: what there is already is not computed."""
        self.work.store.follow(self.name)
        self._move(set())

    def backfill(self, instruments: frozenset[str] | None, memory: int = MEMORY, progress: Progress = lambda done, total: None) -> Report:
        """Compute what there is of some instruments, and wait for their bars that have not closed."""
        work, names = self.work, None if instruments is None else tuple(sorted(instruments))
        done = backfill(work, instruments=names, memory=memory, progress=progress)
        waited = None if work.plan.crosses else names
        recent = Selection(work.timeframe, waited, start=work.now - timedelta(microseconds=timeframe_micros(work.timeframe)))
        bars = joined(work.store.read(BARS_TABLE, recent, ("instrument_id", "ts")), BARS)
        bars = bars.filter(pa.array(~work.closed(bars["instrument_id"], bars["ts"])))
        self._move(self._waiting() | set(zip(bars["instrument_id"].to_pylist(), bars["ts"].to_pylist(), strict=True)))
        return done

    def catch_up(self) -> Iterator[Report]:
        """Compute what has changed since the last time; a report for each piece. Raises `NotFound` where nobody follows yet."""
        found, position = self.work.store.changes(self.name)
        mine = None if self.work.plan.crosses else self.instruments
        relevant, still_open, higher = _sorted_out(self.work, pa.concat_tables([found, self._waited_for()]), mine)
        for part in self._pieces(relevant, higher):
            yield self._recompute(part)
        self._move(set(zip(still_open["instrument_id"].to_pylist(), still_open["time"].to_pylist(), strict=True)), position)
        if len(still_open):
            first = int(self.work.closes(still_open["instrument_id"], still_open["time"]).min())
            yield Report(next_close=datetime.fromtimestamp(first / 1_000_000, ZONE))

    def _pieces(self, changes: pa.Table, higher: pa.Table) -> Iterator[Part | Ripple]:
        """The pieces of work that changes make."""
        if self.work.plan.crosses:
            return ripples(self.work, changes, higher, None if self.instruments is None else tuple(sorted(self.instruments)))
        return itertools.chain(_parts(self.work, changes), _parts_that_see(self.work, higher))

    def _recompute(self, part: Part | Ripple) -> Report:
        work = self.work
        made, gone, failed = _computed(work, part, self.window)
        changes, withdrawn, began = Changes(), 0, time.perf_counter()
        with span("upsert", vectors=len(made)), work.store.transaction() if len(gone) else nullcontext():  # a step alone needs none
            if len(made):
                changes = work.store.upsert(work.table, made, work.now)
            if len(gone):
                withdrawn = work.store.withdraw(work.table, gone, work.now)
        writing = time.perf_counter() - began
        if len(made) or len(gone):
            self.tell(work, made, gone)
        for instrument, reason in failed.items():
            work.log("COMPUTATION_FAILED", json.dumps({"reason": reason}), (instrument,))
        return replace(Report.of(made, changes, writing), withdrawn=withdrawn, failed=failed)

    def _waiting(self) -> set[tuple[str, datetime]]:
        """The bars that had not closed: instrument and time."""
        kept = self.work.store.positions(WAITING + self.name).get(WAITING + self.name, "[]")
        return {(name, datetime.fromisoformat(at)) for name, at in json.loads(kept)}

    def _waited_for(self) -> pa.Table:
        bars = [{"kind": "bars", "instrument_id": i, "timeframe": self.work.timeframe, "time": at} for i, at in self._waiting()]
        return pa.Table.from_pylist(bars, schema=CHANGES)

    def _move(self, waiting: set[tuple[str, datetime]], position: str | None = None) -> None:
        kept = json.dumps(sorted((name, at.isoformat()) for name, at in waiting))
        self.work.store.move({WAITING + self.name: kept} | ({FOLLOWING + self.name: position} if position else {}))


def _sorted_out(work: Work, changes: pa.Table, instruments: frozenset[str] | None) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The changes that can reach vectors of this work, those of bars that have not closed, and those that change what higher bars say."""
    if instruments is not None:
        changes = changes.filter(pc.is_in(changes["instrument_id"], pa.array(sorted(instruments), pa.string())))
    bars = pc.fill_null(pc.equal(changes["timeframe"], work.timeframe), False)
    others = [*work.feature_set.reaches, *(["actions"] if work.plan.adjusted else [])]
    others += [MEMBERSHIPS + scheme for scheme in work.feature_set.schemes]
    above = pc.is_in(changes["timeframe"], pa.array(list(work.feature_set.higher), pa.string()))
    higher = changes.filter(pc.or_(above, pc.and_(pc.equal(changes["kind"], "actions"), work.plan.adjusted)))
    changes = changes.filter(pc.or_(bars, pc.is_in(changes["kind"], pa.array(others, pa.string()))))
    is_open = np.asarray(pc.equal(changes["kind"], "bars")) & ~work.closed(changes["instrument_id"], changes["time"])
    return changes.filter(pa.array(~is_open)), changes.filter(pa.array(is_open)), higher


@dataclass(frozen=True)
class Part:
    """Changes that are looked at together, and the spans of time that they lie in or reach, as `SPANS`.

    `seen` are spans of moments in which changes of higher timeframes are seen.
    """

    changes: pa.Table
    spans: pa.Table
    seen: pa.Table = field(default_factory=SPANS.empty_table)

    def of(self, instruments: Iterable[str]) -> Part:
        """What concerns some of the instruments."""
        names = pa.array(list(instruments), pa.string())
        return Part(*(table.filter(pc.is_in(table["instrument_id"], names)) for table in (self.changes, self.spans, self.seen)))

    @property
    def instruments(self) -> list[str]:
        """The instruments, in their order."""
        return sorted(pc.unique(self.spans["instrument_id"]).to_pylist())


def _parts(work: Work, changes: pa.Table) -> Iterator[Part]:
    """Changes in pieces of bounded size, by time."""
    changes = changes.sort_by("time")
    times = micros(changes["time"])
    start = 0
    while start < len(times):
        some_times = times[start : start + PART_CHANGES]
        bars = np.maximum(NEAR_BARS, np.arange(len(some_times)))
        far = some_times - times[start] > bars * timeframe_micros(work.timeframe) + _longest(work)
        end = start + (int(far.argmax()) if far.any() else len(far))
        some = changes.slice(start, end - start)
        yield Part(some, _spans(work, some))
        start = end


def _longest(work: Work) -> int:
    """How far a point can reach at most, in microseconds."""
    return max((reach.length for reach in work.feature_set.reaches.values()), default=0)


def _parts_that_see(work: Work, changes: pa.Table) -> Iterator[Part]:
    """Bars that see changes of higher timeframes, in pieces of bounded size."""
    if len(changes):
        for seen in sightings.pieces(work, sightings.sightings(work, changes)):
            yield Part(CHANGES.empty_table(), sightings.opening(work, seen), seen)


def _spans(work: Work, changes: pa.Table) -> pa.Table:
    """Spans of time that hold all changed bars and ex-dates, and all bars that see a changed point; those near one another are one."""
    step, reaches = timeframe_micros(work.timeframe), work.feature_set.reaches
    near, kinds = (work.feature_set.lookback - 1) * step, ("bars", "actions", *reaches)
    before = np.array([step if kind in MARKET else 0 for kind in kinds])  # a bar opens up to so much before its window ends
    behind = np.array([reaches[kind].length if kind in reaches else 0 for kind in kinds])
    of = np.asarray(pc.index_in(changes["kind"], pa.array(kinds))).astype(np.int64)
    codes, times = codes_of(changes["instrument_id"]), micros(changes["time"])
    order = np.lexsort((times - before[of], codes))
    codes, first, last = codes[order], (times - before[of])[order], (times + behind[of])[order]
    moments, ranks = np.unique(last, return_inverse=True)
    latest = moments[np.maximum.accumulate(codes * len(moments) + ranks) % len(moments)]  # so far, of each instrument
    starts = np.flatnonzero(np.append(True, (np.diff(codes) != 0) | (first[1:] - latest[:-1] > near)))
    ends = np.append(starts[1:], len(order)) - 1
    names = changes["instrument_id"].take(pa.array(order[starts]))
    return pa.table([names, *(pa.array(at).cast(UTC) for at in (first[starts], latest[ends]))], schema=SPANS)


def _computed(work: Work, part: Part | Ripple, window: Window) -> tuple[pa.Table, pa.Table, dict[str, str]]:
    """The vectors that the changes reach, the keys of those whose bars are gone, and why instruments failed."""
    try:
        return *_reached_vectors(work, part, window), {}
    except StoreError:
        raise
    except (AsofError, ArithmeticError, ValueError, pa.ArrowException) as error:
        names = part.instruments
        if len(names) == 1 or isinstance(part, Ripple):  # of sections, no instrument can be computed without the others
            return work.table.schema.empty_table(), _keys(work, part.changes.slice(0, 0)), dict.fromkeys(names, str(error))
    halves = [_computed(work, part.of(half), window) for half in (names[: len(names) // 2], names[len(names) // 2 :])]
    return (
        pa.concat_tables([made for made, _, _ in halves]),
        pa.concat_tables([gone for _, gone, _ in halves]),
        halves[0][2] | halves[1][2],
    )


def _reached_vectors(work: Work, part: Part | Ripple, window: Window) -> tuple[pa.Table, pa.Table]:
    if isinstance(part, Ripple):
        with span("compute", feature_set=work.feature_set.version, timeframe=work.timeframe):
            vectors, gone = part.reached(work)
        return vectors, _keys(work, gone)
    with span("read"):
        bars = window.around(work, part.spans)
    with span("compute", feature_set=work.feature_set.version, timeframe=work.timeframe):
        vectors = work.vectors(bars, Selection(instruments=tuple(part.instruments)))
    reached, gone = _reached(work, vectors, part.changes)
    if len(part.seen):
        reached |= _sees(work, sort_bars(bars), part.seen)
    return vectors.filter(pa.array(reached)), _keys(work, part.changes.filter(pa.array(gone)))


def _keys(work: Work, changes: pa.Table) -> pa.Table:
    """The keys of the vectors of changed bars, each once."""
    keys = changes.select(["instrument_id", "timeframe", "time"]).rename_columns(list(work.table.key))
    return keys.group_by(list(work.table.key)).aggregate([]) if len(keys) else keys


def _reached(work: Work, vectors: pa.Table, changes: pa.Table) -> tuple[Bools, Bools]:
    """Which vectors, which are by instrument and time, the changes reach; and which changes are of bars that are not there."""
    names = vectors["instrument_id"]
    opens = closes = Times(names, micros(vectors["ts"]))
    if work.feature_set.market:
        closes = Times(names, work.closes(names, vectors["ts"]))
    return Reach(opens, closes, work.feature_set.lookback, work.feature_set.reaches).of(changes)


@dataclass(frozen=True)
class Reach:
    """What changes can reach among bars, by when these open and close."""

    opens: Times
    closes: Times
    lookback: int
    points: Mapping[str, PointReach]

    def of(self, changes: pa.Table) -> tuple[Bools, Bools]:
        """For each bar whether one of the changes reaches its vector; and for each change whether it is of a bar that is not there.

        A bar reaches its own vector and those of the `lookback - 1` bars behind it; one that is gone, those that were behind it. An action
        reaches the vectors of the `lookback - 1` bars from its ex-date on, which have a bar before it in their windows. A point reaches the
        vectors of bars in whose windows it lies, and of the bars behind these that look back at them.
        """
        opens, lookback = self.opens, self.lookback
        names, times = opens.numbers(changes["instrument_id"]), micros(changes["time"])
        of = {kind: np.asarray(pc.equal(changes["kind"], kind)) & (names >= 0) for kind in ("bars", "actions", *self.points)}
        first, bars, actions = opens.since(names, times), of["bars"], of["actions"]
        there = bars & (np.append(opens.times, -1)[first] == times) & (first < opens.stops[names])
        spans = [(first[bars], (first + lookback - ~there)[bars]), (first[actions], first[actions] + lookback - 1)]
        spans += [self._holding(stream, names[of[stream]], times[of[stream]]) for stream in self.points]
        steps = np.zeros(len(opens.times) + 1, np.int64)
        for (begins, ends), mine in zip(spans, of.values(), strict=True):
            np.add.at(steps, begins, 1)
            np.add.at(steps, np.minimum(ends, opens.stops[names[mine]]), -1)
        return np.cumsum(steps)[:-1] > 0, np.asarray(pc.equal(changes["kind"], "bars")) & ~there

    def _holding(self, stream: str, names: Ints, times: Ints) -> tuple[Ints, Ints]:
        """The first bars whose windows hold points of these times, and those behind the last that see them."""
        length, bars = self.points[stream]
        if stream in MARKET:  # [close - length, close)
            first, behind = (self.closes.since(names, moments + 1) for moments in (times, times + length))
        else:  # [open - length, open]
            first, behind = self.opens.since(names, times), self.opens.since(names, times + length + 1)
        return first, np.where(behind > first, behind + bars - 1, first)


class Times:
    """The times of bars that are by instrument and time, to be searched for many instruments at once.

    Instruments are numbered as they come; `stops` tells where the bars of each stop.
    """

    def __init__(self, instruments: pa.ChunkedArray, times: Ints) -> None:
        self.times = times
        coded = one_chunk(instruments).dictionary_encode()
        codes = np.asarray(coded.indices).astype(np.int64)
        self._names = coded.dictionary
        self.stops = np.append(np.searchsorted(codes, np.arange(len(self._names)), side="right"), 0)
        self._moments = np.unique(times)
        self._keys = self._key(codes, times)

    def numbers(self, instruments: pa.ChunkedArray) -> Ints:
        """The numbers of instruments, -1 for one without bars."""
        return np.asarray(pc.fill_null(pc.index_in(instruments, self._names), -1)).astype(np.int64)

    def since(self, numbers: Ints, times: Ints) -> Ints:
        """The first bar of each instrument from a time on; where its bars stop, where there is none."""
        return np.searchsorted(self._keys, self._key(numbers, times))

    def _key(self, numbers: Ints, times: Ints) -> Ints:
        return np.asarray(numbers * (len(self._moments) + 1) + np.searchsorted(self._moments, times))


def _sees(work: Work, bars: SortedBars, seen: pa.Table) -> Bools:
    """Which bars see a change of a higher timeframe, or depend on one that does."""
    moments, spans = bars.moments(work.timeframe, work.calendars), _rows_of(seen["instrument_id"])
    sees = np.zeros(len(moments), np.bool_)
    for name, rows in bars.series():
        sees[rows] = sightings.seen(moments[rows], seen.take(pa.array(spans[name])), work.feature_set.lookback)
    return sees


def _rows_of(names: pa.ChunkedArray) -> dict[str, Ints]:
    """The rows of each name, in the order they come."""
    coded = names.combine_chunks().dictionary_encode()
    codes = np.asarray(coded.indices)
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(coded.dictionary) + 1))
    return {name: order[ends[k] : ends[k + 1]] for k, name in enumerate(coded.dictionary.to_pylist())}
