"""A walk over stored vectors in the order in which they came to be known: at each moment the newest of each instrument, as a join has it.

1. `Walk` goes over time in slices of bounded size. Of a slice it reads the vectors that open in it (`_read`); those from before that can
   still matter are carried into it (`asof.jobs.timeline`), found once for the first moment (`_begin`) by asking the store as a join does.
2. The moments of a slice (`Moments`) are given, lie on a grid, or are those at which something changes.
3. For each moment and instrument the newest vector is found (`Timeline.newest`). Where the newest was taken away and what it gives way to
   was never read, that instrument is read again from there (`_deepened`).
4. What was found leaves as a `Block`, and what can no longer matter is let go.

Nothing of a slice depends on a vector that opens after its end, because no vector is available before its bar opens.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asof.errors import NotFound
from asof.features.feature_set import FeatureSet
from asof.jobs.timeline import ALL, FOREVER, Ints, Timeline
from asof.records import UTC as TIMES
from asof.records import micros
from asof.stores.store import Selection, Store, vectors_table
from asof.timeframes import timeframe as timeframe_micros

SLICE_ROWS = 131_072
"""How many bars of all instruments together a slice of time has at most, if none is missing."""
BLOCK_CELLS = 1 << 20
"""Moments times instruments of a block."""
LONGEST = 8
"""How many times as long a slice becomes, where the ones before it were empty."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MARKS = ("ts", "available_at", "quality_flags")


