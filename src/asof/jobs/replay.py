"""Replay: stored history goes through the code of the live service, in the order in which it became known, on a clock of its own.

1. `arrivals` reads every revision of the bars, events and actions, each with the moment it became known: a bar with its close (or when its
   source says), an event with its scores, an action with its ex-date, a correction or a withdrawal when the store learned it. What came
   at one moment is put in an order by chance, always the same for one seed, but for bars of higher timeframes, which come first.
2. `chunks` cuts them where one would change what is computed from those before it, so that what the loop sees in between is what it
   would have seen; with a pace, also into ticks of the clock, and by every moment at each at which anything became known.
3. Each chunk is written to the scratch store as a source would write it, the clock is set to its end, and the loop runs a cycle.
4. Where vectors are published, it is by the publisher of the live service, from `start` on: first the newest of each instrument, as a
   service does that begins, then all that come to be.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC as ZONE
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.engine.panel import Ints
from asof.errors import NotFound, StoreError
from asof.jobs.backfill import Progress
from asof.jobs.following import Follower
from asof.jobs.live import UNPUBLISHED, Live, Plan, Published
from asof.jobs.members import since
from asof.jobs.work import Report, Work
from asof.records import Bools, micros
from asof.stores.store import ACTIONS_TABLE, BARS_TABLE, EVENTS_TABLE, MEMBERSHIPS_TABLE, POINTS, Selection, Store, Table, revised
from asof.telemetry.health import Health
from asof.telemetry.metrics import Metrics
from asof.timeframes import timeframe as timeframe_micros

MOST_ROWS = 250_000
"""Rows of a chunk."""
TICK_SECONDS = 0.25
"""With a pace, the clock moves on so often."""
REPLAYED = (BARS_TABLE, EVENTS_TABLE, ACTIONS_TABLE, MEMBERSHIPS_TABLE, *POINTS)
"""What feature sets are computed from."""
FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Arrivals:
    """Revisions in the order in which they became known, at `times`.

    Row k is row `row[k]` of the revisions `found[of[k]]`, which are of `tables[of[k]]`; `gone` tells which are withdrawals. `instrument`
    and `key` number instruments and records, `place` is the time from which on a row can reach vectors.
    """

    tables: tuple[Table, ...]
    found: tuple[pa.Table, ...]
    times: Ints
    row: Ints
    of: Ints
    gone: Bools
    instrument: Ints
    key: Ints
    place: Ints
    crosses: bool = False
    """Whether what arrives of one instrument changes the vectors of others."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def is_bar(self) -> Bools:
        """Which of them are bars of the work's own timeframe."""
        return np.asarray(self.of == 0)


def arrivals(work: Work, instruments: tuple[str, ...] | None, seed: int = 0) -> Arrivals:
    """What became known of some instruments, or of all, and when."""
    instruments = None if work.plan.crosses else instruments
    reaches, instruments_if = work.feature_set.reaches, {True: instruments, False: ()}
    told = (True, "events" in reaches, work.plan.adjusted, bool(work.feature_set.schemes))
    wanted = (*told, *(table.name in reaches for table in POINTS))
    found = tuple(_revisions(work, work.timeframe, table, instruments_if[needed]) for table, needed in zip(REPLAYED, wanted, strict=True))
    bars, events, actions, memberships, *points = found
    above = [(timeframe, _revisions(work, timeframe, BARS_TABLE, instruments)) for timeframe in work.feature_set.higher]
    tables, found = (*REPLAYED, *(BARS_TABLE for _ in above)), (*found, *(revisions for _, revisions in above))
    names = pc.unique(pa.chunked_array([chunk for table in found for chunk in table["instrument_id"].chunks], pa.string()))
    scored, acted = np.maximum(micros(events["scored_at_utc"]), micros(events["enriched_at_utc"])), micros(actions["ts"])
    seen, step = [micros(some["available_at"]) for some in points], timeframe_micros(work.timeframe)
    higher = [_known_bars(work, timeframe, revisions) for timeframe, revisions in above]
    known = (_known_bars(work, work.timeframe, bars), scored, acted, since(memberships), *seen, *higher)
    within = (times - step + 1 for times in seen)  # the bar that closes behind a point may have opened so long before
    closing = (times - step for times in higher)  # from the bars on that close when these are known
    places = (micros(bars["ts"]), micros(events["enriched_at_utc"]), acted, micros(memberships["ts"]), *within, *closing)
    parts, keys = [], 0
    for of, (table, revisions) in enumerate(zip(tables, found, strict=True)):
        ids = _numbers(revisions, table.key) + keys
        keys = int(ids.max(initial=keys - 1)) + 1
        times, row, gone, key, learned = _times(revisions, known[of], ids)
        instrument = np.asarray(pc.index_in(revisions["instrument_id"], names)).astype(np.int64)
        parts.append((times, row, np.full(len(row), of), gone, instrument[row], key, places[of][row], learned))
    times, row, kind, gone, instrument, key, place, learned = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    chance = np.random.default_rng(seed).permutation(keys)
    order = np.lexsort((learned, chance[key], kind < len(REPLAYED), times))
    made = Arrivals(tables, found, times[order], row[order], kind[order], gone[order], instrument[order], key[order], place[order])
    return replace(made, crosses=work.plan.crosses)


def _revisions(work: Work, timeframe: str, table: Table, instruments: tuple[str, ...] | None) -> pa.Table:
    selection = Selection(timeframe, instruments)
    return pa.concat_tables([revised(table).empty_table(), *work.store.revisions(table, selection)]).combine_chunks()


def _known_bars(work: Work, timeframe: str, bars: pa.Table) -> Ints:
    """When bars of a timeframe can be known at the earliest: as their source says, or at their close."""
    ts = micros(bars["ts"])
    closes = ts + timeframe_micros(timeframe)
    for name in pc.unique(bars["instrument_id"]).to_pylist() if work.calendars else ():
        mine = np.flatnonzero(np.asarray(pc.equal(bars["instrument_id"], name)))
        closes[mine] = work.calendars.closes(name, ts[mine], timeframe)
    said = bars["available_at"]
    return np.where(np.asarray(pc.is_valid(said)), micros(pc.fill_null(said, datetime(1970, 1, 1, tzinfo=ZONE))), closes)


def _numbers(rows: pa.Table, key: tuple[str, ...]) -> Ints:
    """A number for each record, the same for its revisions; all are of one timeframe."""
    numbers = np.zeros(len(rows), np.int64)
    for name in key:
        if name != "timeframe":
            values = rows[name].combine_chunks().dictionary_encode()
            _, numbers = np.unique(numbers * len(values.dictionary) + np.asarray(values.indices), return_inverse=True)
    return numbers.astype(np.int64)


def _times(rows: pa.Table, known: Ints, keys: Ints) -> tuple[Ints, Ints, Bools, Ints, Ints]:
    """The arrivals of revisions: their times, their rows, which are withdrawals, their records, and since when the store knew.

    The first revision of a record arrives when it could be known, the others when the store learned them, and none before the one before.
    """
    since, until = micros(rows["known_from"]), micros(pc.fill_null(rows["known_to"], datetime.max.replace(tzinfo=ZONE)))
    order = np.lexsort((since, keys))
    again, followed = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    again[order[1:]] = np.diff(keys[order]) == 0
    followed[order[:-1]] = again[order[1:]] & (since[order[1:]] == until[order[:-1]])
    ended = np.flatnonzero(np.asarray(pc.is_valid(rows["known_to"])) & ~followed)
    row = np.concatenate((np.arange(len(rows)), ended))
    since = np.concatenate((since, until[ended]))
    times = np.concatenate((np.where(again, np.maximum(known, since[: len(rows)]), known), np.maximum(known[ended], until[ended])))
    order = np.lexsort((since, keys[row]))
    starts = np.flatnonzero(np.diff(keys[row][order], prepend=-1))
    stops = np.append(starts[1:], len(row))
    for start, stop in zip(starts[stops > starts + 1].tolist(), stops[stops > starts + 1].tolist(), strict=True):
        times[order[start:stop]] = np.maximum.accumulate(times[order[start:stop]])
    return times, row, np.arange(len(row)) >= len(rows), keys[row], since