@dataclass(frozen=True)
class Moments:
    """The moments of a walk, in microseconds: those `given`, or from `start` to `end` each `every`, or each at which something changes."""

    start: int
    end: int
    every: int = 0
    given: Ints | None = None

    @classmethod
    def at(cls, given: Ints) -> Moments:
        """Moments that are given, ascending, at least one."""
        return cls(int(given[0]), int(given[-1]), 0, given)

    def next(self, after: int) -> int | None:
        """The first moment after another one; None where there is none, or nobody knows yet."""
        if self.given is not None:
            place = int(np.searchsorted(self.given, after, side="right"))
            return int(self.given[place]) if place < len(self.given) else None
        if not self.every:
            return None
        moment = max(self.start, self.start + ((after - self.start) // self.every + 1) * self.every)
        return moment if moment <= self.end else None

    def between(self, after: int, until: int, known: Timeline, most: int) -> Ints:
        """The first `most` moments in `(after, until]`."""
        if self.given is not None:
            first, stop = np.searchsorted(self.given, [after, until], side="right")
            return self.given[first : min(stop, first + most)]
        if self.every:
            first = self.next(after)
            return np.arange(0 if first is None else first, until + 1 if first is not None else 0, self.every, dtype=np.int64)[:most]
        return known.changes(after, until, self.start)[:most]


@dataclass(frozen=True)
class Block:
    """Moments one after another: for each the row of each instrument's newest vector in `vectors`, -1 where there is none.

    `fresh` is where it is another one than at the moment before.
    """

    moments: Ints
    rows: Ints
    fresh: np.ndarray
    vectors: pa.Table


@dataclass
class Walk:
    """A walk over the vectors of some instruments.

    With `follows`, each moment sees what the store knew then; else all see what it knew at `known_at`.
    """

    store: Store
    feature_set: FeatureSet
    timeframe: str
    instruments: tuple[str, ...]
    features: tuple[str, ...]
    moments: Moments
    known_at: datetime | None = None
    follows: bool = False
    _depth: Ints = field(init=False)
    _last: Ints = field(init=False)

    def __post_init__(self) -> None:
        self._table = vectors_table(self.feature_set)
        self._names = pa.array(self.instruments, pa.string())
        self._columns = ("instrument_id", *self.features, *MARKS)
        self._depth = np.full(len(self.instruments), ALL)
        self._last = np.full((2, len(self.instruments)), -1)

    def blocks(self) -> Iterator[Block]:
        """The blocks of the walk, in order."""
        start, end = self.moments.start, self.moments.end
        step = timeframe_micros(self.timeframe) * max(1, SLICE_ROWS // max(1, len(self.instruments)))
        long, low = step, start - 1
        known, high = self._begin(start, min(end, start + step))
        while True:
            known = yield from self._within(known, low, high)
            known = self._carried(known, high)
            if high >= end or (not self._changing and self.moments.next(high) is None):
                return
            low = high
            if (ahead := self.moments.next(low)) is not None and ahead > low + step:
                known, high = self._begin(ahead, min(end, ahead + step))
                low = ahead - 1
                continue
            high = min(end, low + long)
            found = self._read(Selection(self.timeframe, self.instruments, _time(low + 1), _time(high)), low)
            long = step if len(found) else min(long * 2, step * LONGEST)
            known = Timeline.of(pa.concat_tables([known.vectors, found]), self._names, self._depth)

    def check(self) -> None:
        """Raise `NotFound` where nothing at all is seen by the end, saying why. Mostly one look at the newest vectors tells."""
        last = _time(self.moments.end)
        newest = Selection(self.timeframe, self.instruments, end=last, known_at=last if self.follows else self.known_at)
        if len(self.store.latest(self._table, newest)):
            return
        learned = FOREVER
        for batch in self._stored(Selection(self.timeframe, self.instruments, end=last)) if self.follows else ():
            if len(self._visible(batch, self.moments.start - 1)):
                return
            in_time = batch.filter(pc.less_equal(batch["available_at"], pa.scalar(last, TIMES)))
            learned = min(learned, int(micros(in_time["known_from"]).min(initial=FOREVER)))
        raise NotFound(self._nothing(learned))

    def _nothing(self, learned: int) -> str:
        version, timeframe = self.feature_set.version, self.timeframe
        what = f"no {timeframe} vector of {version} was known by {_time(self.moments.end)}"
        if learned == FOREVER:
            return f"{what}: none was available by then; run asof backfill {version} -t {timeframe}, or walk further"
        return (
            f"{what}: {self.store.url} learned of the first at {_time(learned)}. known_at=None walks over the newest revisions, with the"
            " hindsight of corrections; replay(..., every_moment=True) makes a store that learns of everything when it could be known"
        )

    @property
    def _changing(self) -> bool:
        return self.moments.given is None and not self.moments.every

    def _within(self, known: Timeline, low: int, high: int) -> Generator[Block, None, Timeline]:
        """The blocks of the moments in `(low, high]`, what opens until then being known; at the end what was read for them."""
        most = max(1, BLOCK_CELLS // max(1, len(self.instruments)))
        while True:
            moments = self.moments.between(low, high, known, most)
            if not len(moments):
                return known
            rows, missed = known.newest(moments)
            if missed:
                known = self._deepened(known, missed, low, high)
                continue
            low = int(moments[-1])
            yield from self._block(known, moments, rows)

    def _block(self, known: Timeline, moments: Ints, rows: Ints) -> Iterator[Block]:
        """A block of moments; of those at which nothing changed none is left where moments are those of changes."""
        which = known.identities(rows)
        before = np.concatenate((self._last[:, None, :], which[:, :-1, :]), axis=1)
        fresh = (which != before).any(axis=0)
        self._last = which[:, -1, :]
        if self._changing:
            kept = fresh.any(axis=1)
            moments, rows, fresh = moments[kept], rows[kept], fresh[kept]
        if len(moments):
            yield Block(moments, rows, fresh, known.vectors)

    def _begin(self, moment: int, high: int) -> tuple[Timeline, int]:
        """What is known at a moment, and what opens until `high` or can become the newest later."""
        self._depth = self._reach(np.arange(len(self.instruments)), moment)
        found = [self._vectors.empty_table()]
        for depth in np.unique(self._depth).tolist():
            names = tuple(self._names.filter(pa.array(self._depth == depth)).to_pylist())
            found.append(self._read(Selection(self.timeframe, names, _time(depth), _time(high)), moment - 1))
        return Timeline.of(pa.concat_tables(found), self._names, self._depth), high

    def _reach(self, which: Ints, moment: int) -> Ints:
        """The opens of the newest vectors of some instruments at a moment, as a join finds them; `ALL` where there is none."""
        names = self._names.take(pa.array(which))
        at = pa.array(np.full(len(which), moment), pa.int64()).cast(TIMES)
        entities = pa.table({"instrument_id": names, "event_timestamp": at, "row": pa.array(np.arange(len(which)))})
        known_at = _time(moment) if self.follows else self.known_at
        found = self.store.as_of(self._table, entities, self.timeframe, ("ts",), known_at)["ts"]
        return micros(pc.fill_null(found.cast(pa.int64()), ALL))

    @property
    def _vectors(self) -> pa.Schema:
        """The columns that are read, and from when to when each row could be seen."""
        names = (self._table.schema.field(name) for name in self._columns)
        return pa.schema([*names, ("since", pa.int64()), ("seen", pa.int64()), ("gone", pa.int64())])

    def _read(self, selection: Selection, after: int) -> pa.Table:
        """The selected rows that can be seen after a moment and before the end of the walk."""
        found, rows = [self._vectors.empty_table()], 0
        for batch in self._stored(selection):
            if len(kept := self._visible(batch, after)):
                found.append(kept)
                rows += len(kept)
            if rows > 2 * SLICE_ROWS:
                found = [Timeline.of(pa.concat_tables(found), self._names, self._depth).without_outdone(after + 1)]
                rows = len(found[0])
        return pa.concat_tables(found)

    def _stored(self, selection: Selection) -> Iterator[pa.Table]:
        if self.follows:
            return self.store.revisions(self._table, selection)
        chosen = Selection(selection.timeframe, selection.instruments, selection.start, selection.end, self.known_at)
        return self.store.read(self._table, chosen, self._columns, ordered=False)

    def _visible(self, batch: pa.Table, after: int) -> pa.Table:
        """Rows with their times as numbers, those alone that are seen at all, and not over by `after`."""
        batch = batch.filter(batch["available_at"].is_valid())
        seen = micros(batch["available_at"])
        since, gone = np.zeros(len(batch), np.int64), np.full(len(batch), FOREVER)
        if self.follows:
            since = micros(batch["known_from"])
            gone = micros(pc.fill_null(batch["known_to"].cast(pa.int64()), FOREVER))
            gone = np.where(gone > self.moments.end, FOREVER, gone)
        seen = np.maximum(seen, since)
        kept = (seen < gone) & (seen <= self.moments.end) & (gone > after)
        columns = [*(batch[name] for name in self._columns), *(pa.array(values) for values in (since, seen, gone))]
        return pa.table(columns, schema=self._vectors).filter(pa.array(kept))

    def _deepened(self, known: Timeline, missed: dict[int, int], low: int, high: int) -> Timeline:
        """With some instruments read again from what was the newest at the moment at which nothing was found."""
        found = [known.vectors.filter(pa.array(~np.isin(known.instrument, list(missed))))]
        self._depth = self._depth.copy()
        for which, moment in missed.items():
            self._depth[which] = min(self._depth[which] - 1, int(self._reach(np.array([which]), moment)[0]))
            names, depth = (self.instruments[which],), int(self._depth[which])
            found.append(self._read(Selection(self.timeframe, names, _time(depth), _time(high)), low))
        return Timeline.of(pa.concat_tables(found), self._names, self._depth)

    def _carried(self, known: Timeline, high: int) -> Timeline:
        """What can still matter after a moment."""
        vectors, self._depth = known.after(high)
        return Timeline.of(vectors, self._names, self._depth)


def _time(microseconds: int) -> datetime | None:
    """A moment from microseconds; None for the beginning of time."""
    return None if microseconds == ALL else EPOCH + timedelta(microseconds=microseconds)