def chunks(found: Arrivals, ends: Ints | None = None) -> Iterator[tuple[int, int]]:
    """The arrivals in chunks, none of which holds a row that would change what those before it in the chunk give; and no end within one."""
    before, start = _changes(found), 0
    stops = np.unique(np.concatenate((np.flatnonzero(before >= 0), np.zeros(0, np.int64) if ends is None else ends, [len(found)])))
    forced = set() if ends is None else set(ends.tolist())
    for stop in stops.tolist():
        while stop - start > MOST_ROWS:
            yield start, start + MOST_ROWS
            start += MOST_ROWS
        if stop > start and (stop == len(found) or stop in forced or before[stop] >= start):
            yield start, stop
            start = stop


def _changes(found: Arrivals) -> Ints:
    """For each arrival the last one before it whose vector it may change, or whose record it is; -1 where there is none."""
    before, is_bar = np.full(len(found), -1, np.int64), found.is_bar
    order = np.argsort(found.key, kind="stable")
    again = np.flatnonzero(np.diff(found.key[order]) == 0)
    before[order[again + 1]] = order[again]
    if found.crosses:
        return np.maximum(before, _changed_across(found))
    for rows in np.split(np.argsort(found.instrument, kind="stable"), np.cumsum(np.bincount(found.instrument))[:-1]) if len(found) else ():
        bars = is_bar[rows]
        newest = np.maximum.accumulate(np.where(bars, found.place[rows], -FOREVER))
        latest = np.maximum.accumulate(np.where(bars, np.arange(len(rows)), -1))
        late = 1 + np.flatnonzero(found.place[rows[1:]] <= newest[:-1])
        before[rows[late]] = np.maximum(before[rows[late]], rows[latest[late - 1]])
    return before


def _changed_across(found: Arrivals) -> Ints:
    """The last bar that arrived before each arrival's moment, where one so far has a vector that it may change; else -1.

    What arrives at one moment is seen at one moment: the bars of all members mostly close together.
    """
    newest = np.append(-FOREVER, np.maximum.accumulate(np.where(found.is_bar, found.place, -FOREVER)))
    latest = np.append(-1, np.maximum.accumulate(np.where(found.is_bar, np.arange(len(found)), -1)))
    earlier = np.searchsorted(found.times, found.times)
    return np.where(found.place <= newest[earlier], latest[earlier], -1)


@dataclass
class Replay:
    """A replay into a scratch store. `pace` is how many seconds of history pass in one; None goes as fast as it can."""

    work: Work
    scratch: Store
    instruments: tuple[str, ...] | None = None
    start: datetime | None = None
    end: datetime | None = None
    pace: float | None = None
    seed: int = 0
    told: Callable[[datetime], None] = lambda moment: None
    published: Published = UNPUBLISHED
    every_moment: bool = False
    _next_close: datetime | None = None

    def run(self, progress: Progress = lambda done, total: None) -> Report:
        """Feed what became known up to `end`; what did before `start` goes in at once. Raises `NotFound` where there is nothing."""
        found = arrivals(self.work, self.instruments, self.seed)
        last = len(found) if self.end is None else int(np.searchsorted(found.times, _microseconds(self.end), side="right"))
        if len(self.scratch.spans()):
            raise StoreError(f"{self.scratch.url} has bars already: a replay begins with an empty store")
        if not found.is_bar[:last].any():
            raise NotFound(f"the store has no {self.work.timeframe} bars to replay")
        first = 0 if self.start is None else int(np.searchsorted(found.times, _microseconds(self.start)))
        loop, done = self._loop(), Report()
        for begin, stop in chunks(found, self._ends(found, first, last)):
            if begin >= last:
                break
            self._wait(found, first, begin)
            if begin == first:
                self._publish(loop, begun=bool(found.is_bar[:first].any()))
            done += self._closing(loop, int(found.times[begin]) - 1)
            done += self._feed(loop, found, begin, stop)
            progress(stop - begin, last)
        done += self._closing(loop, FOREVER if self.end is None else _microseconds(self.end))
        if self.end is None:
            self._set(max(_closed(self.work, found), _microseconds(self._now)))
            done += self._cycle(loop)
        return done

    def _closing(self, loop: Live, until: int) -> Report:
        """By every moment: a cycle at each close of bars that came before it, up to a moment, as the live loop wakes up for them."""
        done = Report()
        while self.every_moment and self._next_close is not None and _microseconds(self._next_close) <= until:
            self._set(_microseconds(self._next_close))
            done += self._cycle(loop)
        return done

    def _cycle(self, loop: Live) -> Report:
        done = loop.cycle()
        self._next_close = done.next_close
        if loop.health.report()["status"] != "ok" and not done.failed:
            raise loop.trouble or StoreError(f"{self.scratch.url} failed in the middle of the replay; the log says how")
        return done

    def _publish(self, loop: Live, *, begun: bool) -> None:
        """Publish from here on; where the loop has not begun, it has nothing to compute but what comes."""
        if self.published is UNPUBLISHED:
            return
        loop.published = self.published
        work = replace(self.work, store=self.scratch)
        if begun:
            self.published.begin(work)
        else:
            self.scratch.register(work.feature_set, work.now)
            Follower(work, "service").begin_here()

    def _loop(self) -> Live:
        work = self.work
        plan = Plan((work.feature_set,), (work.timeframe,), None, work.pipeline_version, 1.0, calendars=work.calendars)
        health = Health(work.feature_set.version, work.pipeline_version, 1.0)
        return Live(self.scratch, plan, Metrics(), health, lambda: self._now)

    def _set(self, microseconds: int) -> None:
        self._now = datetime.fromtimestamp(microseconds // 1_000_000, ZONE).replace(microsecond=microseconds % 1_000_000)
        self.told(self._now)

    def _ends(self, found: Arrivals, first: int, last: int) -> Ints:
        """Where chunks have to end: behind what was there before, at the end, and at the ticks of the clock."""
        ends = [first, last]
        if self.pace is not None and first < last:
            tick = max(1, int(self.pace * TICK_SECONDS * 1_000_000))
            ends += (first + 1 + np.flatnonzero(np.diff(found.times[first:last] // tick))).tolist()
        if self.every_moment and first < last:
            ends += (first + 1 + np.flatnonzero(np.diff(found.times[first:last]))).tolist()
        return np.unique(np.asarray(ends, np.int64))

    def _wait(self, found: Arrivals, first: int, begin: int) -> None:
        """Until the moment of the next chunk has come, where there is a pace."""
        if self.pace is None or begin < first:
            return
        if begin == first:
            self._began = time.monotonic()
        passed = (found.times[begin] - found.times[first]) / 1_000_000 / self.pace
        time.sleep(max(0.0, self._began + passed - time.monotonic()))

    def _feed(self, loop: Live, found: Arrivals, begin: int, stop: int) -> Report:
        """Write a chunk, and let the loop see it."""
        self._set(int(found.times[stop - 1]))
        rows, of, gone = found.row[begin:stop], found.of[begin:stop], found.gone[begin:stop]
        for kind, (table, revisions) in enumerate(zip(found.tables, found.found, strict=True)):
            mine = of == kind
            if (new := rows[mine & ~gone]).size:
                self.scratch.upsert(table, revisions.select(table.schema.names).take(pa.array(np.sort(new))), self._now)
            if (old := rows[mine & gone]).size:
                self.scratch.withdraw(table, revisions.select(list(table.key)).take(pa.array(np.sort(old))), self._now)
        return self._cycle(loop) if found.is_bar[:stop].any() else Report()


def _closed(work: Work, found: Arrivals) -> int:
    """When the last thing had arrived, and the last bar had closed."""
    return max(int(found.times[-1]), int(_known_bars(work, work.timeframe, found.found[0]).max()))


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=ZONE)) // (datetime.resolution)
